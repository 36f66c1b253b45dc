//! The two networks, their losses, and the graph of one training step. B is the batch.

use multiversion::multiversion;
use serde::{Deserialize, Serialize};

use crate::adam::{Adam, AtStep};
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

    /// Adam's step size and ε (see [`Adam::at_step`]) in a step, counted from 0, of a run of `steps`, and how far the moving
    /// average goes towards the parameters: 1 − `ema`, and more in the first steps, so that it forgets where it began.
    pub fn rates(&self, step: u64, steps: u64) -> [f32; 3] {
        let t = step + 1;
        let AtStep { step_size, epsilon } = self.adam.at_step(t, steps);
        let ramp = 9.0 / (t as f32 + 9.0); // 1 − t / (t + 9)
        [step_size, epsilon, ramp.clamp((1.0 - self.ema) as f32, 1.0)]
    }

    /// What stands before the names of those parameters of [`state_specs`] that are sampled, scored and exported.
    pub fn best(&self) -> &'static str {
        if self.ema > 0.0 { "ema." } else { "" }
    }
}

/// A named tensor that a step graph reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub name: String,
    pub elem: Type,
    pub shape: Vec<usize>,
}

impl Spec {
    pub fn new(name: impl Into<String>, elem: Type, shape: &[usize]) -> Self {
        Self { name: name.into(), elem, shape: shape.into() }
    }

    pub fn bytes(&self) -> usize {
        self.len() * self.elem.size()
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
/// m and second moments v of each (`m.g.fc1.weight`), and the moving average of the generator's (`ema.g.fc1.weight`)
/// where the recipe has one.
pub fn state_specs(recipe: &Recipe) -> Vec<Spec> {
    let (d, g) = (params("d", &recipe.d_sizes()), params("g", &G_SIZES));
    let theta = [d, g.clone()].concat();
    let named = |kind: &str, of: &[Spec]| -> Vec<Spec> {
        of.iter().map(|s| Spec { name: format!("{kind}.{}", s.name), ..s.clone() }).collect()
    };
    let (m, v) = (named("m", &theta), named("v", &theta));
    let ema = if recipe.ema > 0.0 { named("ema", &g) } else { vec![] };
    [theta, m, v, ema].concat()
}

/// What a step graph is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A CPU, where arithmetic and copies take the time: the state is a tensor for each parameter.
    Tensors,
    /// A GPU, where each operator is a kernel to launch, and the launches take the time: the state is a vector for all
    /// parameters of a network, which Adam takes in one go, and some sums are made for nothing if that saves operators.
    Vectors,
}

/// A tensor that holds a part of the state on the device that takes the steps.
#[derive(Clone, Debug)]
pub struct Block {
    pub whole: Spec,
    /// Those of [`state_specs`] that it holds, in their order.
    pub parts: Vec<Spec>,
}

impl Form {
    /// The tensors that hold a state, in the order of [`state_specs`].
    pub fn blocks(self, recipe: &Recipe) -> Vec<Block> {
        let specs = state_specs(recipe);
        let network = |spec: &Spec| spec.name.split(".fc").next().unwrap_or_default().to_string();
        let vector = |parts: &[Spec]| {
            let len = parts.iter().map(Spec::len).sum();
            Block { whole: Spec::new(network(&parts[0]), Type::F32, &[len]), parts: parts.to_vec() }
        };
        match self {
            Form::Tensors => specs.into_iter().map(|spec| Block { whole: spec.clone(), parts: vec![spec] }).collect(),
            Form::Vectors => specs.chunk_by(|a, b| network(a) == network(b)).map(vector).collect(),
        }
    }

    /// What a step of `batch` images is fed beside the state and the data set, see [`StepGraph::new`]: the numbers of
    /// [`Recipe::rates`]; `pick`; `z`; the dropout masks. Each of the four is of one type.
    pub fn feed(self, recipe: &Recipe, batch: usize) -> [Vec<Spec>; 4] {
        let rates = ["step_size", "epsilon", "towards"].map(|name| Spec::new(name, Type::F32, &[]));
        let pick = Spec::new("pick", Type::I64, &[batch]);
        let z = Spec::new("z", Type::F32, &[recipe.z_rows(batch), LATENT]);
        let elem = if self == Form::Tensors { Type::U8 } else { Type::Bool };
        let of_pass = |(shapes, pass): (Vec<[usize; 2]>, &str)| -> Vec<Spec> {
            let named = |(i, shape): (usize, &[usize; 2])| Spec::new(format!("keep.{pass}.fc{i}"), elem, shape);
            (1..).zip(&shapes).map(named).collect()
        };
        let masks = masks_of(recipe, batch).into_iter().zip(PASSES).flat_map(of_pass);
        [rates.into(), vec![pick], vec![z], masks.collect()]
    }

    /// The weights and biases of a network of these layer widths, out of the tensors that hold them.
    fn parameters(self, g: &mut Graph, held: &[Var], sizes: &[usize]) -> Vec<Var> {
        match self {
            Form::Tensors => held.to_vec(),
            Form::Vectors => {
                let shapes: Vec<Vec<usize>> = params("", sizes).into_iter().map(|spec| spec.shape).collect();
                g.cut(held[0], &shapes)
            }
        }
    }

    /// The other way round, for what belongs to the weights and biases of a network.
    fn hold(self, g: &mut Graph, parameters: Vec<Var>) -> Vec<Var> {
        match self {
            Form::Tensors => parameters,
            Form::Vectors => vec![g.join(&parameters)],
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
    /// [`Form::feed`].
    pub feed: [Vec<Spec>; 4],
}

impl StepGraph {
    /// The values of output `metrics`, in order.
    pub const METRICS: [&str; 4] = ["d_loss", "g_loss", "d_real", "d_fake"];

    /// The step of `recipe` for batches of `batch` images out of a data set of `n`; with the R1 penalty where `penalised`.
    ///
    /// Inputs beside the state: `images` (n, 784) u8, the data set; `labels` (n,) u8, its classes (conditional recipes
    /// only); `pick` (B,) i64, this batch's rows of it; `z` (2B, 100) f32, first for the discriminator's update, then for
    /// the generator's, or (B, 100) for both; `step_size`, `epsilon` and `towards`, see [`Recipe::rates`]; the dropout masks
    /// (rows, units) u8 of each hidden layer (recipes with dropout only): `keep.d_on_both.fc1`, … of D on reals and fakes
    /// (2B), then `d_on_fake` of D on the generator's fakes, `g_for_d` of G for D's update, `g_for_g` for its own. The
    /// output beside the state is `metrics` (4,).
    ///
    /// In [`Form::Vectors`] the networks' parameters are inputs on their own as well, as parts of the vectors `d` and `g`;
    /// `images` are f32 in [-1, 1], and the masks bool.
    pub fn new(recipe: &Recipe, batch: usize, n: usize, penalised: bool, form: Form) -> Self {
        let g = &mut Graph::default();
        g.sums_by_gemm = form == Form::Vectors;
        let inputs = |g: &mut Graph, specs: &[Spec]| -> Vec<Var> {
            specs.iter().map(|spec| g.input(&spec.name, spec.elem, &spec.shape)).collect()
        };
        let (d_sizes, blocks) = (recipe.d_sizes(), form.blocks(recipe));
        let state: Vec<Var> = blocks.iter().flat_map(|block| inputs(g, std::slice::from_ref(&block.whole))).collect();
        let held = |sizes: &[usize]| if form == Form::Tensors { 2 * (sizes.len() - 1) } else { 1 };
        let (d_held, g_held) = (held(&d_sizes), held(&G_SIZES));
        let (theta, rest) = state.split_at(d_held + g_held);
        let (m, rest) = rest.split_at(theta.len());
        let (v, ema) = rest.split_at(theta.len());
        let (d_theta, g_theta) = theta.split_at(d_held);
        let [d, gen_] = match form {
            Form::Tensors => [d_theta.to_vec(), g_theta.to_vec()],
            Form::Vectors => [params("d", &d_sizes), params("g", &G_SIZES)].map(|specs| inputs(g, &specs)),
        };

        let feed = form.feed(recipe, batch);
        let [rates, pick, z, keep] = feed.each_ref().map(|specs| inputs(g, specs));
        let (at, towards) = (AtStep { step_size: rates[0], epsilon: rates[1] }, rates[2]);
        let (pick, z) = (pick[0], z[0]);
        let masks = Masks::new(&keep, recipe, batch);

        g.scope("real/");
        let images = g.input("images", if form == Form::Tensors { Type::U8 } else { Type::F32 }, &[n, PIXELS]);
        let mut real = g.gather(images, pick); // (B, 784)
        if form == Form::Tensors {
            real = unit(g, real);
        }

        // G's two batches of fakes, one for each update; or one z serves both.
        g.scope("fakes/");
        let (fake_d, fake_g) = if recipe.one_z {
            let fake = generate(g, &gen_, z, masks.of(G_FOR_D));
            (fake, fake)
        } else if form == Form::Tensors {
            let (z_d, z_g) = (g.rows(z, 0, batch), g.rows(z, batch, 2 * batch));
            (generate(g, &gen_, z_d, masks.of(G_FOR_D)), generate(g, &gen_, z_g, masks.of(G_FOR_G)))
        } else {
            // One pass for both: its kernels are half as many, though half the sums of its backward pass are of zeros.
            let ((for_d, p_drop), (for_g, _)) = (masks.of(G_FOR_D), masks.of(G_FOR_G));
            let keep: Vec<Var> = for_d.iter().zip(for_g).map(|(&a, &b)| g.concat_rows(a, b)).collect();
            let both = generate(g, &gen_, z, (&keep, p_drop));
            (g.rows(both, 0, batch), g.rows(both, batch, 2 * batch))
        };

        // D: reals have the target 1, or a little less, fakes 0.
        g.scope("d_update/");
        let fake = g.detach(fake_d); // this update is D's alone
        let class = recipe.conditional.then(|| {
            let labels = g.input("labels", Type::U8, &[n]);
            let z_d = if recipe.one_z { z } else { g.rows(z, 0, batch) };
            [one_hot(g, labels, pick), g.columns(z_d, 0, CLASSES)] // (B, 10) each
        });
        let (class_real, class_fake) = (class.map(|c| c[0]), class.map(|c| c[1]));
        let mut penalty = None;
        let logits = if penalised {
            // R1 wants ∂D(x)/∂x of the reals alone.
            let on_real = discriminate(g, &d, real, class_real, None);
            let on_fake = discriminate(g, &d, fake, class_fake, None);
            penalty = Some(r1(g, on_real, real));
            g.concat_rows(on_real, on_fake)
        } else {
            let both = g.concat_rows(real, fake);
            let class = class.map(|[real, fake]| g.concat_rows(real, fake));
            discriminate(g, &d, both, class, Some(masks.of(D_ON_BOTH))) // (2B, 1)
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
        let d_grad = g.grad(objective, &d);
        g.scope("d_adam/");
        let d_grad = form.hold(g, d_grad);
        let d_next: Vec<_> =
            (0..d_held).map(|i| recipe.adam.update(g, at, d_theta[i], m[i], v[i], d_grad[i])).collect();

        // G: its fakes have the target 1 (the flipped label) in the eyes of the new D.
        g.scope("g_update/");
        let class_fake = recipe.conditional.then(|| {
            let z_g = if recipe.one_z { z } else { g.rows(z, batch, 2 * batch) };
            g.columns(z_g, 0, CLASSES)
        });
        let d_new: Vec<Var> = d_next.iter().map(|n| n.0).collect();
        let d_new = form.parameters(g, &d_new, &d_sizes);
        let judged = discriminate(g, &d_new, fake_g, class_fake, Some(masks.of(D_ON_FAKE))); // (B, 1)
        let one = g.scalar(1.0);
        let g_loss = bce_sum(g, judged, one);
        let g_loss = g.div_by(g_loss, batch as f32);
        let g_grad = g.grad(g_loss, &gen_);
        g.scope("g_adam/");
        let g_grad = form.hold(g, g_grad);
        let (m, v) = (&m[d_held..], &v[d_held..]);
        let g_next: Vec<_> =
            (0..g_held).map(|i| recipe.adam.update(g, at, g_theta[i], m[i], v[i], g_grad[i])).collect();
        g.scope("ema/");
        let ema_next: Vec<Var> = ema.iter().zip(&g_next).map(|(&old, &(new, ..))| lerp(g, old, new, towards)).collect();

        g.scope("metrics/");
        let probability = g.sigmoid(logits);
        let of_half = |i: usize| if i / batch % 2 == i / (2 * batch) { 1.0 / batch as f32 } else { 0.0 };
        let halves = g.constant("halves", &[2, 2 * batch], &(0..4 * batch).map(of_half).collect::<Vec<_>>());
        let means = g.gemm(halves, probability, None, false, false); // (2, 1), of reals and of fakes
        let metrics = g.join(&[d_loss, g_loss, means]);

        let next = d_next.iter().chain(&g_next);
        let next = next.clone().map(|n| n.0).chain(next.clone().map(|n| n.1)).chain(next.map(|n| n.2)).chain(ema_next);
        let mut outputs: Vec<(Var, String)> =
            next.zip(&blocks).map(|(v, block)| (v, format!("next.{}", block.whole.name))).collect();
        outputs.push((metrics, "metrics".into()));
        let model = g.to_model(&format!("{}_step", recipe.name), &outputs, None);
        Self { model, form, batch, penalised, feed }
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

/// Grey levels (B, 784), 0 to 255, as the networks see them: -1 to 1.
fn unit(g: &mut Graph, images: Var) -> Var {
    let images = g.cast(images, Type::F32);
    let images = g.div_by(images, 127.5);
    let one = g.scalar(1.0);
    g.sub(images, one)
}

/// Images (B, 784) of z (B, 100), in training.
fn generate(g: &mut Graph, theta: &[Var], z: Var, dropout: (&[Var], f32)) -> Var {
    let last = mlp(g, theta, z, Some(dropout));
    g.tanh(last)
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
/// alone for masks of bools, which are a GPU's; or, where `keep`, the mask of zeros and ones, is missing because p is 0, [`slope`].
/// Its factor is 10³⁸ x, clamped: half the time of a comparison and ONNX Runtime's `Where`, and the same number for all but
/// subnormal x.
fn leaky_relu_dropout(g: &mut Graph, x: Var, keep: Option<Var>, p_drop: f32) -> Var {
    let (low, high) = (SLOPE / (1.0 - p_drop), 1.0 / (1.0 - p_drop));
    let (low, high) = (g.scalar(low), g.scalar(high));
    let s = match keep {
        None => slope(g, x, low, high),
        Some(keep) if g.elem(keep) == Type::Bool => {
            let (factor, zero) = (slope(g, x, low, high), g.scalar(0.0));
            g.r#where(keep, factor, zero)
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

/// The dropout masks of one step: for each pass through a network, one (rows, units) mask for each hidden layer.
struct Masks<'a> {
    passes: [&'a [Var]; 4],
    p_drop: f32,
}

/// The passes of [`Masks`].
const PASSES: [&str; 4] = ["d_on_both", "d_on_fake", "g_for_d", "g_for_g"];
const D_ON_BOTH: usize = 0;
const D_ON_FAKE: usize = 1;
const G_FOR_D: usize = 2;
const G_FOR_G: usize = 3;

/// The shapes of [`Masks`].
fn masks_of(recipe: &Recipe, batch: usize) -> [Vec<[usize; 2]>; 4] {
    if recipe.p_drop == 0.0 {
        return Default::default();
    }
    let hidden = |sizes: &[usize], rows: usize| -> Vec<[usize; 2]> {
        sizes[1..sizes.len() - 1].iter().map(|&units| [rows, units]).collect()
    };
    let (d, g_for_g) = (recipe.d_sizes(), if recipe.one_z { vec![] } else { hidden(&G_SIZES, batch) });
    [hidden(&d, 2 * batch), hidden(&d, batch), hidden(&G_SIZES, batch), g_for_g]
}

impl<'a> Masks<'a> {
    /// `keep`: one pass's after the other.
    fn new(keep: &'a [Var], recipe: &Recipe, batch: usize) -> Self {
        let mut rest = keep;
        let passes = masks_of(recipe, batch).map(|shapes| {
            let (pass, others) = rest.split_at(shapes.len());
            rest = others;
            pass
        });
        Self { passes, p_drop: recipe.p_drop as f32 }
    }

    /// What [`mlp`] wants to know of a pass.
    fn of(&self, pass: usize) -> (&'a [Var], f32) {
        (self.passes[pass], self.p_drop)
    }
}
