//! The data set: four IDX files of a folder or of a published data set, as arrays.

use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array1, Array2};

pub mod download;
pub mod idx;
pub mod package;
pub mod pin;
pub mod published;

use crate::data::download::Progress;
use crate::data::idx::{IdxFile, Kind};
use crate::data::published::{NAMES, Published, SETS};

/// Images of digits and their labels.
#[derive(Default)]
pub struct Dataset {
    /// Name of the published data set that the files are, else the folder's name (the one above torchvision's `raw`).
    pub name: String,
    /// SHA-256 of the unpacked file of training images, in hexadecimal.
    pub sha256: String,
    /// Names of the classes, 1 to 64 of them, in the order of their labels.
    pub classes: Vec<String>,
    /// Training images, (N, 784): pixels row by row from the top left, from 0 (black) to 255 (white).
    pub images: Array2<u8>,
    /// Labels of the training images, (N,): the numbers of their classes. Each class has at least one image.
    pub labels: Array1<u8>,
    /// Test images, (M, 784), like `images`.
    pub test_images: Array2<u8>,
    /// Labels of the test images, (M,), like `labels`.
    pub test_labels: Array1<u8>,
}

impl Dataset {
    /// The data set in a folder: its four IDX files, or those in a folder below it where other programs put them, such as
    /// torchvision's `MNIST/raw`.
    ///
    /// # Errors
    /// When a file is missing or damaged: names the file, what was expected and what was found.
    pub fn open(folder: &Path) -> Result<Self> {
        ensure!(folder.is_dir(), "--data: {}: a folder with the four MNIST IDX files expected", folder.display());
        let below = LAYOUTS.iter().map(|below| folder.join(below));
        let folder = iter::once(folder.into())
            .chain(below)
            .find(|folder| find(folder, NAMES[0]).is_ok())
            .unwrap_or(folder.into());
        let [a, b, c, d] = NAMES.map(|name| find(&folder, name));
        let paths = [a?, b?, c?, d?];
        let [images, labels, test_images, test_labels] = &paths;
        let files = [
            IdxFile::open(images, Kind::Images)?,
            IdxFile::open(labels, Kind::Labels)?,
            IdxFile::open(test_images, Kind::Images)?,
            IdxFile::open(test_labels, Kind::Labels)?,
        ];
        let name = match SETS.iter().find(|set| set.is(&files)) {
            Some(set) => set.name.to_string(),
            None => {
                let named = folder.parent().filter(|_| folder.ends_with("raw")).unwrap_or(&folder);
                let name = named.file_name().unwrap_or(named.as_os_str()).to_string_lossy();
                // The names of the published sets are for those alone.
                if Published::named(&name).is_ok() { format!("folder {name}") } else { name.into_owned() }
            }
        };
        Self::of(name, paths, files)
    }

    /// The published data set of a name: from the cache, from Debian's package, or fetched into the cache.
    ///
    /// # Errors
    /// When there is no such set or no source has it: names the sources, what is wrong with each, and the ways out.
    pub fn published(name: &str, offline: bool, progress: &mut dyn FnMut(Progress)) -> Result<Self> {
        Self::of(name.into(), NAMES.map(PathBuf::from), Published::named(name)?.read(offline, progress)?)
    }

    /// The data set of training images and labels, test images and labels. The paths are for error messages.
    fn of(name: String, paths: [PathBuf; 4], files: [IdxFile; 4]) -> Result<Self> {
        let [images, labels, test_images, test_labels] = files;
        let sha256 = images.sha256.clone();
        let (images, test_images) = (images.images()?, test_images.images()?);
        let labels_of = |labels: IdxFile, n, path: &Path| labels.labels(n).with_context(|| path.display().to_string());
        let labels = labels_of(labels, images.nrows(), &paths[1])?;
        let test_labels = labels_of(test_labels, test_images.nrows(), &paths[3])?;
        let n = labels.iter().max().map_or(0, |&label| usize::from(label) + 1);
        let has_images = |class: &usize| labels.iter().any(|&label| usize::from(label) == *class);
        if let Some(class) = (0..n).find(|class| !has_images(class)) {
            let (path, last) = (paths[1].display(), n - 1);
            bail!("{path}: training images of each class from 0 to {last} expected, none of class {class} found");
        }
        if let Some(at) = test_labels.iter().position(|&label| usize::from(label) >= n) {
            let (path, last, found) = (paths[3].display(), n - 1, test_labels[at]);
            bail!("{path}: labels from 0 to {last} expected, as the training images have, {found} found at {at}");
        }
        let classes = (0..n).map(|class| class.to_string()).collect();
        Ok(Self { name, sha256, classes, images, labels, test_images, test_labels })
    }

    /// Number of training images, N.
    pub fn n(&self) -> usize {
        self.images.nrows()
    }
}

/// The images (N, 784) of an IDX file, and their labels if a file with the labels' name lies beside it.
///
/// # Errors
/// As [`Dataset::open`].
pub fn read_drawn(path: &Path) -> Result<(Array2<u8>, Option<Array1<u8>>)> {
    let images = IdxFile::open(path, Kind::Images)?.images()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let labels = name.trim_end_matches(".gz").replace("images", "labels").replace("idx3", "idx1");
    let beside = [labels.clone(), format!("{labels}.gz")].map(|labels| path.with_file_name(labels));
    let beside = beside.into_iter().find(|labels| name.contains("images") && labels.is_file());
    let open = |path: PathBuf| {
        let labels = IdxFile::open(&path, Kind::Labels)?;
        labels.labels(images.nrows()).with_context(|| path.display().to_string())
    };
    let labels = beside.map(open).transpose()?;
    Ok((images, labels))
}

/// Where the files may be below a folder, if they are not in the folder itself.
const LAYOUTS: [&str; 6] = ["raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw", "EMNIST/raw", "QMNIST/raw"];

/// Path of the file in `folder` that has one of the names in use for `name`, one of [`NAMES`]: with other punctuation, in
/// capitals, with a prefix such as `emnist-digits-`, with `test` for `t10k`, or in a folder of its own name, as Kaggle has it.
/// The file with just this name comes first, and empty files come last.
///
/// # Errors
/// When there is none, or several with different prefixes.
fn find(folder: &Path, name: &str) -> Result<PathBuf> {
    let names = [letters(name), letters(&name.replace("t10k", "test"))];
    let named = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let matches = |path: &PathBuf| names.iter().any(|name| stem(path).contains(name)) && !is_hidden(path);
        entries.filter(matches).collect()
    };
    let (folders, mut files): (Vec<_>, Vec<_>) = named(folder).into_iter().partition(|path| path.is_dir());
    if files.is_empty() {
        files = folders.iter().flat_map(|folder| named(folder)).collect();
    }
    files.retain(|path| path.is_file());
    let is_exact = |path: &Path| names.contains(&stem(path));
    files.sort_by_key(|path| (!is_exact(path), fs::metadata(path).map_or(0, |data| data.len()) == 0, path.clone()));
    let shown = folder.display();
    let first =
        files.first().with_context(|| format!("{shown}: a file with a name like {name} expected, none found"))?;
    if let Some(other) = files.iter().find(|path| stem(path) != stem(first)).filter(|_| !is_exact(first)) {
        let (first, other) = (first.display(), other.display());
        bail!("{shown}: one file for {name} expected, {first} and {other} found; name a folder with one data set");
    }
    Ok(first.clone())
}

/// The letters and digits of a file's name without `.gz`.
fn stem(path: &Path) -> String {
    let name = letters(&path.file_name().unwrap_or_default().to_string_lossy());
    name.strip_suffix("gz").map(String::from).unwrap_or(name)
}

/// The letters and digits of a text, in lower case.
fn letters(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Whether a file's name starts with a dot, like those that macOS puts beside others.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

#[cfg(test)]
mod tests {
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
            let labels = [&[0, 0, 8, 1, 0, 0, 0, n], &vec![0; n as usize][..]].concat();
            fs::write(folder.path().join(format!("{prefix}-labels-idx1-ubyte")), labels).unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_is_read_flat_or_as_torchvision_keeps_it() {
        let flat = small();
        let data = Dataset::open(flat.path()).unwrap();
        assert_eq!((data.n(), data.labels.to_vec(), data.test_images.dim()), (2, vec![0, 0], (1, PIXELS)));
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
    fn files_are_found_under_the_names_in_use() {
        let names: [fn(&str) -> String; 8] = [
            |name| name.replace("-idx", ".idx"),
            |name| name.to_uppercase(),
            |name| name.replace('-', "_"),
            |name| name.replace("t10k", "test"),
            |name| format!("emnist-digits-{}", name.replace("t10k", "test")),
            |name| format!("{name}.txt"),
            |name| format!("{name} (1).gz"),
            |name| format!("{name}/{}", name.replace("-idx", ".idx")),
        ];
        let images = Dataset::open(small().path()).unwrap().images;
        for renamed in names {
            let (from, to) = (small(), tempfile::tempdir().unwrap());
            for name in NAMES {
                let path = to.path().join(renamed(name));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::copy(from.path().join(name), path).unwrap();
                fs::write(to.path().join(format!("._{name}")), "of macOS").unwrap();
            }
            assert_eq!(Dataset::open(to.path()).unwrap().images, images, "{}", renamed(NAMES[0]));
        }
    }

    #[test]
    fn the_file_with_the_published_name_comes_first_and_two_others_are_refused() {
        let folder = small();
        let [path, letters, digits] =
            ["", "emnist-letters-", "emnist-digits-"].map(|set| folder.path().join(format!("{set}{}", NAMES[0])));
        fs::write(&letters, "other images").unwrap();
        fs::write(&digits, "other images").unwrap();
        assert!(Dataset::open(folder.path()).is_ok());
        // `gunzip --keep` that was stopped leaves an empty file beside the whole one.
        fs::rename(&path, path.with_added_extension("gz")).unwrap();
        fs::write(&path, "").unwrap();
        assert!(Dataset::open(folder.path()).is_ok());
        fs::remove_file(&path).unwrap();
        fs::remove_file(path.with_added_extension("gz")).unwrap();
        let error = Dataset::open(folder.path()).err().unwrap().to_string();
        for words in [&format!("one file for {} expected", NAMES[0]), "emnist-letters-", "emnist-digits-"] {
            assert!(error.contains(words), "{words} is missing from {error}");
        }
    }

    #[test]
    fn a_spoilt_file_is_named_with_what_was_expected_and_found() {
        type Spoil = fn(&mut Vec<u8>);
        let [images, labels, _, test_labels] = NAMES;
        let cases: &[(&str, Spoil, &str)] = &[
            (images, |b| b.clear(), "an IDX file expected, an empty one found"),
            (images, |b| b.truncate(7), "an IDX header of 16 bytes expected, 7 bytes found"),
            (images, |b| b[3] = 1, "magic number 0x00000803 expected, 0x00000801 found"),
            (images, |b| b[15] = 27, "images of [28, 28] pixels expected, [28, 27] found"),
            (images, |b| b[7] = 3, "2368 bytes expected for the 3 items of its header, 1584 found: it is truncated"),
            (images, |b| b[7] = 0, "at least one item expected, its header says 0"),
            (images, |b| b.push(0), "1584 bytes expected for the 2 items of its header, more found"),
            (labels, |b| b[8] = 64, "labels from 0 to 63 expected, 64 found at 0"),
            (labels, |b| b[8] = 2, "training images of each class from 0 to 2 expected, none of class 1 found"),
            (test_labels, |b| b[8] = 1, "labels from 0 to 0 expected, as the training images have, 1 found at 0"),
            (labels, |b| (b[7], _) = (1, b.pop()), "a label for each of 2 images expected, 1 found"),
        ];
        for (name, spoil, expected) in cases {
            let folder = small();
            let path = folder.path().join(name);
            let mut bytes = fs::read(&path).unwrap();
            spoil(&mut bytes);
            fs::write(&path, bytes).unwrap();
            let error = format!("{:#}", Dataset::open(folder.path()).err().expect("an error"));
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
            let error = format!("{:#}", Dataset::open(folder.path()).err().expect("an error"));
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
