//! How fast the training step is, and how near to what the machine could do.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use ndarray::{Array1, Array2};

use crate::config::{G_SIZES, PIXELS, Plan, Recipe};
use crate::data::Dataset;
use crate::gan::{Form, StepGraph};
use crate::graph::Graph;
use crate::graph::onnx::{self, Type};
use crate::noise::{self, sample_latents};
use crate::ort::{Bound, Feed, OnnxRuntime, Stepper, explain};
use crate::state::{initial_state, state_specs};
use crate::train::{Training, draw};

/// Medians over the steps of one run; the peak was measured in turns with them.
pub struct Figures {
    /// [`OnnxRuntime::describe_device`].
    pub place: String,
    pub batch: usize,
    pub steps: usize,
    /// Milliseconds a training step: the random numbers, the graph, and reading the metrics.
    pub step_ms: f64,
    /// 10⁹ floating-point operations a second in a 784 × 1024 × 1024 product by the same ONNX Runtime.
    pub peak_gflops: f64,
    /// Floating-point operations of one step's matrix products.
    pub step_flop: f64,
    /// What a step launches on a GPU: a kernel for each operator, functions written out, and two for a Gemm with bias.
    pub kernels: usize,
}

/// Measures on a data set of noise, which costs what MNIST costs.
pub fn bench(runtime: &OnnxRuntime, batch: usize, steps: usize) -> Result<Figures> {
    measure(runtime, batch, steps).map_err(explain)
}

fn measure(runtime: &OnnxRuntime, batch: usize, steps: usize) -> Result<Figures> {
    let plan = Plan { batch, ..Plan::seed_recipe() };
    let recipe = &plan.recipe;
    let graph = StepGraph::new(recipe, batch, IMAGES, false, runtime.form());
    let kernels = kernels(&StepGraph::new(recipe, batch, IMAGES, false, Form::Vectors).model);
    let mut images = vec![0; IMAGES * PIXELS];
    noise::keep_masks_into(&mut images, 0, 0, 0, 0.5);
    images.iter_mut().for_each(|pixel| *pixel *= 255);
    let images = Array2::from_shape_vec((IMAGES, PIXELS), images)?;
    let data = Dataset { images, labels: Array1::zeros(IMAGES), ..Dataset::default() };
    let state = initial_state(&plan, data.images.view());
    let slots = runtime.slots(batch);
    let mut stepper = Stepper::new(runtime, recipe, &[graph], slots, &state, &data, &sample_latents(&plan))?;
    let mut product = product(runtime)?;
    let pick: Vec<i64> = (0..batch).map(|i| (i * 37 % IMAGES) as i64).collect();

    let (graphs, mut drawn) = (vec![0; slots], 0);
    let mut fill = |mut feed: Feed| {
        for slot in 0..slots {
            draw(&mut feed.row(slot, 0), recipe, &pick, 0, drawn, u64::MAX);
            drawn += 1;
        }
        true
    };
    fill(stepper.feed());
    let (mut step_s, mut product_s) = (vec![], vec![]);
    for round in 0..steps.div_ceil(slots) + WARM_UP {
        let start = Instant::now();
        stepper.round(&graphs, &mut fill)?;
        step_s.push(start.elapsed().as_secs_f64() / slots as f64);
        if round % 16 == 0 {
            let start = Instant::now();
            product.run()?;
            product_s.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(Figures {
        place: runtime.describe_device(),
        batch,
        steps,
        step_ms: 1e3 * median(&mut step_s[WARM_UP..]),
        peak_gflops: 1e-9 * 2.0 * (M * N * N) as f64 / median(&mut product_s),
        step_flop: step_flop(batch),
        kernels,
    })
}

/// The size of the data set that [`bench()`] trains on.
pub const IMAGES: usize = 6000;
const WARM_UP: usize = 20;

impl Figures {
    /// The milliseconds that the step's products would take at the peak.
    pub fn floor_ms(&self) -> f64 {
        self.step_flop / self.peak_gflops * 1e-6
    }

    pub fn json(&self) -> String {
        format!(
            r#"{{"place":"{}","batch":{},"steps":{},"step_ms":{:.4},"peak_gflops":{:.1},"floor_ms":{:.4},"kernels":{}}}"#,
            self.place,
            self.batch,
            self.steps,
            self.step_ms,
            self.peak_gflops,
            self.floor_ms(),
            self.kernels
        )
    }

    pub fn table(&self) -> String {
        format!(
            "{}, batch {}, median of {} steps\n\
             a step                          {:8.3} ms\n\
             its {:.1} MFLOP at the peak     {:8.3} ms   ({:.1} GFLOP/s in a large matrix product, same run)\n\
             share of the peak               {:8.0} %",
            self.place,
            self.batch,
            self.steps,
            self.step_ms,
            self.step_flop * 1e-6,
            self.floor_ms(),
            self.peak_gflops,
            100.0 * self.floor_ms() / self.step_ms
        )
    }
}

/// What a run would take.
pub struct Estimate {
    pub time: Duration,
    pub step_ms: f64,
    /// The resident size of this process with the run set up in it; where the system does not tell, of its tensors.
    pub memory_mb: f64,
}

/// Sets a run up of which `done` steps lie behind, and takes a few.
pub fn estimate(plan: &Plan, data: &Dataset, runtime: &OnnxRuntime, done: u64) -> Result<Estimate> {
    let mut training = Training::new(plan, data, runtime, initial_state(plan, data.images.view())).map_err(explain)?;
    // The steps of a round are told of at once, and CUDA captures its graphs in the first.
    let slots = training.slots();
    let mut told = vec![Instant::now()];
    let flow = training.epoch(&mut |_| {
        told.push(Instant::now());
        if told.len() < 200.max(5 * slots) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    let _ = flow.map_err(explain)?;
    let round = slots.min(told.len() - 1);
    let rounds = told.windows(round + 1).skip(if told.len() > 3 * slots { slots } else { 0 });
    let mut times: Vec<f64> = rounds.map(|w| (w[round] - w[0]).as_secs_f64() / round as f64).collect();
    let step_s = median(&mut times);
    let steps = plan.steps(data.len())? - done;
    let tensors = data.images.len() * 2 + 8 * state_specs(&plan.recipe).iter().map(|s| s.len()).sum::<usize>();
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
    // What depends on constants alone is computed once, when the file is loaded.
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

/// Two operations for each multiply-add of the Gemms in the seed recipe's step graph.
fn step_flop(batch: usize) -> f64 {
    let madds = |sizes: &[usize]| sizes.windows(2).map(|w| w[0] * w[1]).sum::<usize>() as f64;
    let d_sizes = Recipe::seed().d_sizes();
    let (d, g) = (madds(&d_sizes), madds(&G_SIZES));
    let (d_first, g_first) = (madds(&d_sizes[..2]), madds(&G_SIZES[..2]));
    // D's update: G forward; D forward, its weights' gradient, its inputs' but for the first layer, on 2B rows.
    let d_update = g + 2.0 * (d + d + (d - d_first));
    // G's update: G and D forward; D's inputs' gradient; G's weights' and, but for the first layer, inputs' gradient.
    let g_update = g + d + d + g + (g - g_first);
    2.0 * batch as f64 * (d_update + g_update)
}

/// A matrix product large enough to run at the machine's peak: (M, N) by (N, N).
fn product(runtime: &OnnxRuntime) -> Result<Bound> {
    let mut g = Graph::default();
    let a = g.input("a", Type::F32, &[M, N]);
    let b = g.input("b", Type::F32, &[N, N]);
    let c = g.gemm(a, b, None, false, false);
    runtime.bound(&g.to_model("product", &[(c, "c".into())], None))
}

const M: usize = 784;
const N: usize = 1024;

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gan::{metrics, prepare};

    #[test]
    fn a_step_of_the_seed_recipe_is_few_kernels() {
        let graph = StepGraph::new(&Recipe::seed(), 64, 100, false, Form::Vectors);
        assert_eq!(kernels(&graph.model), 127);
        let round = [prepare(&Recipe::seed(), 64, 100, 32), metrics(&Recipe::seed(), 64, 32)];
        assert_eq!(round.iter().map(kernels).sum::<usize>(), 28, "and two copies, README says");
    }

    #[test]
    fn a_step_of_64_images_is_145_mflop() {
        assert_eq!((step_flop(64) * 1e-5).round(), 1454.0);
    }
}
