//! The data set: four IDX files, gzipped or raw.
//!
//! Source: Yann LeCun's description of the format, <http://yann.lecun.com/exdb/mnist/>.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use flate2::read::MultiGzDecoder;
use ndarray::{Array1, Array2};
use sha2::{Digest, Sha256};

pub mod download;

use crate::config::PIXELS;
use crate::data::download::{Patience, Pin};
use crate::files::hex;

/// Images of digits and what they show.
#[derive(Default)]
pub struct Dataset {
    /// `mnist` where the images are MNIST's, else the folder's name (the one above torchvision's `raw`).
    pub name: String,
    /// Of the unpacked file of training images.
    pub sha256: String,
    /// The training images (N, 784), row by row from the top left; 0 is black, 255 white.
    pub images: Array2<u8>,
    /// The digit (N,) that each training image shows, 0 to 9.
    pub labels: Array1<u8>,
    /// The test images (M, 784), as [`Self::images`].
    pub test_images: Array2<u8>,
    /// The digit (M,) that each test image shows, 0 to 9.
    pub test_labels: Array1<u8>,
}

impl Dataset {
    /// The four files of a folder, which may also lie where torchvision puts them, in `MNIST/raw`, `FashionMNIST/raw` or
    /// `KMNIST/raw` below it.
    ///
    /// # Errors
    /// Names the file, what was expected of it, and what was found.
    pub fn open(folder: &Path) -> Result<Self> {
        ensure!(folder.is_dir(), "--data: {}: a folder with the four MNIST IDX files expected", folder.display());
        let holds = |folder: &PathBuf| ["", ".gz"].iter().any(|end| folder.join(format!("{IMAGES}{end}")).is_file());
        let folder = LAYOUTS.iter().map(|below| folder.join(below)).find(holds).unwrap_or(folder.into());
        let (images, image_file) = read_images(&folder, IMAGES)?;
        let sha256 = image_file.sha256;
        let name = match KNOWN.iter().find(|known| known.sha256 == Some(sha256.as_str())) {
            Some(known) => known.name.to_string(),
            None => {
                let named = folder.parent().filter(|_| folder.ends_with("raw")).unwrap_or(&folder);
                named.file_name().unwrap_or(named.as_os_str()).to_string_lossy().into_owned()
            }
        };
        let labels = read_labels(&folder, "train-labels-idx1-ubyte", images.nrows())?;
        let (test_images, _) = read_images(&folder, "t10k-images-idx3-ubyte")?;
        let test_labels = read_labels(&folder, "t10k-labels-idx1-ubyte", test_images.nrows())?;
        Ok(Self { name, sha256, images, labels, test_images, test_labels })
    }

    /// A published data set, from the cache or downloaded into it.
    ///
    /// # Errors
    /// When it is in neither: the sentence names the ways out.
    pub fn published(known: &Known, offline: bool, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let cache = dirs::cache_dir().context("no folder for caches is known; set XDG_CACHE_HOME or HOME")?;
        let own = std::env::var("MNIST_MIRROR").ok().filter(|mirror| !mirror.is_empty());
        let mirrors = own.map_or(known.mirrors.iter().map(|m| m.to_string()).collect(), |mirror| vec![mirror]);
        Self::published_in(&cache.join("mnist-gan").join(known.name), &mirrors, known, offline, say)
    }

    fn published_in(
        folder: &Path,
        mirrors: &[String],
        known: &Known,
        offline: bool,
        say: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let ways_out = "name a folder with its four IDX files by --data DIR or MNIST_DIR, name a mirror in MNIST_MIRROR, or \
            try everything out on --data demo, which needs no data";
        let missing = known.files.iter().any(|(file, _)| !folder.join(file).exists());
        let absent = format!("--data: {} is not in {}", known.name, folder.display());
        ensure!(!missing || !offline, "{absent}, and --offline forbids downloads; {ways_out}");
        download::fetch(folder, mirrors, &known.files, &Patience::default(), say)
            .map_err(|e| anyhow!("{absent}, and {e:#}; {ways_out}"))?;
        Self::open(folder)
    }

    /// The number of training images, N.
    pub fn len(&self) -> usize {
        self.images.nrows()
    }

    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }
}

/// A published data set of MNIST's shape.
#[derive(Debug, PartialEq, Eq)]
pub struct Known {
    pub name: &'static str,
    /// SHA-256 of the unpacked training images, by which a folder is recognised, where it is known.
    pub sha256: Option<&'static str>,
    pub mirrors: &'static [&'static str],
    pub files: [Pin; 4],
}

const FILES: [&str; 4] = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
];

/// The data sets that `--data` knows by name. Their publishers give MD5 sums at best; the SHA-256 of Fashion-MNIST's and
/// KMNIST's files are those that TensorFlow Datasets checks.
pub static KNOWN: [Known; 3] = [
    Known {
        name: "mnist",
        sha256: Some("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        mirrors: &[
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ],
        files: [
            (FILES[0], "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
            (FILES[1], "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
            (FILES[2], "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
            (FILES[3], "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
        ],
    },
    Known {
        name: "fashion",
        sha256: None,
        mirrors: &[
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ],
        files: [
            (FILES[0], "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
            (FILES[1], "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
            (FILES[2], "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
            (FILES[3], "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
        ],
    },
    Known {
        name: "kmnist",
        sha256: None,
        mirrors: &["http://codh.rois.ac.jp/kmnist/dataset/kmnist/", "https://codh.rois.ac.jp/kmnist/dataset/kmnist/"],
        files: [
            (FILES[0], "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
            (FILES[1], "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
            (FILES[2], "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
            (FILES[3], "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
        ],
    },
];

/// The data set of one of the [`crate::config::PUBLISHED`] names.
pub fn known(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// Where below a folder the files may lie: flat, or as torchvision keeps them.
const LAYOUTS: [&str; 4] = ["", "MNIST/raw", "FashionMNIST/raw", "KMNIST/raw"];
const IMAGES: &str = "train-images-idx3-ubyte";

struct IdxFile {
    path: PathBuf,
    sha256: String,
}

fn read_images(folder: &Path, name: &str) -> Result<(Array2<u8>, IdxFile)> {
    let (pixels, file) = read_idx(folder, name, &[28, 28])?;
    Ok((Array2::from_shape_vec((pixels.len() / PIXELS, PIXELS), pixels)?, file))
}

fn read_labels(folder: &Path, name: &str, images: usize) -> Result<Array1<u8>> {
    let (labels, file) = read_idx(folder, name, &[])?;
    let path = file.path.display();
    ensure!(labels.len() == images, "{path}: a label for each of {images} images expected, {} found", labels.len());
    if let Some(at) = labels.iter().position(|&label| label > 9) {
        bail!("{path}: labels from 0 to 9 expected, {} found at {at}", labels[at]);
    }
    Ok(labels.into())
}

/// The items of an IDX file of unsigned bytes, each of shape `item`.
fn read_idx(folder: &Path, name: &str, item: &[usize]) -> Result<(Vec<u8>, IdxFile)> {
    let (path, mut bytes) = read_file(folder, name)?;
    let shown = path.display();
    let sha256 = hex(&Sha256::digest(&bytes));
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
    Ok((bytes, IdxFile { path, sha256 }))
}

/// The images (n, 784) of an IDX file, raw or gzipped, and its labels, where a file of the labels' name lies beside it.
///
/// # Errors
/// As [`Dataset::open`].
pub fn read_drawn(path: &Path) -> Result<(Array2<u8>, Option<Array1<u8>>)> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_end_matches(".gz");
    let (images, _) = read_images(folder, name)?;
    let labels = name.replace("images", "labels").replace("idx3", "idx1");
    let beside = labels != name && ["", ".gz"].iter().any(|end| folder.join(format!("{labels}{end}")).is_file());
    let labels = beside.then(|| read_labels(folder, &labels, images.nrows())).transpose()?;
    Ok((images, labels))
}

/// The bytes of a file as it stands in the folder, raw, or unpacked from its `.gz`.
fn read_file(folder: &Path, name: &str) -> Result<(PathBuf, Vec<u8>)> {
    let raw = folder.join(name);
    let gz = folder.join(format!("{name}.gz"));
    if raw.is_file() {
        let bytes = fs::read(&raw).with_context(|| format!("{}: cannot be read", raw.display()))?;
        return Ok((raw, bytes));
    }
    ensure!(gz.is_file(), "{}: {name} or {name}.gz expected, neither found", folder.display());
    let packed = fs::read(&gz).with_context(|| format!("{}: cannot be read", gz.display()))?;
    ensure!(!packed.is_empty(), "{}: a gzip file expected, an empty one found", gz.display());
    let mut bytes = vec![];
    MultiGzDecoder::new(&packed[..]).read_to_end(&mut bytes).map_err(|e| {
        let problem = match e.kind() {
            std::io::ErrorKind::UnexpectedEof => format!("it ends early, after {} unpacked bytes", bytes.len()),
            _ => format!("it cannot be unpacked ({e})"),
        };
        anyhow!("{}: a whole gzip file expected, {problem}", gz.display())
    })?;
    Ok((gz, bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

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
        assert_eq!((data.len(), data.labels.to_vec(), data.test_images.dim()), (2, vec![7, 7], (1, PIXELS)));
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
        let (images, labels) = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte");
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
            (|b| b.clear(), "a gzip file expected, an empty one found"),
            (|b| b.truncate(b.len() - 9), "a whole gzip file expected, it ends early, after 1584 unpacked bytes"),
            (|b| b[0] = 0, "a whole gzip file expected, it cannot be unpacked (invalid gzip header)"),
            (|b| *b.iter_mut().nth_back(7).unwrap() ^= 1, "a whole gzip file expected, it cannot be unpacked (corrupt"),
            (|b| b.extend([7; 20]), "a whole gzip file expected, it cannot be unpacked (invalid gzip header)"),
        ];
        let folder = small();
        let raw = folder.path().join(IMAGES);
        let gz = raw.with_added_extension("gz");
        let mut packer = flate2::read::GzEncoder::new(fs::File::open(&raw).unwrap(), Default::default());
        let mut packed = vec![];
        packer.read_to_end(&mut packed).unwrap();
        let images = Dataset::open(folder.path()).unwrap().images;
        fs::remove_file(raw).unwrap();
        fs::write(&gz, &packed).unwrap();
        assert_eq!(Dataset::open(folder.path()).unwrap().images, images);
        for (spoil, expected) in cases {
            let mut bytes = packed.clone();
            spoil(&mut bytes);
            fs::write(&gz, bytes).unwrap();
            let error = Dataset::open(folder.path()).err().expect("an error").to_string();
            assert!(error.starts_with(&format!("{}: {expected}", gz.display())), "{error}");
        }
    }

    #[test]
    fn a_published_data_set_comes_from_a_mirror_once_and_from_the_cache_ever_after() {
        // A mirror of four small files, gzipped.
        let published = small();
        let mut files = vec![];
        for gz in FILES {
            let raw = fs::File::open(published.path().join(gz.trim_end_matches(".gz"))).unwrap();
            let mut packed = vec![];
            flate2::read::GzEncoder::new(raw, Default::default()).read_to_end(&mut packed).unwrap();
            files.push((gz, packed));
        }
        let digests: Vec<&str> = files.iter().map(|(_, packed)| &*hex(&Sha256::digest(packed)).leak()).collect();
        let pins = std::array::from_fn(|i| (FILES[i], digests[i]));
        let known = Known { name: "small", sha256: None, mirrors: &[], files: pins };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mirror = format!("http://{}/below/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 1000];
                let n = stream.read(&mut request).unwrap();
                let asked = String::from_utf8_lossy(&request[..n]).into_owned();
                let (_, packed) = files.iter().find(|(gz, _)| asked.starts_with(&format!("GET /below/{gz} "))).unwrap();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", packed.len());
                stream.write_all(&[head.as_bytes(), packed].concat()).unwrap();
            }
        });

        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("mnist-gan/small");
        let open = |mirrors: &[String], offline, said: &mut u32| {
            Dataset::published_in(&folder, mirrors, &known, offline, &mut |_| *said += 1)
        };
        let mut said = 0;
        let error = open(&[], true, &mut said).err().unwrap().to_string();
        assert!(error.contains("small is not in ") && error.contains("--offline forbids downloads"), "{error}");
        let data = open(&[mirror], false, &mut said).unwrap();
        assert_eq!((data.images, said), (Dataset::open(published.path()).unwrap().images, 4));
        let again = open(&[], true, &mut said).unwrap();
        assert_eq!((again.name.as_str(), again.len(), said), ("small", 2, 4));
    }
}
