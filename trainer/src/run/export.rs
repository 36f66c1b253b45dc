//! Export of the generator to an ONNX file.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use prost::Message;

use crate::cache;
use crate::config::{Recipe, Source, UsageError, are_numbers};
use crate::data::idx_folder;
use crate::files;
use crate::gan::networks::generator;
use crate::graph::onnx;
use crate::run::resume::RunConfig;
use crate::state::{Epoch, TrainState, state_specs};

/// The generator of a training state as an ONNX model, z (N, 100) → image (N, 784), with the names of the data set's classes and
/// with `metadata` as key-value pairs.
pub fn generator_model(
    recipe: &Recipe,
    state: &TrainState,
    classes: &[String],
    metadata: &[(&str, String)],
) -> onnx::Model {
    let exported = format!("{}g.", recipe.export_prefix());
    let weights: Vec<&[f32]> = (state_specs(recipe).iter().zip(&state.tensors))
        .filter(|(spec, _)| spec.name.starts_with(&exported))
        .map(|(_, tensor)| tensor.as_slice())
        .collect();
    let mut model = generator(&weights);
    let are_digits = are_numbers(classes) && recipe.classes == 10;
    let what = if are_digits { "handwritten digits" } else { "images" };
    let z = match recipe.one_hot() {
        None => "all".into(),
        Some(_) if are_digits => "ten of them the digit as one-hot, the rest".into(),
        Some(classes) => format!("the first {classes} of them the class as one-hot, the rest"),
    };
    model.doc_string = format!(
        "Draws {what}: z (N, 100), {z} uniform in [-1, 1], to image (N, 784), 28 × 28 row-major, -1 black to 1 white."
    );
    let conditional = recipe.one_hot().map(|classes| ("conditional", format!("one-hot:{classes}")));
    let names = (conditional.is_some() && !are_numbers(classes))
        .then(|| ("classes", serde_json::to_string(classes).expect("texts")));
    model.metadata_props = metadata
        .iter()
        .chain(&conditional)
        .chain(&names)
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

/// Writes a model to an ONNX file, which is gzipped if its name ends in `.gz`.
///
/// # Errors
/// As [`files::write`].
pub fn write_model(path: &Path, model: &onnx::Model) -> Result<()> {
    files::write(path, &file_content(path, model)?)
}

/// [`write_model`], but a file that holds the model already is not touched.
///
/// # Errors
/// As [`files::write`].
pub fn update_model(path: &Path, model: &onnx::Model) -> Result<()> {
    files::update(path, &file_content(path, model)?)
}

/// Checks, before hours of work, that a model of this `kind` can be written to `path`. An existing file must be empty or
/// such a model of ours, unless `force`; it must not be a file of the data set in any case.
///
/// # Errors
/// When the file cannot be written or would be lost.
pub fn check_output(path: &Path, kind: Kind, data: &Source, force: bool) -> Result<()> {
    files::check_writable(path)?;
    if !path.is_file() || fs::metadata(path)?.len() == 0 || kind.is_in(path) {
        return Ok(());
    }
    let data = match data {
        Source::Folder(folder) => Some(folder.clone()),
        Source::Published(name) => cache::folder(name).ok(),
        Source::Demo => None,
    };
    let is_data = data.is_some_and(|data| files::resolve(path).is_ok_and(|path| is_of(&data, &path)));
    let name = path.display();
    ensure!(!is_data, UsageError(format!("{name} is a file of the data set; choose another name")));
    ensure!(force, UsageError(format!("{name} exists and is no {} of trainer; --force overwrites it", kind.name())));
    Ok(())
}

/// The models that `trainer` writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A generator.
    Generator,
    /// A judge.
    Judge,
    /// The graph of a training step.
    Step,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Generator => "generator",
            Self::Judge => "judge",
            Self::Step => "training step",
        }
    }

    /// Whether a file, raw or gzipped, is such a model.
    fn is_in(self, path: &Path) -> bool {
        const MOST: u64 = 1 << 26; // bytes; the largest step graph has fewer
        let read = || -> std::io::Result<Vec<u8>> {
            let (mut raw, mut unpacked) = (vec![], vec![]);
            File::open(path)?.take(MOST).read_to_end(&mut raw)?;
            if !raw.starts_with(&files::GZIP) {
                return Ok(raw);
            }
            GzDecoder::new(&raw[..]).take(MOST).read_to_end(&mut unpacked)?;
            Ok(unpacked)
        };
        let model = read().ok().and_then(|bytes| onnx::Model::decode(&bytes[..]).ok()).unwrap_or_default();
        let graph = model.graph.map(|graph| graph.name).unwrap_or_default();
        model.producer_name == "trainer"
            && match self {
                Self::Generator => graph == "generator",
                Self::Judge => graph == "judge",
                Self::Step => graph.ends_with("_step"),
            }
    }
}

fn file_content(path: &Path, model: &onnx::Model) -> Result<Vec<u8>> {
    let bytes = model.encode_to_vec();
    if path.extension().is_none_or(|extension| extension != "gz") {
        return Ok(bytes);
    }
    let mut packer = GzEncoder::new(vec![], Compression::best());
    packer.write_all(&bytes)?;
    Ok(packer.finish()?)
}

/// Whether `file`, an absolute path without links, belongs to the data set that `--data` names: a folder, a file, or the first letters
/// of files in a folder.
fn is_of(data: &Path, file: &Path) -> bool {
    let is_same = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|path| path == file);
    if data.is_dir() {
        return holds(data, file, 3);
    }
    let named = idx_folder::find(data).ok().flatten();
    is_same(&data.into()) || named.is_some_and(|paths| paths.iter().any(is_same))
}

/// Whether `file`, an absolute path without links, is in `folder` or at most `depth` folders below it, or is named by a link
/// there.
fn holds(folder: &Path, file: &Path, depth: u32) -> bool {
    let mut paths = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    paths.any(|path: PathBuf| match path.is_dir() {
        true => depth > 0 && holds(&path, file, depth - 1),
        false => fs::canonicalize(path).is_ok_and(|path| path == file),
    })
}

#[cfg(test)]
mod tests {
    use ndarray::aview2;

    use super::*;
    use crate::config::Plan;
    use crate::state::initial_state;

    #[test]
    fn a_file_names_the_classes_unless_they_are_numbers() {
        let text = |names: &[&str], conditional: bool| {
            let recipe = Recipe { classes: names.len(), conditional, ..Recipe::tuned() };
            let plan = Plan { recipe, ..Plan::tuned_recipe() };
            let classes: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            let state = initial_state(&plan, aview2(&[[0; 784]]));
            let model = generator_model(&plan.recipe, &state, &classes, &[]);
            let metadata: Vec<_> =
                model.metadata_props.iter().map(|entry| format!("{} = {}", entry.key, entry.value)).collect();
            (metadata.join("; "), model.doc_string)
        };
        const SHAPES: &str = "uniform in [-1, 1], to image (N, 784), 28 × 28 row-major, -1 black to 1 white.";
        let (metadata, doc) = text(&["T-shirt/top", "\"1\"", "été"], true);
        assert_eq!(metadata, r#"conditional = one-hot:3; classes = ["T-shirt/top","\"1\"","été"]"#);
        assert_eq!(
            doc,
            format!("Draws images: z (N, 100), the first 3 of them the class as one-hot, the rest {SHAPES}")
        );
        assert_eq!(text(&["a", "b"], false), (String::new(), format!("Draws images: z (N, 100), all {SHAPES}")));
        assert_eq!(text(&["only"], true).0, "");
        let digits = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
        let (metadata, doc) = text(&digits, true);
        assert_eq!(metadata, "conditional = one-hot:10");
        let z = "ten of them the digit as one-hot, the rest";
        assert_eq!(doc, format!("Draws handwritten digits: z (N, 100), {z} {SHAPES}"));
        assert_eq!(text(&digits[..9], true).0, "conditional = one-hot:9");
    }
}
