//! The data set: images and labels as arrays, from IDX files, `.npz` files or folders of images.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array1, Array2};
use sha2::{Digest, Sha256};

pub mod decode;
pub mod download;
pub mod idx;
pub mod idx_folder;
pub mod image_folder;
pub mod npz;
pub mod package;
pub mod pin;
pub mod progress;
pub mod published;
pub mod resize;

use crate::config::{DEMO, PUBLISHED, Reading};
use crate::data::idx::{IdxFile, Kind};
use crate::data::idx_folder::Paths;
use crate::data::image_folder::Images;
use crate::data::progress::Progress;
use crate::data::published::{NAMES, Published, SETS};
use crate::files::hex;

/// Images of 28 × 28 pixels and their labels.
#[derive(Default)]
pub struct Dataset {
    /// Name of the published data set that the files are, else the folder's name (the one above torchvision's `raw`).
    pub name: String,
    /// SHA-256 in hexadecimal: of the unpacked file of training images, if that has the images as they are here. Otherwise of the
    /// names of the classes and all images and labels.
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
    /// The data set in a folder or file, told by its content:
    ///
    /// - four IDX files, raw or gzipped, in the folder or in one below it where other programs put them, such as torchvision's
    ///   `MNIST/raw`; EMNIST's images are turned upright; of several sets in a folder, `DIR/emnist-letters` names one
    /// - a `.npz` file of Keras or MedMNIST, or a folder with it; a folder with four `.npz` files as Kuzushiji-49 has them
    /// - a folder of PNG or JPEG images for each class
    ///
    /// # Errors
    /// When a file is missing or damaged: names the file, what was expected and what was found.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(path, Reading::default(), &mut |_| ())
    }

    /// [`Self::open`] with options. Reports the progress of reading images, and those that are broken.
    ///
    /// # Errors
    /// As [`Self::open`], and for broken images if `reading.strict`.
    pub fn read(path: &Path, reading: Reading, progress: &mut dyn FnMut(Progress)) -> Result<Self> {
        let shown = path.display();
        let data = if let Some(paths) = idx_folder::find(path)? {
            Self::of_idx_folder(path, paths, progress)?
        } else if path.is_file() {
            Self::of_parts(set_name(&path.with_extension("")), npz::read(path)?)?
        } else if !path.is_dir() {
            bail!("--data: {shown}: {}, demo, a folder or a .npz file expected, none found", PUBLISHED.join(", "))
        } else if let Some(parts) = npz::read_folder(path)? {
            Self::of_parts(set_name(path), parts)?
        } else if let Some(found) = image_folder::read(path, progress)? {
            Self::of_image_folder(path, found, reading.strict, progress)?
        } else {
            bail!(
                "--data: {shown}: four IDX files ({}, …), .npz files, or a folder of PNG or JPEG images for each class \
                 expected, none found",
                NAMES[0]
            )
        };
        Ok(if reading.invert { data.inverted() } else { data })
    }

    /// The data set of four IDX files that were found for `path`.
    fn of_idx_folder(path: &Path, paths: Paths, progress: &mut dyn FnMut(Progress)) -> Result<Self> {
        let files = idx_folder::open(&paths)?;
        let name = match SETS.iter().find(|set| set.is(&files)) {
            Some(set) => set.name.to_string(),
            None if !path.exists() => set_name(path), // such as DIR/emnist-letters
            None => {
                let folder = paths[0].parent().unwrap_or(Path::new(""));
                set_name(folder.parent().filter(|_| folder.ends_with("raw")).unwrap_or(folder))
            }
        };
        Self::of_files(name, paths, files, progress)
    }

    /// The published data set of a name: from the cache, from Debian's package, or fetched into the cache.
    ///
    /// # Errors
    /// When there is no such set or no source has it: names the sources, what is wrong with each, and the ways out.
    pub fn published(name: &str, offline: bool, progress: &mut dyn FnMut(Progress)) -> Result<Self> {
        let files = Published::named(name)?.read(offline, progress)?;
        Self::of_files(name.into(), NAMES.map(PathBuf::from), files, progress)
    }

    /// The data set of training images and labels, test images and labels. The paths tell EMNIST, and are for error messages.
    fn of_files(name: String, paths: Paths, files: [IdxFile; 4], progress: &mut dyn FnMut(Progress)) -> Result<Self> {
        let [images, labels, test_images, test_labels] = files;
        let sha256 = images.sha256.clone();
        let (mut images, mut test_images) = (images.images()?, test_images.images()?);
        let labels_of = |labels: IdxFile, n, path: &Path| labels.labels(n).with_context(|| path.display().to_string());
        let mut labels = labels_of(labels, images.nrows(), &paths[1])?;
        let mut test_labels = labels_of(test_labels, test_images.nrows(), &paths[3])?;
        let sources = [&paths[1], &paths[3]].map(|path| path.display().to_string());
        if !idx_folder::is_emnist(&paths, images.nrows(), test_images.nrows()) {
            let classes = match Published::named(&name) {
                Ok(set) => set.classes.map(String::from).into(),
                Err(_) => numbers(&labels),
            };
            return Self { name, sha256, classes, images, labels, test_images, test_labels }.checked(&sources);
        }
        let shown = paths[0].display();
        progress(Progress::Line(&format!(
            "{shown}: taken for EMNIST, which stores images transposed: they are turned"
        )));
        let classes = idx_folder::emnist_classes(&mut labels, &mut test_labels).with_context(|| sources[1].clone())?;
        [&mut images, &mut test_images].into_iter().for_each(idx_folder::transpose);
        Ok(Self { name, sha256, classes, images, labels, test_images, test_labels }.checked(&sources)?.with_digest())
    }

    /// The data set of arrays for training and for tests.
    fn of_parts(name: String, [train, test]: [npz::Part; 2]) -> Result<Self> {
        let (classes, sources) = (numbers(&train.labels), [train.source, test.source]);
        let (images, labels, test_images, test_labels) = (train.images, train.labels, test.images, test.labels);
        let data = Self { name, classes, images, labels, test_images, test_labels, ..Self::default() };
        Ok(data.checked(&sources)?.with_digest())
    }

    /// The data set of a folder of images, if no image is broken or `strict` is not set.
    fn of_image_folder(path: &Path, found: Images, strict: bool, progress: &mut dyn FnMut(Progress)) -> Result<Self> {
        const NAMED: usize = 20; // broken images in the message
        let (shown, n) = (path.display(), found.broken.len());
        let Images { classes, images: [images, test_images], labels: [labels, test_labels], broken } = found;
        if n > 0 {
            let total = n + labels.len() + test_labels.len();
            let line = format!("{shown}: {n} of {total} images cannot be read: {}", broken[..n.min(NAMED)].join("; "));
            ensure!(!strict, line);
            let left_out = "they are left out, and --strict makes this an error";
            progress(Progress::Line(&format!("warning: {line}; {left_out}")));
        }
        let name = set_name(path);
        Ok(Self { name, classes, images, labels, test_images, test_labels, ..Self::default() }.with_digest())
    }

    /// The data set, if each class has a training image and each test image a class. `sources` names the labels for training and
    /// for tests.
    fn checked(self, sources: &[String; 2]) -> Result<Self> {
        let (last, [train, test]) = (self.classes.len().saturating_sub(1), sources);
        let mut counts = vec![0; self.classes.len()];
        self.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
        if let Some(class) = counts.iter().position(|&n| n == 0) {
            bail!("{train}: training images of each class from 0 to {last} expected, none of class {class} found");
        }
        if let Some(at) = self.test_labels.iter().position(|&label| usize::from(label) > last) {
            let found = self.test_labels[at];
            bail!("{test}: labels from 0 to {last} expected, as the training images have, {found} found at {at}");
        }
        Ok(self)
    }

    /// The data set with the SHA-256 of all that it holds.
    fn with_digest(mut self) -> Self {
        let mut digest = Sha256::new();
        digest.update(serde_json::to_vec(&self.classes).expect("texts"));
        for (images, labels) in [(&self.images, &self.labels), (&self.test_images, &self.test_labels)] {
            digest.update((labels.len() as u64).to_le_bytes());
            digest.update(images.as_slice().expect("row-major"));
            digest.update(labels.as_slice().expect("row-major"));
        }
        self.sha256 = hex(&digest.finalize());
        self
    }

    /// The data set with black and white exchanged.
    pub fn inverted(mut self) -> Self {
        [&mut self.images, &mut self.test_images].into_iter().flatten().for_each(|level| *level = 255 - *level);
        self.name += ", inverted";
        self.with_digest()
    }

    /// Number of training images, N.
    pub fn n(&self) -> usize {
        self.images.nrows()
    }
}

/// The images (N, 784) of an IDX file, and their labels if a file lies beside it that is named as `runtime gen` names it: `images` in
/// the name becomes `labels` and `idx3` becomes `idx1`; a name with neither gets `-labels`. An ending `.gz` stays, may be added, or may
/// be left out, in this order.
///
/// # Errors
/// As [`Dataset::open`].
pub fn read_drawn(path: &Path) -> Result<(Array2<u8>, Option<Array1<u8>>)> {
    let images = IdxFile::open(path, Kind::Images)?.images()?;
    let gzip = path.extension().filter(|end| end.eq_ignore_ascii_case("gz"));
    let name = gzip.map_or(path.file_name(), |_| path.file_stem()).unwrap_or_default().to_string_lossy();
    let end = gzip.map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
    let mnist = name.replace("images", "labels").replace("idx3", "idx1");
    let labels = if mnist == name { format!("{name}-labels") } else { mnist };
    let beside = [&end, ".gz", ""].map(|end| path.with_file_name(format!("{labels}{end}")));
    let beside = beside.into_iter().find(|labels| labels.is_file());
    let open = |path: PathBuf| {
        let labels = IdxFile::open(&path, Kind::Labels)?;
        labels.labels(images.nrows()).with_context(|| path.display().to_string())
    };
    let labels = beside.map(open).transpose()?;
    Ok((images, labels))
}

/// The name of the data set in a folder or file: the folder's or file's. The names of the published sets are for those alone.
fn set_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    if Published::named(&name).is_ok() || name == DEMO { format!("folder {name}") } else { name.into_owned() }
}

/// Names of the classes that only have numbers: 0 to the largest label.
fn numbers(labels: &Array1<u8>) -> Vec<String> {
    (0..labels.iter().max().map_or(0, |&label| usize::from(label) + 1)).map(|class| class.to_string()).collect()
}

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
            |name| format!("my-digits-{}", name.replace("t10k", "test")),
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
    fn a_missing_folder_is_not_taken_for_the_one_above() {
        let folder = small();
        for missing in ["日本", "--", "letters"] {
            let error = Dataset::open(&folder.path().join(missing)).err().unwrap().to_string();
            assert!(error.contains(&format!("{missing}: ")) && error.ends_with("none found"), "{error}");
        }
    }

    #[test]
    fn images_are_turned_with_a_word_if_the_files_names_say_emnist() {
        let folder = small();
        let upright = Dataset::open(folder.path()).unwrap().images;
        for name in NAMES {
            fs::rename(folder.path().join(name), folder.path().join(format!("emnist-{name}"))).unwrap();
        }
        let mut heard = vec![];
        let mut hear = |progress: Progress| heard.push(format!("{progress:?}"));
        let images = Dataset::read(folder.path(), Reading::default(), &mut hear).unwrap().images;
        assert!(heard.len() == 1 && heard[0].contains("taken for EMNIST"), "{heard:?}");
        assert_eq!(images[[0, 1]], upright[[0, 28]]);
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
