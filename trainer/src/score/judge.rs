//! The judge: a small classifier of a data set's classes. Its features measure how far generated images are from real ones.
//!
//! It is LeNet-5, unless the user trains one with another [`Network`]. [`judges`](crate::score::judges) chooses the judge of a
//! data set.

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array1, Array2, ArrayD, ArrayView1, ArrayView2, Axis};
use prost::Message;

use crate::config::{MAX_CLASSES, PIXELS};
use crate::data::Dataset;
use crate::graph::onnx;
use crate::ort::{Loaded, OnnxRuntime};
use crate::pixel::unit;
use crate::print::printable;
use crate::score::classifier::{FEATURES, LR, Network, Training, examples};

/// A trained judge in an ONNX Runtime session.
pub struct Judge {
    model: Loaded,
    /// C
    classes: usize,
}

/// The judge's outputs for N images.
pub struct Predictions {
    /// Activations of the last hidden layer, (N, [`FEATURES`]).
    pub features: Array2<f64>,
    /// The most probable class of each image, (N,).
    pub classes: Array1<u8>,
    /// The probability of that class, (N,), 0 to 1.
    pub confidences: Array1<f32>,
}

impl Judge {
    /// The judge of an ONNX file: `image` (N, 784) in [-1, 1] → `features` (N, 84) and `probability` (N, C), where C is 2 to 64.
    ///
    /// # Errors
    /// When the file has other inputs or outputs, or ONNX Runtime fails.
    pub fn load(runtime: &OnnxRuntime, file: &[u8]) -> Result<Self> {
        let model = onnx::Model::decode(file).context("an ONNX file expected, something else found")?;
        let graph = model.graph.unwrap_or_default();
        let tensors: Vec<(&str, usize)> = graph.input.iter().chain(&graph.output).map(name_and_columns).collect();
        let classes = match tensors[..] {
            [("image", PIXELS), ("features", FEATURES), ("probability", classes @ 2..=MAX_CLASSES)] => classes,
            _ => {
                let tensor = |(name, columns): &(&str, usize)| format!("{} (N, {columns})", printable(name, 60));
                let found: Vec<String> = tensors.iter().take(5).map(tensor).collect();
                bail!(
                    "a judge with image (N, {PIXELS}), features (N, {FEATURES}) and probability (N, 2 to {MAX_CLASSES}) expected, \
                     {} found",
                    found.join(", ")
                )
            }
        };
        Ok(Self { model: runtime.load(file)?, classes })
    }

    /// Number of classes, C.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Classifies images (N, 784) of grey levels.
    ///
    /// # Errors
    /// When ONNX Runtime fails.
    pub fn classify(&mut self, images: ArrayView2<u8>) -> Result<Predictions> {
        let n = images.nrows();
        let mut features = Array2::zeros((n, FEATURES));
        let (mut classes, mut confidences) = (vec![], vec![]);
        for (part, mut to) in images.axis_chunks_iter(Axis(0), 1000).zip(features.axis_chunks_iter_mut(Axis(0), 1000)) {
            let outputs = self.model.run(&[("image", part.mapv(unit).view().into_dyn())])?;
            let shapes: Vec<&[usize]> = outputs.iter().map(ArrayD::shape).collect();
            let expected = [[part.nrows(), FEATURES], [part.nrows(), self.classes]];
            ensure!(shapes == expected, "judge: outputs of {expected:?} expected, {shapes:?} found");
            let (found, probability) = (&outputs[0], &outputs[1]);
            to.assign(&found.mapv(f64::from));
            for probability in probability.rows() {
                let class = (0..self.classes).max_by(|&a, &b| probability[a].total_cmp(&probability[b])).unwrap_or(0);
                classes.push(class as u8);
                confidences.push(probability[class]);
            }
        }
        Ok(Predictions { features, classes: classes.into(), confidences: confidences.into() })
    }

    /// The fraction of images (N, 784) whose label (N,) is the most probable class, 0 to 1.
    ///
    /// # Errors
    /// When there are no images, or ONNX Runtime fails.
    pub fn accuracy(&mut self, images: ArrayView2<u8>, labels: ArrayView1<u8>) -> Result<f64> {
        ensure!(!labels.is_empty(), "at least one image expected for an accuracy, none found");
        let classes = self.classify(images)?.classes;
        let right = classes.iter().zip(labels).filter(|(class, label)| class == label).count();
        Ok(right as f64 / labels.len() as f64)
    }
}

/// Name and number of columns of a matrix (N, columns) among a model's inputs and outputs; 0 columns for other tensors.
fn name_and_columns(tensor: &onnx::ValueInfo) -> (&str, usize) {
    let shape = tensor.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()?.shape.as_ref());
    let columns = match shape.map(|shape| &shape.dim[..]) {
        Some([_, columns]) => columns.dim_value.and_then(|n| n.try_into().ok()),
        _ => None,
    };
    (&tensor.name, columns.unwrap_or(0))
}

/// Trains a judge on the training images, each shifted by up to a pixel in a random direction. Returns the model that
/// [`Judge::load`] reads, with its data, classes and accuracy as metadata, and its accuracy on the test images. It is trained on
/// one CPU thread, so that it does not depend on the runtime's device and threads. `say` is called with a line after every epoch.
///
/// # Errors
/// When there are less than two classes or no test images, or ONNX Runtime fails.
pub fn train(
    data: &Dataset,
    runtime: &OnnxRuntime,
    training: &Training,
    say: &mut dyn FnMut(&str),
) -> Result<(onnx::Model, f64)> {
    let (name, classes) = (&data.name, data.classes.len());
    ensure!(classes >= 2, "--data: {name}: at least 2 classes expected for a judge, {classes} found");
    ensure!(!data.test_labels.is_empty(), "--data: {name}: test images expected for a judge's accuracy, none found");
    let runtime = runtime.on_one_thread();
    let mut accuracy = 0.0;
    let examples = examples(data.images.view(), data.labels.view());
    let mut model = training.run(&runtime, &examples, classes, |epoch, loss, model| {
        let mut judge = Judge::load(&runtime, &model.encode_to_vec())?;
        accuracy = judge.accuracy(data.test_images.view(), data.test_labels.view())?;
        let percent = 100.0 * accuracy;
        say(&format!("judge: epoch {epoch:2} | loss {loss:.4} | accuracy {percent:.2} % on the test images"));
        Ok(())
    })?;
    let metadata = [
        ("data", name.clone()),
        ("data_sha256", data.sha256.clone()),
        ("lr", training.lr.to_string()),
        ("seed", training.seed.to_string()),
        ("classes", serde_json::to_string(&data.classes)?),
        (ACCURACY, format!("{accuracy:.4}")),
    ];
    model.metadata_props = metadata.map(|(key, value)| onnx::StringStringEntry { key: key.into(), value }).into();
    Ok((model, accuracy))
}

/// The training of the judges in the cache, which is the default of `trainer judge`.
pub const TRAINING: Training =
    Training { network: Network::Lenet5, epochs: 10, batch: 100, lr: LR, warm_up: 0.0, seed: 0, shifted: true };

/// Key of the metadata with the accuracy on the test images, 0 to 1.
pub(crate) const ACCURACY: &str = "accuracy";
