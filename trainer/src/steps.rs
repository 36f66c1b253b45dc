//! The training steps of a plan, in order, from any saved state on.

use std::ops::{ControlFlow, Range};

use anyhow::{Result, anyhow};
use ndarray::{Array1, ArrayView1, ArrayView2, Axis};

use crate::config::{Device, Plan, Recipe, steps_per_epoch};
use crate::data::Dataset;
use crate::gan::inputs::StepKind;
use crate::noise::{self, stream, write_one_hot};
use crate::ort::OnnxRuntime;
use crate::ort::cpu::CpuStepper;
use crate::ort::gpu::GpuStepper;
use crate::ort::stepper::{BatchBuffers, StepInputs, Stepper};
use crate::state::{Epoch, METRICS, Step, TrainState, state_specs};

/// A position in a plan's steps over a data set.
///
/// All inputs of a step are functions of (plan, data, step): the batch order of (seed, epoch), z and the dropout masks
/// of (seed, step). So steps from a saved state on are exactly those of an uninterrupted run.
pub struct Steps<'a> {
    plan: &'a Plan,
    per_epoch: u64,
    /// Number of steps in the whole run.
    total: u64,
    /// Rows of the data set (n,) in the order of the current epoch.
    order: Array1<i64>,
    stepper: Box<dyn Stepper>,
    taken: u64,
    /// Sums of the metrics over the current epoch's steps.
    sums: [f64; METRICS.len()],
}

impl<'a> Steps<'a> {
    /// The steps of `plan` from `state` on.
    ///
    /// # Errors
    /// When ONNX Runtime fails, or the plan has more steps than can be counted.
    pub fn new(plan: &'a Plan, data: &Dataset, runtime: &OnnxRuntime, state: TrainState) -> Result<Self> {
        let stepper = stepper(runtime, plan, &state, data)?;
        Self::with_stepper(plan, data.n(), stepper, &state)
    }

    fn with_stepper(plan: &'a Plan, n: usize, stepper: Box<dyn Stepper>, state: &TrainState) -> Result<Self> {
        let (per_epoch, total) = (steps_per_epoch(n, plan.batch), plan.steps(n)?);
        Ok(Self { plan, per_epoch, total, order: Array1::zeros(n), stepper, taken: state.step, sums: state.sums })
    }

    /// Number of steps taken in the whole run.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether all steps of the current epoch are taken.
    pub fn is_at_epoch_end(&self) -> bool {
        self.taken.is_multiple_of(self.per_epoch)
    }

    /// The largest number of steps that are reported at once.
    pub fn block_len(&self) -> usize {
        self.stepper.block_len()
    }

    /// Takes the remaining steps of the epoch and reports each to `on_step`. `Break` stops after the current block of
    /// steps.
    ///
    /// # Errors
    /// When ONNX Runtime fails or a loss is not finite.
    pub fn epoch(&mut self, on_step: &mut dyn FnMut(&Step) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let Plan { recipe, batch, seed, .. } = self.plan;
        let epoch = self.taken / self.per_epoch;
        let (first, end) = (epoch * self.per_epoch, (epoch + 1) * self.per_epoch);
        noise::write_order(self.order.as_slice_mut().expect("contiguous"), *seed, epoch);
        let batches: Vec<ArrayView1<i64>> = self.order.axis_chunks_iter(Axis(0), *batch).collect();
        let indices = |step: u64| batches[(step - first) as usize];
        let kind = |step: u64| StepKind { batch: indices(step).len(), with_r1: recipe.applies_r1(step) };
        let write_block = |buffers: &mut BatchBuffers, steps: Range<u64>| {
            for (index, step) in steps.enumerate() {
                let inputs = buffers.step(index, indices(step).len());
                write_step_inputs(inputs, recipe, indices(step), *seed, step, self.total);
            }
        };
        // A block has one batch size, so a smaller last batch is a block of its own.
        let (block_len, whole) = (self.stepper.block_len() as u64, first + (self.order.len() / batch) as u64);
        let block = |from: u64| from..(from + block_len).min(if from < whole { whole } else { end });

        write_block(self.stepper.inputs(), block(self.taken));
        let mut kinds = Vec::with_capacity(block_len as usize);
        while self.taken < end {
            let (now, next) = (block(self.taken), block(block(self.taken).end));
            kinds.clear();
            kinds.extend(now.map(kind));
            let metrics = self.stepper.run(&kinds, &mut |buffers| {
                write_block(buffers, next.clone());
                !next.is_empty()
            })?;
            let mut flow = ControlFlow::Continue(());
            for &metrics in metrics {
                self.taken += 1;
                let [d_loss, g_loss, ..] = metrics;
                if !(d_loss.is_finite() && g_loss.is_finite()) {
                    let how = format!("d_loss is {d_loss} and g_loss is {g_loss}");
                    return Err(diverged(self.plan, self.taken, &how));
                }
                self.sums.iter_mut().zip(metrics).for_each(|(sum, m)| *sum += f64::from(m));
                if flow.is_continue() {
                    flow = on_step(&Step { step: self.taken, epoch: epoch + 1, metrics });
                }
            }
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The means of the epoch that has just ended, without score and collapse. The sums start again from zero.
    pub(crate) fn end_epoch(&mut self, steps_per_second: f64, variety: f32) -> Epoch {
        let [d_loss, g_loss, d_real, d_fake] = self.sums.map(|sum| (sum / self.per_epoch as f64) as f32);
        self.sums = Default::default();
        Epoch {
            epoch: self.taken / self.per_epoch,
            step: self.taken,
            d_loss,
            g_loss,
            d_real,
            d_fake,
            steps_per_second,
            variety,
            frechet_distance: None,
            collapse: false,
        }
    }

    /// The generator's 16 images (16, 784) in [-1, 1] of [`noise::sample_latents`], without dropout.
    ///
    /// # Errors
    /// When ONNX Runtime fails.
    pub fn sample(&mut self) -> Result<ArrayView2<'_, f32>> {
        self.stepper.sample()
    }

    /// The training state after the steps taken.
    ///
    /// # Errors
    /// When ONNX Runtime fails or a value of the state is not finite.
    pub fn state(&self) -> Result<TrainState> {
        let tensors = self.stepper.tensors()?;
        let specs = state_specs(&self.plan.recipe);
        match tensors.iter().zip(specs).find(|(tensor, _)| tensor.iter().any(|x| !x.is_finite())) {
            Some((_, spec)) => {
                Err(diverged(self.plan, self.taken, &format!("{} holds a number that is not finite", spec.name)))
            }
            None => Ok(TrainState { tensors, step: self.taken, sums: self.sums }),
        }
    }
}

/// The stepper for the runtime's device.
///
/// # Errors
/// When ONNX Runtime fails.
pub(crate) fn stepper(
    runtime: &OnnxRuntime,
    plan: &Plan,
    state: &TrainState,
    data: &Dataset,
) -> Result<Box<dyn Stepper>> {
    Ok(match runtime.settings.device {
        Device::Cpu => Box::new(CpuStepper::new(runtime, plan, state, data)?),
        Device::Cuda => Box::new(GpuStepper::new(runtime, plan, state, data)?),
    })
}

/// Writes the inputs of `step` of a run of `total` steps: the batch `indices`, and the z and dropout masks of (seed,
/// step).
pub(crate) fn write_step_inputs(
    mut inputs: StepInputs,
    recipe: &Recipe,
    indices: ArrayView1<i64>,
    seed: u64,
    step: u64,
    total: u64,
) {
    *inputs.rates = recipe.rates(step, total);
    inputs.indices.assign(&indices);
    noise::write_uniform(inputs.z.as_slice_mut().expect("contiguous"), seed, step, stream::Z);
    if let Some(classes) = recipe.one_hot() {
        write_one_hot(inputs.z, classes);
    }
    noise::write_dropout_mask(inputs.dropout_mask, seed, step, stream::DROPOUT, recipe.p_drop);
}

fn diverged(plan: &Plan, step: u64, how: &str) -> anyhow::Error {
    // --resume would take the same steps again.
    anyhow!("step {step}: {how}; begin a new run with --lr below {}", plan.recipe.adam.alpha)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::config::{Engine, PIXELS};
    use crate::state::{Metrics, initial_state};

    type MakeStepper<'a> = &'a dyn Fn(&TrainState) -> Box<dyn Stepper>;

    /// Both steppers on the CPU: every kind of step, from the same state, with blocks that end early.
    #[test]
    fn the_cpu_and_the_gpu_stepper_train_alike() {
        let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
        let images = Array2::from_shape_fn((100, PIXELS), |(n, i)| ((n * PIXELS + i) * 7919 % 251) as u8);
        let labels = Array1::from_iter((0..100).map(|i| i % 10));
        let (seed, tuned) = (Plan::seed_recipe(), Plan::tuned_recipe());
        // Combinations that no recipe has, and layer widths that are no multiple of a vector register.
        let other = Recipe { conditional: true, classes: 26, ema: 0.9, d_hidden: vec![33, 17], ..seed.recipe.clone() };
        let shared_z = Recipe { shared_z: true, ..seed.recipe.clone() };
        let convolutional = Recipe { d_conv: vec![5, 3], ..Recipe::best() };
        let one_convolution = Recipe { d_conv: vec![3], ..seed.recipe.clone() };
        let others = [other, shared_z, convolutional, one_convolution].map(|recipe| Plan { recipe, ..seed.clone() });
        for plan in others.into_iter().chain([seed, tuned]) {
            let plan = Plan { batch: 16, epochs: 2, ..plan };
            let labels = labels.mapv(|label| label * (plan.recipe.classes as u8 / 10));
            let data = Dataset { images: images.clone(), labels, ..Dataset::default() };
            let cpu: MakeStepper = &|state| Box::new(CpuStepper::new(&runtime, &plan, state, &data).unwrap());
            let gpu = |block_len: usize| {
                let (runtime, plan, data) = (&runtime, &plan, &data);
                move |state: &TrainState| -> Box<dyn Stepper> {
                    Box::new(GpuStepper::with_block_len(runtime, plan, state, data, block_len).unwrap())
                }
            };
            // Two epochs, or the steps until `until` and the rest of its block.
            let train = |make: MakeStepper, from: &TrainState, until: u64| -> (Vec<Metrics>, TrainState) {
                let mut steps = Steps::with_stepper(&plan, data.n(), make(from), from).unwrap();
                let mut metrics = vec![];
                let mut flow = ControlFlow::Continue(());
                while flow.is_continue() {
                    let mut on_step = |step: &Step| {
                        metrics.push(step.metrics);
                        if step.step >= until { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    };
                    flow = steps.epoch(&mut on_step).unwrap();
                }
                (metrics, steps.state().unwrap())
            };
            let start = initial_state(&plan, data.images.view());
            let (cpu_metrics, cpu_state) = train(cpu, &start, 14);
            assert_eq!(cpu_metrics.len(), 14, "six whole batches and a smaller one, twice");
            let (gpu_metrics, gpu_state) = train(&gpu(3), &start, 14);
            let near = |a: f32, b: f32| (a - b).abs() <= 2e-5 * (1.0 + a.abs());
            for (a, b) in cpu_metrics.concat().iter().zip(gpu_metrics.concat()) {
                assert!(near(*a, b), "{}: {a} and {b}", plan.recipe.name);
            }
            assert_eq!(cpu_state.step, gpu_state.step);
            for ((spec, a), b) in state_specs(&plan.recipe).iter().zip(&cpu_state.tensors).zip(&gpu_state.tensors) {
                let difference = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(a.len() == b.len() && difference <= 2e-4, "{}: {}: {difference}", plan.recipe.name, spec.name);
            }
            // A run that is resumed after a block, with another block length, has the same bits.
            let (_, stopped) = train(&gpu(3), &start, 8);
            assert_eq!(stopped.step, 10, "the second epoch's first block");
            assert!(train(&gpu(2), &stopped, 14).1 == gpu_state);
        }
    }
}
