//! Training steps for a GPU: a block of steps in three graphs, with one vector per network.
//!
//! On a GPU each operator is a kernel launch, and the launches take the time. Work that does not depend on the training
//! state moves out of the step and is done for all steps of a block at once:
//!
//! ```text
//! prepare    once a block    all batches, z, rates and dropout slopes of the block
//! step       once a step     losses, gradients, Adam; leaves the logits
//! metrics    once a block    losses and probabilities from the logits of all steps
//! ```
//!
//! For the seed recipe a step takes 127 kernels, and `prepare` and `metrics` take 28 together.
//!
//! Some arithmetic is redundant, to save operators: one pass of G makes the fakes of both updates, and if they
//! have separate z, D' sees 2B fakes of which the loss counts B. [`ort::gpu`](crate::ort::gpu) runs the three graphs.

use crate::config::{BiasCorrected, LATENT, PIXELS, Recipe};
use crate::gan::dropout::{Dropout, Passes, leaky_slopes};
use crate::gan::inputs::{StepKind, declare, host_inputs, one_hot};
use crate::gan::layout::{PackedTensor, ParamLayout, StateVars};
use crate::gan::update::{Latents, UpdateInputs, bce, d_targets, halves, last_ones, update};
use crate::graph::Graph;
use crate::graph::onnx::{Model, Type};
use crate::state::Spec;

/// The model of one step between [`prepare`] and [`metrics`].
///
/// Inputs: the state as one vector per network, see [`ParamLayout::Flat`]; the parameters again as separate tensors,
/// which the caller binds to parts of the vectors; and one step's part of the tensors of [`prepared`]. Outputs: the
/// state under its names with `next.` before them, and one step's part of the tensors of [`logits`].
pub fn step_graph(recipe: &Recipe, kind: StepKind) -> Model {
    let StepKind { batch, with_r1 } = kind;
    let g = &mut Graph::with_sums_by_gemm();
    let state = StateVars::inputs(g, recipe, ParamLayout::Flat);
    g.scope("real/");
    let [rates, z, real, class, positive, negative] =
        prepared(recipe, batch, 1).map(|tensor| declare(g, &tensor.parts));
    let slopes = positive.into_iter().zip(negative).map(|(positive, negative)| Dropout::Slopes { positive, negative });
    let dropout = Passes::one_pass_shapes(recipe, batch).group(slopes);
    let z = if recipe.shared_z { Latents::Shared(z[0]) } else { Latents::OnePass(z[0]) };
    let adam = BiasCorrected { step_size: rates[0], epsilon: rates[1] };
    let class = class.first().copied();
    let inputs = UpdateInputs { adam, ema_rate: rates[2], real: real[0], class, z, dropout };
    let update = update(g, recipe, &state, &inputs, with_r1);
    let mut outputs = update.next.outputs(recipe);
    outputs.extend([(update.d_logits, "d_logits".into()), (update.g_logits, "g_logits".into())]);
    g.to_model(&format!("{}_step", recipe.name), &outputs, None)
}

/// The model of everything in a block of `steps` steps that does not depend on the training state. For a GPU this takes
/// hardly longer than for one step.
///
/// | inputs, for all steps one after the other | |
/// |---|---|
/// | `host_rates` (steps, 3) f32, `host_z` (steps · rows, 100) f32 | copied: the host may write the next block |
/// | `indices` (steps · B,) i64 | rows of the data set |
/// | `dropout_mask` (steps, numbers) bool | each step's masks, in the order of the CPU graph's inputs |
/// | `images` (n, 784) f32 as D sees them, `labels` (n,) u8 | the data set; labels for class-conditional recipes only |
///
/// Outputs: the tensors of [`prepared`] that have parts.
pub fn prepare(recipe: &Recipe, batch: usize, n: usize, steps: usize) -> Model {
    let g = &mut Graph::default();
    let inputs = declare(g, &host_tensors(recipe, batch, steps));
    let &[rates, indices, z, masks] = &inputs[..] else { unreachable!() };
    let images = g.input("images", Type::F32, &[n, PIXELS]);
    let mut outputs = vec![(g.gather(images, indices), "real".to_string())];
    outputs.extend([(rates, "rates".into()), (z, "z".into())]);
    if let Some(classes) = recipe.one_hot() {
        outputs.push((one_hot(g, n, indices, classes), "class".into()));
    }
    if recipe.p_drop > 0.0 {
        let shapes = Passes::mask_shapes(recipe, batch);
        let mut masks = shapes.group(g.split_columns(masks, &shapes.lens()));
        if !recipe.shared_z {
            // One pass over two batches has their masks side by side. D's loss ignores the first batch of fakes in G's
            // update, so that any mask will do for that one.
            for (fake, both) in masks.d_on_fake.iter_mut().zip(&masks.d_on_both) {
                let any = g.columns(*both, 0, g.shape(*fake)[1]);
                *fake = g.concat_axis1(&[any, *fake]);
            }
            for (for_d, for_g) in masks.g_for_d.iter_mut().zip(masks.g_for_g.drain(..)) {
                *for_d = g.concat_axis1(&[*for_d, for_g]);
            }
        }
        let masks = [masks.d_on_both, masks.d_on_fake, masks.g_for_d].concat();
        let masks = g.concat_axis1(&masks);
        let zero = g.scalar(0.0);
        let slopes = leaky_slopes(recipe.p_drop as f32);
        for (name, slope) in ["negative_slope", "positive_slope"].into_iter().zip(slopes) {
            let slope = g.scalar(slope);
            outputs.push((g.r#where(masks, slope, zero), name.into()));
        }
    }
    g.to_model("prepare", &outputs, None)
}

/// The inputs of [`prepare`] that the host writes: rates, indices, z and dropout masks, see
/// [`host_inputs`](crate::gan::inputs::host_inputs).
pub(crate) fn host_tensors(recipe: &Recipe, batch: usize, steps: usize) -> [Spec; 4] {
    let masks = Passes::mask_shapes(recipe, batch).lens().iter().sum();
    [
        Spec::new("host_rates", Type::F32, &[steps, 3]),
        Spec::new("indices", Type::I64, &[steps * batch]),
        Spec::new("host_z", Type::F32, &[steps * recipe.z_rows(batch), LATENT]),
        Spec::new("dropout_mask", Type::Bool, &[steps, masks]),
    ]
}

/// The tensors that [`prepare`] leaves for `steps` steps; `parts` are those of one step. In order:
///
/// - `rates` (steps, 3): `step_size`, `epsilon`, `ema_rate`
/// - `z` (steps · rows, 100)
/// - `real` (steps · B, 784): images as D sees them
/// - `class` (steps · B, C): their classes, one-hot; for class-conditional recipes only
/// - `positive_slope` and `negative_slope` (steps, numbers): the factor of LeakyReLU and dropout for positive and for
///   other inputs of each hidden layer, `positive_slope.d_on_both.fc1` and so on
///
/// A tensor that the recipe does not need has no parts.
pub fn prepared(recipe: &Recipe, batch: usize, steps: usize) -> [PackedTensor; 6] {
    let rows = |name: &str, rows: usize, columns: usize| PackedTensor {
        whole: Spec::new(name, Type::F32, &[steps * rows, columns]),
        parts: vec![Spec::new(name, Type::F32, &[rows, columns])],
    };
    let side_by_side = |name: &str, parts: Vec<Spec>| {
        let len = parts.iter().map(Spec::elements).sum();
        PackedTensor { whole: Spec::new(name, Type::F32, &[steps, len]), parts }
    };
    let [rates, ..] = host_inputs(recipe, batch);
    let rates = side_by_side("rates", rates);
    let z = rows("z", recipe.z_rows(batch), LATENT);
    let class = match recipe.one_hot() {
        Some(classes) => rows("class", batch, classes),
        None => side_by_side("class", vec![]),
    };
    let shapes = Passes::one_pass_shapes(recipe, batch);
    let [positive, negative] =
        ["positive_slope", "negative_slope"].map(|name| side_by_side(name, shapes.specs(name, Type::F32)));
    [rates, z, rows("real", batch, PIXELS), class, positive, negative]
}

/// The logits that `steps` steps leave for [`metrics`]: `d_logits` (steps, 2B), D's of reals and fakes, and `g_logits`,
/// the new D's of fakes, of which the last B count. A step's part is a column.
pub fn logits(recipe: &Recipe, batch: usize, steps: usize) -> [PackedTensor; 2] {
    [("d_logits", 2 * batch), ("g_logits", recipe.z_rows(batch))].map(|(name, rows)| PackedTensor {
        whole: Spec::new(name, Type::F32, &[steps, rows]),
        parts: vec![Spec::new(name, Type::F32, &[rows, 1])],
    })
}

/// The model that computes `metrics` (steps, 4) of a block from its [`logits`], in the order of
/// [`METRICS`](crate::state::METRICS).
pub fn metrics(recipe: &Recipe, batch: usize, steps: usize) -> Model {
    let g = &mut Graph::default();
    let [d_logits, g_logits] =
        logits(recipe, batch, steps).map(|tensor| g.input(&tensor.whole.name, Type::F32, &tensor.whole.shape));
    let target = g.constant("d_target", &[steps, 2 * batch], &d_targets(recipe, batch).repeat(steps));
    let d_loss = bce(g, d_logits, target);
    let one = g.scalar(1.0);
    let g_loss = bce(g, g_logits, one);
    let probability = g.sigmoid(d_logits);
    // Sums as products with ones and zeros, which TF32 does not round.
    let all = g.constant("all", &[2 * batch, 1], &vec![1.0; 2 * batch]);
    let rows = g.shape(g_logits)[1];
    let last = g.constant("last_batch", &[rows, 1], &last_ones(rows, batch));
    let halves = g.constant("halves", &[2, 2 * batch], &halves(batch, 1.0));
    let sums = [(d_loss, all, false), (g_loss, last, false), (probability, halves, true)];
    let sums = sums.map(|(x, weights, transposed)| g.gemm(x, weights, None, false, transposed));
    let sums = g.concat_axis1(&sums);
    let metrics = g.div_by(sums, batch as f32);
    g.to_model("metrics", &[(metrics, "metrics".into())], None)
}
