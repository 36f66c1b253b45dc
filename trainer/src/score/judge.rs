//! The judge: a small classifier of a data set's classes. Its features measure how far generated images are from real ones.
//!
//! It is LeNet-5 with ReLU and maximum pooling, and each map of the second convolution sees all maps of the first. Source:
//! LeCun et al. 1998. It is trained with the GAN's graph builder. [`judges`](crate::score::judges) chooses the judge of a data
//! set.

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array1, Array2, ArrayD, ArrayView1, ArrayView2, ArrayViewMut1, Axis, aview0, s};
use prost::Message;

use crate::config::{Adam, BiasCorrected, MAX_CLASSES, PIXELS, SIDE};
use crate::data::Dataset;
use crate::graph::onnx::{self, Type};
use crate::graph::{Graph, Var};
use crate::noise::{self, stream};
use crate::ort::{Loaded, OnnxRuntime};
use crate::pixel::unit;
use crate::print::printable;
use crate::state::Spec;

/// Number of features of an image: the width of the judge's last hidden layer.
pub const FEATURES: usize = 84;

/// A trained judge in an ONNX Runtime session.
pub struct Judge {
    model: Loaded,
    /// C
    classes: usize,
}

/// The judge's outputs for N images.
pub struct Predictions {
    /// Activations of the last hidden layer, (N, [`FEATURES`]).
    pub features: Array2<f64>,
    /// The most probable class of each image, (N,).
    pub classes: Array1<u8>,
    /// The probability of that class, (N,), 0 to 1.
    pub confidences: Array1<f32>,
}

impl Judge {
    /// The judge of an ONNX file: `image` (N, 784) in [-1, 1] → `features` (N, 84) and `probability` (N, C), where C is 2 to 64.
    ///
    /// # Errors
    /// When the file has other inputs or outputs, or ONNX Runtime fails.
    pub fn load(runtime: &OnnxRuntime, file: &[u8]) -> Result<Self> {
        let model = onnx::Model::decode(file).context("an ONNX file expected, something else found")?;
        let graph = model.graph.unwrap_or_default();
        let tensors: Vec<(&str, usize)> = graph.input.iter().chain(&graph.output).map(name_and_columns).collect();
        let classes = match tensors[..] {
            [("image", PIXELS), ("features", FEATURES), ("probability", classes @ 2..=MAX_CLASSES)] => classes,
            _ => {
                let tensor = |(name, columns): &(&str, usize)| format!("{} (N, {columns})", printable(name, 60));
                let found: Vec<String> = tensors.iter().take(5).map(tensor).collect();
                bail!(
                    "a judge with image (N, {PIXELS}), features (N, {FEATURES}) and probability (N, 2 to {MAX_CLASSES}) expected, \
                     {} found",
                    found.join(", ")
                )
            }
        };
        Ok(Self { model: runtime.load(file)?, classes })
    }

    /// Number of classes, C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Classifies images (N, 784) of grey levels.
    ///
    /// # Errors
    /// When ONNX Runtime fails.
    pub fn classify(&mut self, images: ArrayView2<u8>) -> Result<Predictions> {
        let n = images.nrows();
        let mut features = Array2::zeros((n, FEATURES));
        let (mut classes, mut confidences) = (vec![], vec![]);
        for (part, mut to) in images.axis_chunks_iter(Axis(0), 1000).zip(features.axis_chunks_iter_mut(Axis(0), 1000)) {
            let outputs = self.model.run(&[("image", part.mapv(unit).view().into_dyn())])?;
            let shapes: Vec<&[usize]> = outputs.iter().map(ArrayD::shape).collect();
            let expected = [[part.nrows(), FEATURES], [part.nrows(), self.classes]];
            ensure!(shapes == expected, "judge: outputs of {expected:?} expected, {shapes:?} found");
            let (found, probability) = (&outputs[0], &outputs[1]);
            to.assign(&found.mapv(f64::from));
            for probability in probability.rows() {
                let class = (0..self.classes).max_by(|&a, &b| probability[a].total_cmp(&probability[b])).unwrap_or(0);
                classes.push(class as u8);
                confidences.push(probability[class]);
            }
        }
        Ok(Predictions { features, classes: classes.into(), confidences: confidences.into() })
    }

    /// The fraction of images (N, 784) whose label (N,) is the most probable class, 0 to 1.
    ///
    /// # Errors
    /// When there are no images, or ONNX Runtime fails.
    pub fn accuracy(&mut self, images: ArrayView2<u8>, labels: ArrayView1<u8>) -> Result<f64> {
        ensure!(!labels.is_empty(), "at least one image expected for an accuracy, none found");
        let classes = self.classify(images)?.classes;
        let right = classes.iter().zip(labels).filter(|(class, label)| class == label).count();
        Ok(right as f64 / labels.len() as f64)
    }
}

/// Name and number of columns of a matrix (N, columns) among a model's inputs and outputs; 0 columns for other tensors.
fn name_and_columns(tensor: &onnx::ValueInfo) -> (&str, usize) {
    let shape = tensor.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()?.shape.as_ref());
    let columns = match shape.map(|shape| &shape.dim[..]) {
        Some([_, columns]) => columns.dim_value.and_then(|n| n.try_into().ok()),
        _ => None,
    };
    (&tensor.name, columns.unwrap_or(0))
}

/// Trains a judge on the training images, each shifted by up to a pixel in a random direction. Returns the model that
/// [`Judge::load`] reads, with its data, classes and accuracy as metadata, and its accuracy on the test images. `say` is called
/// with a line after every epoch. `lr` is Adam's initial step size, which falls to 0.
///
/// # Errors
/// When there are less than two classes or no test images, or ONNX Runtime fails.
pub fn train(
    data: &Dataset,
    runtime: &OnnxRuntime,
    lr: f64,
    seed: u64,
    say: &mut dyn FnMut(&str),
) -> Result<(onnx::Model, f64)> {
    let (name, classes, batch) = (&data.name, data.classes.len(), BATCH.min(data.n()));
    ensure!(classes >= 2, "--data: {name}: at least 2 classes expected for a judge, {classes} found");
    ensure!(!data.test_labels.is_empty(), "--data: {name}: test images expected for a judge's accuracy, none found");
    let adam = Adam { alpha: lr, ..ADAM };
    let mut state = initial_state(seed, classes);
    let (mut order, mut shifts) = (vec![0; data.n()], Array2::zeros((data.n(), 2)));
    let steps_per_epoch = data.n() / batch;
    let (model, names) = step_graph(classes, batch);
    let mut session = runtime.load(&model.encode_to_vec())?;
    let (mut step, mut model, mut accuracy) = (0, None, 0.0);
    for epoch in 0..EPOCHS {
        noise::write_order(&mut order, seed, epoch);
        noise::write_uniform(shifts.as_slice_mut().expect("row-major"), seed, epoch, stream::JUDGE_MOVES);
        let mut loss = 0.0;
        for (indices, shifts) in order.chunks_exact(batch).zip(shifts.axis_chunks_iter(Axis(0), batch)) {
            let mut images = Array2::from_elem((batch, PIXELS), unit(0));
            let mut target = Array2::zeros((batch, classes));
            for (b, (&i, by)) in indices.iter().zip(shifts.rows()).enumerate() {
                let by = [by[0], by[1]].map(|x| (x * (MAX_SHIFT + 0.5)).round() as isize);
                write_shifted(data.images.row(i as usize), by, images.row_mut(b));
                target[(b, data.labels[i as usize] as usize)] = 1.0;
            }
            step += 1;
            let BiasCorrected { step_size, epsilon } = adam.bias_corrected(step, EPOCHS * steps_per_epoch as u64);
            let inputs = [
                ("image", images.view().into_dyn()),
                ("target", target.view().into_dyn()),
                ("step_size", aview0(&step_size).into_dyn()),
                ("epsilon", aview0(&epsilon).into_dyn()),
            ];
            let named_state = names.iter().zip(&state).map(|((name, _), x)| (name.as_str(), x.view()));
            state = session.run(&inputs.into_iter().chain(named_state).collect::<Vec<_>>())?;
            loss += state.pop().map_or(f32::NAN, |loss| loss.sum());
        }
        let judge = inference_graph(&state, classes);
        accuracy =
            Judge::load(runtime, &judge.encode_to_vec())?.accuracy(data.test_images.view(), data.test_labels.view())?;
        model = Some(judge);
        let (loss, percent) = (loss / steps_per_epoch as f32, 100.0 * accuracy);
        say(&format!("judge: epoch {:2} | loss {loss:.4} | accuracy {percent:.2} % on the test images", epoch + 1));
    }
    let mut model = model.context("at least one epoch expected, none found")?;
    let metadata = [
        ("data", name.clone()),
        ("data_sha256", data.sha256.clone()),
        ("lr", lr.to_string()),
        ("seed", seed.to_string()),
        ("classes", serde_json::to_string(&data.classes)?),
        (ACCURACY, format!("{accuracy:.4}")),
    ];
    model.metadata_props = metadata.map(|(key, value)| onnx::StringStringEntry { key: key.into(), value }).into();
    Ok((model, accuracy))
}

/// Key of the metadata with the accuracy on the test images, 0 to 1.
pub(crate) const ACCURACY: &str = "accuracy";

/// What the training of a judge depends on beside the data, as text. Raise the first number when the code changes the trained
/// judge; the rest are its settings.
pub(crate) fn version(lr: f64, seed: u64) -> String {
    format!("1: {lr} {seed} {BATCH} {EPOCHS} {FEATURES} {MAX_SHIFT}")
}

const BATCH: usize = 100;
const EPOCHS: u64 = 10;
/// Default of Adam's initial step size.
pub const LR: f64 = 3e-3;
const ADAM: Adam = Adam { alpha: LR, alpha_end: 0.0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
/// Largest shift of a training image in each direction, in pixels.
const MAX_SHIFT: f32 = 1.0;

/// Names and shapes of the parameters: weight and bias of each layer in turn.
fn params(classes: usize) -> Vec<Spec> {
    let layers: [(&str, &[usize], usize); 5] = [
        ("conv1", &[6, 1, 5, 5], 6),
        ("conv2", &[16, 6, 5, 5], 16),
        ("fc1", &[400, 120], 120),
        ("fc2", &[120, FEATURES], FEATURES),
        ("fc3", &[FEATURES, classes], classes),
    ];
    let spec = |layer: &str, kind: &str, shape: &[usize]| Spec::new(format!("{layer}.{kind}"), Type::F32, shape);
    let both = |(layer, weight, bias): (_, &[usize], _)| [spec(layer, "weight", weight), spec(layer, "bias", &[bias])];
    layers.into_iter().flat_map(both).collect()
}

/// Parameters from U(−1/√in, 1/√in), then Adam's first and second moments, which are 0.
fn initial_state(seed: u64, classes: usize) -> Vec<ArrayD<f32>> {
    let mut state: Vec<ArrayD<f32>> = vec![];
    let mut fan_in = 0;
    for (spec, i) in params(classes).iter().zip(0..) {
        match spec.shape[..] {
            [_, i, h, w] => fan_in = i * h * w,
            [i, _] => fan_in = i,
            _ => {} // a bias has the bound of its weight, which comes before it
        }
        let mut tensor = ArrayD::zeros(&spec.shape[..]);
        noise::write_uniform(tensor.as_slice_mut().expect("row-major"), seed, 0, stream::JUDGE_INIT + i);
        state.push(tensor / (fan_in as f32).sqrt());
    }
    let moments: Vec<_> = state.iter().chain(&state).map(|tensor| ArrayD::zeros(tensor.raw_dim())).collect();
    state.extend(moments);
    state
}

/// The features (B, 84) and logits (B, C) of images (B, 784).
fn network(g: &mut Graph, theta: &[Var], image: Var) -> (Var, Var) {
    let batch = g.shape(image)[0];
    let mut x = g.reshape(image, &[batch, 1, SIDE, SIDE]);
    for (layer, pad) in theta.chunks(2).zip([2, 0]) {
        x = g.conv(x, layer[0], Some(layer[1]), pad);
        x = g.relu(x);
        x = g.max_pool2(x); // (B, 6, 14, 14), then (B, 16, 5, 5)
    }
    x = g.reshape(x, &[batch, 400]);
    for layer in theta[4..8].chunks(2) {
        x = g.gemm(x, layer[0], Some(layer[1]), false, false);
        x = g.relu(x);
    }
    let logits = g.gemm(x, theta[8], Some(theta[9]), false, false);
    (x, logits)
}

/// One step of softmax cross-entropy and Adam, with the names and shapes of its state. The last output is the loss.
fn step_graph(classes: usize, batch: usize) -> (onnx::Model, Vec<(String, Vec<usize>)>) {
    let g = &mut Graph::default();
    let specs = params(classes);
    let names: Vec<(String, Vec<usize>)> = (["", "m.", "v."].iter())
        .flat_map(|kind| specs.iter().map(move |spec| (format!("{kind}{}", spec.name), spec.shape.clone())))
        .collect();
    let state: Vec<Var> = names.iter().map(|(name, shape)| g.input(name, Type::F32, shape)).collect();
    let (theta, moments) = state.split_at(specs.len());
    let (m, v) = moments.split_at(specs.len());
    let image = g.input("image", Type::F32, &[batch, PIXELS]);
    let target = g.input("target", Type::F32, &[batch, classes]);
    let [step_size, epsilon] = ["step_size", "epsilon"].map(|name| g.input(name, Type::F32, &[]));
    let at = BiasCorrected { step_size, epsilon };
    let (_, logits) = network(g, theta, image);
    let log_probability = g.log_softmax(logits);
    let log_likelihood = g.mul(log_probability, target);
    let sum = g.sum(log_likelihood, &[0, 1], false);
    let loss = g.div_by(sum, -(batch as f32));
    let grad = g.grad(loss, theta);
    let next: Vec<_> = (0..theta.len()).map(|i| ADAM.update(g, at, theta[i], m[i], v[i], grad[i])).collect();
    let all = next.iter().map(|n| n.0).chain(next.iter().map(|n| n.1)).chain(next.iter().map(|n| n.2));
    let mut outputs: Vec<(Var, String)> = all.zip(&names).map(|(v, (name, _))| (v, format!("next.{name}"))).collect();
    outputs.push((loss, "loss".into()));
    (g.to_model("judge_step", &outputs, None), names)
}

/// `image` (N, 784) in [-1, 1] → `features` (N, 84), `probability` (N, C).
fn inference_graph(state: &[ArrayD<f32>], classes: usize) -> onnx::Model {
    let g = &mut Graph::default();
    let image = g.input("image", Type::F32, &[1, PIXELS]);
    let values = state.iter().map(|x| x.as_slice().expect("row-major"));
    let theta: Vec<Var> =
        params(classes).iter().zip(values).map(|(spec, x)| g.constant(&spec.name, &spec.shape, x)).collect();
    let (features, logits) = network(g, &theta, image);
    let log_probability = g.log_softmax(logits);
    let probability = g.exp(log_probability);
    g.to_model("judge", &[(features, "features".into()), (probability, "probability".into())], Some("N"))
}

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
