//! What `gen` and `shards` share: the options that say which images to draw and by which generator, and the drawing itself.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::error::usage;
use super::model::{Model, Precision};
use super::parallel::{MAX_THREADS, draw_on_threads, threads};
use crate::image::Image;
use crate::latent::{Class, Digit, Latent};
use crate::onnx::classes;

// The options that name images and their generator. (A doc comment would become the description of the subcommand.)
#[derive(Args)]
pub struct DrawArgs {
    /// The number that names the image, or the first of several, 0 to 2⁶⁴ − 1.
    #[arg(long, default_value_t = 0, value_parser = number(0..=u64::MAX))]
    pub seed: u64,
    /// The class to draw, by a class-conditional generator: its name, or its number from 0 on. Without this flag the seed decides.
    /// `runtime inspect` lists the classes of a file.
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub class: Option<String>,
    /// The digit to draw, 0 to 9: the class of this name.
    #[arg(long, conflicts_with = "class", value_parser = number(0..=9u8))]
    pub digit: Option<u8>,
    /// The arithmetic of the network.
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: Precision,
    /// Uses the generator of this ONNX file instead of the built-in one.
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// The number of classes of --model's generator, 0 or 2 to 64, if the file does not say it, because a tool dropped its metadata.
    #[arg(long, value_name = "N", requires = "model", value_parser = classes::parse_count)]
    pub classes: Option<usize>,
    /// The number of threads, by default one per core; fewer than 512 images take one. The bytes do not depend on it.
    #[arg(long, value_name = "N", value_parser = number(NonZeroUsize::MIN..=MAX_THREADS))]
    pub threads: Option<NonZeroUsize>,
}

impl DrawArgs {
    /// The job of `count` images, with its generator loaded.
    ///
    /// # Errors
    /// The seeds do not reach so far, the generator cannot be read, or it has no such class.
    pub fn job(&self, count: u64) -> Result<Job> {
        if self.seed.checked_add(count - 1).is_none() {
            return usage(format!(
                "--seed {}: at most {} expected with {count} images",
                self.seed,
                u64::MAX - (count - 1)
            ));
        }
        let model = Model::load(self.model.as_deref(), self.precision, self.classes)?;
        if let Some(n) = model.likely_classes {
            let advice = format!("--classes {n} draws {n} classes, --classes 0 silences this warning");
            let _ = writeln!(io::stderr(), "warning: --model: {}; {advice}", classes::unnamed_warning(n));
        }
        let class = self.chosen_class(&model.classes)?;
        Ok(Job { model, class, seed: self.seed, threads: threads(self.threads, count) })
    }

    /// The class of `--class` or `--digit` among `names`; `None` if each seed decides.
    fn chosen_class(&self, names: &[String]) -> Result<Option<Class>> {
        let (flag, class) = match (&self.class, self.digit.and_then(Digit::new)) {
            (Some(wanted), _) => (format!("--class {wanted}"), Class::find(wanted, names)),
            (None, Some(digit)) => (format!("--digit {}", digit.value()), Class::of_digit(digit, names)),
            (None, None) => return Ok(None),
        };
        match class {
            Some(class) => Ok(Some(class)),
            None if names.is_empty() => usage(format!("{flag}: {UNCONDITIONAL}")),
            None => usage(format!("{flag}: one of the generator's classes expected: {}", names.join(", "))),
        }
    }
}

/// Why a generator cannot do what a flag asks for.
pub const UNCONDITIONAL: &str =
    "a class-conditional generator expected, an unconditional one found; choose another with --model";

/// The images to draw: those of `seed`, `seed + 1`, …
pub struct Job {
    pub model: Model,
    pub class: Option<Class>,
    pub seed: u64,
    pub threads: usize,
}

impl Job {
    /// Fills `images` with the job's images from number `first` on, on all threads.
    pub fn draw(&self, first: u64, images: &mut [Image]) -> Result<()> {
        let latent = |i: usize| self.latent(first + i as u64);
        draw_on_threads(self.model.generator, self.threads, &latent, images).with_context(|| self.cannot_start())
    }

    /// Fills `images` with the job's images of these numbers, on this thread.
    pub fn draw_each(&self, indices: impl Iterator<Item = u64>, images: &mut [Image]) {
        self.model.generator.draw_batch(&mut indices.map(|index| self.latent(index)), images);
    }

    /// The z of image number `index`.
    fn latent(&self, index: u64) -> Latent {
        match self.class(index) {
            Some(class) => Latent::with_class(self.seed + index, class),
            None => Latent::new(self.seed + index),
        }
    }

    pub fn cannot_start(&self) -> String {
        format!("--threads: {} threads expected, the system does not start as many; choose fewer", self.threads)
    }

    /// The class of image number `index`; `None` if the generator is unconditional.
    pub fn class(&self, index: u64) -> Option<Class> {
        class_of(self.class, self.seed + index, self.model.classes.len())
    }

    /// The labels of the images with these numbers; empty if the generator is unconditional.
    pub fn labels(&self, indices: Range<u64>) -> Vec<u8> {
        indices.filter_map(|index| self.class(index)).map(|class| class.index() as u8).collect()
    }

    /// Draws `count` images in blocks, on all threads. `on_each` gets a block, and the number of its first image, on the thread that
    /// drew it, in any order. Then `in_order` gets it on this thread, the first block first, while the threads draw others.
    ///
    /// # Errors
    /// The first error of `on_each` or `in_order`, or the system does not start as many threads.
    pub fn blocks(
        &self,
        count: u64,
        on_each: impl Fn(u64, &[Image]) -> Result<()> + Sync,
        mut in_order: impl FnMut(u64, &[Image]) -> Result<()>,
    ) -> Result<()> {
        let block = count.div_ceil(self.threads as u64).clamp(1, BLOCK); // all threads have a block, also of few images
        let len = |first: u64| (count - first).min(block) as usize;
        let draw = |first: u64, buffer: &mut [Image]| {
            let images = &mut buffer[..len(first)];
            self.draw_each(first.., images);
            on_each(first, images)
        };
        if count <= block {
            let mut images = vec![Image::BLANK; count as usize];
            draw(0, &mut images)?;
            return in_order(0, &images);
        }
        let progress = Progress::new(count);
        let (free, buffers) = channel();
        (0..2 * self.threads).for_each(|_| _ = free.send(vec![Image::BLANK; block as usize]));
        // Whoever takes a block has a buffer for it. So the first block that is missing is always being drawn.
        let open = Mutex::new((buffers, (0..count).step_by(block as usize)));
        let next = || {
            let (buffers, firsts) = &mut *open.lock().unwrap_or_else(PoisonError::into_inner);
            Some((buffers.recv().ok()?, firsts.next()?))
        };
        let (sender, drawn) = channel();
        let (draw, next) = (&draw, &next);
        thread::scope(move |scope| {
            for sender in vec![sender; self.threads] {
                let work = move || {
                    while let Some((mut buffer, first)) = next() {
                        let done = draw(first, &mut buffer);
                        if sender.send((first, done.map(|()| buffer))).is_err() {
                            break; // another block has failed
                        }
                    }
                };
                let started = thread::Builder::new().spawn_scoped(scope, work);
                started.with_context(|| self.cannot_start())?;
            }
            let (mut early, mut first) = (BTreeMap::new(), 0);
            for (number, buffer) in drawn {
                early.insert(number, buffer?);
                while let Some(buffer) = early.remove(&first) {
                    in_order(first, &buffer[..len(first)])?;
                    first += len(first) as u64;
                    progress.at(first);
                    let _ = free.send(buffer); // without a receiver when all is drawn
                }
            }
            Ok(())
        })
    }
}

/// The class of a seed's image: the `chosen` one, or else the seed's own. `None` if `classes`, their number, is 0.
pub fn class_of(chosen: Option<Class>, seed: u64, classes: usize) -> Option<Class> {
    chosen.or_else(|| Class::of(seed, classes))
}

/// Most images of a block: 200 kB.
const BLOCK: u64 = 256;

/// A progress bar, which appears on a terminal after one second.
pub struct Progress {
    bar: ProgressBar,
    start: Instant,
}

impl Progress {
    pub fn new(count: u64) -> Self {
        let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} images, {per_sec}, {eta} left");
        let bar = ProgressBar::with_draw_target(Some(count), ProgressDrawTarget::hidden());
        Self { bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())), start: Instant::now() }
    }

    pub fn at(&self, done: u64) {
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

/// A parser of numbers that names the allowed ones.
pub fn number<T>(allowed: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        let number = text.parse().ok().filter(|number| allowed.contains(number));
        number.ok_or_else(|| format!("{} to {} expected", allowed.start(), allowed.end()))
    }
}
