//! The run folder: all files that a run writes. Every file can be read during the run; a hidden `.lock` keeps a second
//! trainer out.
//!
//! ```text
//! runs/00000-seed/
//!   config.json                 all settings
//!   metrics.jsonl               one JSON object per epoch
//!   events.out.tfevents.…       metrics and samples for TensorBoard
//!   losses.svg                  plot of both losses
//!   samples/epoch-001.png …     16 images drawn from the same z after every epoch, at most 200 files; samples.png animates
//!                               them, every 25 epochs
//!   checkpoints/step-….ckpt     the newest checkpoints; best.ckpt has the best score
//!   samples/classes.png         ten images of every class, drawn by g.onnx; for class-conditional recipes
//!   g.onnx                      the exported generator, written when the run ends
//! ```
//!
//! An epoch is recorded while the next one trains. A killed run resumes from the newest checkpoint, see [`resume`]. Metrics and
//! checkpoints come first; if the plot, a picture or the event file cannot be written, that is a warning.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use ndarray::{Array2, ArrayView2};
use sha2::{Digest, Sha256};

pub mod checkpoint;
pub mod compare;
pub mod events;
pub mod export;
pub mod lock;
pub mod metrics;
pub mod numbered;
pub mod pictures;
pub mod resume;

use crate::config::{Config, DeviceSettings, KeepPolicy, RunDir, UsageError};
use crate::data::Dataset;
use crate::files::{self, hex};
use crate::graph::onnx;
use crate::run::events::EventFile;
use crate::run::export::{Kind, check_output};
use crate::run::metrics::MetricsLog;
use crate::run::resume::{CONFIG, RunConfig, resume_point};
use crate::state::{Epoch, METRICS, TrainState};

/// Checks that the files of `--out` and `--write-step-graph` can be written, and that nothing else is lost there. See
/// [`check_output`].
///
/// # Errors
/// When a file cannot be written, would be lost, or is one of the run folder's.
pub fn check_outputs(config: &Config) -> Result<()> {
    for (option, path, kind) in
        [("--out", &config.out, Kind::Generator), ("--write-step-graph", &config.step_graph, Kind::Step)]
    {
        let Some(path) = path else { continue };
        check_output(path, kind, &config.data, config.force).context(option)?;
        let run_dir = match &config.run_dir {
            RunDir::Next => continue,
            RunDir::New(run_dir) | RunDir::Resume(run_dir) => run_dir,
        };
        let (Ok(target), Ok(run_dir)) = (files::resolve(path), fs::canonicalize(run_dir)) else { continue };
        let Ok(below) = target.strip_prefix(run_dir) else { continue };
        let is_of_run = below.components().next().is_some_and(|first| is_of_run(first.as_os_str()));
        let problem = || format!("{option}: {} is a file of the run; choose another name", path.display());
        ensure!(!is_of_run, UsageError(problem()));
    }
    Ok(())
}

/// The recorder of one run. It holds the lock of the run folder.
pub struct Run {
    folder: PathBuf,
    config: RunConfig,
    metrics: MetricsLog,
    /// The epoch of `best.ckpt`.
    best: Option<Epoch>,
    /// Created for the first epoch.
    events: Option<EventFile>,
    warnings: Vec<String>,
    /// The kinds of files that a warning has named.
    warned: BTreeSet<&'static str>,
    _lock: File,
}

impl Run {
    /// Creates a run folder, or opens an old one together with the training state to resume from. A finished run stays as it
    /// is.
    ///
    /// # Errors
    /// When the folder is in use, cannot be written, holds a run with another plan or data set, or has a symbolic link in
    /// place of a file of the run that is resumed; or the newest checkpoint is damaged.
    pub fn open(
        config: &Config,
        data: &Dataset,
        device: DeviceSettings,
        say: &mut dyn FnMut(&str),
    ) -> Result<(Self, Option<TrainState>)> {
        let cannot_create = |path: &Path| format!("{}: cannot be created", path.display());
        let folder = match &config.run_dir {
            RunDir::Next => numbered::create_next(&config.plan.recipe.name)?,
            RunDir::New(path) => {
                fs::create_dir_all(path).with_context(|| format!("--run-dir: {}", cannot_create(path)))?;
                path.clone()
            }
            RunDir::Resume(path) => {
                check_no_links(path)?;
                path.clone()
            }
        };
        let lock = lock::lock(&folder, say)?;
        let before = resume_point(&config.run_dir, &config.plan, data)?;
        let mut config = RunConfig::new(config, data, device, before.as_ref().map(|before| &before.config))?;
        for below in ["", SAMPLES, checkpoint::FOLDER] {
            let path = folder.join(below);
            fs::create_dir_all(&path).with_context(|| cannot_create(&path))?;
            files::remove_temporary(&path);
        }
        let (mut epochs, mut state, mut best) = (vec![], None, None);
        if let Some(before) = before {
            match &before.checkpoint {
                Some(file) => say(&format!("resuming from {}", file.display())),
                None => say(
                    "warning: the run has no checkpoint; it begins anew, and its metrics and best generator are replaced",
                ),
            }
            let total = config.settings.plan.steps(data.n())?;
            let (was, now) = (before.config.device_settings().arithmetic(), device.arithmetic());
            if before.state.as_ref().is_some_and(|state| state.step == total) {
                // Nothing is left to train: the weights are those of the earlier program and device.
                config.settings.engine = before.config.settings.engine;
                config = RunConfig { settings: config.settings, ..before.config };
            } else if was != now {
                say(&format!(
                    "warning: this run was on {was} and continues on {now}; its generator will differ in its last bits \
                     from that of a run on one of them"
                ));
            }
            (epochs, state) = (before.epochs, before.state);
            best = find_best(&folder, &config, &epochs, say);
        }
        files::update(&folder.join(CONFIG), &serde_json::to_vec_pretty(&config)?)?;
        let metrics = MetricsLog::open(&folder, epochs)?;
        let (events, warnings, warned) = (None, vec![], BTreeSet::new());
        Ok((Self { folder, config, metrics, best, events, warnings, warned, _lock: lock }, state))
    }

    /// The path of the run folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The epochs recorded so far, oldest first.
    pub fn epochs(&self) -> &[Epoch] {
        self.metrics.epochs()
    }

    /// The warnings since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Records the judge of the scores to come, by its file and that of the judge of older versions. If another judge made the
    /// earlier scores, the best generator is chosen anew, because distances of two judges cannot be compared.
    ///
    /// # Errors
    /// When a file of the run cannot be written or deleted.
    pub fn set_judge(&mut self, judge: &[u8], of_older: &[u8], say: &mut dyn FnMut(&str)) -> Result<()> {
        let [sha256, of_older] = [judge, of_older].map(|file| hex(&Sha256::digest(file)));
        let is_scored = self.epochs().iter().any(|epoch| epoch.frechet_distance.is_some());
        if is_scored && *self.config.judge_sha256.as_ref().unwrap_or(&of_older) != sha256 {
            say(
                "warning: the run's earlier scores are of another judge, so that they cannot be compared with the scores to come; \
                 the best generator is chosen from these",
            );
            self.best = None;
            let path = checkpoint::best(&self.folder);
            if path.exists() {
                fs::remove_file(&path).with_context(|| format!("{}: cannot be deleted", path.display()))?;
            }
        }
        self.config.judge_sha256 = Some(sha256);
        files::update(&self.folder.join(CONFIG), &serde_json::to_vec_pretty(&self.config)?)
    }

    /// Records an epoch, its samples (16, 784) in [-1, 1] and the training state after it. The plot and the animation
    /// are redrawn after some epochs and after the `last`.
    ///
    /// # Errors
    /// When the metrics or a checkpoint cannot be written.
    pub fn record_epoch(
        &mut self,
        epoch: &Epoch,
        samples: ArrayView2<f32>,
        state: &TrainState,
        last: bool,
    ) -> Result<()> {
        self.metrics.push(epoch)?;
        let best = self.best.as_ref().and_then(|best| best.frechet_distance).unwrap_or(f64::INFINITY);
        if epoch.frechet_distance.is_some_and(|distance| distance < best) {
            self.save(&checkpoint::best(&self.folder), state)?;
            self.best = Some(epoch.clone());
        }
        self.save_checkpoint(state)?;
        self.show_epoch(epoch, samples, last);
        Ok(())
    }

    /// Writes the pictures and events of an epoch. A run that is resumed after an epoch does it again, because it may have
    /// been killed before.
    pub fn show_epoch(&mut self, epoch: &Epoch, samples: ArrayView2<f32>, last: bool) {
        let grid = pictures::grid(samples);
        let png = pictures::png(&grid).and_then(|png| {
            files::write(&self.sample_path(epoch.epoch), &png)?;
            Ok(png)
        });
        let png = self.decoration("the picture of an epoch", png);
        let shown = self.push_event(epoch, png.as_deref().map(|png| (&grid, png)));
        self.decoration("the TensorBoard event file", shown);
        if last || epoch.epoch.is_multiple_of(10) || epoch.epoch < 10 {
            let plot = pictures::losses(self.metrics.epochs())
                .and_then(|plot| files::write(&self.folder.join(PLOT), plot.as_bytes()));
            self.decoration("the plot of the losses", plot);
        }
        let thinned = self.delete_samples(epoch.epoch);
        self.decoration("deleting old pictures", thinned);
        if last || epoch.epoch.is_multiple_of(25) {
            let frames = (1..=epoch.epoch).filter(|e| pictures::is_frame(*e, epoch.epoch)).map(|e| self.sample_path(e));
            let animation = pictures::animation(frames.filter(|path| path.is_file()))
                .and_then(|animation| files::write(&self.folder.join(SAMPLES).join("samples.png"), &animation));
            self.decoration("the animation", animation);
        }
    }

    /// Appends an epoch to the event file, which is a new one after an error. The images are thinned as the pictures are.
    fn push_event(&mut self, epoch: &Epoch, samples: Option<(&Array2<u8>, &[u8])>) -> Result<()> {
        let mut events = match self.events.take() {
            Some(events) => events,
            None => EventFile::create(&self.folder, epoch.step)?,
        };
        let is_frame = pictures::is_frame(epoch.epoch, epoch.epoch + 1);
        let cannot_write = || format!("{}: the event file cannot be written", self.folder.display());
        events.push(epoch, samples.filter(|_| is_frame)).with_context(cannot_write)?;
        self.events = Some(events);
        Ok(())
    }

    /// Deletes the pictures that are no frames of the animation any more.
    fn delete_samples(&self, newest: u64) -> Result<()> {
        let folder = self.folder.join(SAMPLES);
        let cannot_read = || format!("{}: cannot be read", folder.display());
        for entry in fs::read_dir(&folder).with_context(cannot_read)? {
            let path = entry.with_context(cannot_read)?.path();
            let epoch = path.file_stem().and_then(|name| name.to_str()?.strip_prefix("epoch-")?.parse().ok());
            if epoch.is_some_and(|epoch| epoch < newest && !pictures::is_frame(epoch, newest)) {
                fs::remove_file(&path).with_context(|| format!("{}: cannot be deleted", path.display()))?;
            }
        }
        Ok(())
    }

    /// The result of a step that the run can do without. The first error of each kind becomes a warning.
    fn decoration<T>(&mut self, kind: &'static str, result: Result<T>) -> Option<T> {
        let why = match result {
            Ok(value) => return Some(value),
            Err(why) => why,
        };
        if self.warned.insert(kind) {
            self.warnings.push(format!("warning: the run goes on without {kind}: {why:#}"));
        }
        None
    }

    /// Saves the training state, and deletes all but the newest checkpoints.
    ///
    /// # Errors
    /// When the checkpoint cannot be written.
    pub fn save_checkpoint(&mut self, state: &TrainState) -> Result<()> {
        self.save(&checkpoint::after_step(&self.folder, state.step), state)?;
        let deleted = checkpoint::delete_old(&self.folder, self.config.settings.checkpoints.max(1));
        self.decoration("deleting old checkpoints", deleted);
        Ok(())
    }

    fn save(&self, path: &Path, state: &TrainState) -> Result<()> {
        checkpoint::save(path, &self.config.settings.plan, self.config.run.as_deref(), state)
    }

    /// Exports the generator that the keep policy selects to the run folder and to `out`. Returns its epoch and the model. If the
    /// run was `finished` before, files that hold it already are not touched.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn export_generator(
        &mut self,
        last: &TrainState,
        out: Option<&Path>,
        finished: bool,
    ) -> Result<(u64, onnx::Model)> {
        let end = self.metrics.epochs().last().cloned();
        let mut kept = (end.clone(), None);
        let best = self.best.clone().filter(|_| self.config.settings.keep == KeepPolicy::Best);
        if let Some(best) = best.filter(|best| best.step < last.step) {
            let path = checkpoint::best(&self.folder);
            let state = checkpoint::read(&path, &self.config.settings.plan, self.config.run.as_deref());
            if let Some(state) = self.decoration("its best generator and exports the last", state) {
                kept = (Some(best), Some(state));
            }
        }
        let (epoch, state) = kept;
        let plan = &self.config.settings.plan;
        let metadata = export::metadata(&self.config, epoch.as_ref());
        let state = state.as_ref().unwrap_or(last);
        let model = export::generator_model(&plan.recipe, state, &self.config.data_classes, &metadata);
        let write = if finished { export::update_model } else { export::write_model };
        write(&self.folder.join(GENERATOR), &model)?;
        out.map_or(Ok(()), |out| write(out, &model))?;
        Ok((epoch.map_or(0, |epoch| epoch.epoch), model))
    }

    /// Writes the images (N, 784) that the exported generator drew, ten of each class, as a picture with a row for each class.
    pub fn show_classes(&mut self, images: Result<Array2<u8>>) {
        let written = images
            .and_then(|images| pictures::png(&pictures::tile(&images.outer_iter().collect::<Vec<_>>(), 10)))
            .and_then(|png| files::update(&self.folder.join(SAMPLES).join("classes.png"), &png));
        self.decoration("the picture of the classes", written);
    }

    /// Whether the run folder has an exported generator.
    pub fn is_exported(&self) -> bool {
        self.folder.join(GENERATOR).exists()
    }

    /// A sentence for the error of a failed run: the checkpoint to resume from.
    pub fn failure_context(&self) -> String {
        match checkpoint::newest(&self.folder) {
            Ok(Some(path)) => format!("the run failed; its last checkpoint is {}", path.display()),
            _ => "the run failed before its first checkpoint".into(),
        }
    }

    fn sample_path(&self, epoch: u64) -> PathBuf {
        self.folder.join(SAMPLES).join(format!("epoch-{epoch:03}.png"))
    }
}

/// Checks that no file or folder of the run is a symbolic link. So a run folder from somebody else cannot let the run
/// overwrite any other file of yours.
///
/// # Errors
/// Names the first link.
fn check_no_links(folder: &Path) -> Result<()> {
    for below in ["", SAMPLES, checkpoint::FOLDER] {
        for entry in fs::read_dir(folder.join(below)).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let is_written = !below.is_empty() || name == GENERATOR || is_of_run(&name);
            let is_link = is_written && path.is_symlink();
            ensure!(!is_link, "{}: a file expected, a symbolic link found; delete it", path.display());
        }
    }
    Ok(())
}

/// Whether a run folder's file or folder of this name belongs to the run and is no generator.
fn is_of_run(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    FILES.contains(&&*name) || name.starts_with(events::PREFIX)
}

/// The epoch whose state is in `best.ckpt`. Says so if there was a best epoch and its state is lost.
fn find_best(folder: &Path, config: &RunConfig, epochs: &[Epoch], say: &mut dyn FnMut(&str)) -> Option<Epoch> {
    let scored = || epochs.iter().filter(|epoch| epoch.frechet_distance.is_some());
    let read = checkpoint::read(&checkpoint::best(folder), &config.settings.plan, config.run.as_deref());
    let (found, why) = match read {
        Ok(state) => {
            let found = scored().find(|epoch| epoch.step == state.step);
            // A run that was killed before its next checkpoint trains and scores that epoch again.
            let is_newer = epochs.last().is_some_and(|last| last.step < state.step);
            (
                found,
                (!is_newer)
                    .then(|| format!("best.ckpt: the state after a scored epoch expected, step {} found", state.step)),
            )
        }
        Err(why) => (None, Some(format!("{why:#}"))),
    };
    if let (None, Some(why), Some(_)) = (found, why, scored().next()) {
        say(&format!(
            "warning: the best generator so far is lost: {why}; the best of the next scores takes its place, or the last \
             generator"
        ));
    }
    found.cloned()
}

const SAMPLES: &str = "samples";
const PLOT: &str = "losses.svg";

/// Name of the exported generator.
pub const GENERATOR: &str = "g.onnx";

/// The files and folders of a run folder that hold no generator.
const FILES: [&str; 6] = [CONFIG, metrics::FILE, PLOT, SAMPLES, checkpoint::FOLDER, lock::FILE];

const _: () = assert!(METRICS.len() == 4); // `Epoch` and `events` name the metrics one by one
