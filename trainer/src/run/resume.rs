//! Resuming a run: `config.json`, and the state in which the run stopped.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf, absolute};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Config, Device, DeviceSettings, Engine, Plan, RunDir, Source, UsageError, steps_per_epoch};
use crate::data::Dataset;
use crate::files;
use crate::run::{checkpoint, metrics};
use crate::state::{Epoch, TrainState};

/// The settings of `run_dir`'s run, as a configuration that resumes it.
///
/// # Errors
/// When the folder holds no run, or its `config.json` cannot be read.
pub fn config_of(run_dir: PathBuf) -> Result<Config> {
    let settings = RunConfig::read(&run_dir)?.settings;
    Ok(Config { run_dir: RunDir::Resume(run_dir), ..settings })
}

/// The same settings with the number of classes of the data. A run of an older version keeps its ten, of which its data may have
/// fewer.
///
/// # Errors
/// When the run to resume cannot be read.
pub fn with_classes(config: &Config, data: &Dataset) -> Result<Config> {
    let mut config = config.clone();
    let mut classes = data.classes.len();
    if let RunDir::Resume(run_dir) = &config.run_dir {
        let run = RunConfig::read(run_dir)?;
        let of_run = run.settings.plan.recipe.classes;
        if run.data_classes.len() != of_run {
            classes = classes.max(of_run);
        }
    }
    config.plan.recipe.classes = classes;
    Ok(config)
}

/// Checks that the `out` of a run that is resumed, as its `config.json` has it, is in the current directory or beside the run
/// folder, or in a folder below one of them. So a run folder from somebody else cannot choose any other file of yours.
///
/// # Errors
/// When it is elsewhere.
pub fn check_recorded_out(config: &Config) -> Result<(), UsageError> {
    let (RunDir::Resume(run_dir), Some(out)) = (&config.run_dir, &config.out) else { return Ok(()) };
    let beside = fs::canonicalize(run_dir).ok().and_then(|run_dir| Some(run_dir.parent()?.to_path_buf()));
    let here = [fs::canonicalize(".").ok(), beside];
    let is_here = |out: PathBuf| here.iter().flatten().any(|folder| out.starts_with(folder));
    if files::resolve(out).is_ok_and(is_here) {
        return Ok(());
    }
    let out = out.display();
    Err(UsageError(format!(
        "--resume: the run writes {out}, which is neither in the current directory nor beside the run folder; choose a file \
         with --out"
    )))
}

/// The contents of `config.json`: the settings to resume with, then a record of the data, device and program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunConfig {
    /// The settings to resume with: paths are absolute, and the number of threads is the actual one.
    #[serde(flatten)]
    pub settings: Config,
    /// Name of the data set.
    pub data_name: String,
    /// See [`Dataset::sha256`].
    pub data_sha256: String,
    /// Names of the data set's classes; empty for runs of older versions, whose classes are the ten digits.
    #[serde(default)]
    pub data_classes: Vec<String>,
    /// SHA-256 of the judge that made the run's scores; `None` for runs of older versions, which had the judge of MNIST.
    #[serde(default)]
    pub judge_sha256: Option<String>,
    /// Identifier of the run, which its checkpoints bear; `None` for runs of older versions.
    pub run: Option<String>,
    /// The device that the run actually uses.
    pub device: Device,
    /// Version of `trainer`.
    pub trainer_version: String,
}

impl RunConfig {
    /// The record of a run that is about to start, or that resumes with the record of `before`.
    ///
    /// # Errors
    /// When the current directory is unknown.
    pub fn new(config: &Config, data: &Dataset, device: DeviceSettings, before: Option<&Self>) -> Result<Self> {
        let mut settings = config.clone();
        if let Source::Folder(folder) = &mut settings.data {
            *folder = absolute(&folder)?;
        }
        settings.engine.threads = Some(device.threads);
        settings.out = settings.out.map(absolute).transpose()?;
        let random = || RandomState::new().build_hasher().finish();
        Ok(Self {
            settings,
            data_name: data.name.clone(),
            data_sha256: data.sha256.clone(),
            data_classes: data.classes.clone(),
            judge_sha256: before.and_then(|before| before.judge_sha256.clone()),
            run: before.map_or_else(|| Some(format!("{:016x}", random())), |before| before.run.clone()),
            device: device.device,
            trainer_version: env!("CARGO_PKG_VERSION").into(),
        })
    }

    /// The `config.json` of a run folder.
    ///
    /// # Errors
    /// When the folder holds no run, the file cannot be read, or it has a setting that is none.
    pub fn read(run_dir: &Path) -> Result<Self> {
        let path = run_dir.join(CONFIG);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{}: a run folder with a config.json expected", run_dir.display()))?;
        let expected = || format!("{}: a run's configuration expected", path.display());
        let json: Value = serde_json::from_str(&text).with_context(expected)?;
        let config = Self::deserialize(&json).with_context(expected)?;
        let unknown = unknown_key(&json, &serde_json::to_value(&config)?);
        let unknown = unknown.map_or(Ok(()), |key| Err(anyhow!("{key:?} is no setting; correct or delete it")));
        unknown.with_context(expected)?;
        Ok(config)
    }

    /// The device that the run uses, with its settings.
    pub fn device_settings(&self) -> DeviceSettings {
        let Engine { threads, tf32, .. } = self.settings.engine;
        DeviceSettings { device: self.device, threads: threads.unwrap_or(1), tf32 }
    }
}

/// Name of the file with a run's [`RunConfig`].
pub const CONFIG: &str = "config.json";

/// The first key of an object in `json` that `known` lacks. (With `flatten`, serde cannot deny unknown fields.)
fn unknown_key<'a>(json: &'a Value, known: &Value) -> Option<&'a str> {
    const OLDER_NAMES: [&str; 2] = ["d", "one_z"];
    let (json, known) = (json.as_object()?, known.as_object()?);
    json.iter().find_map(|(key, value)| match known.get(key) {
        Some(known) => unknown_key(value, known),
        None => Some(key.as_str()).filter(|key| !OLDER_NAMES.contains(key)),
    })
}

/// The state in which a run stopped.
pub struct ResumePoint {
    /// The run's settings until now.
    pub config: RunConfig,
    /// Path of the newest checkpoint; `None` if the run stopped before the first.
    pub checkpoint: Option<PathBuf>,
    /// Training state in that checkpoint.
    pub state: Option<TrainState>,
    /// The epochs until that checkpoint.
    pub epochs: Vec<Epoch>,
}

/// The state to resume from, or `None` for a new run. Changes nothing on disk.
///
/// # Errors
/// When the plan or the data set is not the run's, a new run names a folder with a run or checkpoints, the newest checkpoint is
/// damaged, or it is not from the run that `metrics.jsonl` records.
pub fn resume_point(run_dir: &RunDir, plan: &Plan, data: &Dataset) -> Result<Option<ResumePoint>> {
    let run_dir = match run_dir {
        RunDir::Resume(run_dir) => run_dir,
        RunDir::New(run_dir) => {
            let name = run_dir.display();
            ensure!(
                !run_dir.join(CONFIG).exists(),
                UsageError(format!("--run-dir: {name} already holds a run; continue it with --resume, or use another"))
            );
            ensure!(
                !checkpoint::is_in(run_dir),
                UsageError(format!("--run-dir: {name} already holds checkpoints; use another"))
            );
            return Ok(None);
        }
        RunDir::Next => return Ok(None),
    };
    let (name, config) = (run_dir.display(), RunConfig::read(run_dir)?);
    let contradictions = plan.contradictions(&config.settings.plan).join(", ");
    ensure!(contradictions.is_empty(), UsageError(format!("--resume: {contradictions} contradicts {name}")));
    let (expected, found) = (&config.settings.plan.recipe, &plan.recipe);
    ensure!(
        found.one_hot() == expected.one_hot(),
        UsageError(format!(
            "--data: {} classes expected, as the run in {name} has, {} of {} found",
            expected.classes, found.classes, data.name
        ))
    );
    ensure!(
        config.data_sha256 == data.sha256,
        UsageError(format!(
            "--data: the run in {name} was trained on {} with sha256 {}, this is {} with {}",
            config.data_name, config.data_sha256, data.name, data.sha256
        ))
    );
    let (checkpoint, per_epoch) = (checkpoint::newest(run_dir)?, steps_per_epoch(data.n(), plan.batch));
    let (mut state, mut epochs) = (None, vec![]);
    if let Some(file) = &checkpoint {
        const ADVICE: &str = "delete it to resume from the one before";
        let read = checkpoint::read(file, plan, config.run.as_deref()).map_err(|why| anyhow!("{why:#}; {ADVICE}"))?;
        epochs = metrics::read(run_dir)?;
        epochs.retain(|epoch| epoch.step <= read.step);
        let is_recorded = (1..).map(|epoch| (epoch, epoch * per_epoch)).take(epochs.len());
        let expected = (read.step / per_epoch) as usize;
        ensure!(
            epochs.len() == expected && is_recorded.eq(epochs.iter().map(|epoch| (epoch.epoch, epoch.step))),
            "{}: a checkpoint after {expected} epochs of the run in {} expected, which has {}; {ADVICE}",
            file.display(),
            metrics::FILE,
            epochs.len()
        );
        state = Some(read);
    }
    let begun = state.as_ref().map_or(0, |state| state.step.div_ceil(per_epoch));
    let expected = format!("at least the {begun} that {name} has begun");
    UsageError::unless(plan.epochs >= begun, "epochs", &expected, plan.epochs)?;
    Ok(Some(ResumePoint { config, checkpoint, state, epochs }))
}
