//! Training: from a [`Config`] to a generator.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ndarray::s;
use prost::Message;

use crate::config::{Config, Engine, Plan, Reading, Source};
use crate::data::Dataset;
use crate::data::progress::Progress;
use crate::gan::inputs::StepKind;
use crate::gan::step::step_graph;
use crate::ort::OnnxRuntime;
use crate::ort::errors::user_message;
use crate::pixel::unit;
use crate::run::{Run, check_outputs, export, resume};
use crate::sample::{self, variety};
use crate::score::judge::Judge;
use crate::score::{self, Scorer, judges};
use crate::state::{Epoch, Step, TrainState, initial_state};
use crate::steps::Steps;

/// Follows a run, and may stop it.
pub trait Observer {
    /// Called with a line for the user: a choice that was made, a download, a warning.
    fn say(&mut self, _line: &str) {}

    /// Called while the data set and ONNX Runtime are fetched, with a sentence or the progress of a download.
    fn fetching(&mut self, progress: Progress) {
        if let Progress::Line(line) = progress {
            self.say(line);
        }
    }

    /// Called before the first step. The run has `steps` steps, of which `done` were taken before it was resumed.
    fn start(&mut self, _steps: u64, _done: u64) {}

    /// Called after every step; on CUDA after every block of up to 32 steps, once for each of them. `Break` stops the
    /// run with a checkpoint, on CUDA after the block.
    fn step(&mut self, _step: &Step) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Called after an epoch is recorded. The first steps of the next epoch may have been reported before.
    fn epoch(&mut self, _epoch: &Epoch) {}
}

/// An observer that ignores everything.
impl Observer for () {}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The run folder.
    pub folder: PathBuf,
    /// False if the observer stopped the run.
    pub finished: bool,
    /// The training state after the last step.
    pub state: TrainState,
}

/// Trains as `config` says, from the start or from the newest checkpoint. Writes the run folder and the generator.
///
/// # Errors
/// When the data, the plan, the run folder or ONNX Runtime does not fit or fails, or a loss is not finite. Checkpoints
/// written before the error stay.
pub fn train(config: &Config, observer: &mut dyn Observer) -> Result<Outcome> {
    config.plan.check()?;
    check_outputs(config)?;
    let (data, runtime) =
        open(&config.data, config.reading, &config.engine, &mut |progress| observer.fetching(progress))?;
    let config = &resume::with_classes(config, &data)?;
    let plan = &config.plan;
    if plan.recipe.conditional && plan.recipe.one_hot().is_none() {
        observer.say(&format!("{} has one class, so the training is unconditional", data.name));
    }
    let total = plan.steps(data.n())?;
    let test_images = data.test_images.nrows();
    let is_scored = config.score_every > 0 && data.classes.len() > 1;
    ensure!(
        !is_scored || test_images >= 2,
        "--data: {}: at least 2 test images expected for scores, {test_images} found; --score-every 0 goes without",
        data.name
    );
    if is_scored {
        score::warning(test_images).iter().for_each(|warning| observer.say(warning));
    } else if config.score_every > 0 {
        observer.say(&format!("warning: {} has one class and so no judge; the run goes on without scores", data.name));
    }
    if let Some(path) = &config.step_graph {
        let graph = step_graph(&plan.recipe, StepKind::all(plan, data.n())[0], data.n());
        export::write_model(path, &graph).context("--write-step-graph")?;
    }
    let (mut run, state) = Run::open(config, &data, runtime.settings, &mut |line| observer.say(line))?;
    let state = state.unwrap_or_else(|| initial_state(plan, data.images.view()));
    observer.say(&format!(
        "{} images of {}, recipe {}, seed {}, on {} with {}; the run's folder is {}",
        data.n(),
        data.name,
        plan.recipe.name,
        plan.seed,
        runtime.settings.describe(),
        runtime.library,
        run.folder().display()
    ));
    if state.step == total && run.is_exported() {
        observer.say("the run is finished; there is nothing to train");
        export(&mut run, config, &runtime, &state, true, observer)?;
        return Ok(Outcome { folder: run.folder().into(), finished: true, state });
    }
    let judge = match is_scored {
        true => Some(judges::judge_for(&data, &runtime, &mut |line| observer.say(line)).map_err(user_message)?),
        false => None,
    };
    if let Some(judge) = &judge {
        run.set_judge(judge, judges::SHIPPED, &mut |line| observer.say(line))?;
    }
    observer.start(total, state.step);

    let mut steps = Steps::new(plan, &data, &runtime, state).map_err(user_message)?;
    let finished = train_epochs(config, &data, &runtime, judge.as_deref(), &mut steps, &mut run, observer)
        .map_err(user_message)
        .with_context(|| run.failure_context())?;
    let state = steps.state().map_err(user_message)?;
    if finished {
        export(&mut run, config, &runtime, &state, false, observer)?;
    }
    Ok(Outcome { folder: run.folder().into(), finished, state })
}

/// Exports the generator of a run after its last step. `was_finished` says whether the run had been finished and exported before.
fn export(
    run: &mut Run,
    config: &Config,
    runtime: &OnnxRuntime,
    state: &TrainState,
    was_finished: bool,
    observer: &mut dyn Observer,
) -> Result<()> {
    let kept = run.export_generator(state, config.out.as_deref(), was_finished);
    run.take_warnings().iter().for_each(|warning| observer.say(warning));
    let (kept, model) = kept?;
    let Plan { recipe, seed, .. } = &config.plan;
    if let Some(classes) = recipe.one_hot() {
        run.show_classes(sample::draw_classes(runtime, &model.encode_to_vec(), classes, *seed).map_err(user_message));
        run.take_warnings().iter().for_each(|warning| observer.say(warning));
    }
    if kept != config.plan.epochs {
        observer.say(&format!("exported the generator of epoch {kept}, the best by score"));
    }
    Ok(())
}

/// Opens the data set and ONNX Runtime. Reports downloads to `progress`.
///
/// # Errors
/// When the data set or ONNX Runtime is neither on this machine nor can be downloaded.
pub fn open(
    source: &Source,
    reading: Reading,
    engine: &Engine,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Dataset, OnnxRuntime)> {
    // The data set first: a wrong path is the likeliest mistake. Only the demo needs ONNX Runtime for its data.
    let data = read(source, reading, engine.offline, progress)?;
    let mut say = |line: &str| progress(Progress::Line(line));
    let runtime = OnnxRuntime::open(engine, &mut say)?;
    let data = match data {
        Some(data) => data,
        None => {
            say(
                "warning: --data demo is NOT MNIST: its digits are drawn by the shipped generator, to try things out on",
            );
            let demo = sample::demo(&runtime)?;
            if reading.invert { demo.inverted() } else { demo }
        }
    };
    Ok((data, runtime))
}

/// The data set, if it needs no generator: all but the demo.
///
/// # Errors
/// When the data set is neither on this machine nor can be downloaded.
pub fn read(
    source: &Source,
    reading: Reading,
    offline: bool,
    progress: &mut dyn FnMut(Progress),
) -> Result<Option<Dataset>> {
    Ok(match source {
        Source::Folder(folder) => Some(Dataset::read(folder, reading, progress)?),
        Source::Published(name) => {
            let data = Dataset::published(name, offline, progress)?;
            Some(if reading.invert { data.inverted() } else { data })
        }
        Source::Demo => None,
    })
}

/// Trains the remaining epochs. An epoch is scored and recorded on another thread while the steps of the next one are
/// taken. Returns false if the observer stopped the run in the middle of an epoch, after a checkpoint.
fn train_epochs(
    config: &Config,
    data: &Dataset,
    runtime: &OnnxRuntime,
    judge: Option<&[u8]>,
    steps: &mut Steps,
    run: &mut Run,
    observer: &mut dyn Observer,
) -> Result<bool> {
    let plan = &config.plan;
    let total = plan.steps(data.n())?;
    let real = data.images.slice(s![..data.n().min(16), ..]).mapv(unit);
    let real_variety = variety(real.view()).max(1e-3);
    if let Some(last) = run.epochs().last().filter(|last| last.step == steps.taken()).cloned() {
        let is_last = steps.taken() == total;
        run.show_epoch(&last, steps.sample()?, is_last);
    }
    let report = |observer: &mut dyn Observer, (epoch, warnings): (Epoch, Vec<String>)| {
        warnings.iter().for_each(|warning| observer.say(warning));
        observer.epoch(&epoch);
    };
    thread::scope(|scope| {
        let (send, recorded) = mpsc::channel();
        // The recording thread has the run and the scorer, and returns them when it is done.
        let mut recording = spawn(scope, move || anyhow::Ok((run, None)))?;
        let mut flow = ControlFlow::Continue(());
        while steps.taken() < total && flow.is_continue() {
            // Take the steps.
            let (start, before) = (Instant::now(), steps.taken());
            let stepped = steps.epoch(&mut |step| {
                recorded.try_iter().for_each(|epoch| report(observer, epoch));
                observer.step(step)
            });
            let seconds = start.elapsed().max(Duration::from_nanos(1)).as_secs_f64();
            let steps_per_second = (steps.taken() - before) as f64 / seconds;

            // Wait for the record of the epoch before. It is reported even if this epoch's steps failed.
            let (run, mut scorer) = join(recording)?;
            recorded.try_iter().for_each(|epoch| report(observer, epoch));
            flow = stepped?;
            if !steps.is_at_epoch_end() {
                run.save_checkpoint(&steps.state()?)?;
                run.take_warnings().iter().for_each(|warning| observer.say(warning));
                return Ok(false);
            }

            // Sample.
            let samples = steps.sample()?.to_owned();
            let mut epoch = steps.end_epoch(steps_per_second, variety(samples.view()) / real_variety);
            let best_variety = run.epochs().iter().map(|epoch| epoch.variety).fold(0.0, f32::max);
            epoch.collapse = is_collapse(epoch.variety, best_variety, epoch.d_fake);
            if epoch.collapse && !run.epochs().last().is_some_and(|epoch| epoch.collapse) {
                observer.say(&format!(
                    "warning: epoch {}: the samples' variety is {:.2} of real images' and D takes fakes for real with \
                     probability {:.4}: mode collapse? another --seed or --recipe tuned may do better",
                    epoch.epoch, epoch.variety, epoch.d_fake
                ));
            }
            let (is_last, state) = (steps.taken() == total, steps.state()?);
            let mut drawn = None;
            if let Some(judge) = judge.filter(|_| is_last || epoch.epoch.is_multiple_of(config.score_every)) {
                let generator = export::generator_model(&plan.recipe, &state, &[], &[]).encode_to_vec();
                let (images, _) = sample::draw(runtime, &generator, plan.recipe.one_hot(), plan.seed)?;
                drawn = Some((judge, images));
            }

            // Score, record and checkpoint, while the loop goes on.
            let send = send.clone();
            recording = spawn(scope, move || {
                if let Some((judge, drawn)) = drawn {
                    let scorer = match &mut scorer {
                        Some(scorer) => scorer,
                        None => {
                            let judge = Judge::load(&runtime.on_cpu(), judge)?;
                            scorer.insert(Scorer::new(judge, data.test_images.view())?)
                        }
                    };
                    epoch.frechet_distance = Some(scorer.frechet_distance(drawn.view())?);
                }
                run.record_epoch(&epoch, samples.view(), &state, is_last)?;
                let _ = send.send((epoch, run.take_warnings())); // fails only if the loop panicked
                Ok((run, scorer))
            })?;
        }
        join(recording)?;
        recorded.try_iter().for_each(|epoch| report(observer, epoch));
        Ok(steps.taken() == total)
    })
}

/// Starts `work` on a new thread.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>> {
    thread::Builder::new().spawn_scoped(scope, work).context("a thread cannot be started")
}

/// The result of a thread. A panic of the thread becomes a panic of the caller.
fn join<T>(thread: ScopedJoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether an epoch shows mode collapse: the variety was high and fell, or fakes never fool D. Low variety in early epochs
/// is no collapse: nothing is learnt yet.
fn is_collapse(variety: f32, best_variety: f32, d_fake: f32) -> bool {
    (best_variety > 0.3 && variety < 0.5 * best_variety) || d_fake < 0.02
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::config::PIXELS;

    #[test]
    fn a_collapse_is_lost_variety_or_a_discriminator_that_is_never_fooled() {
        let equal = Array2::from_elem((16, PIXELS), 0.5);
        let different = Array2::from_shape_fn((16, PIXELS), |(n, _)| if n % 2 == 0 { 1.0 } else { -1.0 });
        let (none, full) = (variety(equal.view()), variety(different.view()));
        assert_eq!((none, full), (0.0, 1.0));
        assert!(!is_collapse(none, 0.1, 0.3), "nothing is learnt yet");
        assert!(is_collapse(none, full, 0.3));
        assert!(!is_collapse(0.6, 1.0, 0.3));
        assert!(is_collapse(1.0, 1.0, 0.001));
    }
}
