//! The two networks, their losses, and the graph of one training step. B is the batch.

use multiversion::multiversion;
use serde::{Deserialize, Serialize};

use crate::adam::Adam;
use crate::graph::{Graph, Var};
use crate::onnx::{self, Type};

/// The generator's layer widths.
pub const G_SIZES: [usize; 5] = [LATENT, 32, 64, 128, PIXELS];
/// Digits.
pub const CLASSES: usize = 10;
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
    /// The widths of the discriminator's hidden layers.
    pub d: Vec<usize>,
    /// Whether z[0..10] is the class as one-hot, and D has a logit for each class.
    pub conditional: bool,
    /// Whether one z, and so one pass through G, serves both updates.
    pub one_z: bool,
    /// The probability of dropout after each hidden layer of both networks.
    #[serde(rename = "dropout")]
    pub p_drop: f64,
    /// The target of real images in the discriminator's update (one-sided label smoothing).
    pub real_target: f64,
    /// γ of R1, the penalty γ/2 · E|∂D(x)/∂x|² on real images; 0 is none. Source: Mescheder et al. 2018.
    pub r1: f64,
    /// R1 is taken every so many steps, and then so many times as large (lazy regularisation, StyleGAN2).
    pub r1_every: u64,
    /// The decay of the exponential moving average of G's parameters, which is then what is exported; 0 is none.
    pub ema: f64,
    /// Whether G's last bias starts at the atanh of the mean image.
    pub mean_bias: bool,
}

impl Recipe {
    /// The classic recipe.
    pub fn seed() -> Self {
        Self {
            name: "seed".into(),
            adam: Adam { alpha: 2e-3, alpha_end: 1.0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
            d: vec![128, 64, 32],
            conditional: false,
            one_z: false,
            p_drop: 0.2,
            real_target: 0.9,
            r1: 0.0,
            r1_every: 1,
            ema: 0.0,
            mean_bias: false,
        }
    }

    /// The same generator, trained as well as we know how to, and able to draw the digit asked for.
    pub fn tuned() -> Self {
        Self {
            name: "tuned".into(),
            adam: Adam { alpha: 3e-3, alpha_end: 0.25, beta1: 0.5, beta2: 0.99, epsilon: 1e-8 },
            d: vec![256, 128],
            conditional: true,
            one_z: true,
            p_drop: 0.0,
            real_target: 1.0,
            r1: 0.3,
            r1_every: 4,
            ema: 0.999,
            mean_bias: true,
        }
    }

    /// The discriminator's layer widths.
    pub fn d_sizes(&self) -> Vec<usize> {
        let logits = if self.conditional { CLASSES } else { 1 };
        [&[PIXELS], &self.d[..], &[logits]].concat()
    }

    /// How many z a step of `batch` images draws.
    pub fn z_rows(&self, batch: usize) -> usize {
        if self.one_z { batch } else { 2 * batch }
    }

    /// Whether a step, counted from 0, takes R1.
    pub fn penalises(&self, step: u64) -> bool {
        self.r1 > 0.0 && step.is_multiple_of(self.r1_every)
    }

    /// What stands before the names of those parameters of [`state_specs`] that are sampled, scored and exported.
    pub fn best(&self) -> &'static str {
        if self.ema > 0.0 { "ema." } else { "" }
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
/// m and second moments v of each (`m.g.fc1.weight`), the moving average of the generator's (`ema.g.fc1.weight`) where
/// the recipe has one, and `step`, the number of steps taken, which is last.
pub fn state_specs(recipe: &Recipe) -> Vec<Spec> {
    let (d, g) = (params("d", &recipe.d_sizes()), params("g", &G_SIZES));
    let theta = [d, g.clone()].concat();
    let named = |kind: &str, of: &[Spec]| -> Vec<Spec> {
        of.iter().map(|s| Spec { name: format!("{kind}.{}", s.name), ..s.clone() }).collect()
    };
    let (m, v) = (named("m", &theta), named("v", &theta));
    let ema = if recipe.ema > 0.0 { named("ema", &g) } else { vec![] };
    [theta, m, v, ema, vec![Spec::new("step", Type::I64, &[])]].concat()
}

/// How a step graph takes its state and its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A tensor for each parameter, and the numbers of one step. Nothing is copied: what is fast on a CPU.
    Tensors,
    /// A vector for all parameters of a network, and the numbers of a round of up to `slots` steps of up to `batch` images.
    /// Few operators, and nothing to copy or to wait for between steps: what is fast on a GPU, where each operator is a
    /// kernel to launch.
    Vectors { slots: usize, batch: usize },
}

impl Form {
    /// How many steps a round can have.
    pub fn slots(self) -> usize {
        match self {
            Form::Tensors => 1,
            Form::Vectors { slots, .. } => slots,
        }
    }

    /// The tensors that hold a state where steps run, each with the number of [`state_specs`] that it holds in their order.
    pub fn blocks(self, recipe: &Recipe) -> Vec<(Spec, usize)> {
        let specs = state_specs(recipe);
        let network = |spec: &Spec| spec.name.split(".fc").next().unwrap_or_default().to_string();
        match self {
            Form::Tensors => specs.into_iter().map(|spec| (spec, 1)).collect(),
            Form::Vectors { .. } => specs
                .chunk_by(|a, b| network(a) == network(b))
                .map(|part| match part {
                    [step] => (step.clone(), 1),
                    _ => {
                        let len = part.iter().map(Spec::len).sum();
                        (Spec::new(network(&part[0]), Type::F32, &[len]), part.len())
                    }
                })
                .collect(),
        }
    }

    /// The weights and biases of a network of these layer widths, out of the tensors that hold them.
    fn parameters(self, g: &mut Graph, held: &[Var], sizes: &[usize]) -> Vec<Var> {
        match self {
            Form::Tensors => held.to_vec(),
            Form::Vectors { .. } => {
                let shapes: Vec<Vec<usize>> = params("", sizes).into_iter().map(|spec| spec.shape).collect();
                g.cut(held[0], &shapes)
            }
        }
    }

    /// The other way round, for what belongs to the weights and biases of a network.
    fn hold(self, g: &mut Graph, parameters: Vec<Var>) -> Vec<Var> {
        match self {
            Form::Tensors => parameters,
            Form::Vectors { .. } => vec![g.join(&parameters)],
        }
    }
}

/// One training step as a model: `(state, batch) → (state', metrics)`.
pub struct StepGraph {
    /// State tensors are inputs under the names of [`Form::blocks`] and outputs with `next.` before them.
    pub model: onnx::Model,
    pub form: Form,
    /// The images in a batch.
    pub batch: usize,
    /// Whether it has the R1 penalty.
    pub penalised: bool,
    /// How many numbers of `pick`, `z` and `keep` a step reads.
    pub reads: [usize; 3],
    /// The length of a row of each, of which a step reads the front.
    pub rows: [usize; 3],
}

impl StepGraph {
    /// The values of output `metrics`, in order.
    pub const METRICS: [&str; 4] = ["d_loss", "g_loss", "d_real", "d_fake"];

    /// The step of `recipe` for batches of `batch` images out of a data set of `n`, in a run of `steps` steps; with the
    /// R1 penalty where `penalised`.
    ///
    /// Inputs beside the state: `images` (n, 784) u8, the data set; `labels` (n,) u8, its classes (conditional recipes
    /// only); `pick` (B,) i64, this batch's rows of it; `z` (2B, 100) f32, first for the discriminator's update, then for
    /// the generator's, or (B, 100) for both; `keep` (flat) u8, the dropout masks, each layer's (B, units) after the
    /// other: D on reals and fakes (2B), D on the generator's fakes, G for D's update, G for its own (recipes with
    /// dropout only). The output beside the state is `metrics` (1, 4).
    ///
    /// In [`Form::Vectors`] these three have a flat row for each step of a round, and `first` is the number of steps before
    /// the round; the metrics are a row of `history` (slots, 4), which is read and written like the state.
    pub fn new(recipe: &Recipe, batch: usize, n: usize, steps: u64, penalised: bool, form: Form) -> Self {
        let g = &mut Graph::default();
        g.sums_by_gemm = form != Form::Tensors;
        let blocks = form.blocks(recipe);
        let state: Vec<Var> = blocks.iter().map(|(s, _)| g.input(&s.name, s.elem, &s.shape)).collect();
        let (step, tensors) = state.split_last().expect("the step is last");
        let d_sizes = recipe.d_sizes();
        let held = |layers: usize| if form == Form::Tensors { 2 * layers } else { 1 };
        let (d_held, g_held) = (held(d_sizes.len() - 1), held(G_SIZES.len() - 1));
        let (theta, rest) = tensors.split_at(d_held + g_held);
        let (m, rest) = rest.split_at(theta.len());
        let (v, ema) = rest.split_at(theta.len());
        let (d_theta, g_theta) = theta.split_at(d_held);

        let images = g.input("images", Type::U8, &[n, PIXELS]);
        let reads = numbers_read(recipe, batch);
        let (rows, round) = match form {
            Form::Tensors => (reads, None),
            Form::Vectors { slots, batch } => {
                g.scope("round/");
                let first = g.input("first", Type::I64, &[]);
                let slot = g.sub(*step, first);
                (numbers_read(recipe, batch), Some((slots, g.reshape(slot, &[1]))))
            }
        };
        let pick = numbers(g, round, "pick", Type::I64, &[batch], rows[0]);
        let z = numbers(g, round, "z", Type::F32, &[recipe.z_rows(batch), LATENT], rows[1]);
        let masks = Masks::new(g, round, recipe, batch, rows[2]);
        let d = &form.parameters(g, d_theta, &d_sizes)[..];
        let gen_ = &form.parameters(g, g_theta, &G_SIZES)[..];

        g.scope("real/");
        let real = g.gather(images, pick);
        let real = g.cast(real, Type::F32);
        let real = g.div_by(real, 127.5);
        let one = g.scalar(1.0);
        let real = g.sub(real, one); // (B, 784) in [-1, 1]

        g.scope("step/");
        let (one, t) = (g.scalar_int(1), *step);
        let t = g.add(t, one);
        let at = recipe.adam.at_step(g, t, steps);

        // D: reals have the target 1, or a little less, fakes 0.
        g.scope("d_update/");
        let z_d = if recipe.one_z { z } else { g.rows(z, 0, batch) };
        let fake_d = mlp(g, gen_, z_d, masks.of(G_FOR_D));
        let fake_d = g.tanh(fake_d); // (B, 784)
        let fake = g.detach(fake_d); // this update is D's alone
        let class = recipe.conditional.then(|| {
            let labels = g.input("labels", Type::U8, &[n]);
            [one_hot(g, labels, pick), g.columns(z_d, 0, CLASSES)] // (B, 10) each
        });
        let (class_real, class_fake) = (class.map(|c| c[0]), class.map(|c| c[1]));
        let mut penalty = None;
        let logits = if penalised {
            // R1 wants ∂D(x)/∂x of the reals alone.
            let on_real = discriminate(g, d, real, class_real, None);
            let on_fake = discriminate(g, d, fake, class_fake, None);
            penalty = Some(r1(g, on_real, real));
            g.concat_rows(on_real, on_fake)
        } else {
            let both = g.concat_rows(real, fake);
            let class = class.map(|[real, fake]| g.concat_rows(real, fake));
            discriminate(g, d, both, class, masks.of(D_ON_BOTH)) // (2B, 1)
        };
        let target: Vec<f32> =
            (0..2 * batch).map(|r| if r < batch { recipe.real_target as f32 } else { 0.0 }).collect();
        let target = g.constant("d_target", &[2 * batch, 1], &target);
        let d_loss = bce_sum(g, logits, target);
        let d_loss = g.div_by(d_loss, batch as f32);
        let objective = match penalty {
            Some(penalty) => {
                let weight = g.scalar((recipe.r1 / 2.0 * recipe.r1_every as f64) as f32);
                let penalty = g.mul(penalty, weight);
                g.add(d_loss, penalty)
            }
            None => d_loss,
        };
        let d_grad = g.grad(objective, d);
        g.scope("d_adam/");
        let d_grad = form.hold(g, d_grad);
        let d_next: Vec<_> =
            (0..d_held).map(|i| recipe.adam.update(g, &at, d_theta[i], m[i], v[i], d_grad[i])).collect();

        // G: fakes, fresh ones unless one z serves both, have the target 1 (the flipped label) in the eyes of the new D.
        g.scope("g_update/");
        let (z_g, fake) = if recipe.one_z {
            (z, fake_d)
        } else {
            let z_g = g.rows(z, batch, 2 * batch);
            let fake = mlp(g, gen_, z_g, masks.of(G_FOR_G));
            (z_g, g.tanh(fake))
        };
        let class_fake = recipe.conditional.then(|| g.columns(z_g, 0, CLASSES));
        let d_new: Vec<Var> = d_next.iter().map(|n| n.0).collect();
        let d_new = form.parameters(g, &d_new, &d_sizes);
        let judged = discriminate(g, &d_new, fake, class_fake, masks.of(D_ON_FAKE)); // (B, 1)
        let one = g.scalar(1.0);
        let g_loss = bce_sum(g, judged, one);
        let g_loss = g.div_by(g_loss, batch as f32);
        let g_grad = g.grad(g_loss, gen_);
        g.scope("g_adam/");
        let g_grad = form.hold(g, g_grad);
        let (m, v) = (&m[d_held..], &v[d_held..]);
        let g_next: Vec<_> =
            (0..g_held).map(|i| recipe.adam.update(g, &at, g_theta[i], m[i], v[i], g_grad[i])).collect();
        g.scope("ema/");
        let ema_next: Vec<Var> = match ema {
            [] => vec![],
            ema => {
                let towards = ema_towards(g, t, recipe.ema);
                ema.iter().zip(&g_next).map(|(&old, &(new, ..))| lerp(g, old, new, towards)).collect()
            }
        };

        g.scope("metrics/");
        let probability = g.sigmoid(logits);
        let halves = [g.rows(probability, 0, batch), g.rows(probability, batch, 2 * batch)];
        let [d_real, d_fake] = halves.map(|half| g.mean(half));
        let metrics = g.stack(&[d_loss, g_loss, d_real, d_fake]);

        let next = d_next.iter().chain(&g_next);
        let next: Vec<Var> =
            next.clone().map(|n| n.0).chain(next.clone().map(|n| n.1)).chain(next.map(|n| n.2)).collect();
        let mut outputs: Vec<(Var, String)> = next
            .into_iter()
            .chain(ema_next)
            .chain([t])
            .zip(&blocks)
            .map(|(v, (s, _))| (v, format!("next.{}", s.name)))
            .collect();
        match round {
            None => outputs.push((metrics, "metrics".into())),
            Some((slots, slot)) => {
                let history = g.input("history", Type::F32, &[slots, Self::METRICS.len()]);
                let all = g.counting("slots", &[slots, 1]);
                let this = g.equal(all, slot); // (slots, 1)
                outputs.push((g.r#where(this, metrics, history), "next.history".into()));
            }
        }
        let model = g.to_model(&format!("{}_step", recipe.name), &outputs, None);
        Self { model, form, batch, penalised, reads, rows }
    }
}

/// How many numbers of `pick`, `z` and `keep` a step of `batch` images reads.
fn numbers_read(recipe: &Recipe, batch: usize) -> [usize; 3] {
    let masks = masks_of(recipe, batch).concat();
    [batch, recipe.z_rows(batch) * LATENT, masks.iter().map(|shape| shape[0] * shape[1]).sum()]
}

/// The input `name`, of this shape; in a round, out of `slots` rows of `row` numbers, the front of the one of this step.
fn numbers(g: &mut Graph, round: Option<(usize, Var)>, name: &str, elem: Type, shape: &[usize], row: usize) -> Var {
    let Some((slots, slot)) = round else { return g.input(name, elem, shape) };
    let all = g.input(name, elem, &[slots, row]);
    let mut own = g.gather(all, slot); // (1, row)
    let len = shape.iter().product();
    if len < row {
        own = g.columns(own, 0, len);
    }
    g.reshape(own, shape)
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

/// The generator in evaluation mode with its parameters as inputs: `z` (n, 100), `g.fc1.weight`, … or, in vectors, `g` →
/// `image` (n, 784).
pub fn sampler(n: usize, form: Form) -> onnx::Model {
    let g = &mut Graph::default();
    let z = g.input("z", Type::F32, &[n, LATENT]);
    let blocks = form.blocks(&Recipe::seed());
    let of_g = blocks.iter().map(|(spec, _)| spec).filter(|spec| spec.name == "g" || spec.name.starts_with("g."));
    let held: Vec<Var> = of_g.map(|s| g.input(&s.name, s.elem, &s.shape)).collect();
    let theta = form.parameters(g, &held, &G_SIZES);
    let last = mlp(g, &theta, z, None);
    let image = g.tanh(last);
    g.to_model("sampler", &[(image, "image".into())], None)
}

/// The logit (B, 1) that images (B, 784) are real; with `class` (B, 10) as one-hot, the one of the ten that it picks.
fn discriminate(g: &mut Graph, d: &[Var], x: Var, class: Option<Var>, dropout: Option<(&[Var], f32)>) -> Var {
    let logits = mlp(g, d, x, Some(dropout.unwrap_or((&[], 0.0))));
    match class {
        Some(class) => {
            let picked = g.mul(logits, class);
            g.sum(picked, &[1], true)
        }
        None => logits,
    }
}

/// E|∂D(x)/∂x|² for logits (B, 1) of x (B, 784).
fn r1(g: &mut Graph, logits: Var, x: Var) -> Var {
    let batch = g.shape(x)[0] as f32;
    let sum = g.sum(logits, &[0, 1], false); // each logit depends on its own x alone
    let slope = g.grad(sum, &[x])[0];
    let square = g.mul(slope, slope);
    let square = g.sum(square, &[0, 1], false);
    g.div_by(square, batch)
}

/// Rows `pick` (B,) of `labels` (n,) as one-hot (B, 10).
fn one_hot(g: &mut Graph, labels: Var, pick: Var) -> Var {
    let eye: Vec<f32> = (0..CLASSES * CLASSES).map(|i| f32::from(u8::from(i % (CLASSES + 1) == 0))).collect();
    let eye = g.constant("eye", &[CLASSES, CLASSES], &eye);
    let labels = g.gather(labels, pick);
    let labels = g.cast(labels, Type::I64);
    g.gather(eye, labels)
}

/// How far the moving average goes towards the parameters at step t: 1 − `decay`, and in the first steps more, so that
/// it does not remember where it began.
fn ema_towards(g: &mut Graph, t: Var, decay: f64) -> Var {
    let (nine, t) = (g.scalar(9.0), g.cast(t, Type::F32));
    let later = g.add(t, nine);
    let ramp = g.div(nine, later); // 1 − t / (t + 9)
    let (least, one) = (g.scalar((1.0 - decay) as f32), g.scalar(1.0));
    g.clip(ramp, least, one)
}

/// a + (b − a) · towards
fn lerp(g: &mut Graph, a: Var, b: Var, towards: Var) -> Var {
    let apart = g.sub(b, a);
    let change = g.mul(apart, towards);
    g.add(a, change)
}

/// x through dense layers, with LeakyReLU after each but the last; in training, given the masks of dropout (none where p
/// is 0) and p, in the form that is fast to differentiate.
///
/// `theta` is weight (I, O), bias (O,) for each layer; x is (B, I); the result is (B, O) of the last.
pub(crate) fn mlp(g: &mut Graph, theta: &[Var], x: Var, training: Option<(&[Var], f32)>) -> Var {
    let layers = theta.len() / 2;
    let mut x = x;
    for (i, layer) in theta.chunks(2).enumerate() {
        x = g.gemm(x, layer[0], Some(layer[1]), false, false);
        if i + 1 < layers {
            x = match training {
                Some((keep, p_drop)) => leaky_relu_dropout(g, x, keep.get(i).copied(), p_drop),
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

/// y = x · s.   dx = dy · s
///
/// LeakyReLU and dropout in one product, so that the backward pass is another: s is the operator [`SLOPES`]; its operations
/// alone for masks of f32, which are a GPU's; or, where `keep`, the mask of zeros and ones, is missing because p is 0, [`slope`].
/// Its factor is 10³⁸ x, clamped: half the time of a comparison and ONNX Runtime's `Where`, and the same number for all but
/// subnormal x.
fn leaky_relu_dropout(g: &mut Graph, x: Var, keep: Option<Var>, p_drop: f32) -> Var {
    let (low, high) = (SLOPE / (1.0 - p_drop), 1.0 / (1.0 - p_drop));
    let (low, high) = (g.scalar(low), g.scalar(high));
    let s = match keep {
        None => slope(g, x, low, high),
        Some(keep) if g.elem(keep) == Type::F32 => {
            let factor = slope(g, x, low, high);
            g.mul(factor, keep)
        }
        Some(keep) => {
            let inputs = [("x", x), ("keep", keep), ("low", low), ("high", high)];
            g.fused(SLOPES, &inputs, |g, inputs| {
                let &[x, keep, low, high] = inputs else { unreachable!() };
                let (factor, keep) = (slope(g, x, low, high), g.cast(keep, Type::F32));
                vec![("s", g.mul(factor, keep))]
            })[0]
        }
    };
    let s = g.detach(s);
    g.mul(x, s)
}

/// `high` where x > 0, else `low`.
fn slope(g: &mut Graph, x: Var, low: Var, high: Var) -> Var {
    let huge = g.scalar(HUGE);
    let steep = g.mul(x, huge);
    g.clip(steep, low, high)
}

const HUGE: f32 = 1e38;

/// The name of the operator whose inputs and output [`slopes`] has: the slope that dropout after LeakyReLU has at x.
pub const SLOPES: &str = "LeakyReluDropoutSlope";

/// The same operations as the operator's function, in one pass; x, the mask and s have one length.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub fn slopes(x: &[f32], keep: &[u8], low: f32, high: f32, s: &mut [f32]) {
    for ((s, x), &keep) in s.iter_mut().zip(x).zip(keep) {
        *s = (x * HUGE).clamp(low, high) * f32::from(keep);
    }
}

/// The dropout masks of one step, cut from the input `keep`: for each pass through a network, one (rows, units) mask
/// of zeros and ones for each hidden layer.
struct Masks {
    passes: [Vec<Var>; 4],
    p_drop: f32,
}

/// The passes of [`Masks`].
const D_ON_BOTH: usize = 0;
const D_ON_FAKE: usize = 1;
const G_FOR_D: usize = 2;
const G_FOR_G: usize = 3;

/// The shapes of [`Masks`].
fn masks_of(recipe: &Recipe, batch: usize) -> [Vec<Vec<usize>>; 4] {
    if recipe.p_drop == 0.0 {
        return Default::default();
    }
    let hidden = |sizes: &[usize], rows: usize| -> Vec<Vec<usize>> {
        sizes[1..sizes.len() - 1].iter().map(|&units| vec![rows, units]).collect()
    };
    let (d, g_for_g) = (recipe.d_sizes(), if recipe.one_z { vec![] } else { hidden(&G_SIZES, batch) });
    [hidden(&d, 2 * batch), hidden(&d, batch), hidden(&G_SIZES, batch), g_for_g]
}

impl Masks {
    fn new(g: &mut Graph, round: Option<(usize, Var)>, recipe: &Recipe, batch: usize, row: usize) -> Self {
        let p_drop = recipe.p_drop as f32;
        let passes = masks_of(recipe, batch);
        if row == 0 {
            return Self { passes: Default::default(), p_drop };
        }
        g.scope("dropout/");
        let shapes = passes.concat();
        let len = shapes.iter().map(|shape| shape[0] * shape[1]).sum();
        let mut keep = numbers(g, round, "keep", Type::U8, &[len], row);
        if round.is_some() {
            keep = g.cast(keep, Type::F32); // once, for it is a kernel for each mask otherwise
        }
        let mut masks = g.cut(keep, &shapes).into_iter();
        Self { passes: passes.map(|pass| masks.by_ref().take(pass.len()).collect()), p_drop }
    }

    /// What [`mlp`] wants to know of a pass.
    fn of(&self, pass: usize) -> Option<(&[Var], f32)> {
        Some((&self.passes[pass], self.p_drop))
    }
}
