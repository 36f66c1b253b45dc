//! Generators for the command: the built-in one, or one from an ONNX file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;

use crate::generate::Generate;
use crate::generator::Generator;
use crate::{generator_int8, onnx, quantize, weights};

/// The arithmetic of the network.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Single precision.
    F32,
    /// Integers: a quarter of the weights' bytes, and images that differ from f32's by 1.5 grey levels in the mean.
    Int8,
}

/// The number of classes of a generator whose file does not tell.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Classes {
    /// Unconditional: all of z is noise.
    #[value(name = "0")]
    Zero,
    /// Class-conditional: z[0..10] is the digit as one-hot.
    #[value(name = "10")]
    Ten,
}

/// A generator and whether it is class-conditional.
pub struct Model {
    /// Lives until the program ends, as the built-in one does.
    pub generator: &'static dyn Generate,
    pub conditional: bool,
    /// Whether the file does not say that it is class-conditional, but its weights look so.
    pub looks_conditional: bool,
}

impl Model {
    /// The generator of a `--model` file, or the built-in one without a file. `classes` counts more than the file's metadata.
    ///
    /// # Errors
    /// The file cannot be read, is not ONNX, or holds another network.
    pub fn load(file: Option<&Path>, precision: Precision, classes: Option<Classes>) -> Result<Self> {
        let Some(path) = file else {
            let generator: &'static dyn Generate = match precision {
                Precision::F32 => &weights::GENERATOR,
                Precision::Int8 => &weights::INT8,
            };
            return Ok(Self { generator, conditional: weights::CONDITIONAL, looks_conditional: false });
        };
        let mut file = ModelFile::read(path).context("--model")?;
        let looks_conditional = classes.is_none() && file.looks_conditional();
        if let Some(classes) = classes {
            file.set_conditional(classes == Classes::Ten);
        }
        let generator: &'static dyn Generate = match precision {
            Precision::F32 => Box::leak(file.f32()),
            Precision::Int8 => Box::leak(file.int8()),
        };
        Ok(Self { generator, conditional: file.conditional(), looks_conditional })
    }
}

/// A generator's ONNX file.
pub struct ModelFile {
    pub(super) bytes: Vec<u8>,
    pub(super) model: onnx::Model,
}

impl ModelFile {
    /// The file at `path`, with the weights that it keeps in data files beside it.
    ///
    /// # Errors
    /// The file cannot be read, which is an [`std::io::Error`], or it is not ONNX or holds another network.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = onnx::read_file(path).with_context(|| format!("{name}: a generator's ONNX file expected"))?;
        let model = onnx::Model::read(&bytes, &name, &|data| onnx::read_beside(path, data)).map_err(|e| anyhow!(e))?;
        Ok(Self { bytes, model })
    }

    /// The file with these bytes, and the data files that hold its weights, by their path relative to it. `name` stands for it
    /// in errors.
    ///
    /// # Errors
    /// The bytes are not ONNX, or hold another network.
    pub fn parse(bytes: Vec<u8>, data: &BTreeMap<String, Vec<u8>>, name: &str) -> Result<Self> {
        let load = |path: &str| match data.get(path) {
            Some(data) => Ok(data.clone()),
            None => Err(format!("{}: the model's path expected, to find this data file beside it", onnx::shown(path))),
        };
        let model = onnx::Model::read(&bytes, name, &load).map_err(|e| anyhow!(e))?;
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

    /// Whether the generator is class-conditional: then z[0..10] is the digit as one-hot.
    pub fn conditional(&self) -> bool {
        self.model.conditional
    }

    /// Whether the file does not say that the generator is class-conditional, but its weights look so.
    pub fn looks_conditional(&self) -> bool {
        self.model.looks_conditional()
    }

    /// Says whether the generator is class-conditional, whatever the metadata say.
    pub fn set_conditional(&mut self, conditional: bool) {
        self.model.conditional = conditional;
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
