//! The judge: a small classifier whose features measure how far generated digits are from real ones.
//!
//! It is trained by the same graph builder and the same ONNX Runtime as the GAN, and shipped as models/judge.onnx.

use anyhow::{Context, Result, ensure};
use ndarray::{Array2, ArrayD, ArrayView1, ArrayView2, ArrayViewMut1, Axis, aview0};
use prost::Message;

use crate::config::{Adam, BiasCorrected, CLASSES, PIXELS};
use crate::data::Dataset;
use crate::graph::onnx::{self, Type};
use crate::graph::{Graph, Var};
use crate::noise::{self, stream};
use crate::ort::{Loaded, OnnxRuntime};
use crate::pixel::unit;
use crate::state::Spec;

/// The length of the features: the last hidden layer.
pub const FEATURES: usize = 84;
const BATCH: usize = 100;
const EPOCHS: u64 = 10;
/// Its step size falls linearly to 0.
const ADAM: Adam = Adam { alpha: 1e-3, alpha_end: 0.0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
/// Training images are moved by up to so many pixels each way.
const MOVE: f32 = 1.0;

/// The parameters, weight and bias of each layer in turn: LeNet-5's (LeCun et al. 1998) but that each map of the second
/// convolution sees all of the first.
fn params() -> Vec<Spec> {
    let spec = |name: &str, shape: &[usize]| Spec { name: name.into(), elem: Type::F32, shape: shape.into() };
    let layers: [(&str, &[usize], usize); 5] = [
        ("conv1", &[6, 1, 5, 5], 6),
        ("conv2", &[16, 6, 5, 5], 16),
        ("fc1", &[400, 120], 120),
        ("fc2", &[120, FEATURES], FEATURES),
        ("fc3", &[FEATURES, CLASSES], CLASSES),
    ];
    let both = |(name, weight, bias)| [spec(&format!("{name}.weight"), weight), spec(&format!("{name}.bias"), &[bias])];
    layers.into_iter().flat_map(both).collect()
}

/// The features (B, 84) and logits (B, 10) of images (B, 784); ReLU after each layer but the last, maximum of 2 × 2 after
/// the convolutions.
fn network(g: &mut Graph, theta: &[Var], image: Var) -> (Var, Var) {
    let batch = g.shape(image)[0];
    let mut x = g.reshape(image, &[batch, 1, 28, 28]);
    for (layer, pad) in theta.chunks(2).zip([2, 0]) {
        x = g.conv(x, layer[0], Some(layer[1]), pad);
        x = g.relu(x);
        x = g.max_pool2(x);
    }
    x = g.reshape(x, &[batch, 400]);
    for layer in theta[4..8].chunks(2) {
        x = g.gemm(x, layer[0], Some(layer[1]), false, false);
        x = g.relu(x);
    }
    let logits = g.gemm(x, theta[8], Some(theta[9]), false, false);
    (x, logits)
}

/// The shipped judge, ready to run.
pub struct Judge(Loaded);

/// What the judge sees in n images.
pub struct Seen {
    /// (n, [`FEATURES`])
    pub features: Vec<f32>,
    /// The most probable class of each.
    pub class: Vec<u8>,
    /// Its probability.
    pub confidence: Vec<f32>,
}

impl Judge {
    pub fn shipped(runtime: &OnnxRuntime) -> Result<Self> {
        Ok(Self(runtime.load(include_bytes!("../../../models/judge.onnx"))?))
    }

    /// Looks at images (n, 784) of grey levels.
    pub fn look(&mut self, images: ArrayView2<u8>) -> Result<Seen> {
        let mut seen = Seen { features: vec![], class: vec![], confidence: vec![] };
        for part in images.axis_chunks_iter(Axis(0), 1000) {
            let images = part.mapv(unit);
            let mut outputs = self.0.run(&[("image", images.view().into_dyn())])?.into_iter();
            let (features, probability) = (outputs.next().unwrap_or_default(), outputs.next().unwrap_or_default());
            seen.features.extend(features);
            for row in probability.rows() {
                let best = (0..CLASSES).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
                seen.class.push(best as u8);
                seen.confidence.push(row[best]);
            }
        }
        Ok(seen)
    }

    /// The share of images whose class it tells.
    pub fn accuracy(&mut self, images: ArrayView2<u8>, labels: ArrayView1<u8>) -> Result<f64> {
        let seen = self.look(images)?;
        let right = seen.class.iter().zip(labels).filter(|(class, label)| class == label).count();
        Ok(right as f64 / labels.len() as f64)
    }
}

/// Trains a judge on the training images, each moved by up to a pixel, and returns its file's model and its accuracy on
/// the test images; `say` hears of every epoch.
pub fn train(
    data: &Dataset,
    runtime: &OnnxRuntime,
    seed: u64,
    say: &mut dyn FnMut(&str),
) -> Result<(onnx::Model, f64)> {
    ensure!(data.len() >= BATCH, "--data: at least {BATCH} images expected, {} found", data.len());
    let specs = params();
    let mut state: Vec<ArrayD<f32>> = vec![];
    let mut fan_in = 0;
    for (spec, i) in specs.iter().zip(0..) {
        match spec.shape[..] {
            [_, i, h, w] => fan_in = i * h * w,
            [i, _] => fan_in = i,
            _ => {} // a bias has that of its weight, which stands before it
        }
        let mut tensor = ArrayD::zeros(&spec.shape[..]);
        noise::write_uniform(tensor.as_slice_mut().expect("row-major"), seed, 0, stream::JUDGE_INIT + i);
        state.push(tensor / (fan_in as f32).sqrt());
    }
    let moments: Vec<_> = state.iter().chain(&state).map(|tensor| ArrayD::zeros(tensor.raw_dim())).collect();
    state.extend(moments);

    let (mut order, mut moves) = (vec![0; data.len()], vec![0.0; 2 * data.len()]);
    let steps = EPOCHS * (data.len() / BATCH) as u64;
    let (model, names) = step_graph();
    let mut session = runtime.load(&model.encode_to_vec())?;
    let (mut step, mut model, mut accuracy) = (0, None, 0.0);
    for epoch in 0..EPOCHS {
        noise::write_order(&mut order, seed, epoch);
        noise::write_uniform(&mut moves, seed, epoch, stream::JUDGE_MOVES);
        let mut loss = 0.0;
        for (pick, moves) in order.chunks_exact(BATCH).zip(moves.chunks_exact(2 * BATCH)) {
            let (mut images, mut target) = (Array2::from_elem((BATCH, PIXELS), -1.0), Array2::zeros((BATCH, CLASSES)));
            for (b, &i) in pick.iter().enumerate() {
                let by = [moves[2 * b], moves[2 * b + 1]].map(|x| (x * (MOVE + 0.5)).round() as isize);
                shift(data.images.row(i as usize), by, images.row_mut(b));
                target[(b, data.labels[i as usize] as usize)] = 1.0;
            }
            step += 1;
            let BiasCorrected { step_size, epsilon } = ADAM.bias_corrected(step, steps);
            let batch = [
                ("image", images.view().into_dyn()),
                ("target", target.view().into_dyn()),
                ("step_size", aview0(&step_size).into_dyn()),
                ("epsilon", aview0(&epsilon).into_dyn()),
            ];
            let kept = names.iter().zip(&state).map(|((name, _), x)| (name.as_str(), x.view()));
            state = session.run(&batch.into_iter().chain(kept).collect::<Vec<_>>())?;
            loss += state.pop().map_or(f32::NAN, |loss| loss.sum());
        }
        let now = export(&state);
        accuracy =
            Judge(runtime.load(&now.encode_to_vec())?).accuracy(data.test_images.view(), data.test_labels.view())?;
        model = Some(now);
        let (loss, told) = (loss / (data.len() / BATCH) as f32, 100.0 * accuracy);
        say(&format!("judge: epoch {:2} | loss {loss:.4} | {told:.2} % of the test images told", epoch + 1));
    }
    Ok((model.context("no epochs")?, accuracy))
}

/// One step of softmax cross-entropy and Adam, with the names and shapes of its state; the last output is the loss.
fn step_graph() -> (onnx::Model, Vec<(String, Vec<usize>)>) {
    let g = &mut Graph::default();
    let specs = params();
    let names: Vec<(String, Vec<usize>)> = (["", "m.", "v."].iter())
        .flat_map(|kind| specs.iter().map(move |spec| (format!("{kind}{}", spec.name), spec.shape.clone())))
        .collect();
    let state: Vec<Var> = names.iter().map(|(name, shape)| g.input(name, Type::F32, shape)).collect();
    let (theta, moments) = state.split_at(specs.len());
    let (m, v) = moments.split_at(specs.len());
    let image = g.input("image", Type::F32, &[BATCH, PIXELS]);
    let target = g.input("target", Type::F32, &[BATCH, CLASSES]);
    let [step_size, epsilon] = ["step_size", "epsilon"].map(|name| g.input(name, Type::F32, &[]));
    let at = BiasCorrected { step_size, epsilon };
    let (_, logits) = network(g, theta, image);
    let log_probability = g.log_softmax(logits);
    let hit = g.mul(log_probability, target);
    let sum = g.sum(hit, &[0, 1], false);
    let loss = g.div_by(sum, -(BATCH as f32));
    let grad = g.grad(loss, theta);
    let next: Vec<_> = (0..theta.len()).map(|i| ADAM.update(g, at, theta[i], m[i], v[i], grad[i])).collect();
    let all = next.iter().map(|n| n.0).chain(next.iter().map(|n| n.1)).chain(next.iter().map(|n| n.2));
    let mut outputs: Vec<(Var, String)> = all.zip(&names).map(|(v, (name, _))| (v, format!("next.{name}"))).collect();
    outputs.push((loss, "loss".into()));
    (g.to_model("judge_step", &outputs, None), names)
}

/// `image` (N, 784) in [-1, 1] → `features` (N, 84), `probability` (N, 10).
fn export(state: &[ArrayD<f32>]) -> onnx::Model {
    let g = &mut Graph::default();
    let image = g.input("image", Type::F32, &[1, PIXELS]);
    let theta: Vec<Var> = params()
        .iter()
        .zip(state)
        .map(|(spec, x)| g.constant(&spec.name, &spec.shape, x.as_slice().expect("row-major")))
        .collect();
    let (features, logits) = network(g, &theta, image);
    let log_probability = g.log_softmax(logits);
    let probability = g.exp(log_probability);
    g.to_model("judge", &[(features, "features".into()), (probability, "probability".into())], Some("N"))
}

/// The image moved by (down, right) pixels, in [-1, 1]; `out` is black before.
fn shift(image: ArrayView1<u8>, [down, right]: [isize; 2], mut out: ArrayViewMut1<f32>) {
    for y in 0..28isize {
        for x in 0..28isize {
            let (from_y, from_x) = (y - down, x - right);
            if (0..28).contains(&from_y) && (0..28).contains(&from_x) {
                out[(y * 28 + x) as usize] = unit(image[(from_y * 28 + from_x) as usize]);
            }
        }
    }
}
