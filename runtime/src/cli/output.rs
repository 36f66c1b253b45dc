//! Output: images become bytes of a format, and a file or a folder appears complete or not at all.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::error::Usage;
use crate::image::Image;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Png,
    /// The format of the MNIST files.
    Idx,
    /// Pixels without a header: (N, height, width), one byte each.
    Raw,
    /// Portable grey map, binary.
    Pgm,
}

/// A picture of `rows` × `columns` images, with each pixel enlarged to `scale` × `scale`.
pub struct Canvas {
    pub rows: u32,
    pub columns: u32,
    pub scale: u32,
}

impl Canvas {
    pub fn new((rows, columns): (u32, u32), scale: u32) -> Self {
        Self { rows, columns, scale }
    }

    pub fn width(&self) -> u64 {
        u64::from(self.columns).saturating_mul(Image::SIDE as u64).saturating_mul(u64::from(self.scale))
    }

    pub fn height(&self) -> u64 {
        u64::from(self.rows).saturating_mul(Image::SIDE as u64).saturating_mul(u64::from(self.scale))
    }

    pub fn pixels(&self) -> u64 {
        self.width().saturating_mul(self.height())
    }

    /// The picture's pixels, row by row from the top left.
    pub fn paint(&self, images: &[Image]) -> Vec<u8> {
        let scale = self.scale as usize;
        let mut pixels = Vec::with_capacity(self.pixels() as usize);
        for images in images.chunks(self.columns as usize) {
            for y in 0..Image::SIDE {
                let start = pixels.len();
                for pixel in images.iter().flat_map(|image| image.row(y)) {
                    pixels.resize(pixels.len() + scale, *pixel);
                }
                let end = pixels.len();
                (1..scale).for_each(|_| pixels.extend_from_within(start..end));
            }
        }
        pixels
    }

    /// The picture as text for a terminal with 24-bit colour. Each character ▀ is two pixels: its foreground is the upper one,
    /// its background the lower one.
    pub fn half_blocks(&self, pixels: &[u8]) -> String {
        let mut text = String::new();
        let width = self.width() as usize;
        for rows in pixels.chunks(2 * width) {
            let (upper, lower) = rows.split_at(width);
            for (upper, lower) in upper.iter().zip(lower) {
                let _ = write!(text, "\x1b[38;2;{upper};{upper};{upper}m\x1b[48;2;{lower};{lower};{lower}m▀");
            }
            text.push_str("\x1b[0m\n");
        }
        text
    }
}

/// The file of one picture.
pub fn encode(format: Format, canvas: &Canvas, pixels: &[u8]) -> Result<Vec<u8>> {
    Ok(match format {
        Format::Png => png(canvas.width() as u32, canvas.height() as u32, pixels)?,
        Format::Pgm => [format!("P5\n{} {}\n255\n", canvas.width(), canvas.height()).as_bytes(), pixels].concat(),
        Format::Idx => [&idx_header(1, canvas)?, pixels].concat(),
        Format::Raw => pixels.to_vec(),
    })
}

/// A PNG file of grey pixels, row by row from the top left.
///
/// # Errors
/// `pixels` are not width × height, or none.
pub fn png(width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    let mut encoder = ::png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(::png::ColorType::Grayscale);
    encoder.set_compression(::png::Compression::Fast); // uses fdeflate alone, so no other crate's features change the bytes
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(bytes)
}

/// The header of an IDX file of `count` images: 0, 0, the element type (8 is u8), the number of dimensions, then each size as
/// big-endian u32.
///
/// # Errors
/// More images than a u32 counts.
///
/// Source: LeCun, Cortes & Burges, "The MNIST database", file formats.
pub fn idx_header(count: u64, canvas: &Canvas) -> Result<Vec<u8>> {
    idx(3, &[count, canvas.height(), canvas.width()])
}

/// The header of an IDX file of `count` labels. Errors as [`idx_header`].
pub fn idx_labels_header(count: u64) -> Result<Vec<u8>> {
    idx(1, &[count])
}

fn idx(dimensions: u8, sizes: &[u64]) -> Result<Vec<u8>> {
    let mut header = vec![0, 0, 8, dimensions];
    for &size in sizes {
        let Ok(size) = u32::try_from(size) else {
            bail!(Usage(format!("--count {size}: at most {} images fit an idx file; use --format raw", u32::MAX)));
        };
        header.extend(size.to_be_bytes());
    }
    Ok(header)
}

/// The path of the labels file: `train-labels-idx1-ubyte` for `train-images-idx3-ubyte`, and `NAME-labels` for any other name.
pub fn labels_beside(images: &Path) -> Result<PathBuf> {
    let name = file_name(images)?.to_string_lossy();
    let mnist = name.replace("images", "labels").replace("idx3", "idx1");
    Ok(images.with_file_name(if mnist == name { format!("{name}-labels") } else { mnist }))
}

fn file_name(path: &Path) -> Result<&std::ffi::OsStr> {
    path.file_name().with_context(|| format!("{}: a file name expected", flag(path)))
}

/// Writes to stdout, or to a file that appears when it is complete.
pub struct OutputFile {
    writer: BufWriter<Box<dyn Write>>,
    file: Option<Pending>,
}

struct Pending {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    done: bool,
}

impl OutputFile {
    /// Opens `path`, or stdout without one.
    ///
    /// # Errors
    /// `path` exists and `force` is not set, or its folder is missing, read-only or has less than `bytes` free.
    pub fn create(path: Option<&Path>, force: bool, bytes: u64) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self { writer: BufWriter::with_capacity(1 << 16, Box::new(io::stdout().lock())), file: None });
        };
        ensure!(!path.is_dir(), "{}: a file expected, a folder found", flag(path));
        ensure!(force || !exists(path), "{}: exists already; --force overwrites it", flag(path));
        check_room(path, bytes)?;
        let temporary = temporary(path)?;
        let file = File::create_new(&temporary).with_context(|| cannot_write(path))?;
        let writer = BufWriter::with_capacity(1 << 16, Box::new(file.try_clone()?) as Box<dyn Write>);
        Ok(Self { writer, file: Some(Pending { file, temporary, path: path.into(), done: false }) })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.writer.write_all(bytes);
        self.with_path(written)
    }

    /// [`Self::write`] and then [`Self::finish`].
    pub fn write_all(mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)?;
        self.finish()
    }

    /// Flushes the bytes to disk and gives the file its name.
    pub fn finish(mut self) -> Result<()> {
        let flushed = self.writer.flush();
        self.with_path(flushed)?;
        if let Some(pending) = &mut self.file {
            let renamed = pending.file.sync_all().and_then(|()| fs::rename(&pending.temporary, &pending.path));
            renamed.with_context(|| cannot_write(&pending.path))?;
            pending.done = true;
        }
        Ok(())
    }

    fn with_path(&self, result: io::Result<()>) -> Result<()> {
        match &self.file {
            Some(pending) => result.with_context(|| cannot_write(&pending.path)),
            None => Ok(result?),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.temporary); // an earlier error is already on its way to the user
        }
    }
}

/// Writes many files into a folder that appears when it is complete. With `force` and an existing folder, each file appears
/// when it is complete, and other files in the folder stay.
pub struct OutputFolder {
    temporary: PathBuf,
    path: PathBuf,
    merge: bool,
    done: bool,
}

impl OutputFolder {
    /// # Errors
    /// As [`OutputFile::create`], for `count` files of about `pixels` bytes at most.
    pub fn create(path: &Path, force: bool, count: u64, pixels: u64) -> Result<Self> {
        ensure!(!exists(path) || path.is_dir(), "{}: a folder expected, a file found", flag(path));
        let empty = !exists(path) || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        ensure!(empty || force, "{}: contains files already; --force adds to them and overwrites", flag(path));
        check_room(path, count.saturating_mul((pixels + 64).next_multiple_of(4096)))?;
        let temporary = temporary(path)?;
        fs::create_dir(&temporary).with_context(|| cannot_write(path))?;
        Ok(Self { temporary, path: path.into(), merge: !empty, done: false })
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = self.temporary.join(name);
        fs::write(&temporary, bytes).with_context(|| cannot_write(&self.path))
    }

    pub fn finish(mut self) -> Result<()> {
        sync(&self.temporary).with_context(|| cannot_write(&self.path))?;
        if self.merge {
            for entry in fs::read_dir(&self.temporary)? {
                let entry = entry?;
                fs::rename(entry.path(), self.path.join(entry.file_name()))
                    .with_context(|| cannot_write(&self.path))?;
            }
        } else {
            fs::rename(&self.temporary, &self.path).with_context(|| cannot_write(&self.path))?;
            self.done = true;
        }
        Ok(())
    }
}

impl Drop for OutputFolder {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.temporary); // an earlier error is already on its way to the user
        }
    }
}

/// A temporary name in the folder of `path`, because a rename within one folder is atomic.
fn temporary(path: &Path) -> Result<PathBuf> {
    let mut name = OsString::from(".");
    name.push(file_name(path)?);
    name.push(format!(".{}.tmp", std::process::id()));
    Ok(path.with_file_name(name))
}

/// Whether anything has this name, even a link to nothing.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The flag and its path, for messages.
fn flag(path: &Path) -> String {
    format!("--out: {}", path.display())
}

fn cannot_write(path: &Path) -> String {
    format!("{}: cannot be written", flag(path))
}

/// Flushes a folder's files to disk, on Linux all at once: flushing thousands of small files one by one is slow.
#[cfg(target_os = "linux")]
fn sync(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

#[cfg(not(target_os = "linux"))]
fn sync(folder: &Path) -> io::Result<()> {
    fs::read_dir(folder)?.try_for_each(|entry| File::open(entry?.path())?.sync_all())
}

/// Fails if the disk of `path` has less than `bytes` free.
#[cfg(unix)]
fn check_room(path: &Path, bytes: u64) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(parent).map_err(io::Error::from).with_context(|| cannot_write(path))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    ensure!(
        bytes <= free,
        "{}: {} MB free expected, {} MB found; draw fewer images",
        flag(path),
        bytes.div_ceil(1_000_000),
        free / 1_000_000
    );
    Ok(())
}

#[cfg(not(unix))]
fn check_room(_: &Path, _: u64) -> Result<()> {
    Ok(())
}
