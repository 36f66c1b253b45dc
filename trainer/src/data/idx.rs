//! IDX files of unsigned bytes, raw or gzipped: images (N, 28, 28) and labels (N,).
//!
//! Source: Yann LeCun's description of the format, <http://yann.lecun.com/exdb/mnist/>.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::read::MultiGzDecoder;
use ndarray::{Array1, Array2};
use sha2::{Digest, Sha256};

use crate::config::PIXELS;
use crate::files::hex;

/// An unpacked file and the SHA-256 of its bytes. Whether the file was gzipped is told by its content.
pub struct IdxFile {
    /// Path of the file, or another name for error messages.
    pub path: PathBuf,
    /// SHA-256 of `bytes` in hexadecimal.
    pub sha256: String,
    /// The unpacked file, header included.
    pub bytes: Vec<u8>,
    /// The file as it was, if it was gzipped.
    pub gzip: Option<Vec<u8>>,
}

impl IdxFile {
    /// The file `name` or `name.gz` of a folder.
    ///
    /// # Errors
    /// When neither exists or the first of them cannot be read.
    pub fn open(folder: &Path, name: &str) -> Result<Self> {
        let path = candidates(folder, name).find(|path| path.is_file());
        let path =
            path.with_context(|| format!("{}: {name} or {name}.gz expected, neither found", folder.display()))?;
        Self::read(path, u64::MAX)
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read or unpacked, or holds more than `limit` unpacked bytes.
    pub fn read(path: PathBuf, limit: u64) -> Result<Self> {
        let file = fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        Self::from_bytes(path, file, limit)
    }

    /// As [`Self::read`], of bytes that were read already.
    pub fn from_bytes(path: PathBuf, file: Vec<u8>, limit: u64) -> Result<Self> {
        let (bytes, gzip) = if file.starts_with(&[0x1f, 0x8b]) {
            (gunzip(&file, limit).map_err(|problem| anyhow!("{}: {problem}", path.display()))?, Some(file))
        } else {
            (file, None)
        };
        let shown = path.display();
        ensure!(bytes.len() as u64 <= limit, "{shown}: at most {limit} unpacked bytes expected, more found");
        Ok(Self { sha256: hex(&Sha256::digest(&bytes)), path, bytes, gzip })
    }

    /// The images, (N, 784).
    ///
    /// # Errors
    /// When the file is not an IDX file of at least one 28 × 28 image.
    pub fn images(self) -> Result<Array2<u8>> {
        let pixels = self.items(&[28, 28])?;
        Ok(Array2::from_shape_vec((pixels.len() / PIXELS, PIXELS), pixels)?)
    }

    /// The labels (N,) of N `images`, 0 to 9.
    ///
    /// # Errors
    /// When the file is not an IDX file of N labels.
    pub fn labels(self, images: usize) -> Result<Array1<u8>> {
        let path = self.path.clone();
        let path = path.display();
        let labels = self.items(&[])?;
        ensure!(labels.len() == images, "{path}: a label for each of {images} images expected, {} found", labels.len());
        if let Some(at) = labels.iter().position(|&label| label > 9) {
            bail!("{path}: labels from 0 to 9 expected, {} found at {at}", labels[at]);
        }
        Ok(labels.into())
    }

    /// The items after the header, each of shape `item`.
    fn items(self, item: &[usize]) -> Result<Vec<u8>> {
        let Self { path, mut bytes, .. } = self;
        let shown = path.display();
        let rank = 1 + item.len();
        let head = 4 + 4 * rank;
        ensure!(!bytes.is_empty(), "{shown}: an IDX file expected, an empty one found");
        ensure!(bytes.len() >= head, "{shown}: an IDX header of {head} bytes expected, {} bytes found", bytes.len());
        let word = |i: usize| u32::from_be_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]]);
        let magic = 0x0800 + rank as u32;
        ensure!(word(0) == magic, "{shown}: magic number {magic:#010x} expected, {:#010x} found", word(0));
        let found: Vec<usize> = (2..=rank).map(|i| word(i) as usize).collect();
        ensure!(found == item, "{shown}: images of {item:?} pixels expected, {found:?} found");
        let (n, each) = (word(1) as usize, item.iter().product::<usize>());
        ensure!(n > 0, "{shown}: at least one item expected, its header says 0");
        let expected = n.checked_mul(each).and_then(|body| body.checked_add(head));
        let expected =
            expected.with_context(|| format!("{shown}: its header says {n} items, more than memory can hold"))?;
        if bytes.len() != expected {
            let what = if bytes.len() < expected { "it is truncated" } else { "bytes follow its end" };
            bail!("{shown}: {expected} bytes expected for the {n} items of its header, {} found: {what}", bytes.len());
        }
        bytes.drain(..head);
        Ok(bytes)
    }
}

/// The paths where `name` may be in a folder: raw, then gzipped.
pub fn candidates(folder: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    [folder.join(name), folder.join(format!("{name}.gz"))].into_iter()
}

/// The content of a whole gzip file, up to one byte above `limit`.
fn gunzip(file: &[u8], limit: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    MultiGzDecoder::new(file).take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| {
        let problem = match e.kind() {
            std::io::ErrorKind::UnexpectedEof => format!("it ends early, after {} unpacked bytes", bytes.len()),
            _ => format!("it cannot be unpacked ({e})"),
        };
        anyhow!("a whole gzip file expected, {problem}")
    })?;
    Ok(bytes)
}
