//! Generators for the command: the built-in one, or one from an ONNX file.

use std::fs;
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

/// A generator and whether it is class-conditional.
pub struct Model {
    /// Lives until the program ends, as the built-in one does.
    pub generator: &'static dyn Generate,
    pub conditional: bool,
}

impl Model {
    /// The generator of a `--model` file, or the built-in one without a file.
    ///
    /// # Errors
    /// The file cannot be read, is not ONNX, or holds another network.
    pub fn load(file: Option<&Path>, precision: Precision) -> Result<Self> {
        let Some(path) = file else {
            let generator: &'static dyn Generate = match precision {
                Precision::F32 => &weights::GENERATOR,
                Precision::Int8 => &weights::INT8,
            };
            return Ok(Self { generator, conditional: weights::CONDITIONAL });
        };
        let file = ModelFile::read(path).context("--model")?;
        let generator: &'static dyn Generate = match precision {
            Precision::F32 => Box::leak(file.f32()),
            Precision::Int8 => Box::leak(file.int8()),
        };
        Ok(Self { generator, conditional: file.conditional() })
    }
}

/// A generator's ONNX file.
pub struct ModelFile {
    pub(super) bytes: Vec<u8>,
    pub(super) model: onnx::Model,
}

impl ModelFile {
    /// The file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, which is an [`std::io::Error`], or it is not ONNX or holds another network.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let bytes = fs::read(path).with_context(|| format!("{name}: a generator's ONNX file expected"))?;
        Self::parse(bytes, &name)
    }

    /// The file with these bytes. `name` stands for it in errors.
    ///
    /// # Errors
    /// The bytes are not ONNX, or hold another network.
    pub fn parse(bytes: Vec<u8>, name: &str) -> Result<Self> {
        let model = onnx::Model::read(&bytes, name).map_err(|e| anyhow!(e))?;
        Ok(Self { bytes, model })
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file's `metadata_props`, in order.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.model.metadata
    }

    /// Whether the generator is class-conditional: then z[0..10] is the digit as one-hot.
    pub fn conditional(&self) -> bool {
        self.model.conditional()
    }

    /// The generator in f32.
    pub fn f32(&self) -> Box<Generator> {
        let bytes: Box<[u8; _]> = self.model.f32_bytes().try_into().expect("`parse` checked the shapes");
        Box::new(Generator::from_bytes(&bytes))
    }

    /// The generator in integers. Quantising it takes as long as drawing thousands of images.
    pub fn int8(&self) -> Box<generator_int8::Generator> {
        let bytes: Box<[u8; _]> = quantize::int8_bytes(&self.model).try_into().expect("`parse` checked the shapes");
        Box::new(generator_int8::Generator::from_bytes(&bytes))
    }
}
