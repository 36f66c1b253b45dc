//! The `runtime` command: the one place where errors meet the user.

mod onnx;

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fmt::Write as _, fs};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, Parser, Subcommand};
use runtime::generator::{Dense, Generator};
use runtime::latent::{conditional_latent, latent};
use runtime::{CONDITIONAL, Digit, GENERATOR, Image, Kernel};

/// Draws handwritten digits. A seed names one image for ever, the same bytes on every machine.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Draws a digit: a PNG to a file or a pipe, characters to a terminal.
    Gen(Gen),
}

#[derive(Args)]
struct Gen {
    /// The image's name, 0 to 2⁶⁴ − 1.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The digit to draw, 0 to 9 (class-conditional generators only; without it the seed names one).
    #[arg(long)]
    digit: Option<u8>,
    /// A generator's ONNX file, instead of the one built in.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Where the PNG goes, instead of stdout.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let Command::Gen(args) = Cli::parse().command;
    match generate(&args) {
        Ok(()) => ExitCode::SUCCESS,
        // Who closes a pipe has seen enough.
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn generate(args: &Gen) -> Result<()> {
    let loaded = args.model.as_deref().map(load).transpose()?;
    let (generator, conditional) = match &loaded {
        Some((generator, conditional)) => (generator.as_ref(), *conditional),
        None => (&GENERATOR, CONDITIONAL),
    };
    let digit = match args.digit {
        Some(digit) => Some(Digit::new(digit).with_context(|| format!("--digit: 0 to 9 expected, {digit} found"))?),
        None => None,
    };
    ensure!(
        conditional || digit.is_none(),
        "--digit: a class-conditional generator expected, an unconditional one found"
    );
    let z = if conditional { conditional_latent(args.seed, digit) } else { latent(args.seed) };
    let image = generator.draw(Kernel::best(), &z);
    match &args.out {
        Some(path) => write(path, &png(&image)?),
        None if io::stdout().is_terminal() => Ok(io::stdout().write_all(half_blocks(&image).as_bytes())?),
        None => Ok(io::stdout().write_all(&png(&image)?)?),
    }
}

/// A generator from a file, and whether it is class-conditional.
fn load(path: &Path) -> Result<(Box<Generator>, bool)> {
    let name = path.display().to_string();
    let bytes = fs::read(path).with_context(|| format!("--model: {name}: a generator's ONNX file expected"))?;
    let model = onnx::Model::read(&bytes, &name).map_err(|e| anyhow!("--model: {e}"))?;
    let [fc1, fc2, fc3, fc4] = &model.layers[..] else { bail!("--model: {name}: four layers expected") };
    let generator = || {
        Some(Box::new(Generator {
            fc1: Dense::new(&fc1.weight, &fc1.bias)?,
            fc2: Dense::new(&fc2.weight, &fc2.bias)?,
            fc3: Dense::new(&fc3.weight, &fc3.bias)?,
            fc4: Dense::new(&fc4.weight, &fc4.bias)?,
        }))
    };
    Ok((generator().context("the reader checks every shape")?, model.conditional()))
}

fn png(image: &Image) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, Image::SIDE as u32, Image::SIDE as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_compression(png::Compression::Fast); // by fdeflate alone, so that no other crate's features change the bytes
    encoder.write_header()?.write_image_data(&image.0)?;
    Ok(bytes)
}

/// The digit in 28 × 14 characters of 24-bit colour: the upper half of ▀ is one pixel, the lower half the next.
fn half_blocks(image: &Image) -> String {
    let mut text = String::new();
    for y in (0..Image::SIDE).step_by(2) {
        for (upper, lower) in image.row(y).iter().zip(image.row(y + 1)) {
            let _ = write!(text, "\x1b[38;2;{upper};{upper};{upper}m\x1b[48;2;{lower};{lower};{lower}m▀");
        }
        text.push_str("\x1b[0m\n");
    }
    text
}

/// Writes a file whole or not at all: to a temporary name beside it, synced, then renamed.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().with_context(|| format!("--out: {}: a file name expected", path.display()))?;
    let temporary = path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let result = fs::File::create_new(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if result.is_err() {
        let _ = fs::remove_file(&temporary); // the error that is told is the first one
    }
    result.with_context(|| format!("--out: {}: cannot be written", path.display()))
}
