//! The `runtime` command: the one place where errors meet the user.

mod bench;
mod draw;
mod inspect;
mod onnx;
mod output;
mod quantize;
use runtime::latent;

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand, ValueEnum};
use runtime::{CONDITIONAL, GENERATOR, Generator, Image, Latent, int8};

/// Draws handwritten digits. A seed names one image for ever, the same bytes on every machine.
#[derive(Parser)]
#[command(version, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Draws digits: characters to a terminal, a PNG or a data set to a file, a folder or a pipe.
    Gen(draw::Gen),
    /// Measures this machine's microseconds an image.
    Bench(bench::Bench),
    /// Says what a generator's ONNX file holds.
    Inspect(inspect::Inspect),
}

/// How the network computes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Precision {
    /// Single precision: what `generate` gives.
    F32,
    /// Integers alone: a quarter of the weights' bytes, pixels that differ a little.
    Int8,
}

/// A flag that contradicts another one or the generator: the sentence to say.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Gen(args) => draw::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Inspect(args) => inspect::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Who closes a pipe has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error:#}");
            if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// A generator of either precision, built in or from a file.
enum Model {
    F32(&'static Generator),
    Int8(&'static int8::Generator),
    F32File(Box<Generator>),
    Int8File(Box<int8::Generator>),
}

impl Model {
    /// The one built in, or that of a file; and whether it is class-conditional.
    ///
    /// # Errors
    /// The file is missing, no ONNX, or no generator of this shape.
    fn load(file: Option<&Path>, precision: Precision) -> Result<(Self, bool)> {
        let Some(path) = file else {
            let built_in = match precision {
                Precision::F32 => Self::F32(&GENERATOR),
                Precision::Int8 => Self::Int8(&int8::GENERATOR),
            };
            return Ok((built_in, CONDITIONAL));
        };
        let model = read(path).context("--model")?.1;
        let short = |bytes: Vec<u8>| anyhow!("--model: {}: other weights than {} bytes", path.display(), bytes.len());
        let loaded = match precision {
            Precision::F32 => {
                let bytes: Box<[u8; size_of::<Generator>()]> = model.f32_bytes().try_into().map_err(short)?;
                Self::F32File(Box::new(Generator::from_bytes(&bytes)))
            }
            Precision::Int8 => {
                let bytes: Box<[u8; size_of::<int8::Generator>()]> =
                    quantize::int8_bytes(&model).try_into().map_err(short)?;
                Self::Int8File(Box::new(int8::Generator::from_bytes(&bytes)))
            }
        };
        Ok((loaded, model.conditional()))
    }

    fn draw_batch(&self, z: impl Iterator<Item = Latent>, images: &mut [Image]) {
        match self {
            Self::F32(generator) => generator.draw_batch(z, images),
            Self::F32File(generator) => generator.draw_batch(z, images),
            Self::Int8(generator) => generator.draw_batch(z, images),
            Self::Int8File(generator) => generator.draw_batch(z, images),
        }
    }
}

/// A file's bytes, and the generator in them.
fn read(path: &Path) -> Result<(Vec<u8>, onnx::Model)> {
    let name = path.display().to_string();
    let bytes = fs::read(path).with_context(|| format!("{name}: a generator's ONNX file expected"))?;
    let model = onnx::Model::read(&bytes, &name).map_err(|e| anyhow!(e))?;
    Ok((bytes, model))
}

/// A path that `clap` has read, for messages.
fn shown(flag: &str, path: &Path) -> String {
    format!("{flag}: {}", path.display())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
