//! Output formats: images become the bytes of files, characters on a terminal, or a data set's names.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
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

/// The file of one picture. For idx these are its pixels; [`idx_header`] stands before those of all pictures.
pub fn encode(format: Format, canvas: &Canvas, pixels: &[u8]) -> Result<Vec<u8>> {
    Ok(match format {
        Format::Png => png(canvas.width() as u32, canvas.height() as u32, pixels)?,
        Format::Pgm => [format!("P5\n{} {}\n255\n", canvas.width(), canvas.height()).as_bytes(), pixels].concat(),
        Format::Idx | Format::Raw => pixels.to_vec(),
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

/// The path of the labels file: `images` in the name becomes `labels` and `idx3` becomes `idx1`; a name with neither gets `-labels`.
/// An ending `.gz` stays at the end.
pub fn labels_beside(images: &Path) -> PathBuf {
    let name = images.file_name().unwrap_or_default();
    let mnist = name.to_str().map(|name| name.replace("images", "labels").replace("idx3", "idx1"));
    if let Some(mnist) = mnist.filter(|mnist| name != mnist.as_str()) {
        return images.with_file_name(mnist);
    }
    let gzip = is_gzip(images);
    let mut labels = images.file_stem().filter(|_| gzip).unwrap_or(name).to_owned();
    labels.push(if gzip { "-labels.gz" } else { "-labels" });
    images.with_file_name(labels)
}

/// A folder's name for each class: the class's name, in which `%` and two hexadecimal digits stand for each byte that a file
/// system may refuse. They stand for all bytes of a name that Windows reserves, or that differs from an earlier one only in
/// upper and lower case. So each class has its own folder, also where case does not count.
pub fn folder_names(classes: &[String]) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let escaped = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let name = |class: &String| {
        if !taken.insert(class.to_lowercase()) || is_reserved(class) {
            return escaped(class);
        }
        let part = |(i, c): (usize, char)| match c {
            '.' | ' ' if i == 0 || i == class.len() - 1 => escaped(&c.to_string()),
            '/' | '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '%' => escaped(&c.to_string()),
            _ => c.to_string(),
        };
        class.char_indices().map(part).collect()
    };
    classes.iter().map(name).collect()
}

/// Whether Windows keeps this name for a device, such as `CON`, `NUL.txt` or `com1`.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).to_ascii_uppercase();
    let port = stem.strip_prefix("COM").or(stem.strip_prefix("LPT"));
    matches!(&*stem, "CON" | "PRN" | "AUX" | "NUL") || port.is_some_and(|port| port.parse().is_ok_and(char::is_numeric))
}

/// Whether the name of a file says that it is compressed with gzip.
pub fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"))
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a JSON value and a line feed to stdout. Characters that control a terminal are escaped; serde_json escapes those of ASCII
/// only. Errors as [`print`].
pub fn print_json(json: impl Display) -> Result<()> {
    let escape = |c: char| if c == '\n' || !c.is_control() { c.into() } else { format!("\\u{:04x}", u32::from(c)) };
    print(format!("{json}\n").chars().map(escape).collect::<String>())
}

/// Writes a result to stdout.
///
/// # Errors
/// stdout cannot be written, for example because its disk is full.
pub fn print(result: impl AsRef<[u8]>) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(result.as_ref()).and_then(|()| stdout.flush()).context("stdout: cannot be written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stand_beside_their_images() {
        for (images, labels) in [
            ("a/train-images-idx3-ubyte", "a/train-labels-idx1-ubyte"),
            ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
            ("images/digits", "images/digits-labels"),
            ("digits.gz", "digits-labels.gz"),
        ] {
            assert_eq!(labels_beside(Path::new(images)), Path::new(labels));
        }
    }

    #[test]
    fn a_class_names_a_folder_whatever_its_characters() {
        let (classes, folders): (Vec<String>, Vec<String>) = [
            ("B", "B"),
            ("T-shirt/top", "T-shirt%2Ftop"),
            ("..", "%2E%2E"),
            (".a.b.", "%2Ea.b%2E"),
            ("100 % \\ é", "100 %25 %5C é"),
            ("a ", "a%20"),
            ("b", "%62"),
            ("É", "É"),
            ("é", "%C3%A9"),
            ("Nul", "%4E%75%6C"),
            ("con.1", "%63%6F%6E%2E%31"),
            ("COM1", "%43%4F%4D%31"),
            ("COM10", "COM10"),
            ("Lpt", "Lpt"),
        ]
        .map(|(class, folder)| (class.to_string(), folder.to_string()))
        .into_iter()
        .unzip();
        assert_eq!(folder_names(&classes), folders);
        let alike = ["ab", "aB", "Ab", "AB"].map(String::from);
        let different: BTreeSet<_> = folder_names(&alike).into_iter().map(|name| name.to_lowercase()).collect();
        assert_eq!(different.len(), 4);
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_utf8_is_kept() {
        use std::os::unix::ffi::OsStrExt;
        let path = |bytes| Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned();
        assert_eq!(labels_beside(&path(b"\xff/\xfe.gz")), path(b"\xff/\xfe-labels.gz"));
    }
}
