//! Reads a generator from an ONNX file. The build script and the command share this folder.
//!
//! The first output of the graph must be the image, and lead back to one input z through dense, LeakyReLU 0.2, dense, LeakyReLU
//! 0.2, dense, LeakyReLU 0.2, dense, tanh, with 100 → 32 → 64 → 128 → 784 units. `operators.rs` lists the operators that may
//! spell these steps: exporters and tools write a dense layer as a Gemm or as a MatMul and an Add, store weights transposed or
//! in nodes, reshape the image. Names of tensors do not matter.

mod call;
pub mod classes;
mod graph;
mod operators;
mod proto;
mod shapes;
mod tensor;
mod value;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path};

use crate::latent::MAX_CLASSES;
use proto::is_standard;
pub use proto::shown;
use tensor::{Constant, Storage};
use value::Dense;
pub use value::SIZES;

/// The most bytes of a file. A generator's has half a megabyte.
const MAX_BYTES: usize = 4 << 20;

/// The parameters of a generator and the metadata of its file.
pub struct Model {
    pub layers: Vec<Layer>,
    /// The names of the classes, of which z begins with the one-hot; empty for an unconditional generator.
    pub classes: Vec<String>,
    /// The version of the standard operator set.
    pub opset: i64,
    /// The program that wrote the file, and its version.
    pub producer: String,
    /// `metadata_props`, in the file's order.
    pub metadata: Vec<(String, String)>,
    /// The data files that hold weights, by their path relative to the ONNX file.
    pub data: BTreeMap<String, Vec<u8>>,
}

/// A dense layer's weight (I, O), row-major, and its bias (O,).
pub struct Layer {
    /// The names of weight and bias in the file. A layer without a bias has zeros for it, called "(none)".
    pub names: [String; 2],
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Model {
    /// The generator in the `bytes` of the file `name`. `classes` is the number of classes if the user says it; it counts
    /// more than the metadata. `load` gives the bytes of a data file by its path relative to this one.
    ///
    /// # Errors
    /// The bytes are not ONNX, or hold another network. The sentence names the tensor or node, what was expected, and what was
    /// found.
    pub fn read(
        bytes: &[u8],
        name: &str,
        classes: Option<usize>,
        load: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, String> {
        Self::parse(bytes, classes, load).map_err(|e| format!("{name}: {e}"))
    }

    fn parse(
        bytes: &[u8],
        classes: Option<usize>,
        load: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, String> {
        check_size(bytes)?;
        let model = proto::decode(bytes)?;
        let graph = model.graph.as_ref().ok_or("an ONNX file expected, one without a graph found")?;
        let load = |path: &str| {
            let bytes = load(path)?;
            check_size(&bytes).map(|()| bytes).map_err(|e| format!("{}: {e}", shown(path)))
        };
        let storage = Storage::new(&load);
        let image = graph::image(graph, &model.functions, &storage)?;
        let layers = image.layers.iter().zip(SIZES.windows(2)).map(|(dense, size)| Layer::new(dense, size[0], size[1]));
        let layers: Vec<Layer> = layers.collect::<Result<_, _>>()?;
        check_sums(&layers)?;
        let metadata: Vec<(String, String)> =
            model.metadata_props.into_iter().map(|entry| (entry.key, entry.value)).collect();
        let classes = match classes {
            Some(count) => classes::of_count(count, &metadata),
            None => classes::from_metadata(&metadata).map_err(|e| {
                format!("{e}; --classes N, or GENERATOR_CLASSES in a build, says the number of classes instead")
            })?,
        };
        Ok(Self {
            layers,
            classes,
            opset: model.opset_import.iter().find(|set| is_standard(&set.domain)).map_or(0, |set| set.version),
            producer: format!("{} {}", model.producer_name, model.producer_version).trim().into(),
            metadata,
            data: storage.into_files(),
        })
    }

    /// The bytes of `generator::Generator`: weight and bias of each layer in turn, little-endian.
    pub fn f32_bytes(&self) -> Vec<u8> {
        let values = self.layers.iter().flat_map(|layer| layer.weight.iter().chain(&layer.bias));
        values.flat_map(|value| value.to_le_bytes()).collect()
    }

    /// About how many classes a generator without classes seems to have; tools drop the metadata. Counts the numbers at the start
    /// of z whose weights have 5 times the mean square of those after the longest one-hot. Trained class-conditional generators
    /// have at least 6.4 times as much for each class and at most 3.7 elsewhere; unconditional ones have at most 2.7.
    pub fn likely_classes(&self) -> Option<usize> {
        let mean_square = |w: &[f32]| w.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / w.len() as f64;
        let (one_hot, noise) = self.layers[0].weight.split_at(MAX_CLASSES * SIZES[1]);
        let noise = mean_square(noise);
        let count = one_hot.chunks_exact(SIZES[1]).take_while(|w| mean_square(w) > 5.0 * noise).count();
        (self.classes.is_empty() && count >= 2).then_some(count)
    }
}

impl Layer {
    /// # Errors
    /// A number is not finite, or changes when the factor of a Gemm multiplies it.
    fn new(dense: &Dense, inputs: usize, outputs: usize) -> Result<Self, String> {
        let mut weight = scaled(&dense.weight, dense.alpha)?;
        if dense.transposed {
            weight = (0..inputs * outputs).map(|i| weight[i % outputs * inputs + i / outputs]).collect();
        }
        let (bias, bias_name) = match &dense.bias {
            Some(bias) => (scaled(bias, dense.beta)?, bias.name.to_string()),
            None => (vec![0.0], "(none)".into()),
        };
        let bias = if bias.len() == 1 { vec![bias[0]; outputs] } else { bias };
        Ok(Self { names: [dense.weight.name.to_string(), bias_name], weight, bias })
    }
}

/// The values of a constant times a factor, which must be exact: another rounding would draw other images.
fn scaled(constant: &Constant, factor: f32) -> Result<Vec<f32>, String> {
    let (name, values) = (|| shown(&constant.name), constant.f32()?);
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(format!("{}: finite values expected, {} found at {at}", name(), values[at]));
    }
    let product = |&value: &f32| {
        let exact = f64::from(value) * f64::from(factor);
        (f64::from(exact as f32) == exact).then_some(exact as f32)
    };
    let products = values.iter().map(product).collect::<Option<_>>();
    products.ok_or_else(|| format!("{}: a factor that needs no rounding expected, {factor} found", name()))
}

/// Refuses weights with which a sum can overflow, because infinity times 0 is no grey level.
fn check_sums(layers: &[Layer]) -> Result<(), String> {
    let mut largest = 1f64; // of |z|
    for layer in layers {
        let mut sums: Vec<f64> = layer.bias.iter().map(|&b| f64::from(b.abs())).collect();
        for row in layer.weight.chunks_exact(sums.len()) {
            sums.iter_mut().zip(row).for_each(|(sum, &w)| *sum += f64::from(w.abs()) * largest);
        }
        largest = sums.into_iter().fold(0.0, f64::max);
        if largest > f64::from(f32::MAX) {
            return Err(format!(
                "{}: sums below {:e} expected, up to {largest:e} found",
                shown(&layer.names[0]),
                f32::MAX
            ));
        }
    }
    Ok(())
}

fn check_size(bytes: &[u8]) -> Result<(), String> {
    match bytes.len() > MAX_BYTES {
        false => Ok(()),
        true => Err(format!("a generator of at most {MAX_BYTES} bytes expected, a larger file found")),
    }
}

/// The bytes of a file; of one that is too large for a generator, only as many as [`Model::read`] needs to refuse it.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The bytes of a data file in the folder of the ONNX file `model`.
///
/// # Errors
/// The path is absolute or contains `..`, or the file cannot be read.
pub fn read_beside(model: &Path, location: &str) -> Result<Vec<u8>, String> {
    let name = shown(location);
    let is_beside =
        Path::new(location).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !is_beside || location.is_empty() || location.contains(char::is_control) {
        return Err(format!("a data file beside the model expected, {name} found"));
    }
    let path = model.parent().unwrap_or(Path::new("")).join(location);
    match fs::metadata(&path) {
        Ok(found) if found.is_file() => read_file(&path).map_err(|e| format!("{name}: {e}")),
        Ok(_) => Err(format!("{name}: a file beside the model expected, something else found")),
        Err(e) => Err(format!("{name}: a data file beside the model expected: {e}")),
    }
}
