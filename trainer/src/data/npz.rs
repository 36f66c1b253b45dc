//! Arrays of NumPy's `.npz` files: images (N, height, width) or (N, height, width, 3) of unsigned bytes, and labels (N,) or (N, 1).
//!
//! Known are the files of Keras (`x_train`, `y_train`, `x_test`, `y_test`), those of MedMNIST (`train_images`, `train_labels`,
//! `test_images`, `test_labels`; the validation images are not used), and four files with one array each, as Kuzushiji-49 has
//! them (`k49-train-imgs.npz`, `k49-train-labels.npz`, …).
//!
//! Source: NumPy's description of the format, `numpy.lib.format`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array1, Array2};
use zip::ZipArchive;

use crate::config::PIXELS;
use crate::data::decode::{MAX_PIXELS, grey, is_image};
use crate::data::idx::{MAX_ITEMS, checked_labels, other_format};
use crate::data::resize::resize;
use crate::files::{name_of, visible_in};

/// Images (N, 784) and labels (N,), and the name of the array of labels for error messages.
pub struct Part {
    /// Images, (N, 784).
    pub images: Array2<u8>,
    /// Labels, (N,), 0 to 63.
    pub labels: Array1<u8>,
    /// File and array of the labels.
    pub source: String,
}

/// The training and test images of one `.npz` file.
///
/// # Errors
/// Names the file and the array that is missing, too large or of another type.
pub fn read(path: &Path) -> Result<[Part; 2]> {
    let mut archive = Archive::open(path)?;
    let names = archive.names();
    let has = |name: &str| names.iter().any(|found| found == name);
    let layouts =
        [["x_train", "y_train", "x_test", "y_test"], ["train_images", "train_labels", "test_images", "test_labels"]];
    let layout = layouts.iter().find(|layout| layout.iter().any(|name| has(name)));
    let Some([a, b, c, d]) = layout else {
        let shown = path.display();
        bail!(
            "{shown}: arrays x_train, y_train, x_test, y_test or train_images, … expected, {} found",
            names.join(", ")
        );
    };
    Ok([archive.part(a, b)?, archive.part(c, d)?])
}

/// The training and test images of a folder: of four `.npz` files with an array each, or of its only `.npz` file. `None` without
/// such files.
///
/// # Errors
/// As [`read`], and when several files could be meant.
pub fn read_folder(folder: &Path) -> Result<Option<[Part; 2]>> {
    let mut files = visible_in(folder).with_context(|| format!("{}: cannot be read", folder.display()))?;
    files.retain(|path| path.is_file() && path.extension().is_some_and(|extension| extension == "npz"));
    if let [file] = &files[..] {
        return read(file).map(Some);
    }
    let named = |split: &str, kind: &str| -> Vec<&PathBuf> {
        let has = |path: &Path, part: &str| name_of(path).to_lowercase().contains(part);
        files.iter().filter(|path| has(path, split) && has(path, kind)).collect()
    };
    let four = [named("train", "im"), named("train", "lab"), named("test", "im"), named("test", "lab")];
    match four.each_ref().map(|found| &found[..]) {
        _ if files.is_empty() => Ok(None),
        [[a], [b], [c], [d]] => {
            let part = |images: &Path, labels: &Path| {
                let images = Archive::open(images)?.images("arr_0")?;
                let (labels, source) = Archive::open(labels)?.labels("arr_0", images.nrows())?;
                anyhow::Ok(Part { images, labels, source })
            };
            Ok(Some([part(a, b)?, part(c, d)?]))
        }
        _ => {
            let (shown, n) = (folder.display(), files.len());
            bail!(
                "{shown}: one .npz file, or four of train images, train labels, test images and test labels expected, {n} found; \
                   name one by --data FILE.npz"
            )
        }
    }
}

struct Archive {
    zip: ZipArchive<BufReader<File>>,
    path: PathBuf,
}

impl Archive {
    fn open(path: &Path) -> Result<Self> {
        let open = || {
            let mut file = File::open(path).context("cannot be read")?;
            let mut start = [0; 8];
            let n = file.read(&mut start).context("cannot be read")?;
            let image = is_image(&start).then_some("an image");
            let found = other_format(&start[..n]).or(image).unwrap_or("another format");
            ensure!(
                start.starts_with(b"PK"),
                "a .npz file, or the folder with the IDX files or images, expected, {found} found"
            );
            ZipArchive::new(BufReader::new(File::open(path)?))
                .context("a .npz file expected, it is no whole zip archive")
        };
        Ok(Self { zip: open().with_context(|| path.display().to_string())?, path: path.into() })
    }

    /// Names of the arrays.
    fn names(&self) -> Vec<String> {
        let names = self.zip.file_names().filter_map(|name| name.ok());
        names.map(|name| name.trim_end_matches(".npy").to_string()).collect()
    }

    fn part(&mut self, images: &str, labels: &str) -> Result<Part> {
        let images = self.images(images)?;
        let (labels, source) = self.labels(labels, images.nrows())?;
        Ok(Part { images, labels, source })
    }

    /// The images of an array, (N, 784).
    fn images(&mut self, name: &str) -> Result<Array2<u8>> {
        self.read(name, |array| {
            let shape = &array.shape;
            ensure!(array.descr == "|u1", "unsigned bytes (|u1) expected, {} found", array.descr);
            let (n, height, width, channels) = match shape[..] {
                [n, height, width] => (n, height, width, 1),
                [n, height, width, channels @ (1 | 3)] => (n, height, width, channels),
                _ => bail!("images (N, height, width) or (N, height, width, 3) expected, {shape:?} found"),
            };
            ensure!((1..=MAX_ITEMS as usize).contains(&n), "1 to {MAX_ITEMS} images expected, {n} found");
            let len = height.checked_mul(width).filter(|len| (1..=MAX_PIXELS).contains(len));
            let len =
                len.with_context(|| format!("1 to {MAX_PIXELS} pixels an image expected, {height} × {width} found"))?;
            let mut images = vec![];
            let mut image = vec![0; len * channels];
            for i in 0..n {
                array
                    .content
                    .read_exact(&mut image)
                    .with_context(|| format!("{n} images expected, it ends in image {i}"))?;
                images.extend(resize(grey(image.clone(), channels)?, width, height));
            }
            Ok(Array2::from_shape_vec((n, PIXELS), images)?)
        })
    }

    /// The labels of N `images`, and a name for them in error messages.
    fn labels(&mut self, name: &str, images: usize) -> Result<(Array1<u8>, String)> {
        let labels = self.read(name, |array| {
            let shape = &array.shape;
            let n = match shape[..] {
                [n] | [n, 1] => n,
                _ => bail!("labels (N,) or (N, 1) expected, {shape:?} found"),
            };
            ensure!(n == images, "a label for each of {images} images expected, {n} found");
            let signed = array.descr.contains('i');
            let width = match array.descr.as_str() {
                "|u1" | "|i1" => 1,
                "<u2" | "<i2" => 2,
                "<u4" | "<i4" => 4,
                "<u8" | "<i8" => 8,
                other => bail!("integers (|u1 to <i8) expected, {other} found"),
            };
            let mut labels = vec![];
            for i in 0..n {
                let mut bytes = [0; 8];
                array
                    .content
                    .read_exact(&mut bytes[..width])
                    .with_context(|| format!("{n} labels expected, {i} found"))?;
                if signed && bytes[width - 1] >= 0x80 {
                    bytes[width..].fill(0xff);
                }
                labels.push(i64::from_le_bytes(bytes));
            }
            checked_labels(&labels, images)
        })?;
        Ok((labels, format!("{}: {name}", self.path.display())))
    }

    /// What `read` makes of an array.
    fn read<T>(&mut self, name: &str, read: impl FnOnce(&mut Npy) -> Result<T>) -> Result<T> {
        let found = self.names().join(", ");
        let shown = self.path.display().to_string();
        let entry = self.zip.by_name(&format!("{name}.npy"));
        let open = || {
            let entry = entry.with_context(|| format!("this array expected, only {found} found"))?;
            let mut npy = Npy::open(entry.size(), Box::new(entry))?;
            let array = read(&mut npy)?;
            // The CRC-32 is checked by the read that finds the end.
            let rest = npy.content.read(&mut [0]).context("a whole .npz file expected")?;
            ensure!(rest == 0, "a whole .npz file expected, its array is longer than its shape");
            Ok(array)
        };
        open().with_context(|| format!("{shown}: {name}"))
    }
}

/// An array in NumPy's format.
struct Npy<'a> {
    /// Type of the numbers, such as `|u1` or `<i8`.
    descr: String,
    shape: Vec<usize>,
    /// The numbers, the last axis fastest.
    content: Box<dyn Read + 'a>,
}

impl<'a> Npy<'a> {
    /// The array of a `.npy` file of `len` bytes.
    fn open(len: u64, mut content: Box<dyn Read + 'a>) -> Result<Self> {
        let mut start = [0; 8];
        content.read_exact(&mut start).context("a .npy file expected, it ends early")?;
        ensure!(start.starts_with(b"\x93NUMPY"), "a .npy file expected, another found");
        // Version 1 has a length of two bytes, later versions one of four.
        let width = if start[6] == 1 { 2 } else { 4 };
        let mut header_len = [0; 4];
        content.read_exact(&mut header_len[..width]).context("a .npy file expected, it ends early")?;
        let header_len = u64::from(u32::from_le_bytes(header_len));
        ensure!(header_len <= 1 << 16, "a header of at most 65536 bytes expected, {header_len} found");
        let mut header = vec![];
        content.by_ref().take(header_len).read_to_end(&mut header).context("its header cannot be read")?;
        let header = String::from_utf8_lossy(&header);
        let (descr, shape) = parse(&header).with_context(|| {
            format!("a header with descr, fortran_order False and shape expected, {} found", header.trim())
        })?;
        let items = shape.iter().try_fold(1u64, |items, &n| items.checked_mul(n as u64));
        let item_len = descr.get(2..).and_then(|digits| digits.parse::<u64>().ok());
        let item_len = item_len.with_context(|| format!("numbers expected, {descr} found"))?;
        let expected = items.and_then(|items| items.checked_mul(item_len)).filter(|&bytes| bytes <= MAX_BYTES);
        let expected =
            expected.with_context(|| format!("an array of at most {MAX_BYTES} bytes expected, {shape:?} found"))?;
        let found = len.saturating_sub(8 + width as u64 + header_len);
        ensure!(found == expected, "{expected} bytes expected for the shape {shape:?}, {found} found");
        Ok(Self { descr, shape, content })
    }
}

/// The largest size of an array: 32 GiB.
const MAX_BYTES: u64 = 1 << 35;

/// Type and shape from a header, a Python dictionary such as `{'descr': '|u1', 'fortran_order': False, 'shape': (2, 28, 28), }`.
fn parse(header: &str) -> Option<(String, Vec<usize>)> {
    let value = |key: &str| Some(header.split_once(&format!("'{key}':"))?.1.trim_start());
    let descr = value("descr")?.strip_prefix('\'')?.split_once('\'')?.0;
    value("fortran_order")?.strip_prefix("False")?;
    let shape = value("shape")?.strip_prefix('(')?.split_once(')')?.0;
    let shape = shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().ok());
    Some((descr.into(), shape.collect::<Option<_>>()?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// A `.npz` file of two images for training and one for tests.
    fn small() -> Vec<u8> {
        let mut zip = ZipWriter::new(std::io::Cursor::new(vec![]));
        for (name, shape, bytes) in [
            ("x_train", "(2, 28, 28)", vec![7; 2 * PIXELS]),
            ("y_train", "(2,)", vec![0, 1]),
            ("x_test", "(1, 28, 28)", vec![7; PIXELS]),
            ("y_test", "(1,)", vec![1]),
        ] {
            let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}");
            zip.start_file(format!("{name}.npy"), SimpleFileOptions::default()).unwrap();
            let start = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..]].concat();
            zip.write_all(&[&start, header.as_bytes(), &bytes].concat()).unwrap();
        }
        zip.finish().unwrap().into_inner()
    }

    #[test]
    fn a_changed_byte_is_an_error_or_outside_the_arrays_and_a_file_that_is_cut_off_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.npz");
        let whole = small();
        fs::write(&path, &whole).unwrap();
        let right = read(&path).unwrap().map(|part| (part.images, part.labels));
        assert_eq!(right.each_ref().map(|(_, labels)| labels.to_vec()), [vec![0, 1], vec![1]]);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            fs::write(&path, changed).unwrap();
            if let Ok(parts) = read(&path) {
                let arrays = parts.map(|part| (part.images, part.labels));
                assert!(arrays == right, "byte {at}");
            }
            fs::write(&path, &whole[..at]).unwrap();
            assert!(read(&path).is_err(), "the first {at} bytes");
        }
    }
}
