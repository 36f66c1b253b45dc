//! Generators for the command: the built-in one, or one from an ONNX file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;
use sha2::{Digest as _, Sha256};

use super::output::hex;
use crate::generate::Generate;
use crate::generator::Generator;
use crate::{generator_int8, onnx, quantize, weights};

/// The arithmetic of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Single precision.
    F32,
    /// Integers: a quarter of the weights' bytes, and images that differ from f32's by 1.7 grey levels in the mean.
    Int8,
}

/// A generator and its classes.
pub struct Model {
    /// Lives until the program ends, as the built-in one does.
    pub generator: &'static dyn Generate,
    /// The names of the classes; empty for an unconditional generator.
    pub classes: Vec<String>,
    /// The number of classes that the weights suggest if neither the file nor the user says one.
    pub likely_classes: Option<usize>,
    /// The same generator in f32.
    f32: &'static Generator,
}

impl Model {
    /// The generator of a `--model` file, or the built-in one without a file. `classes` is the number of classes if the
    /// user says it; it counts more than the file's metadata.
    ///
    /// # Errors
    /// The file cannot be read, is not ONNX, or holds another network.
    pub fn load(file: Option<&Path>, precision: Precision, classes: Option<usize>) -> Result<Self> {
        let Some(path) = file else { return Ok(Self::of(None, precision)) };
        let file = ModelFile::read(path, classes).context("--model")?;
        let likely_classes = file.likely_classes().filter(|_| classes.is_none());
        Ok(Self { likely_classes, ..Self::of(Some(&file), precision) })
    }

    /// The generator of a file, or the built-in one without a file.
    pub fn of(file: Option<&ModelFile>, precision: Precision) -> Self {
        let Some(file) = file else {
            let generator: &'static dyn Generate = match precision {
                Precision::F32 => &weights::GENERATOR,
                Precision::Int8 => &weights::INT8,
            };
            let classes = weights::CLASSES.iter().map(|name| name.to_string()).collect();
            return Self { generator, classes, likely_classes: None, f32: &weights::GENERATOR };
        };
        let f32: &'static Generator = Box::leak(file.f32());
        let generator: &'static dyn Generate = match precision {
            Precision::F32 => f32,
            Precision::Int8 => Box::leak(file.int8()),
        };
        Self { generator, classes: file.classes().to_vec(), likely_classes: None, f32 }
    }

    /// See [`weights_sha256`].
    pub fn weights_sha256(&self) -> String {
        weights_sha256(self.f32)
    }
}

/// The SHA-256 of the weights and biases in f32, layer by layer. It names the generator, whichever program wrote its file.
pub fn weights_sha256(generator: &Generator) -> String {
    hex(&Sha256::digest(generator.as_bytes()))
}

/// A generator's ONNX file.
pub struct ModelFile {
    pub(super) bytes: Vec<u8>,
    pub(super) model: onnx::Model,
}

impl ModelFile {
    /// The file at `path`, with the weights that it keeps in data files beside it. `classes` is the number of classes if the
    /// user says it, 0 or 2 to 64; it counts more than the metadata. If the metadata name another number, the names become 0, 1, ….
    ///
    /// # Errors
    /// The file cannot be read, which is an [`std::io::Error`], or it is not ONNX or holds another network.
    pub fn read(path: &Path, classes: Option<usize>) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = onnx::read_file(path).with_context(|| format!("{name}: a generator's ONNX file expected"))?;
        let model = onnx::Model::read(&bytes, &name, classes, &|data| onnx::read_beside(path, data));
        let model = model.map_err(|e| anyhow!(e))?;
        Ok(Self { bytes, model })
    }

    /// The file with these bytes, and the data files that hold its weights, by their path relative to it. `name` stands for it
    /// in errors. `classes` as for [`Self::read`].
    ///
    /// # Errors
    /// The bytes are not ONNX, or hold another network.
    pub fn parse(bytes: Vec<u8>, data: &BTreeMap<String, Vec<u8>>, name: &str, classes: Option<usize>) -> Result<Self> {
        let load = |path: &str| match data.get(path) {
            Some(data) => Ok(data.clone()),
            None => Err(format!("{}: the model's path expected, to find this data file beside it", onnx::shown(path))),
        };
        let model = onnx::Model::read(&bytes, name, classes, &load).map_err(|e| anyhow!(e))?;
        Ok(Self { bytes, model })
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The data files that hold weights, by their path relative to the file.
    pub fn data(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.model.data
    }

    /// The file's `metadata_props`, in order.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.model.metadata
    }

    /// The names of the classes, in the order of their numbers; empty for an unconditional generator.
    pub fn classes(&self) -> &[String] {
        &self.model.classes
    }

    /// About how many classes the weights suggest, if the generator has none.
    pub fn likely_classes(&self) -> Option<usize> {
        self.model.likely_classes()
    }

    /// The generator in f32.
    pub fn f32(&self) -> Box<Generator> {
        let bytes: Box<[u8; _]> = self.model.f32_bytes().try_into().expect("`onnx` checked the shapes");
        Box::new(Generator::from_bytes(&bytes))
    }

    /// The generator in integers. Quantising it takes as long as drawing thousands of images.
    pub fn int8(&self) -> Box<generator_int8::Generator> {
        let bytes: Box<[u8; _]> = quantize::int8_bytes(&self.model).try_into().expect("`onnx` checked the shapes");
        Box::new(generator_int8::Generator::from_bytes(&bytes))
    }
}
