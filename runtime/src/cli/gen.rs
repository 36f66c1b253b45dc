//! `runtime gen`: which images to draw, in which layout, and where to write them.

use std::io::{self, IsTerminal, Write};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::error::Usage;
use super::model::{Classes, Model, Precision};
use super::output::{self, Canvas, Format, OutputFile, OutputFolder};
use super::parallel::{draw_on_threads, threads};
use crate::image::Image;
use crate::latent::{Digit, Latent};

#[derive(Args)]
pub struct Gen {
    /// The number that names the image, 0 to 2⁶⁴ − 1.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Draws N images, of the seeds SEED, SEED + 1, …
    #[arg(long, value_name = "N", conflicts_with = "grid")]
    count: Option<NonZeroU64>,
    /// The digit to draw, 0 to 9, by a class-conditional generator; without this flag the seed decides.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..10))]
    digit: Option<u8>,
    /// Draws one sheet of R rows and C columns; seeds ascend along the rows.
    #[arg(long, value_name = "RxC")]
    grid: Option<Grid>,
    /// Enlarges each pixel to K × K.
    #[arg(long, value_name = "K", default_value_t = NonZeroU32::MIN)]
    scale: NonZeroU32,
    /// The file format. Several PNG or PGM images are written into a folder, one file each; idx and raw are one file. With idx,
    /// a class-conditional generator also writes the labels, into a second file beside the first.
    #[arg(long, value_enum, default_value = "png")]
    format: Format,
    /// Writes to this file, or to this folder for several PNG or PGM images, instead of stdout.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Overwrites existing files.
    #[arg(long, requires = "out")]
    force: bool,
    /// The arithmetic of the network.
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// Uses the generator of this ONNX file instead of the built-in one.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The number of classes of --model's generator, if the file does not tell, because a tool dropped its metadata.
    #[arg(long, value_enum, value_name = "N", requires = "model")]
    classes: Option<Classes>,
    /// The number of threads, by default one per core; fewer than 512 images take one. The bytes do not depend on it.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

#[derive(Clone, Copy)]
struct Grid {
    rows: u32,
    columns: u32,
}

impl FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(['x', '×']).and_then(|(r, c)| Some((r.parse().ok()?, c.parse().ok()?)));
        match parsed {
            Some((rows, columns)) if rows > 0 && columns > 0 => Ok(Self { rows, columns }),
            _ => Err("rows and columns expected, such as 4x8".into()),
        }
    }
}

/// Images that are drawn and then written at a time: 13 MB.
const BLOCK: u64 = 16 * 1024;
/// The largest sheet or enlarged image, in pixels. More is surely a typing error.
const MAX_PIXELS: u64 = 1 << 30;

pub fn run(args: &Gen) -> Result<()> {
    let count = match args.grid {
        Some(grid) => u64::from(grid.rows) * u64::from(grid.columns),
        None => args.count.map_or(1, NonZeroU64::get),
    };
    let canvas = Canvas::new(args.grid.map_or((1, 1), |grid| (grid.rows, grid.columns)), args.scale.get());
    check(args, count, &canvas)?;
    let model = Model::load(args.model.as_deref(), args.precision, args.classes)?;
    if model.looks_conditional {
        let warning = "warning: --model: the first ten weights of z look like a digit's one-hot, but the metadata name no \
            classes; --classes 10 draws digits, --classes 0 silences this warning";
        let _ = writeln!(io::stderr(), "{warning}");
    }
    let digit = args.digit.and_then(Digit::new);
    if let (Some(digit), false) = (digit, model.conditional) {
        let digit = digit.value();
        return usage(format!(
            "--digit {digit}: a class-conditional generator expected, an unconditional one found; choose another with --model"
        ));
    }
    let job = Job { model, digit, seed: args.seed, threads: threads(args.threads, count) };

    let terminal = args.out.is_none() && io::stdout().is_terminal();
    if args.grid.is_some() || (count == 1 && args.format != Format::Idx) {
        let mut images = vec![Image::BLANK; count as usize];
        job.draw(0, &mut images);
        let pixels = canvas.paint(&images);
        if terminal {
            let small = Canvas::new((canvas.rows, canvas.columns), 1);
            return Ok(io::stdout().write_all(small.half_blocks(&small.paint(&images)).as_bytes())?);
        }
        let bytes = output::encode(args.format, &canvas, &pixels)?;
        return OutputFile::create(args.out.as_deref(), args.force, bytes.len() as u64)?.write_all(&bytes);
    }
    if terminal {
        return usage("stdout is a terminal: --out, or a pipe, expected for binary data".into());
    }
    match args.format {
        Format::Png | Format::Pgm => write_folder(args, &job, count, &canvas),
        Format::Idx | Format::Raw => write_stream(args, &job, count, &canvas),
    }
}

/// Refuses what no generator can draw.
fn check(args: &Gen, count: u64, canvas: &Canvas) -> Result<()> {
    if args.seed.checked_add(count - 1).is_none() {
        return usage(format!("--seed {}: at most {} expected with {count} images", args.seed, u64::MAX - (count - 1)));
    }
    if canvas.pixels() > MAX_PIXELS {
        return usage(format!(
            "--grid and --scale: at most {MAX_PIXELS} pixels expected, {} × {} asked for",
            canvas.width(),
            canvas.height()
        ));
    }
    if args.grid.is_some() && args.format == Format::Idx {
        return usage("--grid: a sheet as png, pgm or raw expected, --format idx found".into());
    }
    if count > 1 && args.grid.is_none() && args.out.is_none() && matches!(args.format, Format::Png | Format::Pgm) {
        return usage(format!(
            "--count {count}: --out FOLDER expected for {count} pictures; --grid, or --format idx or raw, goes to stdout"
        ));
    }
    Ok(())
}

fn usage<T>(sentence: String) -> Result<T> {
    Err(Usage(sentence).into())
}

/// The images to draw: those of `seed`, `seed + 1`, …
struct Job {
    model: Model,
    digit: Option<Digit>,
    seed: u64,
    threads: usize,
}

impl Job {
    /// Fills `images` with the job's images from number `first` on, on all threads.
    fn draw(&self, first: u64, images: &mut [Image]) {
        let latent = |i: usize| {
            let seed = self.seed + first + i as u64;
            match self.digit {
                Some(digit) => Latent::with_digit(seed, digit),
                None => Latent::of_seed(seed, self.model.conditional),
            }
        };
        draw_on_threads(self.model.generator, self.threads, &latent, images);
    }

    /// The digit of image number `index`.
    fn label(&self, index: u64) -> u8 {
        self.digit.unwrap_or_else(|| Digit::of(self.seed + index)).value()
    }

    /// Draws `count` images and calls `take` with each block of them and the number of its first image.
    fn blocks(&self, count: u64, mut take: impl FnMut(u64, &[Image]) -> Result<()>) -> Result<()> {
        let mut images = vec![Image::BLANK; count.min(BLOCK) as usize];
        let progress = Progress::new(count);
        for first in (0..count).step_by(BLOCK as usize) {
            let images = &mut images[..(count - first).min(BLOCK) as usize];
            self.draw(first, images);
            take(first, images)?;
            progress.at(first + images.len() as u64);
        }
        Ok(())
    }
}

/// Writes all images into one file, and the labels of a class-conditional generator's idx file into a second one.
fn write_stream(args: &Gen, job: &Job, count: u64, canvas: &Canvas) -> Result<()> {
    let header = if args.format == Format::Idx { output::idx_header(count, canvas)? } else { vec![] };
    let bytes = header.len() as u64 + count.saturating_mul(canvas.pixels());
    let labels = match &args.out {
        Some(images) if job.model.conditional && args.format == Format::Idx => Some(output::labels_beside(images)?),
        _ => None,
    };
    let mut target = OutputFile::create(args.out.as_deref(), args.force, bytes)?;
    let mut labels = labels.map(|path| OutputFile::create(Some(&path), args.force, 8 + count)).transpose()?;
    target.write(&header)?;
    if let Some(labels) = &mut labels {
        labels.write(&output::idx_labels_header(count)?)?;
    }
    job.blocks(count, |first, images| {
        if let Some(labels) = &mut labels {
            let block: Vec<u8> = (first..first + images.len() as u64).map(|i| job.label(i)).collect();
            labels.write(&block)?;
        }
        if canvas.scale == 1 {
            return images.iter().try_for_each(|image| target.write(&image.0));
        }
        images.iter().try_for_each(|image| target.write(&canvas.paint(std::slice::from_ref(image))))
    })?;
    target.finish()?;
    labels.map_or(Ok(()), OutputFile::finish)
}

/// Writes each image into a file of its own, named by its seed.
fn write_folder(args: &Gen, job: &Job, count: u64, canvas: &Canvas) -> Result<()> {
    let out = args.out.as_deref().expect("`check` demands --out for several pictures");
    let digits = (job.seed + (count - 1)).to_string().len();
    let extension = if args.format == Format::Png { "png" } else { "pgm" };
    let folder = OutputFolder::create(out, args.force, count, canvas.pixels())?;
    job.blocks(count, |first, images| {
        let write = |at: usize, images: &[Image]| {
            images.iter().zip(at as u64 + first..).try_for_each(|(image, i)| {
                let pixels = canvas.paint(std::slice::from_ref(image));
                let name = format!("{:0digits$}.{extension}", job.seed + i);
                folder.write(&name, &output::encode(args.format, canvas, &pixels)?)
            })
        };
        let share = images.len().div_ceil(job.threads);
        thread::scope(|scope| {
            let write = &write;
            let parts = images.chunks(share).enumerate();
            let threads: Vec<_> = parts.map(|(i, part)| scope.spawn(move || write(i * share, part))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a writer does not panic"))
        })
    })?;
    folder.finish()
}

/// A progress bar, which appears on a terminal after one second.
struct Progress {
    bar: ProgressBar,
    start: Instant,
}

impl Progress {
    fn new(count: u64) -> Self {
        let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} images, {per_sec}, {eta} left");
        let bar = ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::hidden());
        Self { bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())), start: Instant::now() }
    }

    fn at(&self, done: u64) {
        if self.bar.is_hidden() && self.start.elapsed() > Duration::from_secs(1) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr()); // silent unless it is a terminal
        }
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
