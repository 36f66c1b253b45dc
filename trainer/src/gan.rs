//! The two networks, their losses, and the graph of one training step. B is the batch.

use serde::{Deserialize, Serialize};

use crate::adam::Adam;
use crate::graph::{Graph, Var};
use crate::onnx::{self, Type};

/// Layer widths: generator 100→32→64→128→784, discriminator 784→128→64→32→1.
pub const G_SIZES: [usize; 5] = [LATENT, 32, 64, 128, PIXELS];
pub const D_SIZES: [usize; 5] = [PIXELS, 128, 64, 32, 1];
/// The length of z.
pub const LATENT: usize = 100;
/// 28 × 28.
pub const PIXELS: usize = 784;
/// The slope of LeakyReLU below zero.
pub const SLOPE: f32 = 0.2;

/// What a training step is made of. As JSON its fields have the names of the trainer's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    #[serde(rename = "recipe")]
    pub name: String,
    #[serde(flatten)]
    pub adam: Adam,
    /// The probability of dropout after each hidden layer of both networks.
    #[serde(rename = "dropout")]
    pub p_drop: f64,
    /// The target of real images in the discriminator's update (one-sided label smoothing).
    pub real_target: f64,
}

impl Recipe {
    /// The classic recipe.
    pub fn seed() -> Self {
        let adam = Adam { alpha: 2e-3, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        Self { name: "seed".into(), adam, p_drop: 0.2, real_target: 0.9 }
    }
}

/// A named tensor that the step graph reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub name: String,
    pub elem: Type,
    pub shape: Vec<usize>,
}

impl Spec {
    fn new(name: impl Into<String>, elem: Type, shape: &[usize]) -> Self {
        Self { name: name.into(), elem, shape: shape.into() }
    }

    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The names and shapes of a network's weights and biases, in layer order: `g.fc1.weight` (I, O), `g.fc1.bias` (O,), …
pub fn params(net: &str, sizes: &[usize]) -> Vec<Spec> {
    (sizes.windows(2).enumerate())
        .flat_map(|(i, w)| {
            let fc = format!("{net}.fc{}", i + 1);
            [
                Spec::new(format!("{fc}.weight"), Type::F32, &[w[0], w[1]]),
                Spec::new(format!("{fc}.bias"), Type::F32, &[w[1]]),
            ]
        })
        .collect()
}

/// All that a training step reads and writes again, in a fixed order: both networks' parameters, Adam's first moments
/// m and second moments v of each (`m.g.fc1.weight`), and `step`, the number of steps taken, which is last.
pub fn state_specs() -> Vec<Spec> {
    let theta: Vec<Spec> = params("d", &D_SIZES).into_iter().chain(params("g", &G_SIZES)).collect();
    let moments = |m: &str| theta.iter().map(|s| Spec { name: format!("{m}.{}", s.name), ..s.clone() }).collect();
    let (m, v): (Vec<Spec>, Vec<Spec>) = (moments("m"), moments("v"));
    theta.iter().cloned().chain(m).chain(v).chain([Spec::new("step", Type::I64, &[])]).collect()
}

/// One training step as a model: `(state, batch) → (state', metrics)`.
pub struct StepGraph {
    /// State tensors are inputs under their names of [`state_specs`] and outputs with `next.` before them.
    pub model: onnx::Model,
    /// The images in a batch.
    pub batch: usize,
    /// How many bytes of `keep` a step reads: a 0 or 1 for each unit that dropout may drop.
    pub keep_len: usize,
}

impl StepGraph {
    /// The values of output `metrics` (1, 4), in order.
    pub const METRICS: [&str; 4] = ["d_loss", "g_loss", "d_real", "d_fake"];

    /// The step of `recipe` for batches of `batch` images out of a data set of `n`.
    ///
    /// Inputs beside the state: `images` (n, 784) u8, the data set; `pick` (B,) i64, this batch's rows of it;
    /// `z` (2B, 100) f32, first for the discriminator's update, then for the generator's; `keep` (flat) u8, the
    /// dropout masks, each layer's (B, units) after the other: D on reals and fakes (2B), D on the generator's fakes,
    /// G for D's update, G for its own.
    pub fn new(recipe: &Recipe, batch: usize, n: usize) -> Self {
        let g = &mut Graph::default();
        let specs = state_specs();
        let state: Vec<Var> = specs.iter().map(|s| g.input(&s.name, s.elem, &s.shape)).collect();
        let (step, tensors) = state.split_last().expect("the step is last");
        let (theta, moments) = tensors.split_at(tensors.len() / 3);
        let (m, v) = moments.split_at(theta.len());
        let (d, gen_) = theta.split_at(2 * (D_SIZES.len() - 1));

        let images = g.input("images", Type::U8, &[n, PIXELS]);
        let pick = g.input("pick", Type::I64, &[batch]);
        let z = g.input("z", Type::F32, &[2 * batch, LATENT]);
        let (masks, p_drop) = (Masks::new(g, batch), recipe.p_drop as f32);

        g.scope("real/");
        let real = g.gather(images, pick);
        let real = g.cast(real, Type::F32);
        let real = g.div_by(real, 127.5);
        let one = g.scalar(1.0);
        let real = g.sub(real, one); // (B, 784) in [-1, 1]

        g.scope("step/");
        let (one, t) = (g.scalar_int(1), *step);
        let t = g.add(t, one);
        let at = recipe.adam.at_step(g, t);

        // D: reals have the target 0.9, fakes 0. Both go through in one batch of 2B.
        g.scope("d_update/");
        let z_d = g.rows(z, 0, batch);
        let fake = mlp(g, gen_, z_d, Some((&masks.g_for_d, p_drop)));
        let fake = g.tanh(fake); // (B, 784)
        let fake = g.detach(fake); // this update is D's alone
        let both = g.concat_rows(real, fake);
        let logits = mlp(g, d, both, Some((&masks.d_on_both, p_drop))); // (2B, 1)
        let target: Vec<f32> =
            (0..2 * batch).map(|r| if r < batch { recipe.real_target as f32 } else { 0.0 }).collect();
        let target = g.constant("d_target", &[2 * batch, 1], &target);
        let d_loss = bce_sum(g, logits, target);
        let d_loss = g.div_by(d_loss, batch as f32);
        let d_grad = g.grad(d_loss, d);
        g.scope("d_adam/");
        let d_next: Vec<_> = (0..d.len()).map(|i| recipe.adam.update(g, &at, d[i], m[i], v[i], d_grad[i])).collect();

        // G: fresh fakes have the target 1 (the flipped label) in the eyes of the new D.
        g.scope("g_update/");
        let z_g = g.rows(z, batch, 2 * batch);
        let fake = mlp(g, gen_, z_g, Some((&masks.g_for_g, p_drop)));
        let fake = g.tanh(fake);
        let d_new: Vec<Var> = d_next.iter().map(|n| n.0).collect();
        let judged = mlp(g, &d_new, fake, Some((&masks.d_on_fake, p_drop))); // (B, 1)
        let one = g.scalar(1.0);
        let g_loss = bce_sum(g, judged, one);
        let g_loss = g.div_by(g_loss, batch as f32);
        let g_grad = g.grad(g_loss, gen_);
        g.scope("g_adam/");
        let g_next: Vec<_> = (0..gen_.len())
            .map(|i| recipe.adam.update(g, &at, gen_[i], m[d.len() + i], v[d.len() + i], g_grad[i]))
            .collect();

        g.scope("metrics/");
        let probability = g.sigmoid(logits);
        let halves = [g.rows(probability, 0, batch), g.rows(probability, batch, 2 * batch)];
        let [d_real, d_fake] = halves.map(|half| g.mean(half));
        let metrics = g.stack(&[d_loss, g_loss, d_real, d_fake]);

        let next = d_next.iter().chain(&g_next);
        let next: Vec<Var> =
            next.clone().map(|n| n.0).chain(next.clone().map(|n| n.1)).chain(next.map(|n| n.2)).collect();
        let mut outputs: Vec<(Var, String)> =
            next.into_iter().chain([t]).zip(&specs).map(|(v, s)| (v, format!("next.{}", s.name))).collect();
        outputs.push((metrics, "metrics".into()));
        let model = g.to_model(&format!("{}_step", recipe.name), &outputs, None);
        Self { model, batch, keep_len: masks.len }
    }
}

/// The generator in evaluation mode: `z` (N, 100) → `image` (N, 784) in [-1, 1], its parameters stored in the file.
pub fn generator(weights: &[&[f32]]) -> onnx::Model {
    let g = &mut Graph::default();
    let z = g.input("z", Type::F32, &[1, LATENT]);
    let theta: Vec<Var> = (params("g", &G_SIZES).iter().zip(weights))
        .map(|(s, w)| g.constant(s.name.trim_start_matches("g."), &s.shape, w))
        .collect();
    let last = mlp(g, &theta, z, None);
    let image = g.tanh(last);
    g.to_model("generator", &[(image, "image".into())], Some("N"))
}

/// The generator in evaluation mode with its parameters as inputs: `z` (n, 100), `g.fc1.weight`, … → `image` (n, 784).
pub fn sampler(n: usize) -> onnx::Model {
    let g = &mut Graph::default();
    let z = g.input("z", Type::F32, &[n, LATENT]);
    let theta: Vec<Var> = params("g", &G_SIZES).iter().map(|s| g.input(&s.name, s.elem, &s.shape)).collect();
    let last = mlp(g, &theta, z, None);
    let image = g.tanh(last);
    g.to_model("sampler", &[(image, "image".into())], None)
}

/// x through dense layers, with LeakyReLU and, given masks and their p, dropout after each but the last.
///
/// `theta` is weight (I, O), bias (O,) for each layer; x is (B, I); the result is (B, O) of the last.
pub(crate) fn mlp(g: &mut Graph, theta: &[Var], x: Var, dropout: Option<(&[Var], f32)>) -> Var {
    let layers = theta.len() / 2;
    let mut x = x;
    for (i, layer) in theta.chunks(2).enumerate() {
        x = g.gemm(x, layer[0], Some(layer[1]), false, false);
        if i + 1 < layers {
            x = match dropout {
                Some((keep, p_drop)) => leaky_relu_dropout(g, x, keep[i], p_drop),
                None => g.leaky_relu(x, SLOPE),
            };
        }
    }
    x
}

/// Σ over the batch of the binary cross-entropy of a logit against its target: softplus(logit) − logit · target.
fn bce_sum(g: &mut Graph, logit: Var, target: Var) -> Var {
    let (softplus, hit) = (g.softplus(logit), g.mul(logit, target));
    let loss = g.sub(softplus, hit);
    g.sum(loss, &[0, 1], false)
}

/// y = x · s, where s = mask/(1−p) above zero, slope · mask/(1−p) below.   dx = dy · s
///
/// LeakyReLU and dropout in one product, so that the backward pass is a single multiplication; `keep` is the mask, 0
/// or 1. The factor is 10³⁸ x, clamped: half the time of a comparison and ONNX Runtime's `Where`, and the same
/// number for all but subnormal x.
fn leaky_relu_dropout(g: &mut Graph, x: Var, keep: Var, p_drop: f32) -> Var {
    let huge = g.scalar(1e38);
    let steep = g.mul(x, huge);
    let factor = g.clip(steep, SLOPE / (1.0 - p_drop), 1.0 / (1.0 - p_drop));
    let s = g.mul(factor, keep);
    let s = g.detach(s);
    g.mul(x, s)
}

/// The dropout masks of one step, cut from the input `keep`: for each pass through a network, one (rows, units) mask
/// of zeros and ones for each hidden layer.
struct Masks {
    d_on_both: Vec<Var>,
    d_on_fake: Vec<Var>,
    g_for_d: Vec<Var>,
    g_for_g: Vec<Var>,
    len: usize,
}

impl Masks {
    fn new(g: &mut Graph, batch: usize) -> Self {
        let hidden = |sizes: &[usize], rows: usize| -> Vec<Vec<usize>> {
            sizes[1..sizes.len() - 1].iter().map(|&units| vec![rows, units]).collect()
        };
        let passes =
            [hidden(&D_SIZES, 2 * batch), hidden(&D_SIZES, batch), hidden(&G_SIZES, batch), hidden(&G_SIZES, batch)];
        let shapes = passes.concat();
        let len = shapes.iter().map(|s| s[0] * s[1]).sum();
        g.scope("dropout/");
        let keep = g.input("keep", Type::U8, &[len]);
        let keep = g.cast(keep, Type::F32);
        let mut masks = g.split(keep, &shapes).into_iter();
        let mut take = |pass: usize| masks.by_ref().take(passes[pass].len()).collect();
        let (d_on_both, d_on_fake) = (take(0), take(1));
        Self { d_on_both, d_on_fake, g_for_d: take(2), g_for_g: take(3), len }
    }
}
