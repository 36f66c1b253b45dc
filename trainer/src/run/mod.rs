//! The run folder: all files that a run writes. Every file can be read during the run; a hidden `.lock` keeps a second
//! trainer out.
//!
//! ```text
//! runs/00000-seed/
//!   config.json                 all settings
//!   metrics.jsonl               one JSON object per epoch
//!   events.out.tfevents.…       metrics and samples for TensorBoard
//!   losses.svg                  plot of both losses
//!   samples/epoch-001.png …     16 digits drawn from the same z after every epoch; samples.png animates them, every
//!                               25 epochs
//!   checkpoints/step-….ckpt     the newest checkpoints; best.ckpt has the best score
//!   g.onnx                      the exported generator, written when the run ends
//! ```
//!
//! An epoch is recorded while the next one trains. A killed run resumes from the newest checkpoint, see [`resume`].

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ndarray::ArrayView2;

pub mod checkpoint;
pub mod compare;
pub mod events;
pub mod export;
pub mod lock;
pub mod metrics;
pub mod numbered;
pub mod pictures;
pub mod resume;

use crate::config::{Config, DeviceSettings, KeepPolicy, RunDir};
use crate::data::Dataset;
use crate::files;
use crate::run::events::EventFile;
use crate::run::metrics::MetricsLog;
use crate::run::resume::{ResumePoint, RunConfig, resume_point};
use crate::state::{Epoch, METRICS, TrainState};

/// The recorder of one run. It holds the lock of the run folder.
pub struct Run {
    folder: PathBuf,
    config: RunConfig,
    metrics: MetricsLog,
    events: EventFile,
    _lock: File,
}

impl Run {
    /// Creates a run folder, or opens an old one together with the training state to resume from.
    ///
    /// # Errors
    /// When the folder is in use, cannot be written, or holds a run with another plan or data set; or the newest
    /// checkpoint is damaged.
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
            RunDir::Resume(path) => path.clone(),
        };
        let lock = lock::lock(&folder)?;
        let before = resume_point(&config.run_dir, &config.plan, data)?;
        let config = RunConfig::new(config, data, device)?;
        if let Some(ResumePoint { config: before, checkpoint, .. }) = &before {
            for below in ["", SAMPLES, checkpoint::FOLDER] {
                files::remove_temporary(&folder.join(below));
            }
            checkpoint.iter().for_each(|file| say(&format!("resuming from {}", file.display())));
            let (before, now) = (before.device_settings().describe(), device.describe());
            if before != now {
                say(&format!(
                    "warning: this run was on {before} and continues on {now}; its generator will differ in its last \
                     bits from that of a run on one of them"
                ));
            }
        }
        let state = before.and_then(|before| before.state);
        for below in [SAMPLES, checkpoint::FOLDER] {
            let path = folder.join(below);
            fs::create_dir_all(&path).with_context(|| cannot_create(&path))?;
        }
        files::write(&folder.join("config.json"), &serde_json::to_vec_pretty(&config)?)?;
        let done = state.as_ref().map_or(0, |state| state.step);
        let metrics = MetricsLog::open(&folder, done)?;
        let events = EventFile::create(&folder, done)?;
        Ok((Self { folder, config, metrics, events, _lock: lock }, state))
    }

    /// The path of the run folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The epochs recorded so far, oldest first.
    pub fn epochs(&self) -> &[Epoch] {
        self.metrics.epochs()
    }

    /// Records an epoch, its samples (16, 784) in [-1, 1] and the training state after it. The plot and the animation
    /// are redrawn after some epochs and after the `last`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn record_epoch(
        &mut self,
        epoch: &Epoch,
        samples: ArrayView2<f32>,
        state: &TrainState,
        last: bool,
    ) -> Result<()> {
        let best = self.metrics.best().and_then(|best| best.frechet_distance).unwrap_or(f64::INFINITY);
        if epoch.frechet_distance.is_some_and(|distance| distance < best) {
            checkpoint::save(&checkpoint::best(&self.folder), &self.config.settings.plan, state)?;
        }
        self.metrics.push(epoch)?;
        let grid = pictures::grid(samples);
        let png = pictures::png(&grid)?;
        files::write(&self.sample_path(epoch.epoch), &png)?;
        let cannot_write = || format!("{}: the TensorBoard event file cannot be written", self.folder.display());
        self.events.push(epoch, &grid, &png).with_context(cannot_write)?;
        if last || epoch.epoch.is_multiple_of(10) || epoch.epoch < 10 {
            files::write(&self.folder.join("losses.svg"), pictures::losses(self.metrics.epochs())?.as_bytes())?;
        }
        if last || epoch.epoch.is_multiple_of(25) {
            let frames = (1..=epoch.epoch).map(|e| self.sample_path(e)).filter(|path| path.exists());
            files::write(&self.folder.join(SAMPLES).join("samples.png"), &pictures::animation(frames)?)?;
        }
        // The checkpoint comes last: a run that is killed before this line resumes before this epoch and records it again.
        self.save_checkpoint(state)
    }

    /// Saves the training state, and deletes all but the newest checkpoints.
    ///
    /// # Errors
    /// When a file cannot be written or deleted.
    pub fn save_checkpoint(&self, state: &TrainState) -> Result<()> {
        checkpoint::save_newest(
            &self.folder,
            &self.config.settings.plan,
            state,
            self.config.settings.checkpoints.max(1),
        )
    }

    /// Exports the generator that the keep policy selects to the run folder and to `out`, and returns its epoch.
    ///
    /// # Errors
    /// When a file cannot be written, or the best checkpoint is damaged.
    pub fn export_generator(&self, last: &TrainState, out: Option<&Path>) -> Result<u64> {
        let plan = &self.config.settings.plan;
        let (kept, best_state) = match (self.config.settings.keep, self.metrics.best(), self.metrics.epochs().last()) {
            (KeepPolicy::Best, Some(best), Some(end)) if best.step < end.step => {
                (Some(best), Some(checkpoint::read(&checkpoint::best(&self.folder), plan)?))
            }
            (_, _, end) => (end, None),
        };
        let state = best_state.as_ref().unwrap_or(last);
        let model = export::generator_model(&plan.recipe, state, &export::metadata(&self.config, kept));
        export::write_model(&self.folder.join("g.onnx"), &model)?;
        out.map_or(Ok(()), |out| export::write_model(out, &model))?;
        Ok(kept.map_or(0, |epoch| epoch.epoch))
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

const SAMPLES: &str = "samples";

const _: () = assert!(METRICS.len() == 4); // `Epoch` and `events` name the metrics one by one
