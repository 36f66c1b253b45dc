//! The two networks, their losses, and the graph of one training step. B is the batch.

use multiversion::multiversion;

pub mod adam;

use crate::config::{BiasCorrected, CLASSES, G_SIZES, LATENT, PIXELS, Recipe};
use crate::graph::onnx::{self, Type};
use crate::graph::{Graph, Var};
use crate::state::{Spec, params, state_specs};

/// The slope of LeakyReLU below zero.
pub const SLOPE: f32 = 0.2;

/// What a step graph is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A CPU, where arithmetic and copies take the time: the state is a tensor for each parameter.
    Tensors,
    /// A GPU, where each operator is a kernel to launch, and the launches take the time: the state is a vector for all
    /// parameters of a network, which Adam takes in one go, and some sums are made for nothing if that saves operators.
    Vectors,
}

/// A tensor on the device that takes the steps, and the tensors that it is made of, one after the other.
#[derive(Clone, Debug)]
pub struct Block {
    pub whole: Spec,
    pub parts: Vec<Spec>,
}

impl Form {
    /// The tensors that hold a state, those of [`state_specs`] in their order.
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
    /// [`Recipe::rates`]; `pick`; `z`; the dropout masks. Each of the four is of one type. In [`Form::Vectors`] it is
    /// [`prepare`] that reads them, those of all steps of a round.
    pub fn feed(self, recipe: &Recipe, batch: usize) -> [Vec<Spec>; 4] {
        let rates = ["step_size", "epsilon", "towards"].map(|name| Spec::new(name, Type::F32, &[]));
        let pick = Spec::new("pick", Type::I64, &[batch]);
        let z = Spec::new("z", Type::F32, &[recipe.z_rows(batch), LATENT]);
        let elem = if self == Form::Tensors { Type::U8 } else { Type::Bool };
        [rates.into(), vec![pick], vec![z], named_by_pass("keep", elem, &masks_of(recipe, batch))]
    }

    /// The weights and biases of a network of these layer widths, out of the tensors that hold them.
    fn parameters(self, g: &mut Graph, held: &[Var], sizes: &[usize]) -> Vec<Var> {
        match self {
            Form::Tensors => held.to_vec(),
            Form::Vectors => {
                let shapes: Vec<Vec<usize>> = params("", sizes).into_iter().map(|spec| spec.shape).collect();
                g.unpack(held[0], &shapes)
            }
        }
    }

    /// The other way round, for what belongs to the weights and biases of a network.
    fn hold(self, g: &mut Graph, parameters: Vec<Var>) -> Vec<Var> {
        match self {
            Form::Tensors => parameters,
            Form::Vectors => vec![g.pack(&parameters)],
        }
    }
}

/// One training step as a model: `(state, batch) → (state', metrics)`; in [`Form::Vectors`] what of it is left between
/// [`prepare`] and [`metrics`].
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
    /// The step of `recipe` for batches of `batch` images out of a data set of `n`; with the R1 penalty where `penalised`.
    ///
    /// Inputs beside the state: `images` (n, 784) u8, the data set; `labels` (n,) u8, its classes (conditional recipes
    /// only); `pick` (B,) i64, this batch's rows of it; `z` (2B, 100) f32, first for the discriminator's update, then for
    /// the generator's, or (B, 100) for both; `step_size`, `epsilon` and `towards`, see [`Recipe::rates`]; the dropout masks
    /// (rows, units) u8 of each hidden layer (recipes with dropout only): `keep.d_on_both.fc1`, … of D on reals and fakes
    /// (2B), then `d_on_fake` of D on the generator's fakes, `g_for_d` of G for D's update, `g_for_g` for its own. The
    /// output beside the state is `metrics` (4,).
    ///
    /// In [`Form::Vectors`] the networks' parameters are inputs on their own as well, as parts of the vectors `d` and
    /// `g`. What [`prepare`] made of the other inputs stands in their place, and instead of `metrics` the outputs are
    /// the logits that [`metrics`] makes them of: see [`prepared`] and [`logits`].
    pub fn new(recipe: &Recipe, batch: usize, n: usize, penalised: bool, form: Form) -> Self {
        let g = &mut match form {
            Form::Tensors => Graph::default(),
            Form::Vectors => Graph::with_sums_by_gemm(),
        };
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
        g.scope("real/");
        let (rates, z, real, class_real, dropout) = match form {
            Form::Tensors => {
                let [rates, pick, z, keep] = feed.each_ref().map(|specs| inputs(g, specs));
                let images = g.input("images", Type::U8, &[n, PIXELS]);
                let real = g.gather(images, pick[0]);
                let real = unit(g, real);
                let class = recipe.conditional.then(|| one_hot(g, n, pick[0]));
                let masks = keep.iter().map(|&keep| Dropout::Mask { keep, p_drop: recipe.p_drop as f32 });
                (rates, z, real, class, by_pass(masks, &masks_of(recipe, batch)))
            }
            Form::Vectors => {
                let [rates, z, real, class, high, low] =
                    prepared(recipe, batch, 1).map(|block| inputs(g, &block.parts));
                let slopes = high.into_iter().zip(low).map(|(high, low)| Dropout::Slopes { high, low });
                (rates, z, real[0], class.first().copied(), by_pass(slopes, &slopes_of(recipe, batch)))
            }
        };
        let (at, towards, z) = (BiasCorrected { step_size: rates[0], epsilon: rates[1] }, rates[2], z[0]);
        let [d_on_both, d_on_fake, g_for_d, g_for_g] = &dropout;

        // G's two batches of fakes, one for each update; or one z serves both. On a GPU one pass makes both, and G's update
        // shows D both, though only the second's gradient is wanted: that is fewer kernels.
        g.scope("fakes/");
        let (fake_d, fake_g) = if recipe.shared_z {
            let fake = generate(g, &gen_, z, g_for_d);
            (fake, fake)
        } else if form == Form::Tensors {
            let (z_d, z_g) = (g.rows(z, 0, batch), g.rows(z, batch, 2 * batch));
            (generate(g, &gen_, z_d, g_for_d), generate(g, &gen_, z_g, g_for_g))
        } else {
            let both = generate(g, &gen_, z, g_for_d);
            (g.rows(both, 0, batch), both)
        };

        // D: reals have the target 1, or a little less, fakes 0.
        g.scope("d_update/");
        let fake = g.detach(fake_d); // this update is D's alone
        let class_fake = recipe.conditional.then(|| {
            let z_d = if recipe.shared_z { z } else { g.rows(z, 0, batch) };
            g.columns(z_d, 0, CLASSES) // (B, 10)
        });
        let mut penalty = None;
        let logits = if penalised {
            // R1 wants ∂D(x)/∂x of the reals alone.
            let on_real = discriminate(g, &d, real, class_real, &[]);
            let on_fake = discriminate(g, &d, fake, class_fake, &[]);
            penalty = Some(r1(g, on_real, real));
            g.concat_rows(on_real, on_fake)
        } else {
            let both = g.concat_rows(real, fake);
            let class = class_real.zip(class_fake).map(|(real, fake)| g.concat_rows(real, fake));
            discriminate(g, &d, both, class, d_on_both) // (2B, 1)
        };
        let target = g.constant("d_target", &[2 * batch, 1], &d_targets(recipe, batch));
        let d_loss = bce(g, logits, target);
        let d_loss = g.sum(d_loss, &[0, 1], false);
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
            let of_all_z = g.shape(fake_g)[0] == g.shape(z)[0];
            let z_g = if of_all_z { z } else { g.rows(z, batch, 2 * batch) };
            g.columns(z_g, 0, CLASSES)
        });
        let d_new: Vec<Var> = d_next.iter().map(|n| n.0).collect();
        let d_new = form.parameters(g, &d_new, &d_sizes);
        let judged = discriminate(g, &d_new, fake_g, class_fake, d_on_fake); // (B, 1), or (2B, 1)
        let one = g.scalar(1.0);
        let mut g_loss = bce(g, judged, one);
        let rows = g.shape(judged)[0];
        if rows > batch {
            let wanted = g.constant("wanted", &[rows, 1], &last_of(rows, batch));
            g_loss = g.mul(g_loss, wanted);
        }
        let g_loss = g.sum(g_loss, &[0, 1], false);
        let g_loss = g.div_by(g_loss, batch as f32);
        let g_grad = g.grad(g_loss, &gen_);
        g.scope("g_adam/");
        let g_grad = form.hold(g, g_grad);
        let (m, v) = (&m[d_held..], &v[d_held..]);
        let g_next: Vec<_> =
            (0..g_held).map(|i| recipe.adam.update(g, at, g_theta[i], m[i], v[i], g_grad[i])).collect();
        g.scope("ema/");
        let ema_next: Vec<Var> = ema.iter().zip(&g_next).map(|(&old, &(new, ..))| lerp(g, old, new, towards)).collect();

        let next = d_next.iter().chain(&g_next);
        let next = next.clone().map(|n| n.0).chain(next.clone().map(|n| n.1)).chain(next.map(|n| n.2)).chain(ema_next);
        let mut outputs: Vec<(Var, String)> =
            next.zip(&blocks).map(|(v, block)| (v, format!("next.{}", block.whole.name))).collect();
        g.scope("metrics/");
        if form == Form::Tensors {
            let probability = g.sigmoid(logits);
            let halves = g.constant("halves", &[2, 2 * batch], &halves(batch, 1.0 / batch as f32));
            let means = g.gemm(halves, probability, None, false, false); // (2, 1), of reals and of fakes
            outputs.push((g.pack(&[d_loss, g_loss, means]), "metrics".into()));
        } else {
            outputs.extend([(logits, "d_logits".into()), (judged, "g_logits".into())]);
        }
        let model = g.to_model(&format!("{}_step", recipe.name), &outputs, None);
        Self { model, form, batch, penalised, feed }
    }
}

/// What [`prepare`] makes for a round of `slots` steps of [`Form::Vectors`], with parts for each slot: `step_size`,
/// `epsilon` and `towards`; `z`; the images `real` (B, 784) in [-1, 1]; `class` (B, 10), theirs as one-hot
/// (conditional recipes only); and for each hidden layer of each pass with dropout `high.d_on_both.fc1`, …, what
/// LeakyReLU and dropout multiply a number above 0 by, and `low.`, any other.
pub fn prepared(recipe: &Recipe, batch: usize, slots: usize) -> [Block; 6] {
    let rows = |name: &str, rows: usize, columns: usize| Block {
        whole: Spec::new(name, Type::F32, &[slots * rows, columns]),
        parts: vec![Spec::new(name, Type::F32, &[rows, columns])],
    };
    let [parts, ..] = Form::Vectors.feed(recipe, batch);
    let rates = Block { whole: Spec::new("rates", Type::F32, &[slots, parts.len()]), parts };
    let z = rows("z", recipe.z_rows(batch), LATENT);
    let none = |name: &str| Block { whole: Spec::new(name, Type::F32, &[slots, 0]), parts: vec![] };
    let slopes = |side: &str| {
        let parts = named_by_pass(side, Type::F32, &slopes_of(recipe, batch));
        let len = parts.iter().map(Spec::len).sum();
        Block { whole: Spec::new(side, Type::F32, &[slots, len]), parts }
    };
    let class = if recipe.conditional { rows("class", batch, CLASSES) } else { none("class") };
    [rates, z, rows("real", batch, PIXELS), class, slopes("high"), slopes("low")]
}

/// The logits that a step of [`Form::Vectors`] leaves for [`metrics`]: D's of reals and fakes `d_logits` (2B, 1), and the new
/// D's of fakes `g_logits`, of which the last B count.
pub fn logits(recipe: &Recipe, batch: usize, slots: usize) -> [Block; 2] {
    [("d_logits", 2 * batch), ("g_logits", recipe.z_rows(batch))].map(|(name, rows)| Block {
        whole: Spec::new(name, Type::F32, &[slots, rows]),
        parts: vec![Spec::new(name, Type::F32, &[rows, 1])],
    })
}

/// What steps of [`Form::Vectors`] need that does not depend on the state, for all `slots` of a round at once, which
/// takes a GPU hardly longer than for one: the blocks of [`prepared`] that are not empty, out of `images` (n, 784) f32
/// in [-1, 1], `labels` (n,) u8, and what a round is fed: `fed_rates` (slots, 3), `pick` (slots · B,) i64, `fed_z`
/// (slots · rows, 100) and the dropout masks `keep` (slots, numbers) bool, one after the other in the order of
/// [`Form::feed`]. Rates and z are copied, so that the next round can be fed while this one's steps are taken.
pub fn prepare(recipe: &Recipe, batch: usize, n: usize, slots: usize) -> onnx::Model {
    let g = &mut Graph::default();
    let pick = g.input("pick", Type::I64, &[slots * batch]);
    let images = g.input("images", Type::F32, &[n, PIXELS]);
    let [rates, z, ..] = prepared(recipe, batch, slots).map(|block| block.whole);
    let copied = [rates, z].map(|spec| (g.input(&format!("fed_{}", spec.name), spec.elem, &spec.shape), spec.name));
    let mut outputs = vec![(g.gather(images, pick), "real".to_string())];
    outputs.extend(copied);
    if recipe.conditional {
        outputs.push((one_hot(g, n, pick), "class".into()));
    }
    if recipe.p_drop > 0.0 {
        let masks = masks_of(recipe, batch);
        let widths: Vec<usize> = masks.iter().flatten().map(|[rows, units]| rows * units).collect();
        let keep = g.input("keep", Type::Bool, &[slots, widths.iter().sum()]);
        let mut pieces = by_pass(g.split_columns(keep, &widths), &masks);
        // Where a network is shown two batches at once, their masks stand side by side. In G's update, D's for the first batch
        // of fakes, whose loss counts nothing, may be any.
        let [d_on_both, d_on_fake, g_for_d, g_for_g] = &mut pieces;
        if !recipe.shared_z {
            for (both, fake) in d_on_both.iter().zip(d_on_fake) {
                let any = g.columns(*both, 0, g.shape(*fake)[1]);
                *fake = g.concat_columns(&[any, *fake]);
            }
            for (for_d, for_g) in g_for_d.iter_mut().zip(g_for_g.drain(..)) {
                *for_d = g.concat_columns(&[*for_d, for_g]);
            }
        }
        let keep = g.concat_columns(&pieces.concat());
        let zero = g.scalar(0.0);
        for (side, slope) in ["low", "high"].into_iter().zip(leaky_slopes(recipe.p_drop as f32)) {
            let slope = g.scalar(slope);
            outputs.push((g.r#where(keep, slope, zero), side.into()));
        }
    }
    g.to_model("prepare", &outputs, None)
}

/// The metrics (slots, 4) of a round's steps, in the order of [`METRICS`], out of the blocks of [`logits`].
pub fn metrics(recipe: &Recipe, batch: usize, slots: usize) -> onnx::Model {
    let g = &mut Graph::default();
    let [d_logits, g_logits] =
        logits(recipe, batch, slots).map(|block| g.input(&block.whole.name, Type::F32, &block.whole.shape));
    let target = g.constant("d_target", &[slots, 2 * batch], &d_targets(recipe, batch).repeat(slots));
    let d_loss = bce(g, d_logits, target);
    let one = g.scalar(1.0);
    let g_loss = bce(g, g_logits, one);
    let probability = g.sigmoid(d_logits);
    // Sums by products with ones, which TF32 does not round.
    let ones = g.constant("all", &[2 * batch, 1], &vec![1.0; 2 * batch]);
    let rows = g.shape(g_logits)[1];
    let last = g.constant("last", &[rows, 1], &last_of(rows, batch));
    let halves = g.constant("halves", &[2, 2 * batch], &halves(batch, 1.0));
    let sums = [(d_loss, ones, false), (g_loss, last, false), (probability, halves, true)];
    let sums = sums.map(|(x, weights, transposed)| g.gemm(x, weights, None, false, transposed));
    let sums = g.concat_columns(&sums);
    let metrics = g.div_by(sums, batch as f32);
    g.to_model("metrics", &[(metrics, "metrics".into())], None)
}

/// D's targets for B reals and B fakes.
fn d_targets(recipe: &Recipe, batch: usize) -> Vec<f32> {
    (0..2 * batch).map(|row| if row < batch { recipe.real_target as f32 } else { 0.0 }).collect()
}

/// A matrix (2, 2B) of which one row has `x` for the first B columns, the other for the rest, and 0 elsewhere.
fn halves(batch: usize, x: f32) -> Vec<f32> {
    (0..4 * batch).map(|i| if i / batch % 2 == i / (2 * batch) { x } else { 0.0 }).collect()
}

/// Ones for the last `count` of `rows`, zeros for the others.
fn last_of(rows: usize, count: usize) -> Vec<f32> {
    (0..rows).map(|row| f32::from(u8::from(row >= rows - count))).collect()
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
fn generate(g: &mut Graph, theta: &[Var], z: Var, dropout: &[Dropout]) -> Var {
    let last = mlp(g, theta, z, Some(dropout));
    g.tanh(last)
}

/// The logit (B, 1) that images (B, 784) are real; with `class` (B, 10) as one-hot, the one of the ten that it picks.
fn discriminate(g: &mut Graph, d: &[Var], x: Var, class: Option<Var>, dropout: &[Dropout]) -> Var {
    let logits = mlp(g, d, x, Some(dropout));
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

/// Rows `pick` (B,) of the input `labels` (n,) as one-hot (B, 10).
fn one_hot(g: &mut Graph, n: usize, pick: Var) -> Var {
    let labels = g.input("labels", Type::U8, &[n]);
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

/// x through dense layers, with LeakyReLU after each but the last; in training, given each one's dropout (none where p is 0),
/// in the form that is fast to differentiate.
///
/// `theta` is weight (I, O), bias (O,) for each layer; x is (B, I); the result is (B, O) of the last.
fn mlp(g: &mut Graph, theta: &[Var], x: Var, training: Option<&[Dropout]>) -> Var {
    let layers = theta.len() / 2;
    let mut x = x;
    for (i, layer) in theta.chunks(2).enumerate() {
        x = g.gemm(x, layer[0], Some(layer[1]), false, false);
        if i + 1 < layers {
            x = match training {
                Some(dropout) => leaky_relu_dropout(g, x, dropout.get(i)),
                None => g.leaky_relu(x, SLOPE),
            };
        }
    }
    x
}

/// The binary cross-entropy of each logit against its target: softplus(logit) − logit · target.
fn bce(g: &mut Graph, logit: Var, target: Var) -> Var {
    let (softplus, hit) = (g.softplus(logit), g.mul(logit, target));
    g.sub(softplus, hit)
}

/// The dropout of one layer of one pass, on top of LeakyReLU.
#[derive(Clone, Copy)]
enum Dropout {
    /// A mask of zeros and ones as u8, and p.
    Mask { keep: Var, p_drop: f32 },
    /// See [`prepared`].
    Slopes { high: Var, low: Var },
}

/// The slopes of LeakyReLU at and below 0, and above, where dropout of probability p keeps a number.
fn leaky_slopes(p_drop: f32) -> [f32; 2] {
    [SLOPE, 1.0].map(|slope| slope / (1.0 - p_drop))
}

/// y = x · s.   dx = dy · s
///
/// LeakyReLU and dropout in one product, so that the backward pass is another. s is one of two slopes at each number where
/// these are given; else the operator [`SLOPES`], or [`slope`] where p is 0. Its factor is 10³⁸ x, clamped: half the time of a
/// comparison and ONNX Runtime's `Where` on a CPU, and the same number for all but subnormal x.
fn leaky_relu_dropout(g: &mut Graph, x: Var, dropout: Option<&Dropout>) -> Var {
    let s = match dropout {
        None => {
            let [low, high] = leaky_slopes(0.0).map(|slope| g.scalar(slope));
            slope(g, x, low, high)
        }
        Some(&Dropout::Slopes { high, low }) => {
            let zero = g.scalar(0.0);
            let positive = g.greater(x, zero);
            g.r#where(positive, high, low)
        }
        Some(&Dropout::Mask { keep, p_drop }) => {
            let [low, high] = leaky_slopes(p_drop).map(|slope| g.scalar(slope));
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

/// The passes through a network in which a step has dropout, of G and D each for D's update and for G's.
const PASSES: [&str; 4] = ["d_on_both", "d_on_fake", "g_for_d", "g_for_g"];

/// For each of the [`PASSES`] the shapes (rows, units) of the masks of its hidden layers.
fn masks_of(recipe: &Recipe, batch: usize) -> [Vec<[usize; 2]>; 4] {
    let g_for_g = if recipe.shared_z { 0 } else { batch };
    hidden_shapes(recipe, [2 * batch, batch, batch, g_for_g])
}

/// The same in [`Form::Vectors`], where one pass of G makes all fakes, and D is shown them all in G's update.
fn slopes_of(recipe: &Recipe, batch: usize) -> [Vec<[usize; 2]>; 4] {
    let fakes = recipe.z_rows(batch);
    hidden_shapes(recipe, [2 * batch, fakes, fakes, 0])
}

/// `name.d_on_both.fc1`, … of these shapes.
fn named_by_pass(name: &str, elem: Type, shapes: &[Vec<[usize; 2]>; 4]) -> Vec<Spec> {
    let layers = PASSES.iter().zip(shapes).flat_map(|(pass, shapes)| shapes.iter().zip(1..).map(move |of| (pass, of)));
    layers.map(|(pass, (shape, i))| Spec::new(format!("{name}.{pass}.fc{i}"), elem, shape)).collect()
}

/// What belongs to the layers of these shapes, one after the other.
fn by_pass<T>(all: impl IntoIterator<Item = T>, shapes: &[Vec<[usize; 2]>; 4]) -> [Vec<T>; 4] {
    let mut all = all.into_iter();
    shapes.each_ref().map(|pass| all.by_ref().take(pass.len()).collect())
}

/// The shapes of the hidden layers in passes of so many rows: none without dropout, or in a pass of no rows.
fn hidden_shapes(recipe: &Recipe, rows: [usize; 4]) -> [Vec<[usize; 2]>; 4] {
    let d = recipe.d_sizes();
    let sizes = [&d[..], &d, &G_SIZES, &G_SIZES];
    [0, 1, 2, 3].map(|pass| {
        let units = &sizes[pass][1..sizes[pass].len() - 1];
        let has_dropout = recipe.p_drop > 0.0 && rows[pass] > 0;
        units.iter().filter(|_| has_dropout).map(|&units| [rows[pass], units]).collect()
    })
}
