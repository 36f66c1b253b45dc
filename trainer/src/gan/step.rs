//! A training step for a CPU: one graph from batch to metrics, with one tensor per parameter.
//!
//! On a CPU arithmetic and copies take the time, so nothing is computed or copied that the update does not need.

use crate::config::{BiasCorrected, PIXELS, Recipe};
use crate::gan::dropout::{Dropout, Passes};
use crate::gan::inputs::{StepKind, declare, host_inputs, one_hot};
use crate::gan::layout::{ParamLayout, StateVars};
use crate::gan::pixels::real_images;
use crate::gan::update::{Latents, UpdateInputs, halves, update};
use crate::graph::onnx::{Model, Type};
use crate::graph::{Graph, Var};

/// The model `(state, batch) → (state', metrics)` of a step on a data set of `n` images. It is a pure function.
///
/// | inputs | |
/// |---|---|
/// | the tensors of [`state_specs`](crate::state::state_specs) | parameters, Adam's moments, moving average |
/// | `step_size`, `epsilon`, `ema_rate` f32 | see [`Recipe::rates`] |
/// | `indices` (B,) i64 | the batch, as rows of the data set |
/// | `z` (2B, 100) f32 | first for D's update, then for G's; (B, 100) if the recipe shares z |
/// | `dropout_mask.d_on_both.fc1` (rows, units) u8, … | a mask of zeros and ones per hidden dense layer and pass |
/// | `images` (n, 784) u8, `labels` (n,) u8 | the data set; labels for class-conditional recipes only |
///
/// Outputs: the state under its names with `next.` before them, and `metrics` (4,) in the order of
/// [`METRICS`](crate::state::METRICS).
pub fn step_graph(recipe: &Recipe, kind: StepKind, n: usize) -> Model {
    let (g, outputs) = step(recipe, kind, n);
    g.to_model(&format!("{}_step", recipe.name), &outputs, None)
}

/// Floating-point operations of the matrix products of a step, two per multiply-add.
pub fn step_flop(recipe: &Recipe, kind: StepKind) -> f64 {
    let (g, outputs) = step(recipe, kind, 1); // the size of the data set does not matter
    g.gemm_flop(&outputs)
}

/// A step as a graph, with its outputs and their names.
fn step(recipe: &Recipe, kind: StepKind, n: usize) -> (Graph, Vec<(Var, String)>) {
    let StepKind { batch, with_r1 } = kind;
    let mut graph = Graph::same_on_all_threads();
    let g = &mut graph;
    let state = StateVars::inputs(g, recipe, ParamLayout::PerTensor);
    g.scope("real/");
    let [rates, indices, z, masks] = host_inputs(recipe, batch).map(|specs| declare(g, &specs));
    let images = g.input("images", Type::U8, &[n, PIXELS]);
    let real = real_images(g, recipe, images, indices[0]);
    let class = recipe.one_hot().map(|classes| one_hot(g, n, indices[0], classes));
    let p_drop = recipe.p_drop as f32;
    let dropout = masks.iter().map(|&mask| Dropout::Mask { mask, p_drop });
    let dropout = Passes::mask_shapes(recipe, batch).group(dropout);
    let z = if recipe.shared_z {
        Latents::Shared(z[0])
    } else {
        Latents::Separate(g.rows(z[0], 0, batch), g.rows(z[0], batch, 2 * batch))
    };
    let adam = BiasCorrected { step_size: rates[0], epsilon: rates[1] };
    let inputs = UpdateInputs { adam, ema_rate: rates[2], real, class, z, dropout };
    let update = update(g, recipe, &state, &inputs, with_r1);

    g.scope("metrics/");
    let probability = g.sigmoid(update.d_logits);
    let halves = g.constant("halves", &[2, 2 * batch], &halves(batch, 1.0 / batch as f32));
    let means = g.gemm(halves, probability, None, false, false); // (2, 1): of reals and of fakes
    let metrics = g.pack(&[update.d_loss, update.g_loss, means]);
    let mut outputs = update.next.outputs(recipe);
    outputs.push((metrics, "metrics".into()));
    (graph, outputs)
}
