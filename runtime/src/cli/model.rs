//! Generators for the command: the built-in one, or one from an ONNX file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use clap::ValueEnum;

use crate::generate::Generate;
use crate::{generator, generator_int8, onnx, quantize, weights};

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
        let model = read_model(path).context("--model")?.1;
        let wrong_size = |bytes: Vec<u8>| anyhow!("--model: {}: {} bytes of weights", path.display(), bytes.len());
        let generator: &'static dyn Generate = match precision {
            Precision::F32 => {
                let bytes: Box<[u8; _]> = model.f32_bytes().try_into().map_err(wrong_size)?;
                Box::leak(Box::new(generator::Generator::from_bytes(&bytes)))
            }
            Precision::Int8 => {
                let bytes: Box<[u8; _]> = quantize::int8_bytes(&model).try_into().map_err(wrong_size)?;
                Box::leak(Box::new(generator_int8::Generator::from_bytes(&bytes)))
            }
        };
        Ok(Self { generator, conditional: model.conditional() })
    }
}

/// A file's bytes, and the generator that they describe.
///
/// # Errors
/// As [`Model::load`].
pub fn read_model(path: &Path) -> Result<(Vec<u8>, onnx::Model)> {
    let name = path.display().to_string();
    let bytes = fs::read(path).with_context(|| format!("{name}: a generator's ONNX file expected"))?;
    let model = onnx::Model::read(&bytes, &name).map_err(|e| anyhow!(e))?;
    Ok((bytes, model))
}
