//! The run folder: what a run leaves on disk, readable while it goes on.
//!
//! ```text
//! runs/00000-seed/
//!   config.json                 the resolved configuration
//!   metrics.jsonl               an object an epoch
//!   events.out.tfevents.…       the same and the samples, for TensorBoard
//!   losses.svg                  both losses
//!   samples/epoch-001.png …     16 digits of the same z, and all of them as samples.png (animated)
//!   checkpoints/step-….ckpt     the newest few, and best.ckpt, the best by score
//!   g.onnx                      at the end
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

pub mod checkpoint;
pub mod events;
pub mod pictures;

use crate::config::{
    Config, Device, DeviceSettings, Engine, KeepPolicy, Plan, RunDir, Source, UsageError, steps_per_epoch,
};
use crate::data::Dataset;
use crate::files;
use crate::run::events::Events;
use crate::state::{Epoch, METRICS, TrainState};

/// The folder of one run, locked against a second trainer.
pub struct Run {
    folder: PathBuf,
    config: RunConfig,
    history: Vec<Epoch>,
    metrics: File,
    events: Events,
    _lock: File,
}

/// `config.json`: what was asked for, which a run that goes on asks for again, and what it met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    pub plan: Plan,
    /// What `--data` said; folders and files are absolute.
    pub data: String,
    pub engine: Engine,
    pub out: Option<PathBuf>,
    pub checkpoints: usize,
    pub score_every: u64,
    pub keep: KeepPolicy,
    pub data_name: String,
    pub data_sha256: String,
    /// The device that it runs on.
    pub device: Device,
    pub trainer_version: String,
}

impl RunConfig {
    fn new(config: &Config, data: &Dataset, device: DeviceSettings) -> Result<Self> {
        let source = match &config.data {
            Source::Folder(folder) => Source::Folder(std::path::absolute(folder)?),
            named => named.clone(),
        };
        Ok(Self {
            plan: config.plan.clone(),
            data: source.to_string(),
            engine: Engine { threads: Some(device.threads), ..config.engine },
            out: config.out.as_ref().map(std::path::absolute).transpose()?,
            checkpoints: config.checkpoints,
            score_every: config.score_every,
            keep: config.keep,
            data_name: data.name.clone(),
            data_sha256: data.sha256.clone(),
            device: device.device,
            trainer_version: env!("CARGO_PKG_VERSION").into(),
        })
    }

    fn device_settings(&self) -> DeviceSettings {
        let Engine { threads, tf32, .. } = self.engine;
        DeviceSettings { device: self.device, threads: threads.unwrap_or(1), tf32 }
    }

    /// That of a run folder.
    ///
    /// # Errors
    /// When the folder holds no run, or its configuration cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{}: a run folder with a config.json expected", folder.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}: not a run's configuration", path.display()))
    }
}

/// The configuration of the run in a folder, to go on with it.
///
/// # Errors
/// When the folder holds no run, or its configuration cannot be read.
pub fn resumed(folder: PathBuf) -> Result<Config> {
    let RunConfig { plan, data, engine, out, checkpoints, score_every, keep, .. } = RunConfig::read(&folder)?;
    let (data, run_dir) = (data.parse()?, RunDir::Resume(folder));
    Ok(Config { plan, data, engine, out, step_graph: None, run_dir, checkpoints, score_every, keep })
}

impl Run {
    /// Makes a new run's folder, or goes back to an old one; with it the state to go on from, where there is one.
    ///
    /// # Errors
    /// When the folder is taken, in use, not a run's, or of another plan or data set; or its checkpoint is damaged.
    pub fn open(
        config: &Config,
        data: &Dataset,
        device: DeviceSettings,
        say: &mut dyn FnMut(&str),
    ) -> Result<(Self, Option<TrainState>)> {
        let path = match &config.run_dir {
            RunDir::Next => next_folder(Path::new("runs"), &config.plan.recipe.name)?,
            RunDir::New(path) => {
                fs::create_dir_all(path).with_context(|| format!("--run-dir: {}: cannot be made", path.display()))?;
                path.clone()
            }
            RunDir::Resume(path) => path.clone(),
        };
        let lock = lock(&path)?;
        let before = resume_point(&config.run_dir, &config.plan, data)?;
        let config = RunConfig::new(config, data, device)?;
        if let Some(ResumePoint { config: before, checkpoint, .. }) = &before {
            remove_leftovers(&path);
            checkpoint.iter().for_each(|file| say(&format!("going on from {}", file.display())));
            let before = before.device_settings().describe();
            if before != device.describe() {
                say(&format!(
                    "warning: this run was on {}, and goes on on {}: its generator will not be, byte for byte, that of a \
                     run on one of them alone",
                    before,
                    device.describe()
                ));
            }
        }
        let state = before.and_then(|before| before.state);
        for below in ["samples", "checkpoints"] {
            fs::create_dir_all(path.join(below)).with_context(|| format!("{}: cannot be made", path.display()))?;
        }
        files::write(&path.join("config.json"), &serde_json::to_vec_pretty(&config)?)?;
        let done = state.as_ref().map_or(0, |s| s.step);
        let history = read_metrics(&path.join("metrics.jsonl"))?.into_iter().filter(|e| e.step <= done).collect();
        let metrics = write_metrics(&path.join("metrics.jsonl"), &history)?;
        let events = Events::create(&path, done)?;
        Ok((Self { folder: path, config, history, metrics, events, _lock: lock }, state))
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The greatest variety of the samples so far, 0 before the first epoch.
    pub fn best_variety(&self) -> f32 {
        self.history.iter().map(|epoch| epoch.variety).fold(0.0, f32::max)
    }

    /// Whether the epoch before was one of collapse.
    pub fn collapsed(&self) -> bool {
        self.history.last().is_some_and(|epoch| epoch.collapse)
    }

    /// Records an epoch, its samples (16, 784) and the state after it; the animation and the plot are drawn now and then,
    /// and `last`.
    pub fn epoch(&mut self, epoch: &Epoch, samples: &[f32], state: &TrainState, last: bool) -> Result<()> {
        let best = self.history.iter().filter_map(|e| e.frechet_distance).fold(f64::INFINITY, f64::min);
        if epoch.frechet_distance.is_some_and(|distance| distance < best) {
            checkpoint::save(&self.folder.join("checkpoints/best.ckpt"), &self.config.plan, state)?;
        }
        let mut line = serde_json::to_vec(epoch)?;
        line.push(b'\n');
        self.metrics.write_all(&line).with_context(|| self.cannot_write("metrics.jsonl"))?;
        self.history.push(epoch.clone());
        let grid = pictures::grid(samples, 4);
        let png = pictures::png(&grid)?;
        files::write(&self.sample_path(epoch.epoch), &png)?;
        self.events.epoch(epoch, &grid, &png).with_context(|| self.cannot_write("the TensorBoard event file"))?;
        if last || epoch.epoch.is_multiple_of(10) || epoch.epoch < 10 {
            files::write(&self.folder.join("losses.svg"), pictures::losses(&self.history)?.as_bytes())?;
        }
        if last || epoch.epoch.is_multiple_of(25) {
            let frames = (1..=epoch.epoch).map(|e| self.sample_path(e)).filter(|path| path.exists());
            files::write(&self.folder.join("samples/samples.png"), &pictures::animation(frames)?)?;
        }
        // Last, for a run is resumed from here: whatever it would record again is recorded already.
        self.checkpoint(state)
    }

    /// Saves the state, and removes all but the newest checkpoints.
    pub fn checkpoint(&mut self, state: &TrainState) -> Result<()> {
        let path = self.folder.join("checkpoints").join(format!("step-{:09}.ckpt", state.step));
        checkpoint::save(&path, &self.config.plan, state)?;
        let mut all = checkpoints(&self.folder)?;
        all.truncate(all.len().saturating_sub(self.config.checkpoints.max(1)));
        all.iter().try_for_each(fs::remove_file).with_context(|| self.cannot_write("checkpoints"))
    }

    /// Exports the generator that is to be kept into the folder and to `out`; returns the epoch it is of.
    pub fn finish(&self, last: &TrainState, out: Option<&Path>) -> Result<u64> {
        let RunConfig { plan, .. } = &self.config;
        let scored = self.history.iter().filter(|e| e.frechet_distance.is_some());
        let best = scored.min_by(|a, b| a.frechet_distance.partial_cmp(&b.frechet_distance).expect("finite distances"));
        let (kept, best_state) = match (self.config.keep, best, self.history.last()) {
            (KeepPolicy::Best, Some(best), Some(end)) if best.step < end.step => {
                (Some(best), Some(checkpoint::read(&self.folder.join("checkpoints/best.ckpt"), plan)?))
            }
            (_, _, end) => (end, None),
        };
        let state = best_state.as_ref().unwrap_or(last);
        let (d_loss, g_loss) = kept.map_or((f32::NAN, f32::NAN), |e| (e.d_loss, e.g_loss));
        let score = kept.and_then(|e| e.frechet_distance);
        let epoch = kept.map_or(0, |e| e.epoch);
        let provenance = [
            ("recipe", plan.recipe.name.clone()),
            ("seed", plan.seed.to_string()),
            ("epochs", plan.epochs.to_string()),
            ("batch", plan.batch.to_string()),
            ("lr", plan.recipe.adam.alpha.to_string()),
            ("data", self.config.data_name.clone()),
            ("data_sha256", self.config.data_sha256.clone()),
            ("device", self.config.device.to_string()),
            ("trainer_version", self.config.trainer_version.clone()),
            ("final_d_loss", d_loss.to_string()),
            ("final_g_loss", g_loss.to_string()),
            ("frechet_distance", score.map_or("not scored".into(), |score| format!("{score:.2}"))),
        ];
        let kept = (epoch != plan.epochs).then(|| ("kept_epoch", epoch.to_string()));
        let provenance: Vec<(&str, String)> = provenance.into_iter().chain(kept).collect();
        let model = checkpoint::export(&plan.recipe, state, &provenance);
        checkpoint::write_model(&self.folder.join("g.onnx"), &model)?;
        out.map_or(Ok(()), |out| checkpoint::write_model(out, &model))?;
        Ok(epoch)
    }

    /// What to say of a run that broke down.
    pub fn broke_down(&self) -> String {
        match newest_checkpoint(&self.folder) {
            Ok(Some(path)) => format!("the run broke down; its last checkpoint is {}", path.display()),
            _ => "the run broke down before its first checkpoint".into(),
        }
    }

    fn sample_path(&self, epoch: u64) -> PathBuf {
        self.folder.join(format!("samples/epoch-{epoch:03}.png"))
    }

    fn cannot_write(&self, what: &str) -> String {
        format!("{}: {what} cannot be written", self.folder.display())
    }
}

/// The newest numbered folder below `runs` that holds a run.
///
/// # Errors
/// When there is none.
pub fn latest(runs: &Path) -> Result<PathBuf> {
    let newest = numbered(runs).into_iter().filter(|(_, path)| path.join("config.json").exists()).max();
    newest.map(|(_, path)| path).ok_or_else(|| anyhow!("--resume latest: no run found in {}", runs.display()))
}

/// The epochs that a run has recorded.
pub fn read_metrics(path: &Path) -> Result<Vec<Epoch>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).with_context(|| format!("{}: cannot be read", path.display())),
    };
    // A last line that a killed run left half written counts as not written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(i, line)| {
        serde_json::from_str(line).with_context(|| format!("{}: line {}: an epoch expected", path.display(), i + 1))
    };
    whole.lines().enumerate().map(parse).collect()
}

fn write_metrics(path: &Path, history: &Vec<Epoch>) -> Result<File> {
    let mut text = String::new();
    for epoch in history {
        text += &serde_json::to_string(epoch)?;
        text.push('\n');
    }
    files::write(path, text.as_bytes())?;
    OpenOptions::new().append(true).open(path).with_context(|| format!("{}: cannot be written", path.display()))
}

/// Where a run stands that is to go on.
pub struct ResumePoint {
    pub config: RunConfig,
    /// The newest, and the state in it.
    pub checkpoint: Option<PathBuf>,
    pub state: Option<TrainState>,
}

/// Looks whether a plan fits a folder, and changes nothing; `None` is a run that begins.
///
/// # Errors
/// See [`Run::open`].
pub fn resume_point(folder: &RunDir, plan: &Plan, data: &Dataset) -> Result<Option<ResumePoint>> {
    let folder = match folder {
        RunDir::Resume(folder) => folder,
        RunDir::New(folder) if folder.join("config.json").exists() => {
            let name = folder.display();
            bail!(UsageError(format!(
                "--run-dir: {name} holds a run already; go on with it by --resume, or name another"
            )))
        }
        _ => return Ok(None),
    };
    let (name, before) = (folder.display(), RunConfig::read(folder)?);
    let contradictions = plan.contradictions(&before.plan);
    let contradictions = contradictions.join(", ");
    ensure!(contradictions.is_empty(), UsageError(format!("--resume: {contradictions} contradicts {name}")));
    let RunConfig { data_name, data_sha256, .. } = &before;
    if *data_sha256 != data.sha256 {
        let (found, found_sha256) = (&data.name, &data.sha256);
        bail!(UsageError(format!(
            "--data: the run in {name} was trained on {data_name} with sha256 {data_sha256}, this is {found} with {found_sha256}"
        )));
    }
    let checkpoint = newest_checkpoint(folder)?;
    let state = checkpoint.as_ref().map(|file| checkpoint::read(file, plan)).transpose()?;
    let begun = state.as_ref().map_or(0, |state| state.step.div_ceil(steps_per_epoch(data.len(), plan.batch)));
    let epochs = plan.epochs;
    UsageError::unless(epochs >= begun, "epochs", &format!("at least the {begun} that {name} has begun"), epochs)?;
    Ok(Some(ResumePoint { config: before, checkpoint, state }))
}

fn next_folder(runs: &Path, recipe: &str) -> Result<PathBuf> {
    fs::create_dir_all(runs).with_context(|| format!("{}: the folder for runs cannot be made", runs.display()))?;
    let mut number = numbered(runs).iter().map(|(n, _)| n + 1).max().unwrap_or(0);
    loop {
        let path = runs.join(format!("{number:05}-{recipe}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(e).with_context(|| format!("{}: cannot be made", path.display())),
        }
    }
}

/// The folders called NNNNN-something, with their numbers.
fn numbered(runs: &Path) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (number, _) = name.split_once('-')?;
            Some((number.parse().ok()?, entry.path()))
        })
        .collect()
}

fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(".lock");
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("{}: a run folder that can be written expected", folder.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            bail!("{}: another trainer is at work in this run folder; wait for it, or stop it", folder.display())
        }
        Err(fs::TryLockError::Error(e)) => Err(e).with_context(|| format!("{}: cannot be locked", path.display())),
    }
}

/// The checkpoints to resume from, oldest first; the best by score is not among them.
fn checkpoints(folder: &Path) -> Result<Vec<PathBuf>> {
    let folder = folder.join("checkpoints");
    let entries = fs::read_dir(&folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| is_step(p)).collect();
    paths.sort();
    Ok(paths)
}

fn is_step(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("step-") && name.ends_with(".ckpt")
}

fn newest_checkpoint(folder: &Path) -> Result<Option<PathBuf>> {
    Ok(checkpoints(folder)?.pop())
}

/// Removes temporary files that a killed run left.
fn remove_leftovers(folder: &Path) {
    for folder in [folder.into(), folder.join("samples"), folder.join("checkpoints")] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(".tmp") {
                let _ = fs::remove_file(entry.path()); // it can stay: nothing reads it
            }
        }
    }
}

/// A table of runs, for `trainer compare`.
pub fn compare(folders: &[PathBuf]) -> Result<String> {
    let mut rows = vec![
        ["run", "recipe", "seed", "lr", "batch", "epochs", "d_loss", "g_loss", "FD", "variety", "steps/s"]
            .map(String::from),
    ];
    for folder in folders {
        let RunConfig { plan, .. } = RunConfig::read(folder)?;
        let history = read_metrics(&folder.join("metrics.jsonl"))?;
        let last = |value: fn(&Epoch) -> f64, digits: usize| {
            history.last().map_or("-".into(), |epoch| format!("{:.digits$}", value(epoch)))
        };
        rows.push([
            folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned(),
            plan.recipe.name,
            plan.seed.to_string(),
            plan.recipe.adam.alpha.to_string(),
            plan.batch.to_string(),
            format!("{}/{}", history.len(), plan.epochs),
            last(|e| e.d_loss as f64, 4),
            last(|e| e.g_loss as f64, 4),
            (history.iter().rev().find_map(|e| e.frechet_distance)).map_or("-".into(), |fd| format!("{fd:.1}")),
            last(|e| e.variety as f64, 2),
            last(|e| e.steps_per_second, 0),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &[String; 11]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &w)| format!("{cell:<w$}")).collect();
        cells.join("  ").trim_end().to_string()
    };
    Ok(rows.iter().map(line).collect::<Vec<_>>().join("\n"))
}

const _: () = assert!(METRICS.len() == 4); // `Epoch` and `events` name them one by one
