//! IDX files: images (N, 28, 28) and labels (N,) of unsigned bytes, and QMNIST's labels (N, 8) of 32-bit integers.
//!
//! The content of a file tells whether it is raw, gzipped, or gzipped twice. The header is judged before the items are read,
//! and the file is read no further than its header says.
//!
//! Source: Yann LeCun's description of the format, <http://yann.lecun.com/exdb/mnist/>.

use std::fs::File;
use std::io::{self, Cursor, ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::read::MultiGzDecoder;
use ndarray::{Array1, Array2};
use sha2::{Digest, Sha256};

use crate::config::{MAX_CLASSES, PIXELS, SIDE};
use crate::files::{self, hex};

/// What an IDX file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Images of 28 × 28 bytes.
    Images,
    /// Labels of one byte, or rows of eight 32-bit integers, of which the first is the label.
    Labels,
}

/// The type and shape of an IDX file's items.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// First four bytes of the file.
    magic: u32,
    /// Shape of one item.
    shape: &'static [usize],
    /// Bytes of a number.
    width: usize,
}

const IMAGES: Layout = Layout { magic: 0x0803, shape: &[SIDE, SIDE], width: 1 };
const LABELS: Layout = Layout { magic: 0x0801, shape: &[], width: 1 };
const QMNIST_LABELS: Layout = Layout { magic: 0x0c02, shape: &[8], width: 4 };

/// The content of an IDX file.
pub struct IdxFile {
    /// SHA-256 of `bytes` in hexadecimal.
    pub sha256: String,
    /// The unpacked file, header included.
    pub bytes: Vec<u8>,
    /// The file as it was, if it was gzipped.
    pub gzip: Option<Vec<u8>>,
    layout: &'static Layout,
}

/// The largest number of items in a file. So many images take 0.8 GB.
pub const MAX_ITEMS: u64 = 1 << 20;

impl IdxFile {
    /// The file at `path`, of at most [`MAX_ITEMS`] items.
    ///
    /// # Errors
    /// Names the file, which cannot be read or is no whole IDX file of this kind.
    pub fn open(path: &Path, kind: Kind) -> Result<Self> {
        let file = File::open(path).context("cannot be read");
        let limit = kind.layouts().iter().map(|layout| layout.header_len() + MAX_ITEMS * layout.item_len()).max();
        let limit = limit.unwrap_or(0);
        file.and_then(|file| Self::read(file, kind, limit)).with_context(|| path.display().to_string())
    }

    /// The content of `file`, of at most `limit` unpacked bytes.
    ///
    /// # Errors
    /// When it is no whole IDX file of this kind. The caller adds the file's name.
    pub fn read(file: impl Read, kind: Kind, limit: u64) -> Result<Self> {
        // No gzip file is much longer than its content.
        let (gzipped, mut file) = peek(file.take(limit + (1 << 16)))?;
        let mut copy = Copying { file: &mut file, copy: vec![] };
        let (layout, bytes) = if gzipped {
            let (twice, mut content) = peek(MultiGzDecoder::new(&mut copy))?;
            if twice { kind.read(&mut MultiGzDecoder::new(content), limit)? } else { kind.read(&mut content, limit)? }
        } else {
            kind.read(copy.file, limit)?
        };
        Ok(Self { sha256: hex(&Sha256::digest(&bytes)), bytes, gzip: gzipped.then_some(copy.copy), layout })
    }

    /// The images, (N, 784).
    ///
    /// # Errors
    /// When the file holds labels.
    pub fn images(self) -> Result<Array2<u8>> {
        ensure!(*self.layout == IMAGES, "images expected, labels found");
        let pixels = self.items();
        Ok(Array2::from_shape_vec((pixels.len() / PIXELS, PIXELS), pixels)?)
    }

    /// The labels (N,) of N `images`, 0 to 63.
    ///
    /// # Errors
    /// When the file holds images, another number of labels, or a label above 63. The caller adds the file's name.
    pub fn labels(self, images: usize) -> Result<Array1<u8>> {
        ensure!(*self.layout != IMAGES, "labels expected, images found");
        let labels: Vec<i64> = match self.layout.width {
            1 => self.items().into_iter().map(i64::from).collect(),
            _ => {
                let rows = self.bytes[self.layout.header_len() as usize..].chunks(self.layout.item_len() as usize);
                rows.map(|row| i32::from_be_bytes([row[0], row[1], row[2], row[3]]).into()).collect()
            }
        };
        checked_labels(&labels, images)
    }

    /// The bytes after the header.
    fn items(mut self) -> Vec<u8> {
        self.bytes.drain(..self.layout.header_len() as usize);
        self.bytes
    }
}

/// The labels (N,) of N `images`.
///
/// # Errors
/// When there is another number of labels, or one is not from 0 to 63. The caller adds the file's name.
pub(crate) fn checked_labels(labels: &[i64], images: usize) -> Result<Array1<u8>> {
    ensure!(labels.len() == images, "a label for each of {images} images expected, {} found", labels.len());
    if let Some(at) = labels.iter().position(|label| !(0..MAX_CLASSES as i64).contains(label)) {
        bail!("labels from 0 to {} expected, {} found at {at}", MAX_CLASSES - 1, labels[at]);
    }
    Ok(labels.iter().map(|&label| label as u8).collect())
}

impl Kind {
    /// The layouts of such files, the usual one first.
    fn layouts(self) -> &'static [Layout] {
        match self {
            Self::Images => &[IMAGES],
            Self::Labels => &[LABELS, QMNIST_LABELS],
        }
    }

    /// The bytes of a whole file, header included, and their layout.
    fn read(self, file: &mut dyn Read, limit: u64) -> Result<(&'static Layout, Vec<u8>)> {
        let mut bytes = vec![];
        read_on(file, self.layouts()[0].header_len(), &mut bytes)?;
        let layout = self.layouts().iter().find(|layout| bytes.starts_with(&layout.magic.to_be_bytes()));
        let layout = layout.unwrap_or(&self.layouts()[0]);
        read_on(file, layout.header_len() - bytes.len().min(layout.header_len() as usize) as u64, &mut bytes)?;
        let n = layout.count(&bytes)?;
        let expected = layout.header_len() + n * layout.item_len();
        ensure!(
            expected <= limit,
            "at most {limit} unpacked bytes expected, {expected} for the {n} items of its header"
        );
        read_on(file, expected - layout.header_len() + 1, &mut bytes)?;
        if bytes.len() as u64 != expected {
            let found = bytes.len() as u64;
            let found = if found > expected { "more found".into() } else { format!("{found} found: it is truncated") };
            bail!("{expected} bytes expected for the {n} items of its header, {found}");
        }
        Ok((layout, bytes))
    }
}

impl Layout {
    fn item_len(&self) -> u64 {
        (self.shape.iter().product::<usize>() * self.width) as u64
    }

    /// Four bytes of magic number, the number of items, and the shape of one item.
    fn header_len(&self) -> u64 {
        8 + 4 * self.shape.len() as u64
    }

    /// The number of items, from the file's header.
    fn count(&self, header: &[u8]) -> Result<u64> {
        // A file that was gzipped twice is unpacked already.
        let packed = header.starts_with(&files::GZIP).then_some("a gzip file in a gzip file in a gzip file");
        if let Some(found) = packed.or(other_format(header)) {
            bail!("an IDX file expected, {found} found");
        }
        ensure!(!header.is_empty(), "an IDX file expected, an empty one found");
        let (expected, found) = (self.header_len(), header.len());
        ensure!(found as u64 == expected, "an IDX header of {expected} bytes expected, {found} bytes found");
        let words: Vec<u32> = header.chunks_exact(4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]])).collect();
        ensure!(words[0] == self.magic, "magic number {:#010x} expected, {:#010x} found", self.magic, words[0]);
        let shape: Vec<usize> = words[2..].iter().map(|&n| n as usize).collect();
        let what = if *self == IMAGES { "images of {:?} pixels" } else { "rows of {:?} numbers" };
        let what = what.replace("{:?}", &format!("{:?}", self.shape));
        ensure!(shape == self.shape, "{what} expected, {shape:?} found");
        ensure!(words[1] > 0, "at least one item expected, its header says 0");
        Ok(words[1].into())
    }
}

/// What a file is that should have been another, told by its first bytes: a word for formats that are often saved under a
/// wrong name.
pub(crate) fn other_format(start: &[u8]) -> Option<&'static str> {
    let formats = [
        (&b"<?xml"[..], "an XML text"),
        (b"<", "a web page"),
        (b"PK\x03\x04", "a zip archive"),
        (b"version ", "a pointer of Git LFS"),
        (&files::GZIP, "a gzip file"),
    ];
    formats.iter().find(|(magic, _)| start.trim_ascii_start().starts_with(magic)).map(|(_, name)| *name)
}

/// Whether `file` begins as a gzip file, and a reader of the whole file.
fn peek(mut file: impl Read) -> Result<(bool, impl Read)> {
    let mut start = vec![];
    read_on(&mut file, 2, &mut start)?;
    Ok((start == files::GZIP, Cursor::new(start).chain(file)))
}

/// Appends the next `n` bytes to `bytes`, or fewer if the file ends there.
fn read_on(file: &mut dyn Read, n: u64, bytes: &mut Vec<u8>) -> Result<()> {
    file.take(n).read_to_end(bytes).map_err(|e| match e.kind() {
        _ if e.raw_os_error().is_some() => anyhow!("cannot be read: {e}"),
        ErrorKind::OutOfMemory => anyhow!("too little memory for {n} bytes"),
        ErrorKind::UnexpectedEof => {
            anyhow!("a whole gzip file expected, it ends early, after {} unpacked bytes", bytes.len())
        }
        _ => anyhow!("a whole gzip file expected, it cannot be unpacked ({e})"),
    })?;
    Ok(())
}

/// A reader that keeps a copy of what was read.
struct Copying<R> {
    file: R,
    copy: Vec<u8>,
}

impl<R: Read> Read for Copying<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        self.copy.extend(&buffer[..n]);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// Header of an IDX file of `n` labels.
    fn header(n: u32) -> Vec<u8> {
        [&[0, 0, 8, 1][..], &n.to_be_bytes()].concat()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(vec![], Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    fn problem(file: impl Read, limit: u64) -> String {
        IdxFile::read(file, Kind::Labels, limit).err().expect("an error").to_string()
    }

    #[test]
    fn raw_and_gzipped_files_are_told_by_their_content() {
        let raw = [header(3), vec![1, 2, 3]].concat();
        for packed in [raw.clone(), gzip(&raw), gzip(&gzip(&raw)), [gzip(&raw[..5]), gzip(&raw[5..])].concat()] {
            let file = IdxFile::read(&packed[..], Kind::Labels, 11).unwrap();
            assert!(file.bytes == raw && file.gzip == (packed != raw).then_some(packed));
            assert_eq!(file.labels(3).unwrap().to_vec(), [1, 2, 3]);
        }
        let thrice = gzip(&gzip(&gzip(&raw)));
        assert_eq!(problem(&thrice[..], 11), "an IDX file expected, a gzip file in a gzip file in a gzip file found");
    }

    #[test]
    fn no_more_is_read_than_the_header_and_the_limit_allow() {
        // These files never end.
        let endless = |start: Vec<u8>| Cursor::new(start).chain(io::repeat(0));
        assert_eq!(problem(endless(vec![]), 11), "magic number 0x00000801 expected, 0x00000000 found");
        assert_eq!(problem(endless(header(3)), 11), "11 bytes expected for the 3 items of its header, more found");
        let expected = "at most 11 unpacked bytes expected, 4294967303 for the 4294967295 items of its header";
        assert_eq!(problem(endless(header(u32::MAX)), 11), expected);
        struct EmptyMembers(Vec<u8>);
        impl Read for EmptyMembers {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let n = self.0.len().min(buffer.len());
                buffer[..n].copy_from_slice(&self.0[..n]);
                self.0.rotate_left(n);
                Ok(n)
            }
        }
        let error = problem(EmptyMembers(gzip(&[])), 11);
        assert!(error.starts_with("a whole gzip file expected, it "), "{error}");

        // Two bombs: 16 MB each, in less than 256 kB.
        let bomb = gzip(&[header(3), vec![0; 1 << 24]].concat());
        assert!(bomb.len() < 1 << 18);
        assert_eq!(problem(&bomb[..], 1 << 20), "11 bytes expected for the 3 items of its header, more found");
        let bomb = gzip(&[header(1 << 24), vec![0; 1 << 24]].concat());
        let error = problem(&bomb[..], 1 << 20);
        assert!(
            error.starts_with("at most 1048576 unpacked bytes expected, 16777224 for the 16777216 items"),
            "{error}"
        );
    }

    #[test]
    fn files_of_other_kinds_are_called_by_their_names() {
        for (content, expected) in [
            (&b"\n <!DOCTYPE html>"[..], "a web page"),
            (b"PK\x03\x04 and so on", "a zip archive"),
            (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
        ] {
            assert_eq!(problem(content, 11), format!("an IDX file expected, {expected} found"));
            assert_eq!(problem(&gzip(content)[..], 11), format!("an IDX file expected, {expected} found"));
        }
    }
}
