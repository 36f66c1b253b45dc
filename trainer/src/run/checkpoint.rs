//! Checkpoint files: the training state of a run on disk.
//!
//! A checkpoint is a line of JSON (run, plan, step, sums of the metrics), then the tensors of
//! [`state_specs`] as little-endian f32, then the SHA-256 of everything before it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Plan;
use crate::files;
use crate::state::{METRICS, TrainState, state_specs};

/// Writes a checkpoint of the `run` with this identifier, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, plan: &Plan, run: Option<&str>, state: &TrainState) -> Result<()> {
    let run = run.map(str::to_string);
    let head = Head { format: FORMAT.into(), run, plan: plan.clone(), step: state.step, sums: state.sums };
    let mut bytes = serde_json::to_vec(&head)?;
    bytes.push(b'\n');
    state.tensors.iter().flatten().for_each(|x| bytes.extend(x.to_le_bytes()));
    let digest = Sha256::digest(&bytes);
    bytes.extend(digest);
    files::write(path, &bytes)
}

/// The training state in a checkpoint of the same plan and `run`. Only the number of epochs may differ. Checkpoints of older
/// versions name no run, and belong to any run.
///
/// # Errors
/// When the file is damaged, belongs to another plan or run, or holds another step than its name says.
pub fn read(path: &Path, plan: &Plan, run: Option<&str>) -> Result<TrainState> {
    let name = path.display();
    let bytes = fs::read(path).with_context(|| format!("{name}: cannot be read"))?;
    let damaged = || anyhow!("{name}: a whole checkpoint expected, a damaged one found");
    let (body, digest) = bytes.split_last_chunk::<32>().ok_or_else(damaged)?;
    ensure!(Sha256::digest(body)[..] == digest[..], damaged());
    let line = body.iter().position(|&b| b == b'\n').ok_or_else(damaged)?;
    let head: Head = serde_json::from_slice(&body[..line])
        .with_context(|| format!("{name}: a checkpoint of format {FORMAT} expected"))?;
    ensure!(head.format == FORMAT, "{name}: a checkpoint of format {FORMAT} expected, {} found", head.format);
    let contradictions = head.plan.contradictions(plan);
    ensure!(contradictions.is_empty(), "{name}: a checkpoint of another run: {}", contradictions.join(", "));
    if let (Some(expected), Some(found)) = (run, &head.run) {
        ensure!(found == expected, "{name}: a checkpoint of run {expected} expected, one of run {found} found");
    }
    if let Some(expected) = step_of(path) {
        ensure!(head.step == expected, "{name}: step {expected} expected, step {} found", head.step);
    }
    let mut values = body[line + 1..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let specs = state_specs(&plan.recipe);
    let tensors: Vec<Vec<f32>> = specs.iter().map(|spec| values.by_ref().take(spec.elements()).collect()).collect();
    let whole =
        tensors.iter().zip(&specs).all(|(tensor, spec)| tensor.len() == spec.elements()) && values.next().is_none();
    ensure!(whole, damaged());
    Ok(TrainState { tensors, step: head.step, sums: head.sums })
}

/// Path of the checkpoint after `step` in a run folder.
pub fn after_step(run_dir: &Path, step: u64) -> PathBuf {
    run_dir.join(FOLDER).join(format!("step-{step:09}.ckpt"))
}

/// Deletes all but the newest `keep` checkpoints of a run folder, not counting the best by score.
///
/// # Errors
/// When a file cannot be deleted.
pub fn delete_old(run_dir: &Path, keep: usize) -> Result<()> {
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

/// Whether a run folder holds a checkpoint.
pub fn is_in(run_dir: &Path) -> bool {
    by_age(run_dir).unwrap_or_default().into_iter().chain([best(run_dir)]).any(|path| path.is_file())
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    plan: Plan,
    step: u64,
    sums: [f64; METRICS.len()],
}

/// The checkpoints to resume from, oldest first. `best.ckpt` is not among them.
fn by_age(run_dir: &Path) -> Result<Vec<PathBuf>> {
    let folder = run_dir.join(FOLDER);
    let entries = fs::read_dir(&folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let mut paths: Vec<(u64, PathBuf)> = paths.filter_map(|path| Some((step_of(&path)?, path))).collect();
    paths.sort();
    Ok(paths.into_iter().map(|(_, path)| path).collect())
}

/// The step in a checkpoint's name, see [`after_step`].
fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".ckpt")?.parse().ok()
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
        save(&path, &plan, Some("a"), &state).unwrap();
        assert_eq!(read(&path, &plan, Some("a")).unwrap(), state);
        assert_eq!(read(&path, &Plan { epochs: 7, ..plan.clone() }, Some("a")).unwrap(), state);
        let error = |plan: &Plan, run| read(&path, plan, run).unwrap_err().to_string();
        let other = error(&Plan { batch: 32, ..plan.clone() }, Some("a"));
        assert!(other.ends_with("step.ckpt: a checkpoint of another run: --batch 64 (the run has 32)"), "{other}");
        let other = error(&plan, Some("b"));
        assert!(other.ends_with("step.ckpt: a checkpoint of run b expected, one of run a found"), "{other}");
        // Older versions wrote no run.
        save(&path, &plan, None, &state).unwrap();
        assert!(!String::from_utf8_lossy(&fs::read(&path).unwrap()[..100]).contains("run"));
        assert_eq!(read(&path, &plan, Some("b")).unwrap(), state);
    }

    #[test]
    fn checkpoints_sort_as_numbers_and_hold_the_step_of_their_name() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(FOLDER)).unwrap();
        let plan = Plan::seed_recipe();
        let mut state = crate::state::initial_state(&plan, ndarray::aview2(&[[0; 784]]));
        for step in [999_999_999, 1_000_000_000, 2] {
            state.step = step;
            save(&after_step(folder.path(), step), &plan, None, &state).unwrap();
        }
        fs::write(folder.path().join(FOLDER).join("step-copy.ckpt"), "no checkpoint").unwrap();
        delete_old(folder.path(), 2).unwrap();
        assert_eq!(newest(folder.path()).unwrap().unwrap(), after_step(folder.path(), 1_000_000_000));
        assert!(!after_step(folder.path(), 2).exists());
        fs::rename(after_step(folder.path(), 999_999_999), after_step(folder.path(), 1_000_000_001)).unwrap();
        let error = read(&newest(folder.path()).unwrap().unwrap(), &plan, None).unwrap_err().to_string();
        assert!(error.ends_with("step-1000000001.ckpt: step 1000000001 expected, step 999999999 found"), "{error}");
    }
}
