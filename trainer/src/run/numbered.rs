//! Numbered run folders: `runs/00000-seed`, `runs/00001-tuned`, …

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::run::resume::CONFIG;
use crate::run::{checkpoint, metrics};

/// Creates the folder with the next free number in `runs`.
///
/// # Errors
/// When a folder cannot be created.
pub fn create_next(recipe: &str) -> Result<PathBuf> {
    fs::create_dir_all(RUNS).with_context(|| format!("{RUNS}: cannot be created"))?;
    let runs = fs::read_dir(RUNS).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut next = runs.filter_map(|run| number(&run)).max().map_or(0, |last| u64::from(last) + 1);
    loop {
        let path = Path::new(RUNS).join(format!("{next:05}-{recipe}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => next += 1,
            Err(e) => return Err(e).with_context(|| format!("{}: cannot be created", path.display())),
        }
    }
}

/// The run in `runs` that was worked on last: its checkpoint, metrics or settings are the newest. Of two runs of the same
/// time, the one with the higher number.
///
/// # Errors
/// When no folder holds a run.
pub fn latest() -> Result<PathBuf> {
    let runs = fs::read_dir(RUNS).into_iter().flatten().flatten().map(|entry| entry.path());
    let time = |run: &Path| {
        let files = [CONFIG, metrics::FILE, checkpoint::FOLDER].map(|name| run.join(name));
        files.iter().filter_map(|file| fs::metadata(file).ok()?.modified().ok()).max()
    };
    let newest = runs.filter(|run| run.join(CONFIG).is_file()).max_by_key(|run| (time(run), number(run), run.clone()));
    newest.ok_or_else(|| anyhow!("--resume latest: no run found in {RUNS}"))
}

/// The folder of run folders, in the current directory.
const RUNS: &str = "runs";

/// The number of a folder named `NUMBER-…`.
fn number(run: &Path) -> Option<u32> {
    run.file_name()?.to_str()?.split_once('-')?.0.parse().ok()
}
