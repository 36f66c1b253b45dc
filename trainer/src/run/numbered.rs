//! Numbered run folders: `runs/00000-seed`, `runs/00001-tuned`, …

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

/// Creates the folder with the next free number in `runs`.
///
/// # Errors
/// When a folder cannot be created.
pub fn create_next(recipe: &str) -> Result<PathBuf> {
    fs::create_dir_all(RUNS).with_context(|| format!("{RUNS}: cannot be created"))?;
    let mut number = numbered().iter().map(|(n, _)| n + 1).max().unwrap_or(0);
    loop {
        let path = Path::new(RUNS).join(format!("{number:05}-{recipe}"));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(e) => return Err(e).with_context(|| format!("{}: cannot be created", path.display())),
        }
    }
}

/// The folder with the highest number in `runs` that holds a run.
///
/// # Errors
/// When no folder holds a run.
pub fn latest() -> Result<PathBuf> {
    let newest = numbered().into_iter().filter(|(_, path)| path.join("config.json").exists()).max();
    newest.map(|(_, path)| path).ok_or_else(|| anyhow!("--resume latest: no run found in {RUNS}"))
}

/// The folder of run folders, in the current directory.
const RUNS: &str = "runs";

/// The numbers and paths of the entries named `NUMBER-…`.
fn numbered() -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(RUNS).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (number, _) = name.split_once('-')?;
            Some((number.parse().ok()?, entry.path()))
        })
        .collect()
}
