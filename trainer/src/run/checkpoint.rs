//! What is written to disk: the training state, the generator, and how any file is written.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::{CLASSES, Plan, Recipe};
use crate::files;
use crate::gan::generator;
use crate::graph::onnx;
use crate::state::{METRICS, TrainState, state_specs};

/// Saves a state: a line of JSON (the plan, the step, the metrics' sums), the tensors of [`state_specs`] as little-endian
/// f32, and the SHA-256 of all that.
pub fn save(path: &Path, plan: &Plan, state: &TrainState) -> Result<()> {
    let head = Head { format: FORMAT.into(), plan: plan.clone(), step: state.step, sums: state.sums };
    let mut bytes = serde_json::to_vec(&head)?;
    bytes.push(b'\n');
    state.tensors.iter().flatten().for_each(|x| bytes.extend(x.to_le_bytes()));
    let digest = Sha256::digest(&bytes);
    bytes.extend(digest);
    files::write(path, &bytes)
}

/// Reads back what [`save`] wrote for the same plan, whose number of epochs may have changed.
///
/// # Errors
/// When the file is damaged, or of another plan.
pub fn read(path: &Path, plan: &Plan) -> Result<TrainState> {
    let name = path.display();
    let bytes = fs::read(path).with_context(|| format!("{name}: cannot be read"))?;
    let damaged =
        || anyhow!("{name}: a whole checkpoint expected, a damaged one found; delete it to go on from the one before");
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
    let tensors: Vec<Vec<f32>> = specs.iter().map(|spec| values.by_ref().take(spec.len()).collect()).collect();
    let whole = tensors.iter().zip(&specs).all(|(tensor, spec)| tensor.len() == spec.len()) && values.next().is_none();
    ensure!(whole, damaged());
    Ok(TrainState { tensors, step: head.step, sums: head.sums })
}

const FORMAT: &str = "mnist-gan-checkpoint-1";

#[derive(Serialize, Deserialize)]
struct Head {
    format: String,
    plan: Plan,
    step: u64,
    sums: [f64; METRICS.len()],
}

/// The generator of a state of this recipe as a model, with `provenance` as its metadata.
pub fn export(recipe: &Recipe, state: &TrainState, provenance: &[(&str, String)]) -> onnx::Model {
    let best = format!("{}g.", recipe.export_prefix());
    let weights: Vec<&[f32]> = (state_specs(recipe).iter().zip(&state.tensors))
        .filter(|(spec, _)| spec.name.starts_with(&best))
        .map(|(_, tensor)| tensor.as_slice())
        .collect();
    let mut model = generator(&weights);
    let z = if recipe.conditional { "ten of them the digit as one-hot, the rest" } else { "all" };
    model.doc_string = format!(
        "Draws handwritten digits: z (N, 100), {z} uniform in [-1, 1], to image (N, 784), 28 × 28 row-major, -1 black to 1 \
         white."
    );
    let conditional = recipe.conditional.then(|| ("conditional", format!("one-hot:{CLASSES}")));
    model.metadata_props = provenance
        .iter()
        .chain(&conditional)
        .map(|(key, value)| onnx::StringStringEntry { key: (*key).into(), value: value.clone() })
        .collect();
    model
}

/// Writes a model to `path`, see [`files::write`].
pub fn write_model(path: &Path, model: &onnx::Model) -> Result<()> {
    files::write(path, &model.encode_to_vec())
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
        // Sums of f32 in f64 have up to 17 digits; the first of these is one that a fast parser gets wrong.
        state.sums = [122.416_294_033_786_58, 1e-17 / 3.0, 649.333_333_333_333_3, f64::MAX / 7.0];
        save(&path, &plan, &state).unwrap();
        assert_eq!(read(&path, &plan).unwrap(), state);
        assert_eq!(read(&path, &Plan { epochs: 7, ..plan.clone() }).unwrap(), state);
        let error = read(&path, &Plan { batch: 32, ..plan }).unwrap_err().to_string();
        assert!(error.ends_with("step.ckpt: a checkpoint of another run: --batch 64 (the run has 32)"), "{error}");
    }
}
