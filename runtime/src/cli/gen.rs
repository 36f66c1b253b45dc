//! `runtime gen`: which images to draw, in which layout, and where to write them.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::slice;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use clap::Args;

use super::draw::{DrawArgs, Job, UNCONDITIONAL, number};
use super::error::usage;
use super::files::{OutputFile, OutputFolder};
use super::output::{self, Canvas, Format};
use crate::arch::bytes_of;
use crate::image::Image;

#[derive(Args)]
pub struct Gen {
    #[command(flatten)]
    draw: DrawArgs,
    /// Draws N images, of the seeds SEED, SEED + 1, …
    #[arg(long, value_name = "N", conflicts_with = "grid", value_parser = number(1..=u64::MAX))]
    count: Option<u64>,
    /// Draws one sheet of R rows and C columns; seeds ascend along the rows.
    #[arg(long, value_name = "RxC")]
    grid: Option<Grid>,
    /// Enlarges each pixel to K × K.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = number(1..=MAX_SCALE))]
    scale: u32,
    /// The file format. Several PNG or PGM images are written into a folder, one file each; idx and raw are one file. With idx,
    /// a class-conditional generator also writes the labels, into a second file beside the first.
    #[arg(long, value_enum, default_value = "png")]
    format: Format,
    /// Writes to this file, or to this folder for several PNG or PGM images, instead of stdout. A file whose name ends with .gz is
    /// compressed with gzip.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Sorts PNG or PGM images into one folder per class in the folder --out, as torchvision's ImageFolder reads them.
    #[arg(long, requires = "out", conflicts_with = "grid")]
    by_class: bool,
    /// Overwrites existing files.
    #[arg(long, requires = "out")]
    force: bool,
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
            _ => Err(format!("rows and columns expected, such as 4x8, and at most {} images", MAX_PIXELS / PIXELS)),
        }
    }
}

const PIXELS: u64 = Image::PIXELS as u64;
/// The largest sheet or enlarged image, in pixels. More is surely a typing error.
const MAX_PIXELS: u64 = 1 << 30;
/// One image of this scale has [`MAX_PIXELS`].
const MAX_SCALE: u32 = (MAX_PIXELS / PIXELS).isqrt() as u32;

impl Gen {
    fn open(&self, path: Option<&Path>, bytes: u64) -> Result<OutputFile> {
        OutputFile::create(path, self.draw.model.as_deref(), self.force, bytes)
    }
}

pub fn run(args: &Gen) -> Result<()> {
    let count = match args.grid {
        Some(grid) => u64::from(grid.rows) * u64::from(grid.columns),
        None => args.count.unwrap_or(1),
    };
    let canvas = Canvas::new(args.grid.map_or((1, 1), |grid| (grid.rows, grid.columns)), args.scale);
    check(args, count, &canvas)?;
    let job = args.draw.job(count)?;
    if args.by_class && job.model.classes.is_empty() {
        return usage(format!("--by-class: {UNCONDITIONAL}"));
    }

    let terminal = args.out.is_none() && io::stdout().is_terminal();
    if args.grid.is_some() || (count == 1 && args.format != Format::Idx && !args.by_class) {
        let target = args.open(args.out.as_deref(), canvas.pixels())?; // errors come before the work
        let mut images = vec![Image::BLANK; count as usize];
        job.draw(0, &mut images)?;
        if terminal {
            let small = Canvas::new((canvas.rows, canvas.columns), 1);
            return output::print(small.half_blocks(&small.paint(&images)));
        }
        return target.write_all(&output::encode(args.format, &canvas, &canvas.paint(&images))?);
    }
    if terminal {
        return usage("stdout is a terminal: --out, or a pipe, expected for binary data".into());
    }
    match args.format {
        Format::Png | Format::Pgm => write_folder(args, job, count, &canvas),
        Format::Idx | Format::Raw => write_stream(args, &job, count, &canvas),
    }
}

/// Refuses what no generator can draw.
fn check(args: &Gen, count: u64, canvas: &Canvas) -> Result<()> {
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
    if args.by_class && !matches!(args.format, Format::Png | Format::Pgm) {
        return usage("--by-class: --format png or pgm expected, which write one file per image; another found".into());
    }
    if count > 1 && args.grid.is_none() && args.out.is_none() && matches!(args.format, Format::Png | Format::Pgm) {
        return usage(format!(
            "--count {count}: --out FOLDER expected for {count} pictures; --grid, or --format idx or raw, goes to stdout"
        ));
    }
    Ok(())
}

/// Writes all images into one file, and the labels of a class-conditional generator's idx file into a second one.
fn write_stream(args: &Gen, job: &Job, count: u64, canvas: &Canvas) -> Result<()> {
    let header = if args.format == Format::Idx { output::idx_header(count, canvas)? } else { vec![] };
    let bytes = header.len() as u64 + count.saturating_mul(canvas.pixels());
    let mut target = args.open(args.out.as_deref(), bytes)?;
    let has_labels = !job.model.classes.is_empty() && args.format == Format::Idx && target.is_on_disk();
    let labels = args.out.as_deref().filter(|_| has_labels);
    let mut labels = labels.map(|images| args.open(Some(&output::labels_beside(images)), 8 + count)).transpose()?;
    target.write(&header)?;
    if let Some(labels) = &mut labels {
        labels.write(&output::idx_labels_header(count)?)?;
    }
    let write = |first: u64, images: &[Image]| {
        if let Some(labels) = &mut labels {
            labels.write(&job.labels(first..first + images.len() as u64))?;
        }
        if canvas.scale == 1 {
            return target.write(bytes_of(images));
        }
        images.iter().try_for_each(|image| target.write(&canvas.paint(slice::from_ref(image))))
    };
    job.blocks(count, |_, _| Ok(()), write)?;
    OutputFile::finish_together([target].into_iter().chain(labels).collect())
}

/// Writes each image into a file of its own, named by its seed; by class, in a folder named by its class.
fn write_folder(args: &Gen, mut job: Job, count: u64, canvas: &Canvas) -> Result<()> {
    // Each thread paints one picture at a time. All of them together stay below MAX_PIXELS.
    job.threads = job.threads.min((MAX_PIXELS / canvas.pixels()) as usize);
    let out = args.out.as_deref().expect("`check` demands --out for several pictures");
    let digits = (job.seed + (count - 1)).to_string().len();
    let extension = if args.format == Format::Png { "png" } else { "pgm" };
    let folder = OutputFolder::create(out, args.force, count, canvas.pixels())?;
    let class_folders = output::folder_names(&job.model.classes);
    let class_folder = |i: u64| job.class(i).filter(|_| args.by_class).map(|class| &class_folders[class.index()]);
    let created = Mutex::new(BTreeSet::new()); // without folders of classes that have no image, which ImageFolder refuses
    let write = |first: u64, images: &[Image]| {
        for (image, i) in images.iter().zip(first..) {
            let mut name = format!("{:0digits$}.{extension}", job.seed + i);
            if let Some(class) = class_folder(i) {
                let mut created = created.lock().unwrap_or_else(PoisonError::into_inner);
                if created.insert(class) {
                    folder.create_folder(class)?;
                }
                name = format!("{class}/{name}");
            }
            folder.write(&name, &output::encode(args.format, canvas, &canvas.paint(slice::from_ref(image)))?)?;
        }
        Ok(())
    };
    job.blocks(count, write, |_, _| Ok(()))?;
    folder.finish()
}
