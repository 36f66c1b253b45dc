//! The inputs of a training step beside the training state.

use crate::config::{LATENT, Plan, Recipe};
use crate::gan::dropout::Passes;
use crate::graph::onnx::Type;
use crate::graph::{Graph, Var};
use crate::state::Spec;

/// A kind of training step. Each kind has its own step graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepKind {
    /// B, the number of images.
    pub batch: usize,
    /// Whether D's loss has the R1 penalty.
    pub with_r1: bool,
}

impl StepKind {
    /// The kinds of step that a plan takes over a data set of `n` images: with whole batches and with a smaller last
    /// one, each with and without the R1 penalty as the recipe has it. Whole batches come first.
    pub fn all(plan: &Plan, n: usize) -> Vec<Self> {
        let Plan { recipe, batch, .. } = plan;
        let mut sizes = vec![*batch.min(&n), n % batch];
        sizes.retain(|&size| size > 0);
        sizes.dedup();
        let r1: &[bool] = match (recipe.r1 > 0.0, recipe.r1_every) {
            (false, _) => &[false],
            (true, 1) => &[true],
            (true, _) => &[true, false],
        };
        r1.iter().flat_map(|&with_r1| sizes.iter().map(move |&batch| Self { batch, with_r1 })).collect()
    }
}

/// The four inputs that the host writes for every step, each as one or more tensors of one element type:
///
/// - the numbers of [`Recipe::rates`]: `step_size`, `epsilon`, `ema_rate`, f32 scalars;
/// - `indices` (B,) i64: the images of the batch, as rows of the data set;
/// - `z` (2B, 100) f32: first for D's update, then for G's; (B, 100) if the recipe shares z;
/// - the dropout masks (rows, units) u8 of every hidden dense layer: `dropout_mask.d_on_both.fc1`, …
pub(crate) fn host_inputs(recipe: &Recipe, batch: usize) -> [Vec<Spec>; 4] {
    let rates = ["step_size", "epsilon", "ema_rate"].map(|name| Spec::new(name, Type::F32, &[]));
    let indices = Spec::new("indices", Type::I64, &[batch]);
    let z = Spec::new("z", Type::F32, &[recipe.z_rows(batch), LATENT]);
    let masks = Passes::mask_shapes(recipe, batch).specs("dropout_mask", Type::U8);
    [rates.into(), vec![indices], vec![z], masks]
}

/// Graph inputs of these names, types and shapes.
pub(crate) fn declare(g: &mut Graph, specs: &[Spec]) -> Vec<Var> {
    specs.iter().map(|spec| g.input(&spec.name, spec.elem, &spec.shape)).collect()
}

/// The classes of the images at `indices` (B,), one-hot (B, `classes`), out of the graph input `labels` (n,) u8.
pub(crate) fn one_hot(g: &mut Graph, n: usize, indices: Var, classes: usize) -> Var {
    let labels = g.input("labels", Type::U8, &[n]);
    let eye = ndarray::Array2::<f32>::eye(classes);
    let eye = g.constant("eye", &[classes, classes], eye.as_slice().expect("row-major"));
    let labels = g.gather(labels, indices);
    let labels = g.cast(labels, Type::I64);
    g.gather(eye, labels)
}
