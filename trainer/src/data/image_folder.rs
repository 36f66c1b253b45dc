//! A folder of image folders, as torchvision's `ImageFolder` reads it: one folder for each class, whose images are PNG or JPEG files.
//!
//! The folders may stand in `train` and `test`. Otherwise a seventh of the images is kept for tests, chosen by a hash of each
//! file's path below the folder, so that the choice is the same on every machine.
//!
//! The images are read in parallel, and the result is kept in the cache with the paths, sizes and times of all files. It is used
//! again as long as those are the same. A file that cannot be opened is an error of the whole read and is never cached, because the
//! next read may succeed.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::cache;
use crate::config::{MAX_CLASSES, PIXELS};
use crate::data::decode::{decode, is_image};
use crate::data::idx::{MAX_ITEMS, other_format};
use crate::data::progress::Progress;
use crate::files::{self, hex, name_of, visible_in};

/// The images of a folder.
#[derive(Debug, PartialEq)]
pub struct Images {
    /// Names of the folders, sorted.
    pub classes: Vec<String>,
    /// Training images (N, 784) and test images (M, 784).
    pub images: [Array2<u8>; 2],
    /// Training labels (N,) and test labels (M,).
    pub labels: [Array1<u8>; 2],
    /// Sentences on the files that could not be read.
    pub broken: Vec<String>,
}

/// The images in the folders of `folder`. `None` if it has no folders.
///
/// # Errors
/// When there are no images, more than 64 classes, test images of a class without a training folder, classes beside a folder `train`
/// that holds folders, or a file or folder that cannot be opened.
pub fn read(folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Option<Images>> {
    let Some(listing) = Listing::of(folder)? else { return Ok(None) };
    if !listing.unused.is_empty() {
        let (shown, unused) = (folder.display(), listing.unused.join(", "));
        progress(Progress::Line(&format!(
            "warning: {shown}: not used beside the folders for training and tests: {unused}"
        )));
    }
    let fingerprint = listing.fingerprint();
    let entry = cached_path(folder);
    if let Some(images) = entry.as_ref().ok().and_then(|path| load(path, &fingerprint)) {
        return Ok(Some(images));
    }
    let images = listing.read(progress)?;
    if let Err(why) = entry.and_then(|path| store(&path, &fingerprint, &images)) {
        progress(Progress::Line(&format!(
            "warning: {}: the images are not kept in the cache: {why:#}",
            folder.display()
        )));
    }
    Ok(Some(images))
}

/// The files of a folder, by class.
struct Listing<'a> {
    folder: &'a Path,
    classes: Vec<String>,
    files: Vec<Entry>,
    /// Whether test images have a folder of their own.
    has_test_folder: bool,
    /// Names of folders beside those for training and tests.
    unused: Vec<String>,
}

/// A file that may be an image.
struct Entry {
    path: PathBuf,
    class: u8,
    is_test: bool,
    len: u64,
    modified: Option<SystemTime>,
}

impl<'a> Listing<'a> {
    fn of(folder: &'a Path) -> Result<Option<Self>> {
        let (train, test, unused) = split(folder)?;
        let folders_of_classes = folders(&train)?;
        if folders_of_classes.is_empty() {
            return Ok(None);
        }
        let shown = train.display();
        let n = folders_of_classes.len();
        ensure!(n <= MAX_CLASSES, "{shown}: at most {MAX_CLASSES} folders of classes expected, {n} found");
        let classes: Vec<String> = folders_of_classes.iter().map(|path| name_of(path)).collect();
        let mut listing = Self { folder, classes, files: vec![], has_test_folder: test.is_some(), unused };
        for (class, path) in folders_of_classes.iter().enumerate() {
            listing.add(path, class as u8, false, &mut above(&[folder, &train])?)?;
        }
        for path in test.map_or(Ok(vec![]), |test| folders(&test))? {
            let name = name_of(&path);
            let class = listing.classes.iter().position(|class| *class == name);
            let class = class.with_context(|| {
                let (path, train) = (path.display(), train.display());
                format!("{path}: a class of {train} expected, no folder with the name {name} found there")
            })?;
            listing.add(&path, class as u8, true, &mut above(&[folder, path.parent().unwrap_or(folder)])?)?;
        }
        Ok(Some(listing))
    }

    /// Adds all files below `folder`, sorted by path. Folders in `seen` are left out, because links may form a circle.
    fn add(&mut self, folder: &Path, class: u8, is_test: bool, seen: &mut HashSet<PathBuf>) -> Result<()> {
        if !seen.insert(fs::canonicalize(folder).with_context(|| cannot_be_read(folder))?) {
            return Ok(());
        }
        for (path, data) in entries(folder)? {
            if data.is_dir() {
                self.add(&path, class, is_test, seen)?;
            } else if data.is_file() {
                let n = self.files.len() as u64;
                ensure!(n < MAX_ITEMS, "{}: at most {MAX_ITEMS} files expected", self.folder.display());
                let is_test = is_test || !self.has_test_folder && self.is_chosen(&path);
                self.files.push(Entry { path, class, is_test, len: data.len(), modified: data.modified().ok() });
            }
        }
        Ok(())
    }

    /// Whether a file is one of the seventh that is kept for tests.
    fn is_chosen(&self, path: &Path) -> bool {
        let digest = Sha256::digest(self.relative(path));
        u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]).is_multiple_of(7)
    }

    /// Path below the folder, with `/` on every system.
    fn relative(&self, path: &Path) -> String {
        let below = path.strip_prefix(self.folder).unwrap_or(path);
        below.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/")
    }

    /// A digest of all paths, sizes, times of change and splits, and of the version of `trainer`, which may read images differently.
    fn fingerprint(&self) -> String {
        let mut digest = Sha256::new();
        digest.update(format!("{} {:?}\n", env!("CARGO_PKG_VERSION"), self.classes));
        for Entry { path, is_test, len, modified, .. } in &self.files {
            digest.update(format!("{:?} {is_test} {len} {modified:?}\n", self.relative(path)));
        }
        hex(&digest.finalize())
    }

    /// Reads all files on all cores.
    fn read(&self, progress: &mut dyn FnMut(Progress)) -> Result<Images> {
        let total = self.files.len();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let mut found: Vec<Option<Found>> = (0..total).map(|_| None).collect();
        thread::scope(|scope| -> Result<()> {
            let (send, received) = mpsc::sync_channel(1024);
            for first in 0..threads {
                let send = send.clone();
                let work = move || {
                    let mut files = self.files.iter().enumerate().skip(first).step_by(threads);
                    // Sending fails once the receiver has ended with an error.
                    files.try_for_each(|(i, file)| send.send((i, Found::of(&file.path))))
                };
                thread::Builder::new().spawn_scoped(scope, work).context("a thread cannot be started")?;
            }
            drop(send);
            for (done, (i, image)) in received.into_iter().enumerate() {
                found[i] = Some(image?);
                progress(Progress::Images { done: done as u64 + 1, total: total as u64 });
            }
            Ok(())
        })?;
        self.collect(found)
    }

    /// Puts images into arrays.
    fn collect(&self, found: Vec<Option<Found>>) -> Result<Images> {
        let (mut pixels, mut labels) = ([vec![], vec![]], [vec![], vec![]]);
        let mut broken = vec![];
        // A class with few images may have none outside the chosen seventh. Then all of them are for training.
        let mut trains = vec![self.has_test_folder; self.classes.len()];
        for (file, found) in self.files.iter().zip(&found).filter(|(file, _)| !file.is_test) {
            trains[usize::from(file.class)] |= matches!(found, Some(Found::Image(_)));
        }
        for (file, found) in self.files.iter().zip(found) {
            match found {
                Some(Found::Image(image)) => {
                    let is_test = file.is_test && trains[usize::from(file.class)];
                    pixels[usize::from(is_test)].extend(image);
                    labels[usize::from(is_test)].push(file.class);
                }
                Some(Found::Broken(why)) => broken.push(format!("{}: {why}", self.relative(&file.path))),
                Some(Found::Other) | None => {}
            }
        }
        let shown = self.folder.display();
        let first = broken.first().map_or(String::new(), |first| format!(" ({first})"));
        let is_empty = labels.iter().all(Vec::is_empty);
        ensure!(!is_empty, "{shown}: PNG or JPEG images in a folder for each class expected, none found{first}");
        if let Some((_, name)) = (0..).zip(&self.classes).find(|(class, _)| !labels[0].contains(class)) {
            bail!("{shown}: PNG or JPEG images of each class expected, none in the folder {name} for training{first}");
        }
        let array = |pixels: Vec<u8>| Array2::from_shape_vec((pixels.len() / PIXELS, PIXELS), pixels);
        let [train, test] = pixels;
        let images = [array(train)?, array(test)?];
        Ok(Images { classes: self.classes.clone(), images, labels: labels.map(Array1::from), broken })
    }
}

/// Names for the folder of training images, the preferred one first, compared without case.
const TRAIN: [&str; 2] = ["train", "training"];
/// Names for the folder of test images, like [`TRAIN`].
const TEST: [&str; 5] = ["test", "testing", "val", "valid", "validation"];

/// The folder that holds the classes' folders for training, the one for tests, and the names of the folders beside them. Without a
/// folder for training, `folder` itself holds the classes.
fn split(folder: &Path) -> Result<(PathBuf, Option<PathBuf>, Vec<String>)> {
    let mut all = folders(folder)?;
    let has_name = |path: &Path, name: &str| name_of(path).to_lowercase() == name;
    let has_folders = |path: &Path| folders(path).is_ok_and(|below| !below.is_empty());
    let mut take = |names: &[&str]| {
        let position = |name| all.iter().position(|path| has_name(path, name) && has_folders(path));
        let at = names.iter().find_map(|name| position(name))?;
        Some(all.remove(at))
    };
    let Some(train) = take(&TRAIN) else { return Ok((folder.into(), None, vec![])) };
    let test = take(&TEST);
    if let Some(class) = all.iter().find(|path| !TRAIN.iter().chain(&TEST).any(|name| has_name(path, name))) {
        let (shown, train, class) = (folder.display(), name_of(&train), name_of(class));
        bail!(
            "{shown}: folders for training and tests or a folder for each class expected, both found: {train} holds folders, and \
             {class} lies beside it; move one of them"
        );
    }
    Ok((train, test, all.iter().map(|path| name_of(path)).collect()))
}

/// What a file turned out to be.
enum Found {
    /// The pixels, (784,).
    Image(Vec<u8>),
    /// An image that cannot be read, and why.
    Broken(String),
    /// A file that does not claim to be an image.
    Other,
}

impl Found {
    fn of(path: &Path) -> Result<Self> {
        let read = |n: u64| {
            let mut bytes = vec![];
            let file = File::open(path).and_then(|file| file.take(n).read_to_end(&mut bytes));
            file.map(|_| bytes).with_context(|| cannot_be_read(path))
        };
        let start = read(16)?;
        if !is_image(&start) {
            // Source: torchvision's IMG_EXTENSIONS, and gif.
            const EXTENSIONS: [&str; 10] = ["jpg", "jpeg", "png", "ppm", "bmp", "pgm", "tif", "tiff", "webp", "gif"];
            let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
            let other = if start.is_empty() { "an empty file" } else { "another format" };
            let found = other_format(&start).unwrap_or(other);
            return Ok(match EXTENSIONS.contains(&extension.as_str()) {
                true => Self::Broken(format!("a PNG or JPEG file expected, {found} found")),
                false => Self::Other,
            });
        }
        const MOST: u64 = 1 << 28; // bytes
        let file = read(MOST + 1)?;
        if file.len() as u64 > MOST {
            return Ok(Self::Broken(format!("at most {MOST} bytes expected, more found")));
        }
        // A fault of a decoder is no reason to lose the name of the file.
        let decoded = catch_unwind(|| decode(&file)).unwrap_or_else(|_| bail!("the decoder failed"));
        Ok(decoded.map_or_else(|why| Self::Broken(format!("{why:#}")), Self::Image))
    }
}

/// What a folder holds, sorted by name, without hidden files.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let paths = visible_in(folder).with_context(|| cannot_be_read(folder))?;
    let with_data = |path: PathBuf| {
        let data = fs::metadata(&path).with_context(|| cannot_be_read(&path))?;
        Ok((path, data))
    };
    paths.into_iter().map(with_data).collect()
}

/// The folders in a folder, as [`entries`].
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|(_, data)| data.is_dir()).map(|(path, _)| path).collect())
}

/// The real paths of folders, in which a class may not lie again.
fn above(folders: &[&Path]) -> Result<HashSet<PathBuf>> {
    folders.iter().map(|folder| fs::canonicalize(folder).with_context(|| cannot_be_read(folder))).collect()
}

fn cannot_be_read(path: &Path) -> String {
    format!("{}: cannot be read", path.display())
}

/// Path of a folder's images in the cache.
fn cached_path(folder: &Path) -> Result<PathBuf> {
    let folder = fs::canonicalize(folder)?;
    let name = hex(&Sha256::digest(folder.as_os_str().as_encoded_bytes()));
    Ok(cache::folder("images")?.join(&name[..16]))
}

/// First line of a cache entry. The images and labels for training and for tests follow, and a SHA-256 of everything before it.
#[derive(Serialize, Deserialize)]
struct Header {
    fingerprint: String,
    classes: Vec<String>,
    broken: Vec<String>,
    /// Numbers of images for training and for tests.
    counts: [usize; 2],
}

const DIGEST: usize = 32;

fn store(path: &Path, fingerprint: &str, images: &Images) -> Result<()> {
    let header = Header {
        fingerprint: fingerprint.into(),
        classes: images.classes.clone(),
        broken: images.broken.clone(),
        counts: images.images.each_ref().map(|images| images.nrows()),
    };
    let mut bytes = serde_json::to_vec(&header)?;
    bytes.push(b'\n');
    for (images, labels) in images.images.iter().zip(&images.labels) {
        bytes.extend(images);
        bytes.extend(labels);
    }
    bytes.extend(Sha256::digest(&bytes));
    path.parent().map_or(Ok(()), cache::create)?;
    files::write(path, &bytes)
}

/// The images of a cache entry. `None` if there is none, it is spoilt, or the folder has changed.
fn load(path: &Path, fingerprint: &str) -> Option<Images> {
    let mut bytes = vec![];
    cache::open(path).ok()?.read_to_end(&mut bytes).ok()?;
    let (content, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
    if Sha256::digest(content)[..] != *digest {
        return None;
    }
    let end = content.iter().position(|&byte| byte == b'\n')?;
    let header: Header = serde_json::from_slice(&content[..end]).ok()?;
    if header.fingerprint != fingerprint {
        return None;
    }
    let mut rest = &content[end + 1..];
    let mut take = |n: usize| {
        let (taken, left) = rest.split_at_checked(n)?;
        rest = left;
        Some(taken.to_vec())
    };
    let mut part = |n: usize| {
        Some((Array2::from_shape_vec((n, PIXELS), take(n.checked_mul(PIXELS)?)?).ok()?, Array1::from(take(n)?)))
    };
    let ((a, b), (c, d)) = (part(header.counts[0])?, part(header.counts[1])?);
    Some(Images { classes: header.classes, images: [a, c], labels: [b, d], broken: header.broken })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a grey PNG of one pixel.
    fn image(path: PathBuf, level: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = vec![];
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(&[level]).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn read(folder: &Path) -> Result<Images> {
        Listing::of(folder)?.unwrap().read(&mut |_| ())
    }

    #[test]
    fn a_seventh_is_for_tests_wherever_the_folder_is_and_whatever_else_it_holds() {
        let [here, there] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        for i in 0..140 {
            [&here, &there].iter().for_each(|folder| image(folder.path().join(format!("a/{i}.png")), i));
        }
        let first = read(here.path()).unwrap();
        assert_eq!(first, read(there.path()).unwrap());
        assert!((10..=30).contains(&first.images[1].nrows()), "{}", first.images[1].nrows());
        // Another class and other files do not change the choice.
        image(there.path().join("b/1.png"), 200);
        fs::write(there.path().join("a/.hidden.png"), "").unwrap();
        fs::write(there.path().join("a/Thumbs.db"), "").unwrap();
        let second = read(there.path()).unwrap();
        assert_eq!(second.images[1], first.images[1]);
        assert_eq!((second.classes, second.labels[0].to_vec().last()), (vec!["a".into(), "b".into()], Some(&1)));
    }

    #[test]
    fn a_class_of_one_image_has_it_for_training() {
        let folder = tempfile::tempdir().unwrap();
        (0..20).for_each(|class| image(folder.path().join(format!("{class:02}/only.png")), class));
        let images = read(folder.path()).unwrap();
        assert_eq!((images.images[0].nrows(), images.images[1].nrows()), (20, 0));
    }

    #[test]
    fn a_class_without_images_is_named_with_the_first_file_that_is_broken() {
        let folder = tempfile::tempdir().unwrap();
        image(folder.path().join("a/1.png"), 1);
        fs::create_dir(folder.path().join("b")).unwrap();
        let shown = folder.path().display();
        let expected = format!("{shown}: PNG or JPEG images of each class expected, none in the folder b for training");
        assert_eq!(read(folder.path()).unwrap_err().to_string(), expected);
        fs::write(folder.path().join("b/1.png"), "<!DOCTYPE html>").unwrap();
        let expected = format!("{expected} (b/1.png: a PNG or JPEG file expected, a web page found)");
        assert_eq!(read(folder.path()).unwrap_err().to_string(), expected);
    }

    #[test]
    fn train_and_test_may_be_folders_but_a_class_may_have_such_a_name() {
        for [train, test] in [["train", "test"], ["Training", "TESTING"], ["train", "val"], ["train", "Valid"]] {
            let folder = tempfile::tempdir().unwrap();
            (0..8).for_each(|i| image(folder.path().join(format!("{train}/a/{i}.png")), i));
            image(folder.path().join(format!("{test}/a/9.png")), 9);
            let images = read(folder.path()).unwrap();
            assert_eq!((images.classes, images.images[0].nrows(), images.images[1][[0, 0]]), (vec!["a".into()], 8, 9));
            fs::rename(folder.path().join(test).join("a"), folder.path().join(test).join("b")).unwrap();
            let error = read(folder.path()).unwrap_err().to_string();
            assert!(error.contains("no folder with the name b found there"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        ["bus", "test", "train"].iter().for_each(|name| image(folder.path().join(name).join("1.png"), 1));
        assert_eq!(read(folder.path()).unwrap().classes, ["bus", "test", "train"]);
        // A folder for training with a class beside it is no choice of ours.
        image(folder.path().join("train/2019/1.png"), 1);
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("both found: train holds folders, and bus lies beside it"), "{error}");
        fs::remove_dir_all(folder.path().join("bus")).unwrap();
        let listing = Listing::of(folder.path()).unwrap().unwrap();
        assert_eq!((listing.classes, listing.unused), (vec!["2019".into()], vec!["test".into()]));
    }

    #[test]
    fn a_cache_entry_is_not_used_once_test_images_have_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        (0..40).for_each(|i| image(folder.path().join(format!("train/a/{i}.png")), i));
        let fingerprint = || Listing::of(folder.path()).unwrap().unwrap().fingerprint();
        let before = fingerprint();
        assert_eq!(fingerprint(), before);
        fs::create_dir_all(folder.path().join("test/a")).unwrap();
        assert_ne!(fingerprint(), before);
    }

    #[cfg(unix)]
    #[test]
    fn links_in_a_circle_bring_no_image_twice() {
        let folder = tempfile::tempdir().unwrap();
        (0..8).for_each(|i| image(folder.path().join(format!("a/{i}.png")), i));
        image(folder.path().join("b/0.png"), 0);
        for (i, target) in [".", "..", "../a", "../b/.."].iter().enumerate() {
            std::os::unix::fs::symlink(target, folder.path().join(format!("a/link-{i}"))).unwrap();
        }
        let images = read(folder.path()).unwrap();
        assert_eq!(images.labels.iter().flatten().filter(|label| **label == 0).count(), 8);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_or_folder_that_cannot_be_opened_is_an_error_and_no_broken_image() {
        let folder = tempfile::tempdir().unwrap();
        image(folder.path().join("a/1.png"), 1);
        for gone in ["a/2.png", "b"] {
            let link = folder.path().join(gone);
            std::os::unix::fs::symlink("away", &link).unwrap();
            let error = format!("{:#}", read(folder.path()).unwrap_err());
            assert!(error.starts_with(&format!("{}: cannot be read: ", link.display())), "{error}");
            fs::remove_file(link).unwrap();
        }
        let entry = Found::of(&folder.path().join("a/2.png"));
        assert!(entry.err().unwrap().to_string().ends_with("a/2.png: cannot be read"));
    }

    #[test]
    fn a_cache_entry_is_used_for_the_same_files_only_and_never_if_it_is_spoilt() {
        let folder = tempfile::tempdir().unwrap();
        (0..20).for_each(|i| image(folder.path().join(format!("images/a/{i}.png")), i));
        let images = read(&folder.path().join("images")).unwrap();
        let entry = folder.path().join("entry");
        store(&entry, "same", &images).unwrap();
        assert_eq!(load(&entry, "same").unwrap(), images);
        assert!(load(&entry, "other").is_none());
        let whole = fs::read(&entry).unwrap();
        for at in (0..whole.len()).step_by(97) {
            let mut spoilt = whole.clone();
            spoilt[at] ^= 1;
            fs::write(&entry, spoilt).unwrap();
            assert!(load(&entry, "same").is_none(), "byte {at}");
            fs::write(&entry, &whole[..at]).unwrap();
            assert!(load(&entry, "same").is_none(), "{at} bytes");
        }
    }
}
