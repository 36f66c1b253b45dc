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

use crate::checkpoint;
use crate::events::Events;
use crate::gan::StepGraph;
use crate::mnist::Dataset;
use crate::picture;
use crate::session::{OnnxRuntime, TrainState};
use crate::train::{Config, Epoch, Folder, Plan};

/// The folder of one run, locked against a second trainer.
pub struct Run {
    folder: PathBuf,
    config: RunConfig,
    checkpoints: usize,
    history: Vec<Epoch>,
    metrics: File,
    events: Events,
    _lock: File,
}

/// `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    pub plan: Plan,
    /// What `--data` said.
    pub data: String,
    pub data_name: String,
    pub data_sha256: String,
    pub out: Option<PathBuf>,
    pub device: String,
    pub trainer_version: String,
}

impl RunConfig {
    pub fn new(config: &Config, data: &Dataset, runtime: &OnnxRuntime) -> Self {
        Self {
            plan: config.plan.clone(),
            data: config.data.to_string(),
            data_name: data.name.clone(),
            data_sha256: data.sha256.clone(),
            out: config.out.clone(),
            device: runtime.device.to_string(),
            trainer_version: env!("CARGO_PKG_VERSION").into(),
        }
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

impl Run {
    /// Makes a new run's folder, or goes back to an old one; with it the state to go on from, where there is one.
    ///
    /// # Errors
    /// When the folder is taken, in use, not a run's, or of another plan or data set; or its checkpoint is damaged.
    pub fn open(
        folder: &Folder,
        config: RunConfig,
        checkpoints: usize,
        say: &mut dyn FnMut(&str),
    ) -> Result<(Self, Option<TrainState>)> {
        let (path, resumed) = match folder {
            Folder::Next => (next_folder(Path::new("runs"), &config.plan.recipe.name)?, false),
            Folder::New(path) => {
                fs::create_dir_all(path).with_context(|| format!("--run-dir: {}: cannot be made", path.display()))?;
                (path.clone(), false)
            }
            Folder::Resume(path) => (path.clone(), true),
        };
        let lock = lock(&path)?;
        if resumed {
            let before = RunConfig::read(&path)?;
            ensure!(
                Plan { epochs: 0, ..before.plan.clone() } == Plan { epochs: 0, ..config.plan.clone() },
                "{}: a run of plan {:?} expected, one of {:?} found",
                path.display(),
                config.plan,
                before.plan
            );
            ensure!(
                before.data_sha256 == config.data_sha256,
                "--data: the run in {} was trained on {} with sha256 {}, this is {} with {}",
                path.display(),
                before.data_name,
                before.data_sha256,
                config.data_name,
                config.data_sha256
            );
            remove_leftovers(&path);
        } else if path.join("config.json").exists() {
            bail!("--run-dir: {} holds a run already; go on with it by --resume, or name another", path.display());
        }
        for below in ["samples", "checkpoints"] {
            fs::create_dir_all(path.join(below)).with_context(|| format!("{}: cannot be made", path.display()))?;
        }
        checkpoint::write(&path.join("config.json"), &serde_json::to_vec_pretty(&config)?)?;

        let state = match newest_checkpoint(&path)? {
            Some(file) if resumed => {
                say(&format!("going on from {}", file.display()));
                Some(checkpoint::read(&file, &config.plan)?)
            }
            _ => None,
        };
        let done = state.as_ref().map_or(0, |s| s.step);
        let history = read_metrics(&path.join("metrics.jsonl"))?.into_iter().filter(|e| e.step <= done).collect();
        let metrics = write_metrics(&path.join("metrics.jsonl"), &history)?;
        let events = Events::create(&path, done)?;
        Ok((Self { folder: path, config, checkpoints, history, metrics, events, _lock: lock }, state))
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
        let grid = picture::grid(samples, 4);
        let png = picture::png(&grid)?;
        checkpoint::write(&self.sample_path(epoch.epoch), &png)?;
        self.events.epoch(epoch, &grid, &png).with_context(|| self.cannot_write("the TensorBoard event file"))?;
        if last || epoch.epoch.is_multiple_of(10) || epoch.epoch < 10 {
            checkpoint::write(&self.folder.join("losses.svg"), picture::losses(&self.history)?.as_bytes())?;
        }
        if last || epoch.epoch.is_multiple_of(25) {
            let frames = (1..=epoch.epoch).map(|e| self.sample_path(e)).filter(|path| path.exists());
            checkpoint::write(&self.folder.join("samples/samples.png"), &picture::animation(frames)?)?;
        }
        // Last, for a run is resumed from here: whatever it would record again is recorded already.
        self.checkpoint(state)
    }

    /// Saves the state, and removes all but the newest checkpoints.
    pub fn checkpoint(&mut self, state: &TrainState) -> Result<()> {
        let path = self.folder.join("checkpoints").join(format!("step-{:09}.ckpt", state.step));
        checkpoint::save(&path, &self.config.plan, state)?;
        let mut all = checkpoints(&self.folder)?;
        all.truncate(all.len().saturating_sub(self.checkpoints.max(1)));
        all.iter().try_for_each(fs::remove_file).with_context(|| self.cannot_write("checkpoints"))
    }

    /// Exports the generator into the folder and to `out`.
    pub fn finish(&self, state: &TrainState, out: Option<&Path>) -> Result<()> {
        let RunConfig { plan, .. } = &self.config;
        let (d_loss, g_loss) = self.history.last().map_or((f32::NAN, f32::NAN), |e| (e.d_loss, e.g_loss));
        let score = self.history.last().and_then(|e| e.frechet_distance);
        let provenance = [
            ("recipe", plan.recipe.name.clone()),
            ("seed", plan.seed.to_string()),
            ("epochs", plan.epochs.to_string()),
            ("batch", plan.batch.to_string()),
            ("lr", plan.recipe.adam.alpha.to_string()),
            ("data", self.config.data_name.clone()),
            ("data_sha256", self.config.data_sha256.clone()),
            ("device", self.config.device.clone()),
            ("trainer_version", self.config.trainer_version.clone()),
            ("final_d_loss", d_loss.to_string()),
            ("final_g_loss", g_loss.to_string()),
            ("frechet_distance", score.map_or("not scored".into(), |score| format!("{score:.2}"))),
        ];
        let model = checkpoint::export(state, &provenance);
        checkpoint::write_model(&self.folder.join("g.onnx"), &model)?;
        out.map_or(Ok(()), |out| checkpoint::write_model(out, &model))
    }

    /// What to say of a run that broke down.
    pub fn last_good(&self) -> String {
        match newest_checkpoint(&self.folder) {
            Ok(Some(path)) => format!("the run broke down; its last good checkpoint is {}", path.display()),
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

/// The newest numbered folder below `runs`.
///
/// # Errors
/// When there is none.
pub fn latest(runs: &Path) -> Result<PathBuf> {
    let newest = numbered(runs).into_iter().max();
    newest.map(|(_, path)| path).ok_or_else(|| anyhow!("--resume latest: no run found in {}", runs.display()))
}

/// The epochs that a run has recorded.
pub fn read_metrics(path: &Path) -> Result<Vec<Epoch>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).with_context(|| format!("{}: cannot be read", path.display())),
    };
    // A line that a killed run left half written counts as not written.
    Ok(text.lines().map_while(|line| serde_json::from_str(line).ok()).collect())
}

fn write_metrics(path: &Path, history: &Vec<Epoch>) -> Result<File> {
    let mut text = String::new();
    for epoch in history {
        text += &serde_json::to_string(epoch)?;
        text.push('\n');
    }
    checkpoint::write(path, text.as_bytes())?;
    OpenOptions::new().append(true).open(path).with_context(|| format!("{}: cannot be written", path.display()))
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

const _: () = assert!(StepGraph::METRICS.len() == 4); // `Epoch` and `events` name them one by one
