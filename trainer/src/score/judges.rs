//! The judge of a data set: the shipped one for MNIST. For other data, a judge is trained once and kept in the cache.

use std::borrow::Cow;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use prost::Message;
use sha2::{Digest, Sha256};

use crate::cache;
use crate::config::DEMO;
use crate::data::Dataset;
use crate::files::{self, hex};
use crate::graph::foreign::ForeignModel;
use crate::graph::onnx;
use crate::ort::OnnxRuntime;
use crate::score::judge::{self, ACCURACY, Judge};

/// The judge that was trained on MNIST.
pub const SHIPPED: &[u8] = include_bytes!("../../../models/judge.onnx");

/// The ONNX file of the judge that scores this data set: the shipped judge for MNIST and for the demo. Other data have a judge in
/// the cache. If it is missing there or its file was changed, it is trained, while other trainers that need it wait.
///
/// # Errors
/// When the data set has less than two classes or no test images, or ONNX Runtime fails.
pub fn judge_for(data: &Dataset, runtime: &OnnxRuntime, say: &mut dyn FnMut(&str)) -> Result<Cow<'static, [u8]>> {
    let labels_and_tests = sha256(
        &[data.labels.as_slice(), data.test_images.as_slice(), data.test_labels.as_slice()]
            .map(|bytes| bytes.expect("row-major")),
    );
    if labels_and_tests == MNIST || data.name == DEMO {
        return Ok(Cow::Borrowed(SHIPPED));
    }
    let key = (judge::TRAINING.version(), &data.sha256, &data.classes, labels_and_tests);
    let key = sha256(&[&serde_json::to_vec(&key)?]);
    let file = match cache::folder(&format!("judge-{key}")) {
        Ok(folder) => match read(&folder) {
            Ok(file) => file,
            Err(_) => train_and_keep(&folder, data, runtime, say)?,
        },
        Err(why) => {
            say(&not_kept(&why));
            train(data, runtime, say)?
        }
    };
    say(&description(&file, &data.name)?);
    Ok(Cow::Owned(file))
}

/// The judge of an ONNX file that the user names.
///
/// # Errors
/// When the file is no judge, or has another number of classes than the data. Data of one class may have any judge.
pub fn open(path: &Path, data: &Dataset, runtime: &OnnxRuntime) -> Result<Judge> {
    let name = path.display();
    let read = || {
        let model = ForeignModel::read(path)?;
        ensure!(model.external.is_empty(), "a judge with its weights in the file expected, external data found");
        Judge::load(runtime, &model.bytes)
    };
    let judge = read().with_context(|| format!("--judge: {name}"))?;
    let (expected, found) = (data.classes.len(), judge.classes());
    ensure!(
        expected == 1 || expected == found,
        "--judge: {name}: a judge of {expected} classes expected, as {} has, one of {found} found",
        data.name
    );
    Ok(judge)
}

/// SHA-256 of these bytes in a row, in hexadecimal.
fn sha256(bytes: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    bytes.iter().for_each(|bytes| digest.update(bytes));
    hex(&digest.finalize())
}

/// SHA-256 of MNIST's training labels, test images and test labels, which tell MNIST in any file format.
const MNIST: &str = "e870d7a74cf7ddea5e3b4325a8a67bc80f8e4cf416d97ab6942ac0718ac05a16";

/// The file of the judge in a folder of the cache, with the content that it had when it was written.
fn read(folder: &Path) -> Result<Vec<u8>> {
    let (file, expected) = (cache::read(&folder.join(FILE))?, cache::read(&folder.join(SHA256))?);
    ensure!(
        sha256(&[&file]).as_bytes() == expected,
        "{}: the judge of its {SHA256} expected, another file found",
        folder.join(FILE).display()
    );
    Ok(file)
}

fn train_and_keep(folder: &Path, data: &Dataset, runtime: &OnnxRuntime, say: &mut dyn FnMut(&str)) -> Result<Vec<u8>> {
    let waiting = format!("waiting for another trainer, which trains the judge of {}", data.name);
    let _lock = match cache::lock(folder, || say(&waiting)) {
        Ok(lock) => lock,
        Err(why) => {
            say(&not_kept(&why));
            return train(data, runtime, say);
        }
    };
    match read(folder) {
        Ok(file) => return Ok(file), // another trainer has trained it meanwhile
        Err(why) if folder.join(FILE).exists() => say(&format!("warning: {why:#}; the judge is trained again")),
        Err(_) => {}
    }
    let file = train(data, runtime, say).inspect_err(|_| cache::remove_if_empty(folder))?;
    let sha256 = sha256(&[&file]);
    let kept =
        files::write(&folder.join(FILE), &file).and_then(|()| files::write(&folder.join(SHA256), sha256.as_bytes()));
    if let Err(why) = kept {
        say(&not_kept(&why));
    }
    Ok(file)
}

/// File names of a judge in the cache, and of the SHA-256 of that file in hexadecimal.
const FILE: &str = "judge.onnx";
const SHA256: &str = "judge.onnx.sha256";

fn not_kept(why: &anyhow::Error) -> String {
    format!("warning: the judge is not kept in the cache: {why:#}")
}

fn train(data: &Dataset, runtime: &OnnxRuntime, say: &mut dyn FnMut(&str)) -> Result<Vec<u8>> {
    say(&format!("training the judge of {}, once: a classifier whose features score generators", data.name));
    Ok(judge::train(data, runtime, &judge::TRAINING, say)?.0.encode_to_vec())
}

/// A sentence with the judge's accuracy.
fn description(file: &[u8], name: &str) -> Result<String> {
    let metadata = onnx::Model::decode(file)?.metadata_props;
    let accuracy = metadata.iter().find(|entry| entry.key == ACCURACY).and_then(|entry| entry.value.parse().ok());
    let accuracy: f64 = accuracy.context("a judge with its accuracy expected")?;
    let sentence = format!("the judge classifies {:.2} % of the test images of {name} correctly", 100.0 * accuracy);
    Ok(if accuracy < 0.5 { format!("warning: {sentence}; scores in its features say little") } else { sentence })
}
