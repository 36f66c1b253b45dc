//! The training loop.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::gan::{LATENT, Recipe, StepGraph, state_specs};
use crate::mnist::Dataset;
use crate::onnx::Type;
use crate::random;
use crate::session::{Feed, Metrics, OnnxRuntime, Stepper, TrainState};

/// What is trained, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub recipe: Recipe,
    /// Passes over the data set.
    pub epochs: u64,
    /// Images in a step; the last step of an epoch takes what is left.
    pub batch: usize,
    /// Names the initial parameters and all that is drawn at random after them.
    pub seed: u64,
}

/// What the loop tells while it runs. Every method may stop the run, which then ends as if it were finished.
pub trait Observer {
    fn step(&mut self, _step: &Step) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    fn epoch(&mut self, _epoch: &Epoch, _stepper: &Stepper) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }
}

/// One step, just taken.
pub struct Step {
    /// Of the whole run, from 1.
    pub step: u64,
    pub epoch: u64,
    /// In the order of [`StepGraph::METRICS`].
    pub metrics: Metrics,
}

/// One epoch, just ended.
pub struct Epoch {
    /// From 1.
    pub epoch: u64,
    /// Means over the epoch's steps, in the order of [`StepGraph::METRICS`].
    pub metrics: Metrics,
    pub steps: u64,
    pub time: Duration,
}

/// Trains from `state` (see [`initial_state`]) to the end of the last epoch, and returns the state there.
///
/// A run is a function of (config, data, state): the batch order is drawn from (seed, epoch), z and the dropout masks
/// from (seed, step), so that a run which starts in a saved state goes on exactly as it would have.
///
/// # Errors
/// When ONNX Runtime fails, a loss is not finite, or the observer says so.
pub fn train(
    config: &Config,
    data: &Dataset,
    runtime: &OnnxRuntime,
    state: &TrainState,
    observer: &mut dyn Observer,
) -> Result<TrainState> {
    let n = data.images.len() / crate::gan::PIXELS;
    let per_epoch = steps_per_epoch(n, config.batch);
    let mut sizes = vec![config.batch.min(n), n % config.batch];
    sizes.retain(|&size| size > 0);
    sizes.dedup();
    let graphs: Vec<StepGraph> = sizes.iter().map(|&size| StepGraph::new(&config.recipe, size, n)).collect();
    let mut stepper = Stepper::new(runtime, &graphs, state, &data.images)?;
    let mut step = state.step as u64;
    let mut order = vec![0i64; n];
    while step < config.epochs * per_epoch {
        let epoch = step / per_epoch;
        random::order_into(&mut order, config.seed, epoch);
        let start = Instant::now();
        let (mut sum, mut steps) = ([0f64; StepGraph::METRICS.len()], 0);
        for pick in order.chunks(config.batch).skip((step % per_epoch) as usize) {
            let graph = sizes.iter().position(|&size| size == pick.len()).expect("a graph for each size");
            draw(&mut stepper.feed(graph), &config.recipe, pick, config.seed, step);
            let metrics = stepper.step(graph)?;
            step += 1;
            steps += 1;
            ensure!(
                metrics.iter().all(|m| m.is_finite()),
                "step {step}: d_loss is {} and g_loss is {}; try a lower --lr",
                metrics[0],
                metrics[1]
            );
            sum.iter_mut().zip(metrics).for_each(|(sum, m)| *sum += m as f64);
            if observer.step(&Step { step, epoch: epoch + 1, metrics })?.is_break() {
                return stepper.state();
            }
        }
        let metrics = sum.map(|s| (s / steps as f64) as f32);
        let epoch = Epoch { epoch: epoch + 1, metrics, steps, time: start.elapsed() };
        if observer.epoch(&epoch, &stepper)?.is_break() {
            break;
        }
    }
    stepper.state()
}

/// Fills what a step reads: the picked images, and the z and dropout masks of (seed, step).
pub fn draw(feed: &mut Feed, recipe: &Recipe, pick: &[i64], seed: u64, step: u64) {
    feed.pick.copy_from_slice(pick);
    random::uniform_into(feed.z, seed, step, Z);
    random::keep_masks_into(feed.keep, seed, step, KEEP, recipe.p_drop);
}

/// How many steps an epoch over `n` images takes.
pub fn steps_per_epoch(n: usize, batch: usize) -> u64 {
    n.div_ceil(batch) as u64
}

/// Both networks at the start of a run: weights and biases from U(−1/√in, 1/√in), as `torch.nn.Linear` has them;
/// the moments are zero.
pub fn initial_state(seed: u64) -> TrainState {
    let specs = state_specs();
    let mut fan_in = 0;
    let tensors = (specs.iter().filter(|s| s.elem == Type::F32).enumerate())
        .map(|(i, spec)| {
            let mut tensor = vec![0.0; spec.len()];
            if !spec.name.starts_with("m.") && !spec.name.starts_with("v.") {
                if spec.shape.len() == 2 {
                    fan_in = spec.shape[0]; // a bias has that of its weight, which stands before it
                }
                let bound = 1.0 / (fan_in as f32).sqrt();
                random::uniform_into(&mut tensor, seed, 0, INIT + i as u64);
                tensor.iter_mut().for_each(|x| *x *= bound);
            }
            tensor
        })
        .collect();
    TrainState { tensors, step: 0 }
}

/// The latents whose images show how a run comes along: 16 × (100,), the same after every epoch.
pub fn sample_latents(seed: u64) -> Vec<f32> {
    let mut z = vec![0.0; 16 * LATENT];
    random::uniform_into(&mut z, seed, 0, SAMPLES);
    z
}

// The streams of random numbers that a run draws from, see `random`.
const Z: u64 = 0;
const KEEP: u64 = 1;
const SAMPLES: u64 = 2;
const INIT: u64 = 100;
