//! Checkpoint files: the training state of a run on disk.
//!
//! A checkpoint is a line of JSON (plan, step, sums of the metrics), then the tensors of
//! [`state_specs`] as little-endian f32, then the SHA-256 of everything before it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Plan;
use crate::files;
use crate::state::{METRICS, TrainState, state_specs};

/// Writes a checkpoint, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, plan: &Plan, state: &TrainState) -> Result<()> {
    let head = Head { format: FORMAT.into(), plan: plan.clone(), step: state.step, sums: state.sums };
    let mut bytes = serde_json::to_vec(&head)?;
    bytes.push(b'\n');
    state.tensors.iter().flatten().for_each(|x| bytes.extend(x.to_le_bytes()));
    let digest = Sha256::digest(&bytes);
    bytes.extend(digest);
    files::write(path, &bytes)
}

/// The training state in a checkpoint of the same plan. Only the number of epochs may differ.
///
/// # Errors
/// When the file is damaged or belongs to another plan.
pub fn read(path: &Path, plan: &Plan) -> Result<TrainState> {
    let name = path.display();
    let bytes = fs::read(path).with_context(|| format!("{name}: cannot be read"))?;
    let damaged =
        || anyhow!("{name}: a whole checkpoint expected, a damaged one found; delete it to resume from the one before");
    let (body, digest) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
    ensure!(Sha256::digest(body)[..] == digest[..], damaged());
    let line = body.iter().position(|&b| b == b'\n').ok_or_else(damaged)?;
    let head: Head = serde_json::from_slice(&body[..line])
        .with_context(|| format!("{name}: a checkpoint of format {FORMAT} expected"))?;
    ensure!(head.format == FORMAT, "{name}: a checkpoint of format {FORMAT} expected, {} found", head.format);
    let contradictions = head.plan.contradictions(plan);
    ensure!(contradictions.is_empty(), "{name}: a checkpoint of another run: {}", contradictions.join(", "));
    let mut values = body[line + 1..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let specs = state_specs(&plan.recipe);
    let tensors: Vec<Vec<f32>> = specs.iter().map(|spec| values.by_ref().take(spec.elements()).collect()).collect();
    let whole =
        tensors.iter().zip(&specs).all(|(tensor, spec)| tensor.len() == spec.elements()) && values.next().is_none();
    ensure!(whole, damaged());
    Ok(TrainState { tensors, step: head.step, sums: head.sums })
}

/// Saves the state as the newest checkpoint of a run folder, and deletes all but the newest `keep`.
///
/// # Errors
/// When a file cannot be written or deleted.
pub fn save_newest(run_dir: &Path, plan: &Plan, state: &TrainState, keep: usize) -> Result<()> {
    save(&run_dir.join(FOLDER).join(format!("step-{:09}.ckpt", state.step)), plan, state)?;
    let mut old = by_age(run_dir)?;
    old.truncate(old.len().saturating_sub(keep));
    let delete =
        |path: &PathBuf| fs::remove_file(path).with_context(|| format!("{}: cannot be deleted", path.display()));
    old.iter().try_for_each(delete)
}

/// The path of the newest checkpoint of a run folder; `None` before the first.
///
/// # Errors
/// When the folder of checkpoints cannot be read.
pub fn newest(run_dir: &Path) -> Result<Option<PathBuf>> {
    Ok(by_age(run_dir)?.pop())
}

/// The path of the checkpoint with the lowest Fréchet distance.
pub fn best(run_dir: &Path) -> PathBuf {
    run_dir.join(FOLDER).join("best.ckpt")
}

/// The folder of checkpoints inside a run folder.
pub const FOLDER: &str = "checkpoints";
const FORMAT: &str = "mnist-gan-checkpoint-1";

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    plan: Plan,
    step: u64,
    sums: [f64; METRICS.len()],
}

/// The checkpoints to resume from, oldest first. `best.ckpt` is not among them.
fn by_age(run_dir: &Path) -> Result<Vec<PathBuf>> {
    let folder = run_dir.join(FOLDER);
    let entries = fs::read_dir(&folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    let is_step = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("step-") && name.ends_with(".ckpt")
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_step).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_comes_back_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("step.ckpt");
        let mut plan = Plan::seed_recipe();
        plan.recipe.adam.alpha = 0.000_123_456_789_012_345_67;
        let mut state = crate::state::initial_state(&plan, ndarray::aview2(&[[0; 784]]));
        state.step = u64::MAX / 3;
        // An f64 has up to 17 decimal digits. A fast parser reads the first of these numbers wrongly.
        state.sums = [122.416_294_033_786_58, 1e-17 / 3.0, 649.333_333_333_333_3, f64::MAX / 7.0];
        save(&path, &plan, &state).unwrap();
        assert_eq!(read(&path, &plan).unwrap(), state);
        assert_eq!(read(&path, &Plan { epochs: 7, ..plan.clone() }).unwrap(), state);
        let error = read(&path, &Plan { batch: 32, ..plan }).unwrap_err().to_string();
        assert!(error.ends_with("step.ckpt: a checkpoint of another run: --batch 64 (the run has 32)"), "{error}");
    }
}
