//! Export of the generator to an ONNX file.

use std::path::Path;

use anyhow::Result;
use prost::Message;

use crate::config::{CLASSES, Recipe};
use crate::files;
use crate::gan::networks::generator;
use crate::graph::onnx;
use crate::run::resume::RunConfig;
use crate::state::{Epoch, TrainState, state_specs};

/// The generator of a training state as an ONNX model, z (N, 100) → image (N, 784), with `metadata` as key-value pairs.
pub fn generator_model(recipe: &Recipe, state: &TrainState, metadata: &[(&str, String)]) -> onnx::Model {
    let exported = format!("{}g.", recipe.export_prefix());
    let weights: Vec<&[f32]> = (state_specs(recipe).iter().zip(&state.tensors))
        .filter(|(spec, _)| spec.name.starts_with(&exported))
        .map(|(_, tensor)| tensor.as_slice())
        .collect();
    let mut model = generator(&weights);
    let z = if recipe.conditional { "ten of them the digit as one-hot, the rest" } else { "all" };
    model.doc_string = format!(
        "Draws handwritten digits: z (N, 100), {z} uniform in [-1, 1], to image (N, 784), 28 × 28 row-major, -1 black to 1 \
         white."
    );
    let conditional = recipe.conditional.then(|| ("conditional", format!("one-hot:{CLASSES}")));
    model.metadata_props = metadata
        .iter()
        .chain(&conditional)
        .map(|(key, value)| onnx::StringStringEntry { key: (*key).into(), value: value.clone() })
        .collect();
    model
}

/// Metadata of a run's exported generator: the settings, and the losses and score of its epoch.
pub fn metadata(run: &RunConfig, epoch: Option<&Epoch>) -> Vec<(&'static str, String)> {
    let plan = &run.settings.plan;
    let (d_loss, g_loss) = epoch.map_or((f32::NAN, f32::NAN), |e| (e.d_loss, e.g_loss));
    let score = epoch.and_then(|e| e.frechet_distance);
    let number = epoch.map_or(0, |e| e.epoch);
    let mut metadata = vec![
        ("recipe", plan.recipe.name.clone()),
        ("seed", plan.seed.to_string()),
        ("epochs", plan.epochs.to_string()),
        ("batch", plan.batch.to_string()),
        ("lr", plan.recipe.adam.alpha.to_string()),
        ("data", run.data_name.clone()),
        ("data_sha256", run.data_sha256.clone()),
        ("device", run.device.to_string()),
        ("trainer_version", run.trainer_version.clone()),
        ("final_d_loss", d_loss.to_string()),
        ("final_g_loss", g_loss.to_string()),
        ("frechet_distance", score.map_or("not scored".into(), |score| format!("{score:.2}"))),
    ];
    if number != plan.epochs {
        metadata.push(("kept_epoch", number.to_string()));
    }
    metadata
}

/// Writes a model to an ONNX file, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write_model(path: &Path, model: &onnx::Model) -> Result<()> {
    files::write(path, &model.encode_to_vec())
}
