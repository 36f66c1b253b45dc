//! `runtime gen`: which images, how they are laid out, where they go.

use std::io::{self, IsTerminal, Write};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use runtime::{Digit, Image, Latent};

use crate::output::{self, Canvas, Target};
use crate::{Model, Precision, Usage};

#[derive(Args)]
pub struct Gen {
    /// The image's name, 0 to 2⁶⁴ − 1.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many images: those of the seeds SEED, SEED + 1, …
    #[arg(long, value_name = "N", conflicts_with = "grid")]
    count: Option<NonZeroU64>,
    /// The digit to draw, 0 to 9 (class-conditional generators only; without it the seed names one).
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..10))]
    digit: Option<u8>,
    /// One contact sheet of R rows and C columns, seeds along the rows.
    #[arg(long, value_name = "RxC")]
    grid: Option<Grid>,
    /// Each pixel becomes K × K.
    #[arg(long, value_name = "K", default_value_t = NonZeroU32::MIN)]
    scale: NonZeroU32,
    /// Several PNG or PGM images go to a folder, one file each; the others are one file. A class-conditional generator's idx
    /// file gets a second one with the labels beside it.
    #[arg(long, value_enum, default_value = "png")]
    format: Format,
    /// A file, or a folder for several PNG or PGM images, instead of stdout.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Writes over what is already there.
    #[arg(long, requires = "out")]
    force: bool,
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// A generator's ONNX file, instead of the one built in.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Cores to use, all by default; the bytes do not depend on it.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Png,
    /// MNIST's own, read by every loader of it.
    Idx,
    /// Bytes without a header: (N, height, width).
    Raw,
    /// Portable grey map, binary.
    Pgm,
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

/// Images that are drawn before the next are: 13 MB.
const BLOCK: u64 = 16 * 1024;
/// A sheet or an enlarged image beyond this many pixels is a slip of the hand.
const MOST_PIXELS: u64 = 1 << 30;

pub fn run(args: &Gen) -> Result<()> {
    let count = match args.grid {
        Some(grid) => u64::from(grid.rows) * u64::from(grid.columns),
        None => args.count.map_or(1, NonZeroU64::get),
    };
    let canvas = Canvas::new(args.grid.map_or((1, 1), |grid| (grid.rows, grid.columns)), args.scale.get());
    check(args, count, &canvas)?;
    let (model, conditional) = Model::load(args.model.as_deref(), args.precision)?;
    let digit = args.digit.and_then(Digit::new);
    if let (Some(digit), false) = (digit, conditional) {
        let digit = digit.value();
        return usage(format!(
            "--digit {digit}: a class-conditional generator expected, an unconditional one found; name another with --model"
        ));
    }
    let plan = Plan { model, conditional, digit, seed: args.seed, threads: threads(args, count) };

    let terminal = args.out.is_none() && io::stdout().is_terminal();
    if args.grid.is_some() || (count == 1 && args.format != Format::Idx) {
        let mut images = vec![Image::BLANK; count as usize];
        plan.draw(0, &mut images);
        let pixels = canvas.paint(&images);
        if terminal {
            let small = Canvas::new((canvas.rows, canvas.columns), 1);
            return Ok(io::stdout().write_all(small.half_blocks(&small.paint(&images)).as_bytes())?);
        }
        let bytes = output::encode(args.format, &canvas, &pixels)?;
        return Target::file(args.out.as_deref(), args.force, bytes.len() as u64)?.all(&bytes);
    }
    if terminal {
        return usage("stdout is a terminal: --out, or a pipe, expected for binary data".into());
    }
    match args.format {
        Format::Png | Format::Pgm => folder(args, &plan, count, &canvas),
        Format::Idx | Format::Raw => stream(args, &plan, count, &canvas),
    }
}

/// What no generator could do.
fn check(args: &Gen, count: u64, canvas: &Canvas) -> Result<()> {
    if args.seed.checked_add(count - 1).is_none() {
        return usage(format!("--seed {}: at most {} expected with {count} images", args.seed, u64::MAX - (count - 1)));
    }
    if canvas.pixels() > MOST_PIXELS {
        return usage(format!(
            "--grid and --scale: at most {MOST_PIXELS} pixels expected, {} × {} asked for",
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

fn threads(args: &Gen, count: u64) -> usize {
    let all = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    // Below that, starting a thread costs more than it saves.
    if count < 512 { 1 } else { args.threads.map_or_else(all, NonZeroUsize::get) }
}

/// The images of `seed`, `seed + 1`, …
struct Plan {
    model: Model,
    conditional: bool,
    digit: Option<Digit>,
    seed: u64,
    threads: usize,
}

impl Plan {
    /// Fills `images` with those from the `first` on, on all threads.
    fn draw(&self, first: u64, images: &mut [Image]) {
        // In sixteens, which the kernels take together.
        let share = images.len().div_ceil(self.threads).next_multiple_of(16);
        let draw = |at: usize, images: &mut [Image]| {
            let first = self.seed + first + (at * share) as u64;
            let z = (first..=u64::MAX).map(|seed| match self.digit {
                Some(digit) => Latent::with_digit(seed, digit),
                None => Latent::of_seed(seed, self.conditional),
            });
            self.model.draw_batch(z, images);
        };
        if self.threads == 1 {
            return draw(0, images);
        }
        let draw = &draw;
        thread::scope(|scope| {
            for (at, images) in images.chunks_mut(share).enumerate() {
                scope.spawn(move || draw(at, images));
            }
        });
    }

    fn label(&self, index: u64) -> u8 {
        self.digit.unwrap_or_else(|| Digit::of(self.seed + index)).value()
    }

    /// Draws all `count` images, a block at a time, and hands each block to `take`.
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

/// One file of all images, and of a class-conditional generator's idx one of their labels.
fn stream(args: &Gen, plan: &Plan, count: u64, canvas: &Canvas) -> Result<()> {
    let header = if args.format == Format::Idx { output::idx_header(count, canvas)? } else { vec![] };
    let bytes = header.len() as u64 + count.saturating_mul(canvas.pixels());
    let labels = match &args.out {
        Some(images) if plan.conditional && args.format == Format::Idx => Some(output::labels_beside(images)?),
        _ => None,
    };
    let mut target = Target::file(args.out.as_deref(), args.force, bytes)?;
    let mut labels = labels.map(|path| Target::file(Some(&path), args.force, 8 + count)).transpose()?;
    target.write(&header)?;
    if let Some(labels) = &mut labels {
        labels.write(&output::idx_labels_header(count)?)?;
    }
    plan.blocks(count, |first, images| {
        if let Some(labels) = &mut labels {
            let block: Vec<u8> = (first..first + images.len() as u64).map(|i| plan.label(i)).collect();
            labels.write(&block)?;
        }
        if canvas.scale == 1 {
            return images.iter().try_for_each(|image| target.write(&image.0));
        }
        images.iter().try_for_each(|image| target.write(&canvas.paint(std::slice::from_ref(image))))
    })?;
    target.finish()?;
    labels.map_or(Ok(()), Target::finish)
}

/// One file for each image, named by its seed.
fn folder(args: &Gen, plan: &Plan, count: u64, canvas: &Canvas) -> Result<()> {
    let out = args.out.as_deref().expect("checked: several pictures have --out");
    let digits = (plan.seed + (count - 1)).to_string().len();
    let extension = if args.format == Format::Png { "png" } else { "pgm" };
    let folder = output::Folder::new(out, args.force, count, canvas.pixels())?;
    plan.blocks(count, |first, images| {
        let write = |at: usize, images: &[Image]| {
            images.iter().zip(at as u64 + first..).try_for_each(|(image, i)| {
                let pixels = canvas.paint(std::slice::from_ref(image));
                let name = format!("{:0digits$}.{extension}", plan.seed + i);
                folder.write(&name, &output::encode(args.format, canvas, &pixels)?)
            })
        };
        let share = images.len().div_ceil(plan.threads);
        thread::scope(|scope| {
            let write = &write;
            let parts = images.chunks(share).enumerate();
            let threads: Vec<_> = parts.map(|(i, part)| scope.spawn(move || write(i * share, part))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a writer does not panic"))
        })
    })?;
    folder.finish()
}

/// A bar on a terminal, from the second second on.
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
            self.bar.set_draw_target(ProgressDrawTarget::stderr()); // which stays silent where that is no terminal
        }
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
