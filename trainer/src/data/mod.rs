//! The data set: four IDX files of a folder or of a published data set, as arrays.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ndarray::{Array1, Array2};

pub mod download;
pub mod idx;
pub mod package;
pub mod pin;
pub mod published;

use crate::data::download::Progress;
use crate::data::idx::IdxFile;
use crate::data::published::{NAMES, Published, SETS};

/// Images of digits and their labels.
#[derive(Default)]
pub struct Dataset {
    /// Name of the published data set that the files are, else the folder's name (the one above torchvision's `raw`).
    pub name: String,
    /// SHA-256 of the unpacked file of training images, in hexadecimal.
    pub sha256: String,
    /// Training images, (N, 784): pixels row by row from the top left, from 0 (black) to 255 (white).
    pub images: Array2<u8>,
    /// Labels of the training images, (N,), from 0 to 9.
    pub labels: Array1<u8>,
    /// Test images, (M, 784), like `images`.
    pub test_images: Array2<u8>,
    /// Labels of the test images, (M,), from 0 to 9.
    pub test_labels: Array1<u8>,
}

impl Dataset {
    /// The data set in a folder: its four IDX files, or those in `MNIST/raw`, `FashionMNIST/raw` or `KMNIST/raw` below it,
    /// where torchvision puts them.
    ///
    /// # Errors
    /// When a file is missing or damaged: names the file, what was expected and what was found.
    pub fn open(folder: &Path) -> Result<Self> {
        ensure!(folder.is_dir(), "--data: {}: a folder with the four MNIST IDX files expected", folder.display());
        let holds = |folder: &PathBuf| idx::candidates(folder, NAMES[0]).any(|path| path.is_file());
        let folder = LAYOUTS.iter().map(|below| folder.join(below)).find(holds).unwrap_or(folder.into());
        let [a, b, c, d] = NAMES.map(|name| IdxFile::open(&folder, name));
        let files = [a?, b?, c?, d?];
        let name = match SETS.iter().find(|set| set.is(&files)) {
            Some(set) => set.name.to_string(),
            None => {
                let named = folder.parent().filter(|_| folder.ends_with("raw")).unwrap_or(&folder);
                let name = named.file_name().unwrap_or(named.as_os_str()).to_string_lossy();
                // The names of the published sets are for those alone.
                if Published::named(&name).is_ok() { format!("folder {name}") } else { name.into_owned() }
            }
        };
        Self::of(name, files)
    }

    /// The published data set of a name: from the cache, from Debian's package, or fetched into the cache.
    ///
    /// # Errors
    /// When there is no such set or no source has it: names the sources, what is wrong with each, and the ways out.
    pub fn published(name: &str, offline: bool, progress: &mut dyn FnMut(Progress)) -> Result<Self> {
        Self::of(name.into(), Published::named(name)?.read(offline, progress)?)
    }

    /// The data set of training images and labels, test images and labels.
    fn of(name: String, [images, labels, test_images, test_labels]: [IdxFile; 4]) -> Result<Self> {
        let sha256 = images.sha256.clone();
        let (images, test_images) = (images.images()?, test_images.images()?);
        let (labels, test_labels) = (labels.labels(images.nrows())?, test_labels.labels(test_images.nrows())?);
        Ok(Self { name, sha256, images, labels, test_images, test_labels })
    }

    /// Number of training images, N.
    pub fn n(&self) -> usize {
        self.images.nrows()
    }
}

/// The images (N, 784) of an IDX file, raw or gzipped, and their labels if a file with the labels' name lies beside it.
///
/// # Errors
/// As [`Dataset::open`].
pub fn read_drawn(path: &Path) -> Result<(Array2<u8>, Option<Array1<u8>>)> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_end_matches(".gz");
    let images = IdxFile::open(folder, name)?.images()?;
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    let beside = labels != name && idx::candidates(folder, &labels).any(|path| path.is_file());
    let labels = beside.then(|| IdxFile::open(folder, &labels)?.labels(images.nrows())).transpose()?;
    Ok((images, labels))
}

/// Where below a folder the files may lie: flat, or as torchvision keeps them.
const LAYOUTS: [&str; 4] = ["", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw"];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;

    use super::*;
    use crate::config::PIXELS;

    /// A folder of two 28 × 28 training images, one for tests, and their labels.
    fn small() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (prefix, n) in [("train", 2u8), ("t10k", 1)] {
            let mut images = vec![0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 28, 0, 0, 0, 28];
            images.extend((0..n as usize * PIXELS).map(|i| i as u8));
            fs::write(folder.path().join(format!("{prefix}-images-idx3-ubyte")), images).unwrap();
            let labels = [&[0, 0, 8, 1, 0, 0, 0, n], &vec![7; n as usize][..]].concat();
            fs::write(folder.path().join(format!("{prefix}-labels-idx1-ubyte")), labels).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_is_read_flat_or_as_torchvision_keeps_it() {
        let flat = small();
        let data = Dataset::open(flat.path()).unwrap();
        assert_eq!((data.n(), data.labels.to_vec(), data.test_images.dim()), (2, vec![7, 7], (1, PIXELS)));
        for layout in ["MNIST", "FashionMNIST", "KMNIST"] {
            let nested = tempfile::tempdir().unwrap();
            let raw = nested.path().join(layout).join("raw");
            fs::create_dir_all(&raw).unwrap();
            fs::read_dir(flat.path()).unwrap().flatten().for_each(|file| {
                fs::copy(file.path(), raw.join(file.file_name())).unwrap();
            });
            for folder in [nested.path(), &raw] {
                let found = Dataset::open(folder).unwrap();
                assert_eq!((found.images, found.name.as_str()), (data.images.clone(), layout));
            }
        }
        // A folder's own files come before those below it.
        fs::create_dir_all(flat.path().join("MNIST/raw")).unwrap();
        assert_eq!(Dataset::open(flat.path()).unwrap().images, data.images);
    }

    #[test]
    fn a_spoilt_file_is_named_with_what_was_expected_and_found() {
        type Spoil = fn(&mut Vec<u8>);
        let [images, labels, ..] = NAMES;
        let cases: &[(&str, Spoil, &str)] = &[
            (images, |b| b.clear(), "an IDX file expected, an empty one found"),
            (images, |b| b.truncate(7), "an IDX header of 16 bytes expected, 7 bytes found"),
            (images, |b| b[3] = 1, "magic number 0x00000803 expected, 0x00000801 found"),
            (images, |b| b[15] = 27, "images of [28, 28] pixels expected, [28, 27] found"),
            (images, |b| b[7] = 3, "2368 bytes expected for the 3 items of its header, 1584 found: it is truncated"),
            (images, |b| b[7] = 0, "at least one item expected, its header says 0"),
            (
                images,
                |b| b.push(0),
                "1584 bytes expected for the 2 items of its header, 1585 found: bytes follow its end",
            ),
            (labels, |b| b[8] = 10, "labels from 0 to 9 expected, 10 found at 0"),
            (labels, |b| (b[7], _) = (1, b.pop()), "a label for each of 2 images expected, 1 found"),
        ];
        for (name, spoil, expected) in cases {
            let folder = small();
            let path = folder.path().join(name);
            let mut bytes = fs::read(&path).unwrap();
            spoil(&mut bytes);
            fs::write(&path, bytes).unwrap();
            let error = Dataset::open(folder.path()).err().expect("an error").to_string();
            assert_eq!(error, format!("{}: {expected}", path.display()));
        }
    }

    #[test]
    fn a_spoilt_gzip_is_named_with_what_is_wrong_with_it() {
        type Spoil = fn(&mut Vec<u8>);
        let cases: &[(Spoil, &str)] = &[
            (|b| b.clear(), "an IDX file expected, an empty one found"),
            (|b| b.truncate(b.len() - 9), "a whole gzip file expected, it ends early, after 1584 unpacked bytes"),
            (|b| b[0] = 0, "magic number 0x00000803 expected, 0x008b0800 found"),
            (|b| *b.iter_mut().nth_back(7).unwrap() ^= 1, "a whole gzip file expected, it cannot be unpacked (corrupt"),
            (|b| b.extend([7; 20]), "a whole gzip file expected, it cannot be unpacked (invalid gzip header)"),
        ];
        let folder = small();
        let raw = folder.path().join(NAMES[0]);
        let gz = raw.with_added_extension("gz");
        let mut packer = flate2::read::GzEncoder::new(fs::File::open(&raw).unwrap(), Default::default());
        let mut packed = vec![];
        packer.read_to_end(&mut packed).unwrap();
        let images = Dataset::open(folder.path()).unwrap().images;
        fs::remove_file(&raw).unwrap();
        fs::write(&gz, &packed).unwrap();
        assert_eq!(Dataset::open(folder.path()).unwrap().images, images);
        // A file is read by its content, not by its name.
        fs::rename(&gz, &raw).unwrap();
        assert_eq!(Dataset::open(folder.path()).unwrap().images, images);
        fs::remove_file(&raw).unwrap();
        for (spoil, expected) in cases {
            let mut bytes = packed.clone();
            spoil(&mut bytes);
            fs::write(&gz, bytes).unwrap();
            let error = Dataset::open(folder.path()).err().expect("an error").to_string();
            assert!(error.starts_with(&format!("{}: {expected}", gz.display())), "{error}");
        }
    }
    #[test]
    fn a_folder_that_bears_a_published_name_is_not_taken_for_the_set() {
        let folder = tempfile::tempdir().unwrap();
        let named = folder.path().join("mnist");
        fs::rename(small().keep(), &named).unwrap();
        assert_eq!(Dataset::open(&named).unwrap().name, "folder mnist");
    }
}
