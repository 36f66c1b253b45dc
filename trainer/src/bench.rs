//! The speed of the training step, against the machine's peak in matrix products.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use ndarray::{Array1, Array2};
use serde::Serialize;

use crate::config::{PIXELS, Plan};
use crate::data::Dataset;
use crate::gan::block;
use crate::gan::inputs::StepKind;
use crate::gan::step::step_flop;
use crate::graph::Graph;
use crate::graph::onnx::{self, Type};
use crate::noise::write_dropout_mask;
use crate::ort::errors::user_message;
use crate::ort::stepper::BatchBuffers;
use crate::ort::{Bound, OnnxRuntime};
use crate::score::median;
use crate::state::{initial_state, state_specs};
use crate::steps::{Steps, stepper, write_step_inputs};

/// Medians over the steps of one run. Steps and the peak are measured in turns.
#[derive(Serialize)]
pub struct Figures {
    /// See [`DeviceSettings::describe`](crate::config::DeviceSettings::describe).
    pub device: String,
    /// Name of the recipe.
    pub recipe: String,
    /// Images in a step.
    pub batch: usize,
    /// Number of steps measured, at least.
    pub steps: usize,
    /// Milliseconds per training step: drawing the random numbers, running the graph, reading the metrics.
    pub step_ms: f64,
    /// 10⁹ floating-point operations per second of a 784 × 1024 × 1024 matrix product with the same ONNX Runtime.
    pub peak_gflops: f64,
    /// Floating-point operations of a step's matrix products. A GPU does more: some passes are redundant there.
    #[serde(skip)]
    pub step_flop: f64,
    /// Milliseconds that a step's matrix products would take at the peak.
    pub floor_ms: f64,
    /// Number of kernels that a step without R1 launches on a GPU: one per operator with functions inlined, two for a Gemm
    /// with bias.
    pub kernels: usize,
}

/// Measures steps of a plan on a data set of noise in one of ten classes, which takes as long as MNIST.
///
/// # Errors
/// When ONNX Runtime fails.
pub fn bench(runtime: &OnnxRuntime, plan: &Plan, steps: usize) -> Result<Figures> {
    measure(runtime, plan, steps).map_err(user_message)
}

fn measure(runtime: &OnnxRuntime, plan: &Plan, steps: usize) -> Result<Figures> {
    let Plan { recipe, batch, .. } = plan;
    let batch = *batch;
    let period = if recipe.r1 > 0.0 { recipe.r1_every } else { 1 };
    // The kinds of step from one R1 penalty to the next.
    let kinds: Vec<StepKind> = (0..period).map(|step| StepKind { batch, with_r1: recipe.applies_r1(step) }).collect();
    let mut noise = Array2::zeros((IMAGES, PIXELS));
    write_dropout_mask(noise.as_slice_mut().expect("row-major"), 0, 0, 0, 0.5);
    let data = Dataset { images: noise * 255, labels: Array1::zeros(IMAGES), ..Dataset::default() };
    let state = initial_state(plan, data.images.view());
    let mut stepper = stepper(runtime, plan, &state, &data)?;
    let mut product = product(runtime)?;
    let indices: Array1<i64> = (0..batch).map(|i| (i * 37 % IMAGES) as i64).collect();

    let (block_len, mut written) = (stepper.block_len(), 0);
    let mut write_block = |buffers: &mut BatchBuffers| {
        for index in 0..block_len {
            write_step_inputs(buffers.step(index, batch), recipe, indices.view(), 0, written, u64::MAX);
            written += 1;
        }
        true
    };
    write_block(stepper.inputs());
    let (mut step_s, mut product_s) = (vec![], vec![]);
    // A turn takes whole periods in whole blocks, so that all turns take the same steps.
    let turn: Vec<StepKind> = kinds.iter().cycle().take(kinds.len() * block_len).copied().collect();
    let warm_up = WARM_UP.div_ceil(kinds.len());
    product.run()?;
    for i in 0..steps.div_ceil(turn.len()).max(3) + warm_up {
        let start = Instant::now();
        for block in turn.chunks(block_len) {
            stepper.run(block, &mut write_block)?;
        }
        step_s.push(start.elapsed().as_secs_f64() / turn.len() as f64);
        if i >= warm_up && (i - warm_up).is_multiple_of(16_usize.div_ceil(kinds.len())) {
            let start = Instant::now();
            product.run()?;
            product_s.push(start.elapsed().as_secs_f64());
        }
    }
    let step_flop = kinds.iter().map(|&kind| step_flop(recipe, kind)).sum::<f64>() / kinds.len() as f64;
    let peak_gflops = 1e-9 * 2.0 * (M * N * N) as f64 / median(product_s);
    Ok(Figures {
        device: runtime.settings.describe(),
        recipe: recipe.name.clone(),
        batch,
        steps,
        step_ms: 1e3 * median(step_s.split_off(warm_up)),
        peak_gflops,
        step_flop,
        floor_ms: step_flop / peak_gflops * 1e-6,
        kernels: kernels(&block::step_graph(recipe, StepKind { batch, with_r1: false })),
    })
}

/// The size of the data set that [`bench()`] trains on.
pub const IMAGES: usize = 6000;
const WARM_UP: usize = 20;

impl Figures {
    /// The figures as text.
    pub fn table(&self) -> String {
        format!(
            "{}, recipe {}, batch {}, median of {} steps\n\
             a step                          {:8.3} ms\n\
             its {:.1} MFLOP at the peak     {:8.3} ms   ({:.1} GFLOP/s in a large matrix product, same run)\n\
             share of the peak               {:8.0} %",
            self.device,
            self.recipe,
            self.batch,
            self.steps,
            self.step_ms,
            self.step_flop * 1e-6,
            self.floor_ms,
            self.peak_gflops,
            100.0 * self.floor_ms / self.step_ms
        )
    }
}

/// Time and memory that a run would take.
pub struct Estimate {
    /// Time for the remaining steps.
    pub time: Duration,
    /// Milliseconds per step.
    pub step_ms: f64,
    /// Peak resident memory of this process after a few steps, in MB; on systems without /proc, the size of data set
    /// and state.
    pub memory_mb: f64,
}

/// Measures a few steps of a run that has taken `done` steps already.
///
/// # Errors
/// When ONNX Runtime fails.
pub fn estimate(plan: &Plan, data: &Dataset, runtime: &OnnxRuntime, done: u64) -> Result<Estimate> {
    let state = initial_state(plan, data.images.view());
    let mut run = Steps::new(plan, data, runtime, state).map_err(user_message)?;
    // The steps of a block are reported at once. CUDA captures its graphs in the first block, which is left out.
    let block_len = run.block_len();
    let mut reported = vec![Instant::now()];
    let flow = run.epoch(&mut |_| {
        reported.push(Instant::now());
        if reported.len() < 200.max(5 * block_len) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let _ = flow.map_err(user_message)?;
    let block = block_len.min(reported.len() - 1);
    let blocks = reported.windows(block + 1).skip(if reported.len() > 3 * block_len { block_len } else { 0 });
    let step_s = median(blocks.map(|w| (w[block] - w[0]).as_secs_f64() / block as f64).collect());
    let steps = plan.steps(data.n())? - done;
    let state_values = state_specs(&plan.recipe).iter().map(|s| s.elements()).sum::<usize>();
    let tensors = data.images.len() * 2 + 8 * state_values;
    let resident = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    });
    Ok(Estimate {
        time: Duration::try_from_secs_f64(step_s * steps as f64).unwrap_or(Duration::MAX),
        step_ms: step_s * 1e3,
        memory_mb: resident.map_or(tensors as f64 / 1e6, |kib| kib * 1024.0 / 1e6),
    })
}

/// Number of kernels that a model launches on a GPU.
fn kernels(model: &onnx::Model) -> usize {
    fn of(node: &onnx::Node, model: &onnx::Model) -> usize {
        let function = model.functions.iter().find(|function| function.name == node.op_type);
        match (function, node.op_type.as_str()) {
            (Some(function), _) => function.node.iter().map(|node| of(node, model)).sum(),
            (_, "Constant" | "Identity" | "Reshape") => 0,
            (_, "Gemm") => node.input.len() - 1,
            _ => 1,
        }
    }
    let graph = model.graph.as_ref().expect("a model has a graph");
    // Nodes that depend on constants alone are computed once, when the file is loaded.
    let mut constants: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut sum = 0;
    for node in &graph.node {
        if node.input.iter().all(|input| constants.contains(input.as_str())) {
            constants.extend(node.output.iter().map(String::as_str));
        } else {
            sum += of(node, model);
        }
    }
    sum
}

/// A matrix product (M, N) by (N, N), large enough to run at the machine's peak.
fn product(runtime: &OnnxRuntime) -> Result<Bound> {
    let mut g = Graph::default();
    let a = g.input("a", Type::F32, &[M, N]);
    let b = g.input("b", Type::F32, &[N, N]);
    let c = g.gemm(a, b, None, false, false);
    runtime.bound(&g.to_model("product", &[(c, "c".into())], None))
}

const M: usize = 784;
const N: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Recipe;

    #[test]
    fn a_step_of_the_seed_recipe_is_few_kernels() {
        let recipe = Recipe::seed();
        assert_eq!(kernels(&block::step_graph(&recipe, StepKind { batch: 64, with_r1: false })), 127);
        let once_a_block = [block::prepare(&recipe, 64, 100, 32), block::metrics(&recipe, 64, 32)];
        assert_eq!(once_a_block.iter().map(kernels).sum::<usize>(), 28, "and two copies");
    }

    #[test]
    fn a_step_of_64_images_is_145_mflop() {
        let step = StepKind { batch: 64, with_r1: false };
        assert_eq!((step_flop(&Recipe::seed(), step) * 1e-5).round(), 1454.0);
    }
}
