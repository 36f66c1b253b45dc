//! Resuming a run: `config.json`, and the state in which the run stopped.

use std::fs;
use std::path::{Path, PathBuf, absolute};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::config::{Config, Device, DeviceSettings, Engine, Plan, RunDir, Source, UsageError, steps_per_epoch};
use crate::data::Dataset;
use crate::run::checkpoint;
use crate::state::TrainState;

/// The settings of `run_dir`'s run, as a configuration that resumes it.
///
/// # Errors
/// When the folder holds no run, or its `config.json` cannot be read.
pub fn config_of(run_dir: PathBuf) -> Result<Config> {
    let settings = RunConfig::read(&run_dir)?.settings;
    Ok(Config { run_dir: RunDir::Resume(run_dir), ..settings })
}

/// The contents of `config.json`: the settings to resume with, then a record of the data, device and program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunConfig {
    /// The settings to resume with: paths are absolute, and the number of threads is the actual one.
    #[serde(flatten)]
    pub settings: Config,
    /// Name of the data set.
    pub data_name: String,
    /// SHA-256 of the training images.
    pub data_sha256: String,
    /// The device that the run actually uses.
    pub device: Device,
    /// Version of `trainer`.
    pub trainer_version: String,
}

impl RunConfig {
    /// The record of a run that is about to start or resume.
    ///
    /// # Errors
    /// When the current directory is unknown.
    pub fn new(config: &Config, data: &Dataset, device: DeviceSettings) -> Result<Self> {
        let mut settings = config.clone();
        if let Source::Folder(folder) = &mut settings.data {
            *folder = absolute(&folder)?;
        }
        settings.engine.threads = Some(device.threads);
        settings.out = settings.out.map(absolute).transpose()?;
        Ok(Self {
            settings,
            data_name: data.name.clone(),
            data_sha256: data.sha256.clone(),
            device: device.device,
            trainer_version: env!("CARGO_PKG_VERSION").into(),
        })
    }

    /// The `config.json` of a run folder.
    ///
    /// # Errors
    /// When the folder holds no run, or the file cannot be read.
    pub fn read(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join("config.json");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{}: a run folder with a config.json expected", run_dir.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}: a run's configuration expected", path.display()))
    }

    /// The device that the run uses, with the settings that decide its summation order.
    pub fn device_settings(&self) -> DeviceSettings {
        let Engine { threads, tf32, .. } = self.settings.engine;
        DeviceSettings { device: self.device, threads: threads.unwrap_or(1), tf32 }
    }
}

/// The state in which a run stopped.
pub struct ResumePoint {
    /// The run's settings until now.
    pub config: RunConfig,
    /// Path of the newest checkpoint; `None` if the run stopped before the first.
    pub checkpoint: Option<PathBuf>,
    /// Training state in that checkpoint.
    pub state: Option<TrainState>,
}

/// The state to resume from, or `None` for a new run. Changes nothing on disk.
///
/// # Errors
/// When the plan or the data set is not the run's, a new run names the folder of an old one, or the newest checkpoint is
/// damaged.
pub fn resume_point(run_dir: &RunDir, plan: &Plan, data: &Dataset) -> Result<Option<ResumePoint>> {
    let run_dir = match run_dir {
        RunDir::Resume(run_dir) => run_dir,
        RunDir::New(run_dir) if run_dir.join("config.json").exists() => {
            let name = run_dir.display();
            bail!(UsageError(format!(
                "--run-dir: {name} already holds a run; continue it with --resume, or use another"
            )))
        }
        _ => return Ok(None),
    };
    let (name, config) = (run_dir.display(), RunConfig::read(run_dir)?);
    let contradictions = plan.contradictions(&config.settings.plan).join(", ");
    ensure!(contradictions.is_empty(), UsageError(format!("--resume: {contradictions} contradicts {name}")));
    ensure!(
        config.data_sha256 == data.sha256,
        UsageError(format!(
            "--data: the run in {name} was trained on {} with sha256 {}, this is {} with {}",
            config.data_name, config.data_sha256, data.name, data.sha256
        ))
    );
    let checkpoint = checkpoint::newest(run_dir)?;
    let state = checkpoint.as_ref().map(|file| checkpoint::read(file, plan)).transpose()?;
    let begun = state.as_ref().map_or(0, |state| state.step.div_ceil(steps_per_epoch(data.n(), plan.batch)));
    let expected = format!("at least the {begun} that {name} has begun");
    UsageError::unless(plan.epochs >= begun, "epochs", &expected, plan.epochs)?;
    Ok(Some(ResumePoint { config, checkpoint, state }))
}
