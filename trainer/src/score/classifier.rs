//! Small convolutional classifiers of images, trained with the GAN's graph builder on the CPU.

use anyhow::{Context, Result};
use ndarray::{Array2, ArrayD, ArrayView1, ArrayView2, ArrayViewMut1, Axis, aview0, s};
use prost::Message;

use crate::config::{Adam, BiasCorrected, PIXELS, SIDE};
use crate::graph::onnx::{self, Type};
use crate::graph::{Graph, Var};
use crate::noise::{self, stream};
use crate::ort::OnnxRuntime;
use crate::pixel::unit;
use crate::state::Spec;

/// Number of features of an image: the width of a classifier's last hidden layer.
pub const FEATURES: usize = 84;

/// The layers of a classifier: two convolutions, each followed by ReLU and a 2 × 2 maximum, then dense layers with ReLU between
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Network {
    /// LeNet-5 with ReLU and maximum pooling. Each map of the second convolution sees all maps of the first. Source: LeCun et
    /// al. 1998.
    Lenet5,
    /// Convolutions of 3 × 3 pixels with 16 and 32 maps, then one hidden layer.
    Conv3x3,
    /// [`Self::Conv3x3`] with grey levels from 0 to 2 and a padded second convolution: the network of the two-sample test. No judge
    /// has it.
    #[value(skip)]
    TwoSample,
}

impl Network {
    /// Shape (O, I, K, K) and padding of each convolution.
    fn convolutions(self) -> [([usize; 4], usize); 2] {
        match self {
            Self::Lenet5 => [([6, 1, 5, 5], 2), ([16, 6, 5, 5], 0)],
            Self::Conv3x3 => [([16, 1, 3, 3], 1), ([32, 16, 3, 3], 0)],
            Self::TwoSample => [([16, 1, 3, 3], 1), ([32, 16, 3, 3], 1)],
        }
    }

    /// Shape (I, O) of each dense layer.
    fn dense(self, classes: usize) -> Vec<[usize; 2]> {
        match self {
            Self::Lenet5 => vec![[400, 120], [120, FEATURES], [FEATURES, classes]],
            Self::Conv3x3 => vec![[1152, FEATURES], [FEATURES, classes]],
            Self::TwoSample => vec![[1568, FEATURES], [FEATURES, classes]],
        }
    }

    /// Names and shapes of the parameters: weight and bias of each layer in turn.
    fn params(self, classes: usize) -> Vec<Spec> {
        let convolutions = self.convolutions().into_iter().zip(1..);
        let convolutions = convolutions.map(|((shape, _), i)| (format!("conv{i}"), shape.to_vec(), shape[0]));
        let dense = self.dense(classes).into_iter().zip(1..);
        let dense = dense.map(|(shape, i)| (format!("fc{i}"), shape.to_vec(), shape[1]));
        let spec = |layer: &str, kind: &str, shape: &[usize]| Spec::new(format!("{layer}.{kind}"), Type::F32, shape);
        let both = |(layer, weight, bias): (String, Vec<usize>, usize)| {
            [spec(&layer, "weight", &weight), spec(&layer, "bias", &[bias])]
        };
        convolutions.chain(dense).flat_map(both).collect()
    }

    /// The features (B, 84) and logits (B, C) of images (B, 784).
    fn forward(self, g: &mut Graph, theta: &[Var], image: Var) -> (Var, Var) {
        let batch = g.shape(image)[0];
        let convolutions = self.convolutions();
        let (convolution_params, dense_params) = theta.split_at(2 * convolutions.len());
        let mut x = g.reshape(image, &[batch, 1, SIDE, SIDE]);
        if self == Self::TwoSample {
            let one = g.scalar(1.0);
            x = g.add(x, one); // the background is 0, as the padding is
        }
        for (layer, (_, pad)) in convolution_params.chunks(2).zip(convolutions) {
            x = g.conv(x, layer[0], Some(layer[1]), pad);
            x = g.relu(x);
            x = g.max_pool2(x); // (B, O, 14, 14), then (B, O, K, K) with K = 5 to 7
        }
        let (hidden, last) = dense_params.split_at(dense_params.len() - 2);
        let flat = g.shape(hidden[0])[0];
        x = g.reshape(x, &[batch, flat]);
        for layer in hidden.chunks(2) {
            x = g.gemm(x, layer[0], Some(layer[1]), false, false);
            x = g.relu(x);
        }
        let logits = g.gemm(x, last[0], Some(last[1]), false, false);
        (x, logits)
    }

    /// One step of softmax cross-entropy and Adam, with the names of its state. The last output is the loss.
    fn step_graph(self, classes: usize, batch: usize) -> (onnx::Model, Vec<String>) {
        let g = &mut Graph::default();
        let specs = self.params(classes);
        let kinds = ["", "m.", "v."];
        let names = kinds.iter().flat_map(|kind| specs.iter().map(move |spec| format!("{kind}{}", spec.name)));
        let names: Vec<String> = names.collect();
        let shapes = specs.iter().cycle().map(|spec| &spec.shape[..]);
        let state: Vec<Var> = names.iter().zip(shapes).map(|(name, shape)| g.input(name, Type::F32, shape)).collect();
        let (theta, moments) = state.split_at(specs.len());
        let (m, v) = moments.split_at(specs.len());
        let image = g.input("image", Type::F32, &[batch, PIXELS]);
        let target = g.input("target", Type::F32, &[batch, classes]);
        let [step_size, epsilon] = ["step_size", "epsilon"].map(|name| g.input(name, Type::F32, &[]));
        let at = BiasCorrected { step_size, epsilon };
        let (_, logits) = self.forward(g, theta, image);
        let log_probability = g.log_softmax(logits);
        let log_likelihood = g.mul(log_probability, target);
        let sum = g.sum(log_likelihood, &[0, 1], false);
        let loss = g.div_by(sum, -(batch as f32));
        let grad = g.grad(loss, theta);
        let next: Vec<_> = (0..theta.len()).map(|i| ADAM.update(g, at, theta[i], m[i], v[i], grad[i])).collect();
        let all = next.iter().map(|n| n.0).chain(next.iter().map(|n| n.1)).chain(next.iter().map(|n| n.2));
        let mut outputs: Vec<(Var, String)> = all.zip(&names).map(|(v, name)| (v, format!("next.{name}"))).collect();
        outputs.push((loss, "loss".into()));
        (g.to_model("judge_step", &outputs, None), names)
    }

    /// `image` (N, 784) in [-1, 1] → `features` (N, 84), `probability` (N, C).
    fn inference_graph(self, state: &[ArrayD<f32>], classes: usize) -> onnx::Model {
        let g = &mut Graph::default();
        let image = g.input("image", Type::F32, &[1, PIXELS]);
        let values = state.iter().map(|x| x.as_slice().expect("row-major"));
        let specs = self.params(classes);
        let theta: Vec<Var> =
            specs.iter().zip(values).map(|(spec, x)| g.constant(&spec.name, &spec.shape, x)).collect();
        let (features, logits) = self.forward(g, &theta, image);
        let log_probability = g.log_softmax(logits);
        let probability = g.exp(log_probability);
        g.to_model("judge", &[(features, "features".into()), (probability, "probability".into())], Some("N"))
    }

    /// Parameters from U(−1/√in, 1/√in), then Adam's first and second moments, which are 0. The network of the two-sample test has
    /// weights from U(−√(6/in), √(6/in)) and biases of 0. Source: He et al. 2015, "Delving deep into rectifiers".
    fn initial_state(self, seed: u64, classes: usize) -> Vec<ArrayD<f32>> {
        let he = self == Self::TwoSample;
        let numerator = if he { 6.0 } else { 1.0 }; // the bound is the root of numerator / in
        let mut state: Vec<ArrayD<f32>> = vec![];
        let mut fan_in = 0;
        for (spec, i) in self.params(classes).iter().zip(0..) {
            match spec.shape[..] {
                [_, i, h, w] => fan_in = i * h * w,
                [i, _] => fan_in = i,
                _ => {} // a bias has the bound of its weight, which comes before it
            }
            let mut tensor = ArrayD::zeros(&spec.shape[..]);
            if !(he && spec.shape.len() == 1) {
                noise::write_uniform(tensor.as_slice_mut().expect("row-major"), seed, 0, stream::CLASSIFIER_INIT + i);
            }
            state.push(tensor / (fan_in as f32 / numerator).sqrt());
        }
        let moments: Vec<_> = state.iter().chain(&state).map(|tensor| ArrayD::zeros(tensor.raw_dim())).collect();
        state.extend(moments);
        state
    }
}

/// The settings of a classifier's training.
#[derive(Clone, Copy, Debug)]
pub struct Training {
    /// The layers.
    pub network: Network,
    /// Number of passes over the images.
    pub epochs: u64,
    /// Number of images of a step.
    pub batch: usize,
    /// Adam's step size without decay. It falls to 0 over all steps.
    pub lr: f64,
    /// Share of the steps, from the first, in which the step size also rises in proportion to the step, 0 to 1.
    pub warm_up: f64,
    /// Seed of the initial parameters, the order of the images and their shifts.
    pub seed: u64,
    /// Whether each image is shifted by up to a pixel in a random direction.
    pub shifted: bool,
}

/// Images (784,) of grey levels, each with its class.
pub type Examples<'a> = Vec<(ArrayView1<'a, u8>, u8)>;

/// Images (N, 784) with the classes (N,) of `labels`.
pub fn examples<'a>(images: ArrayView2<'a, u8>, labels: ArrayView1<u8>) -> Examples<'a> {
    images.into_outer_iter().zip(labels.iter().copied()).collect()
}

impl Training {
    /// Trains on `examples`, of `classes` classes. Returns the model `image` (N, 784) in [-1, 1] → `features` (N, 84),
    /// `probability` (N, C). After every epoch, `after` gets its number, from 1, the mean loss, and the model so far.
    ///
    /// # Errors
    /// When there are no examples, ONNX Runtime fails, or `after` does.
    pub fn run(
        &self,
        runtime: &OnnxRuntime,
        examples: &[(ArrayView1<u8>, u8)],
        classes: usize,
        mut after: impl FnMut(u64, f32, &onnx::Model) -> Result<()>,
    ) -> Result<onnx::Model> {
        let &Self { network, epochs, batch, lr, warm_up, seed, shifted } = self;
        let (n, batch) = (examples.len(), batch.min(examples.len()));
        let steps_per_epoch = n.checked_div(batch).context("images to train a classifier expected, none found")?;
        let steps = epochs * steps_per_epoch as u64;
        let mut state = network.initial_state(seed, classes);
        let (mut order, mut shifts) = (vec![0; n], Array2::zeros((n, 2)));
        let (step_model, names) = network.step_graph(classes, batch);
        let mut session = runtime.load(&step_model.encode_to_vec())?;
        let (mut step, mut model) = (0, None);
        for epoch in 0..epochs {
            noise::write_order(&mut order, seed, epoch);
            if shifted {
                noise::write_uniform(shifts.as_slice_mut().expect("row-major"), seed, epoch, stream::CLASSIFIER_SHIFTS);
            }
            let mut loss = 0.0;
            for (indices, shifts) in order.chunks_exact(batch).zip(shifts.axis_chunks_iter(Axis(0), batch)) {
                let mut images = Array2::from_elem((batch, PIXELS), unit(0));
                let mut target = Array2::zeros((batch, classes));
                for (b, (&i, by)) in indices.iter().zip(shifts.rows()).enumerate() {
                    let by = [by[0], by[1]].map(|x| (x * (MAX_SHIFT + 0.5)).round() as isize);
                    let (image, class) = examples[i as usize];
                    write_shifted(image, by, images.row_mut(b));
                    target[(b, class as usize)] = 1.0;
                }
                step += 1;
                let adam = Adam { alpha: lr * (step as f64 / (warm_up * steps as f64)).min(1.0), ..ADAM };
                let BiasCorrected { step_size, epsilon } = adam.bias_corrected(step, steps);
                let inputs = [
                    ("image", images.view().into_dyn()),
                    ("target", target.view().into_dyn()),
                    ("step_size", aview0(&step_size).into_dyn()),
                    ("epsilon", aview0(&epsilon).into_dyn()),
                ];
                let named_state = names.iter().zip(&state).map(|(name, x)| (name.as_str(), x.view()));
                state = session.run(&inputs.into_iter().chain(named_state).collect::<Vec<_>>())?;
                loss += state.pop().map_or(f32::NAN, |loss| loss.sum());
            }
            let trained = network.inference_graph(&state, classes);
            after(epoch + 1, loss / steps_per_epoch as f32, &trained)?;
            model = Some(trained);
        }
        model.context("at least one epoch expected, none found")
    }

    /// What the training of a judge, which has no warm-up, depends on beside the examples, as text. Raise the first number when the
    /// code changes the trained classifier; the rest are its settings.
    pub(crate) fn version(&self) -> String {
        let Self { network, epochs, batch, lr, warm_up: _, seed, shifted } = self;
        format!("1: {network:?} {lr} {seed} {batch} {epochs} {FEATURES} {MAX_SHIFT} {shifted}")
    }
}

/// Default of Adam's initial step size.
pub const LR: f64 = 3e-3;
const ADAM: Adam = Adam { alpha: LR, alpha_end: 0.0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
/// Largest shift of a training image in each direction, in pixels.
const MAX_SHIFT: f32 = 1.0;

/// Writes an image (784,) of grey levels to `out` (784,) in [-1, 1], shifted by (down, right) pixels. Pixels that come from
/// outside the image stay as they are.
fn write_shifted(image: ArrayView1<u8>, [down, right]: [isize; 2], out: ArrayViewMut1<f32>) {
    let image = image.into_shape_with_order((SIDE, SIDE)).expect("784 pixels");
    let mut out = out.into_shape_with_order((SIDE, SIDE)).expect("784 pixels");
    let overlap = |by: isize| by.max(0)..SIDE as isize + by.min(0);
    let from = image.slice(s![overlap(-down), overlap(-right)]);
    out.slice_mut(s![overlap(down), overlap(right)]).zip_mut_with(&from, |out, &pixel| *out = unit(pixel));
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;

    use super::*;

    #[test]
    fn a_shift_moves_the_image_and_drops_what_leaves_it() {
        let image: Array1<u8> = (0..PIXELS).map(|i| (i % 251) as u8).collect();
        for (down, right) in [(0, 0), (1, -1), (-1, 1), (1, 0)] {
            let mut shifted = Array1::from_elem(PIXELS, -9.0);
            write_shifted(image.view(), [down, right], shifted.view_mut());
            for (y, x) in (0..28).flat_map(|y| (0..28).map(move |x| (y, x))) {
                let (from_y, from_x) = (y - down, x - right);
                let inside = (0..28).contains(&from_y) && (0..28).contains(&from_x);
                let expected = if inside { unit(image[(from_y * 28 + from_x) as usize]) } else { -9.0 };
                assert_eq!(shifted[(y * 28 + x) as usize], expected, "{down} {right}: {y} {x}");
            }
        }
    }
}
