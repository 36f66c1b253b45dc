//! The four IDX files of a folder, under all the names in use, and EMNIST's peculiarities.

use std::fs;
use std::iter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array1, Array2, ArrayViewMut2};

use crate::config::SIDE;
use crate::data::idx::{IdxFile, Kind};
use crate::data::published::NAMES;
use crate::files::{name_of, visible_in};

/// Paths of the files in the order of [`NAMES`].
pub type Paths = [PathBuf; 4];

/// Paths of the four IDX files of a data set: in `path` or in a folder below it where other programs put them, such as torchvision's
/// `MNIST/raw`. If there is no folder `path`, its last part is the prefix of files in the folder above, such as `emnist-letters`.
/// `None` if there is no such file.
///
/// # Errors
/// When some of the files are missing, or there are files of several data sets: names the choices.
pub fn find(path: &Path) -> Result<Option<Paths>> {
    let (folder, prefix) = match (path.parent(), path.file_name()) {
        (Some(above), Some(prefix)) if !path.exists() => {
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            (above, letters(&prefix.to_string_lossy()))
        }
        _ => (path, String::new()),
    };
    if folder != path && prefix.is_empty() {
        return Ok(None); // such as `DIR/--`
    }
    let below = LAYOUTS.iter().map(|below| folder.join(below));
    let mut folders = iter::once(folder.into()).chain(below);
    let has_any = |folder: &PathBuf| NAMES.iter().any(|name| !candidates(folder, &prefix, name).is_empty());
    let Some(folder) = folders.find(has_any) else { return Ok(None) };
    let [a, b, c, d] = NAMES.map(|name| find_one(&folder, &prefix, name));
    Ok(Some([a?, b?, c?, d?]))
}

/// Where the files may be below a folder, if they are not in the folder itself.
const LAYOUTS: [&str; 7] = ["raw", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw", "EMNIST/raw", "QMNIST/raw", "gzip"];

/// Path of the file for `name`, one of [`NAMES`]. The file with just this name comes first, and empty files come last.
fn find_one(folder: &Path, prefix: &str, name: &str) -> Result<PathBuf> {
    let mut files = candidates(folder, prefix, name);
    let names = [letters(name), letters(&name.replace("t10k", "test"))];
    let is_exact = |path: &Path| names.contains(&stem(path));
    files.sort_by_key(|path| (!is_exact(path), fs::metadata(path).map_or(0, |data| data.len()) == 0, path.clone()));
    let shown = folder.display();
    let first =
        files.first().with_context(|| format!("{shown}: a file with a name like {name} expected, none found"))?;
    let mut sets: Vec<String> = files.iter().filter_map(|path| set_name(path, name)).collect();
    sets.dedup();
    if let (Some(other), false) = (files.iter().find(|path| stem(path) != stem(first)), is_exact(first)) {
        let (first, other) = (first.display(), other.display());
        let choose = sets.iter().map(|set| format!("--data {}", folder.join(set).display())).collect::<Vec<_>>();
        bail!(
            "{shown}: one file for {name} expected, {first} and {other} found; choose a data set by {}",
            choose.join(" or ")
        );
    }
    Ok(first.clone())
}

/// Files in `folder` whose names start with `prefix` and are in use for `name`: with other punctuation, in capitals, with a prefix
/// such as `emnist-digits-`, with `test` for `t10k`, with `idx2-int` as QMNIST's labels, or in a folder of its own name, as Kaggle
/// has it.
fn candidates(folder: &Path, prefix: &str, name: &str) -> Vec<PathBuf> {
    let named = |folder: &Path| -> Vec<PathBuf> {
        let paths = visible_in(folder).unwrap_or_default();
        let matches = |path: &PathBuf| {
            let stem = stem(path);
            stem.starts_with(prefix) && synonyms(name).iter().any(|name| stem.contains(name))
        };
        paths.into_iter().filter(matches).collect()
    };
    let (folders, mut files): (Vec<_>, Vec<_>) = named(folder).into_iter().partition(|path| path.is_dir());
    if files.is_empty() {
        files = folders.iter().flat_map(|folder| named(folder)).collect();
    }
    files.retain(|path| path.is_file());
    files
}

/// What the letters of a file's name contain if it is in use for `name`, one of [`NAMES`], such as `trainimagesidx`.
fn synonyms(name: &str) -> [String; 2] {
    let kind = letters(name.rsplit_once("idx").map_or(name, |(kind, _)| kind));
    [format!("{kind}idx"), format!("{}idx", kind.replace("t10k", "test"))]
}

/// The prefix of a file's name, without the punctuation at its end: `emnist-letters` of `emnist-letters-train-images-idx3-ubyte`.
fn set_name(path: &Path, name: &str) -> Option<String> {
    let file = path.file_name()?.to_string_lossy().into_owned();
    let part = if name.starts_with("train") { "train" } else { "t" };
    let (prefix, _) = file.split_once(&format!("-{part}")).filter(|(prefix, _)| !prefix.is_empty())?;
    Some(prefix.into())
}

/// The letters and digits of a file's name without `.gz`.
fn stem(path: &Path) -> String {
    let name = letters(&name_of(path));
    name.strip_suffix("gz").map(String::from).unwrap_or(name)
}

/// The letters and digits of a text, in lower case.
fn letters(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Whether four files are one of EMNIST's sets: their names say so, or they have the numbers of images of a set that no other
/// data set has.
pub fn is_emnist(paths: &Paths, training: usize, test: usize) -> bool {
    // Source: Cohen et al. 2017, table II, and the counts of the published files: balanced, letters, digits, byclass and bymerge.
    const COUNTS: [(usize, usize); 5] =
        [(112_800, 18_800), (124_800, 20_800), (88_800, 14_800), (240_000, 40_000), (697_932, 116_323)];
    stem(&paths[0]).contains("emnist") || COUNTS.contains(&(training, test))
}

/// Turns images (N, 784) that EMNIST stores column by column.
pub fn transpose(images: &mut Array2<u8>) {
    for image in images.rows_mut() {
        let mut image: ArrayViewMut2<u8> = image.into_shape_with_order((SIDE, SIDE)).expect("784 pixels in a row");
        let turned = image.t().to_owned();
        image.assign(&turned);
    }
}

/// Names of EMNIST's classes for these training labels. Labels of the letters, from 1 to 26, become 0 to 25.
///
/// Source: the mapping files of EMNIST.
///
/// # Errors
/// When a test label is 0 although no training label is.
pub fn emnist_classes(labels: &mut Array1<u8>, test_labels: &mut Array1<u8>) -> Result<Vec<String>> {
    const BALANCED: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt";
    const BY_CLASS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";
    let is_letters = !labels.iter().any(|&label| label == 0);
    if is_letters {
        let zero = test_labels.iter().position(|&label| label == 0);
        ensure!(zero.is_none(), "labels from 1 to 26 expected, 0 found at {}", zero.unwrap_or(0));
        *labels -= 1;
        *test_labels -= 1;
    }
    let n = labels.iter().max().map_or(0, |&label| usize::from(label) + 1);
    let names = if is_letters {
        LETTERS
    } else if n <= BALANCED.len() {
        BALANCED
    } else {
        BY_CLASS
    };
    ensure!(n <= names.len(), "at most {} classes of EMNIST expected, {n} found", names.len());
    Ok(names.chars().take(n).map(String::from).collect())
}

/// The four files, opened.
///
/// # Errors
/// Names the file that is damaged.
pub fn open(paths: &Paths) -> Result<[IdxFile; 4]> {
    let [images, labels, test_images, test_labels] = paths;
    Ok([
        IdxFile::open(images, Kind::Images)?,
        IdxFile::open(labels, Kind::Labels)?,
        IdxFile::open(test_images, Kind::Images)?,
        IdxFile::open(test_labels, Kind::Labels)?,
    ])
}
