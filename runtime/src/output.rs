//! Files, folders and pipes: images become bytes, and bytes arrive whole or not at all.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use runtime::Image;

use crate::draw::Format;
use crate::{Usage, shown};

/// Where the pixels of `rows` × `columns` images lie in one picture, each `scale` × `scale`.
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

    /// Row by row from the top left.
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

    /// The picture in characters of 24-bit colour, half as many lines as rows: the upper half of ▀ is one pixel, the lower
    /// half the next.
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

/// One picture as a file's bytes.
pub fn encode(format: Format, canvas: &Canvas, pixels: &[u8]) -> Result<Vec<u8>> {
    Ok(match format {
        Format::Png => {
            let mut bytes = vec![];
            let mut encoder = png::Encoder::new(&mut bytes, canvas.width() as u32, canvas.height() as u32);
            encoder.set_color(png::ColorType::Grayscale);
            encoder.set_compression(png::Compression::Fast); // by fdeflate alone, so that no other crate's features change the bytes
            encoder.write_header()?.write_image_data(pixels)?;
            bytes
        }
        Format::Pgm => [format!("P5\n{} {}\n255\n", canvas.width(), canvas.height()).as_bytes(), pixels].concat(),
        Format::Idx => [&idx_header(1, canvas)?, pixels].concat(),
        Format::Raw => pixels.to_vec(),
    })
}

/// Source: LeCun, "The MNIST database", file formats: 0, 0, type (8 is u8), dimensions, then each size as big-endian u32.
pub fn idx_header(count: u64, canvas: &Canvas) -> Result<Vec<u8>> {
    idx(3, &[count, canvas.height(), canvas.width()])
}

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

/// `train-images-idx3-ubyte` has `train-labels-idx1-ubyte` beside it; any other name gets `-labels` after it.
pub fn labels_beside(images: &Path) -> Result<PathBuf> {
    let name = file_name(images)?.to_string_lossy();
    let mnist = name.replace("images", "labels").replace("idx3", "idx1");
    Ok(images.with_file_name(if mnist == name { format!("{name}-labels") } else { mnist }))
}

fn file_name(path: &Path) -> Result<&std::ffi::OsStr> {
    path.file_name().with_context(|| format!("{}: a file name expected", shown("--out", path)))
}

/// Bytes on their way to stdout, or to a file that appears when it is complete.
pub struct Target {
    writer: BufWriter<Box<dyn Write>>,
    file: Option<Pending>,
}

struct Pending {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    done: bool,
}

impl Target {
    /// # Errors
    /// Something is there already and `force` does not say to write over it, or the folder is missing, read-only or has no
    /// room for `bytes`.
    pub fn file(path: Option<&Path>, force: bool, bytes: u64) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self { writer: BufWriter::with_capacity(1 << 16, Box::new(io::stdout().lock())), file: None });
        };
        ensure!(!path.is_dir(), "{}: a file expected, a folder found", shown("--out", path));
        ensure!(force || !exists(path), "{}: exists already; --force writes over it", shown("--out", path));
        room(path, bytes)?;
        let temporary = temporary(path)?;
        let file = File::create_new(&temporary).with_context(|| cannot(path))?;
        let writer = BufWriter::with_capacity(1 << 16, Box::new(file.try_clone()?) as Box<dyn Write>);
        Ok(Self { writer, file: Some(Pending { file, temporary, path: path.into(), done: false }) })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.writer.write_all(bytes);
        self.named(written)
    }

    /// Writes `bytes`, and is done.
    pub fn all(mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)?;
        self.finish()
    }

    /// Gives the file its name.
    pub fn finish(mut self) -> Result<()> {
        let flushed = self.writer.flush();
        self.named(flushed)?;
        if let Some(pending) = &mut self.file {
            let renamed = pending.file.sync_all().and_then(|()| fs::rename(&pending.temporary, &pending.path));
            renamed.with_context(|| cannot(&pending.path))?;
            pending.done = true;
        }
        Ok(())
    }

    fn named(&self, result: io::Result<()>) -> Result<()> {
        match &self.file {
            Some(pending) => result.with_context(|| cannot(&pending.path)),
            None => Ok(result?),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.temporary); // the error that is told is the first one
        }
    }
}

/// Many files on their way to a folder that appears when it is complete. With `force` into an existing folder, each file
/// appears when it is complete, and other files stay.
pub struct Folder {
    temporary: PathBuf,
    path: PathBuf,
    merge: bool,
    done: bool,
}

impl Folder {
    /// # Errors
    /// As [`Target::file`], for `count` files of at most about `pixels` bytes.
    pub fn new(path: &Path, force: bool, count: u64, pixels: u64) -> Result<Self> {
        ensure!(!exists(path) || path.is_dir(), "{}: a folder expected, a file found", shown("--out", path));
        let empty = !exists(path) || fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        ensure!(empty || force, "{}: holds files already; --force writes among and over them", shown("--out", path));
        room(path, count.saturating_mul((pixels + 64).next_multiple_of(4096)))?;
        let temporary = temporary(path)?;
        fs::create_dir(&temporary).with_context(|| cannot(path))?;
        Ok(Self { temporary, path: path.into(), merge: !empty, done: false })
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let temporary = self.temporary.join(name);
        fs::write(&temporary, bytes).with_context(|| cannot(&self.path))
    }

    pub fn finish(mut self) -> Result<()> {
        sync(&self.temporary).with_context(|| cannot(&self.path))?;
        if self.merge {
            for entry in fs::read_dir(&self.temporary)? {
                let entry = entry?;
                fs::rename(entry.path(), self.path.join(entry.file_name())).with_context(|| cannot(&self.path))?;
            }
        } else {
            fs::rename(&self.temporary, &self.path).with_context(|| cannot(&self.path))?;
            self.done = true;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_dir_all(&self.temporary); // the error that is told is the first one
        }
    }
}

/// A name in the same folder, so that the rename at the end cannot fail half-way.
fn temporary(path: &Path) -> Result<PathBuf> {
    let mut name = OsString::from(".");
    name.push(file_name(path)?);
    name.push(format!(".{}.tmp", std::process::id()));
    Ok(path.with_file_name(name))
}

/// Also true of a link that leads nowhere.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

fn cannot(path: &Path) -> String {
    format!("{}: cannot be written", shown("--out", path))
}

/// All at once, where the system can: thousands of small files would take a disk's time each.
#[cfg(target_os = "linux")]
fn sync(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

#[cfg(not(target_os = "linux"))]
fn sync(folder: &Path) -> io::Result<()> {
    fs::read_dir(folder)?.try_for_each(|entry| File::open(entry?.path())?.sync_all())
}

/// Whether the disk that `path` will be on has room for `bytes`.
#[cfg(unix)]
fn room(path: &Path, bytes: u64) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk = rustix::fs::statvfs(parent).map_err(io::Error::from).with_context(|| cannot(path))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    ensure!(
        bytes <= free,
        "{}: {} MB free expected, {} MB found; draw fewer images",
        shown("--out", path),
        bytes.div_ceil(1_000_000),
        free / 1_000_000
    );
    Ok(())
}

#[cfg(not(unix))]
fn room(_: &Path, _: u64) -> Result<()> {
    Ok(())
}
