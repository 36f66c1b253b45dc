//! Training: from a [`Config`] to a generator.

use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use ndarray::ArrayView2;
use prost::Message;

use crate::config::{Config, Engine, PIXELS, Plan, Recipe, Source, steps_per_epoch};
use crate::data::Dataset;
use crate::data::download::Progress;
use crate::files;
use crate::gan::{Form, StepGraph};
use crate::noise::{self, name_digits, sample_latents, stream};
use crate::ort::{Feed, OnnxRuntime, Row, Stepper, explain, joined};
use crate::pixel::unit;
use crate::run::Run;
use crate::run::export;
use crate::sample;
use crate::score::Scorer;
use crate::score::judge::Judge;
use crate::state::{Epoch, METRICS, Step, TrainState, initial_state, state_specs};

/// What a caller hears of a run, and its say in it.
pub trait Observer {
    /// Something that took time, was chosen, or is worth a warning.
    fn say(&mut self, _line: &str) {}

    /// Called while the data set and ONNX Runtime are fetched, with a sentence or the progress of a download.
    fn fetching(&mut self, progress: Progress) {
        if let Progress::Line(line) = progress {
            self.say(line);
        }
    }

    /// All is ready: of the run's `steps`, `done` lie behind.
    fn start(&mut self, _steps: u64, _done: u64) {}

    /// After every step; on CUDA after every round of steps, for each of them. `Break` stops the run, on CUDA after the
    /// round, with a checkpoint to resume it from.
    fn step(&mut self, _step: &Step) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After every epoch, when it is recorded: the first steps of the next one may have come before, a `Break` among them.
    fn epoch(&mut self, _epoch: &Epoch) {}
}

/// An observer that says nothing.
impl Observer for () {}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub folder: PathBuf,
    /// False where the observer stopped it.
    pub finished: bool,
    pub state: TrainState,
}

/// Trains as `config` says, from the start or from the newest checkpoint, and writes the run folder and the generator.
///
/// # Errors
/// One sentence on what is wrong with the data, the plan, the folder or ONNX Runtime. A loss that is not finite ends
/// the run; the checkpoints before it stay.
pub fn train(config: &Config, observer: &mut dyn Observer) -> Result<Outcome> {
    config.plan.check()?;
    if let Some(out) = &config.out {
        files::check_writable(out).context("--out")?;
    }
    let (data, runtime) = open(&config.data, &config.engine, &mut |progress| observer.fetching(progress))?;
    let plan = &config.plan;
    let steps = plan.steps(data.len())?;
    let test_images = data.test_images.nrows();
    ensure!(
        config.score_every == 0 || test_images >= 2,
        "--data: {}: at least 2 test images expected for scores, {test_images} found; --score-every 0 goes without",
        data.name
    );
    if let Some(path) = &config.step_graph {
        // The other form leaves a part of a step to two other models.
        let graphs = step_graphs(plan, data.len(), Form::Tensors);
        export::write_model(path, &graphs[0].model).context("--write-step-graph")?;
    }
    let (mut run, state) = Run::open(config, &data, runtime.device_settings(), &mut |line| observer.say(line))?;
    let state = state.unwrap_or_else(|| initial_state(plan, data.images.view()));
    observer.say(&format!(
        "{} images of {}, recipe {}, seed {}, on {} with {}; the run's folder is {}",
        data.len(),
        data.name,
        plan.recipe.name,
        plan.seed,
        runtime.describe_device(),
        runtime.library,
        run.folder().display()
    ));
    observer.start(steps, state.step);

    let mut training = Training::new(plan, &data, &runtime, state).map_err(explain)?;
    let finished = epochs(config, &data, &runtime, &mut training, &mut run, observer)
        .map_err(explain)
        .with_context(|| run.failure_context())?;
    let state = training.state().map_err(explain)?;
    if finished {
        let kept = run.export_generator(&state, config.out.as_deref())?;
        if kept != plan.epochs {
            observer.say(&format!("the generator kept is that of epoch {kept}, the best by score"));
        }
    }
    Ok(Outcome { folder: run.folder().into(), finished, state })
}

/// Takes the steps that are left; each epoch is scored and recorded while the next one's are taken. False where the observer
/// stopped it, after a checkpoint.
fn epochs(
    config: &Config,
    data: &Dataset,
    runtime: &OnnxRuntime,
    training: &mut Training,
    run: &mut Run,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let plan = &config.plan;
    let steps = plan.steps(data.len())?;
    let real: Vec<f32> = data.images.iter().take(16 * PIXELS).map(|&pixel| unit(pixel)).collect();
    let real_variety = variety(&real).max(1e-3);
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        // The thread that records hands on the run, and what scores it, when it is done.
        let mut recording = scope.spawn(move || anyhow::Ok((run, None)));
        let mut flow = ControlFlow::Continue(());
        while training.step < steps && flow.is_continue() {
            let (start, begun) = (Instant::now(), training.step);
            let stepped = training.epoch(&mut |step| {
                told.try_iter().for_each(|epoch| observer.epoch(&epoch));
                observer.step(step)
            });
            let speed = (training.step - begun) as f64 / start.elapsed().max(Duration::from_nanos(1)).as_secs_f64();
            // The epoch before comes first, also where this one failed.
            let (run, mut scorer) = joined(recording)?;
            told.try_iter().for_each(|epoch| observer.epoch(&epoch));
            flow = stepped?;
            if !training.step.is_multiple_of(training.per_epoch) {
                run.save_checkpoint(&training.state()?)?;
                return Ok(false);
            }
            let samples = training.stepper.sample()?.to_vec();
            let mut epoch = training.end_epoch(speed, variety(&samples) / real_variety);
            epoch.collapse = collapse(epoch.variety, run.best_variety(), epoch.d_fake);
            if epoch.collapse && !run.collapsed() {
                observer.say(&format!(
                    "warning: epoch {}: the samples' variety is {:.2} of real images' and D takes fakes for real with \
                     probability {:.4}: mode collapse? another --seed or --recipe tuned may do better",
                    epoch.epoch, epoch.variety, epoch.d_fake
                ));
            }
            let (last, state) = (training.step == steps, training.state()?);
            let mut drawn = None;
            if config.score_every > 0 && (last || epoch.epoch.is_multiple_of(config.score_every)) {
                let generator = export::generator_model(&plan.recipe, &state, &[]).encode_to_vec();
                drawn = Some(sample::draw(runtime, &generator, plan.recipe.conditional, plan.seed)?.0);
            }
            let tell = tell.clone();
            recording = scope.spawn(move || {
                if let Some(drawn) = drawn {
                    let scorer = match &mut scorer {
                        Some(scorer) => scorer,
                        None => {
                            scorer.insert(Scorer::new(Judge::shipped(&runtime.on_cpu())?, data.test_images.view())?)
                        }
                    };
                    epoch.frechet_distance = Some(scorer.frechet_distance(drawn.view())?);
                }
                let samples = ArrayView2::from_shape((samples.len() / PIXELS, PIXELS), &samples)?;
                run.record_epoch(&epoch, samples, &state, last)?;
                let _ = tell.send(epoch); // nobody listens where the loop panicked
                Ok((run, scorer))
            });
        }
        joined(recording)?;
        told.try_iter().for_each(|epoch| observer.epoch(&epoch));
        Ok(training.step == steps)
    })
}

/// Reads, downloads or draws the data set, and loads ONNX Runtime.
pub fn open(source: &Source, engine: &Engine, hear: &mut dyn FnMut(Progress)) -> Result<(Dataset, OnnxRuntime)> {
    // What is likelier to be wrong comes first; only the demo needs ONNX Runtime for its data.
    let data = match source {
        Source::Folder(folder) => Some(Dataset::open(folder)?),
        Source::Published(name) => Some(Dataset::published(name, engine.offline, hear)?),
        Source::Demo => None,
    };
    let mut say = |line: &str| hear(Progress::Line(line));
    let runtime = OnnxRuntime::of(engine, &mut say)?;
    let data = match data {
        Some(data) => data,
        None => {
            say(
                "warning: --data demo is NOT MNIST: its digits are drawn by the shipped generator, to try things out on",
            );
            sample::demo(&runtime)?
        }
    };
    Ok((data, runtime))
}

/// The loop without its surroundings: a plan, the data, and where in it we are.
///
/// Everything is a function of (plan, data, state): the batch order is drawn from (seed, epoch), z and the dropout masks
/// from (seed, step), so that a run which starts in a saved state goes on exactly as it would have.
pub struct Training<'a> {
    plan: &'a Plan,
    /// The step graphs: each one's batch, and whether it has the R1 penalty.
    kinds: Vec<(usize, bool)>,
    per_epoch: u64,
    /// Of the whole run.
    steps: u64,
    order: Vec<i64>,
    stepper: Stepper,
    step: u64,
    sums: [f64; METRICS.len()],
}

impl<'a> Training<'a> {
    /// Stands at `state` (see [`initial_state`]).
    pub fn new(plan: &'a Plan, data: &Dataset, runtime: &OnnxRuntime, state: TrainState) -> Result<Self> {
        let whole_batches = (data.len() / plan.batch).max(1);
        let slots = runtime.slots(plan.batch.min(data.len())).min(whole_batches);
        Self::with_form(plan, data, runtime, state, runtime.form(), slots)
    }

    /// The same with step graphs and rounds of another form than is fast here.
    pub(crate) fn with_form(
        plan: &'a Plan,
        data: &Dataset,
        runtime: &OnnxRuntime,
        state: TrainState,
        form: Form,
        slots: usize,
    ) -> Result<Self> {
        let graphs = step_graphs(plan, data.len(), form);
        let kinds = graphs.iter().map(|graph| (graph.batch, graph.penalised)).collect();
        let stepper = Stepper::new(runtime, &plan.recipe, &graphs, slots, &state, data, &sample_latents(plan))?;
        let (order, per_epoch, steps) =
            (vec![0; data.len()], steps_per_epoch(data.len(), plan.batch), plan.steps(data.len())?);
        Ok(Self { plan, kinds, per_epoch, steps, order, stepper, step: state.step, sums: state.sums })
    }

    /// How many steps are told of at once.
    pub fn slots(&self) -> usize {
        self.stepper.slots()
    }

    /// Takes the steps that are left of the epoch, or those until `on_step` breaks and what is left of their round.
    ///
    /// # Errors
    /// When ONNX Runtime fails or a metric is not finite.
    pub fn epoch(&mut self, on_step: &mut dyn FnMut(&Step) -> ControlFlow<()>) -> Result<ControlFlow<()>> {
        let Plan { recipe, batch, seed, .. } = self.plan;
        let epoch = self.step / self.per_epoch;
        let (first, end) = (epoch * self.per_epoch, (epoch + 1) * self.per_epoch);
        noise::order_into(&mut self.order, *seed, epoch);
        let picks = |step: u64| self.order.chunks(*batch).nth((step - first) as usize).expect("a step of the epoch");
        let graph = |step: u64| {
            let kind = (picks(step).len(), recipe.applies_r1(step));
            self.kinds.iter().position(|&k| k == kind).expect("a graph for each kind of step")
        };
        // Tells whether there are any.
        let draw_round = |mut feed: Feed, steps: Range<u64>| {
            let are_any = !steps.is_empty();
            for (slot, step) in steps.enumerate() {
                draw(&mut feed.row(slot, graph(step)), recipe, picks(step), *seed, step, self.steps);
            }
            are_any
        };
        // A smaller last batch is a round of its own.
        let (slots, whole) = (self.stepper.slots() as u64, first + (self.order.len() / batch) as u64);
        let round = |from: u64| from..(from + slots).min(if from < whole { whole } else { end });
        draw_round(self.stepper.feed(), round(self.step));
        let mut graphs = Vec::with_capacity(slots as usize);
        while self.step < end {
            let now = round(self.step);
            graphs.clear();
            graphs.extend(now.clone().map(graph));
            let metrics = self.stepper.round(&graphs, |feed| draw_round(feed, round(now.end)))?;
            let mut flow = ControlFlow::Continue(());
            for &metrics in metrics {
                self.step += 1;
                let [d_loss, g_loss, ..] = metrics;
                if !(d_loss.is_finite() && g_loss.is_finite()) {
                    let how = format!("d_loss is {d_loss} and g_loss is {g_loss}");
                    return Err(diverged(self.plan, self.step, &how));
                }
                self.sums.iter_mut().zip(metrics).for_each(|(sum, m)| *sum += m as f64);
                if flow.is_continue() {
                    flow = on_step(&Step { step: self.step, epoch: epoch + 1, metrics });
                }
            }
            if flow.is_break() {
                return Ok(flow);
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Sums up the epoch that just ended, but for its score and whether it collapsed.
    fn end_epoch(&mut self, steps_per_second: f64, variety: f32) -> Epoch {
        let [d_loss, g_loss, d_real, d_fake] = self.sums.map(|sum| (sum / self.per_epoch as f64) as f32);
        self.sums = Default::default();
        Epoch {
            epoch: self.step / self.per_epoch,
            step: self.step,
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

    /// All that is needed to go on from here.
    ///
    /// # Errors
    /// When a number in it is not finite.
    pub fn state(&self) -> Result<TrainState> {
        let state = self.stepper.state(self.sums)?;
        match state
            .tensors
            .iter()
            .zip(state_specs(&self.plan.recipe))
            .find(|(tensor, _)| tensor.iter().any(|x| !x.is_finite()))
        {
            Some((_, spec)) => {
                Err(diverged(self.plan, self.step, &format!("{} holds a number that is not finite", spec.name)))
            }
            None => Ok(state),
        }
    }
}

fn diverged(plan: &Plan, step: u64, how: &str) -> anyhow::Error {
    // Not by --resume: it would take the same steps again.
    anyhow!("step {step}: {how}; begin a new run with --lr below {}", plan.recipe.adam.alpha)
}

/// The graphs that a plan's steps over `n` images need: for whole batches and a smaller last one, each with the R1 penalty
/// and without as the recipe asks for.
pub fn step_graphs(plan: &Plan, n: usize, form: Form) -> Vec<StepGraph> {
    let Plan { recipe, batch, .. } = plan;
    let mut sizes = vec![*batch.min(&n), n % batch];
    sizes.retain(|&size| size > 0);
    sizes.dedup();
    let penalties: &[bool] = match (recipe.r1 > 0.0, recipe.r1_every) {
        (false, _) => &[false],
        (true, 1) => &[true],
        (true, _) => &[true, false],
    };
    let kinds = penalties.iter().flat_map(|&penalised| sizes.iter().map(move |&size| (size, penalised)));
    kinds.map(|(size, penalised)| StepGraph::new(recipe, size, n, penalised, form)).collect()
}

/// Fills what a step of a run of `steps` reads: the picked images, and the z and dropout masks of (seed, step).
pub fn draw(row: &mut Row, recipe: &Recipe, pick: &[i64], seed: u64, step: u64, steps: u64) {
    *row.rates = recipe.rates(step, steps);
    row.pick.copy_from_slice(pick);
    noise::uniform_into(row.z, seed, step, stream::Z);
    if recipe.conditional {
        name_digits(row.z).for_each(drop);
    }
    noise::keep_masks_into(row.keep, seed, step, stream::KEEP, recipe.p_drop);
}

/// The mean over pixels of the standard deviation between images (n, 784): 0 where all are alike.
pub fn variety(images: &[f32]) -> f32 {
    let n = (images.len() / PIXELS) as f32;
    let deviation = |pixel: usize| {
        let values = || images.iter().skip(pixel).step_by(PIXELS);
        let mean = values().sum::<f32>() / n;
        (values().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt()
    };
    (0..PIXELS).map(deviation).sum::<f32>() / PIXELS as f32
}

/// Early samples are alike because nothing is learnt yet; a collapse is a variety that was there and went away, or a
/// discriminator that fakes never fool.
fn collapse(variety: f32, best_variety: f32, d_fake: f32) -> bool {
    (best_variety > 0.3 && variety < 0.5 * best_variety) || d_fake < 0.02
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collapse_is_variety_that_was_there_and_went_away_or_a_discriminator_never_fooled() {
        let alike = vec![0.5; 16 * PIXELS];
        let apart: Vec<f32> =
            (0..16 * PIXELS).map(|i| if (i / PIXELS).is_multiple_of(2) { 1.0 } else { -1.0 }).collect();
        assert_eq!((variety(&alike), variety(&apart)), (0.0, 1.0));
        assert!(!collapse(variety(&alike), 0.1, 0.3), "nothing learnt yet");
        assert!(collapse(variety(&alike), variety(&apart), 0.3));
        assert!(!collapse(0.6, 1.0, 0.3));
        assert!(collapse(1.0, 1.0, 0.001));
    }
}
