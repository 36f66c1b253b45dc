//! Finds ONNX Runtime's shared library on this machine, or fetches it with pip.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fs;
use std::io::IsTerminal;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::ort::unpacked;
use crate::{cache, clients, files};

/// A file that may be ONNX Runtime's library. It is not loaded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Absolute path of the file.
    pub path: PathBuf,
    /// Where it was found, in words for the user.
    pub source: String,
}

/// The libraries to try, in this order: only the file in `ORT_DYLIB_PATH` if that is set; otherwise those of the installed Python
/// packages (`onnxruntime` or `onnxruntime-gpu`), of the system and of the cache, each with the newest version first. The last
/// item is fetched when the iterator reaches it, unless `offline` or the cache has it. If `cuda` is wanted, libraries with a
/// CUDA provider beside them come first.
///
/// # Errors
/// The last item is an error if nothing can be fetched. It says what to do.
pub fn locate(cuda: bool, offline: bool, say: &mut dyn FnMut(&str)) -> impl Iterator<Item = Result<Candidate>> {
    let given = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(|path| {
        // An absolute path, because the loader looks for a bare file name in the system's folders only.
        let path = std::path::absolute(&path).unwrap_or(path.into());
        let shown = path.display();
        ensure!(path.is_file(), "ORT_DYLIB_PATH: ONNX Runtime's library expected, no file {shown} found");
        Ok(Candidate { path, source: "ORT_DYLIB_PATH".into() })
    });
    let (mut found, mut fetched) = (vec![], None);
    if given.is_none() {
        let [cpu_copy, cuda_copy] = [CPU, CUDA].map(|wheel| wheel.cached().ok().flatten());
        let is_fetched = cpu_copy.is_some();
        // The user fetched the CUDA library on purpose, so it comes first.
        found.extend(cuda_copy.clone().filter(|_| cuda));
        found.extend(python_package());
        found.extend(system());
        found.extend(cpu_copy);
        found.extend(cuda_copy.filter(|_| !cuda));
        found.sort_by_key(|candidate| cuda && !has_cuda(&candidate.path));
        fetched = (!is_fetched).then(|| iter::once_with(move || CPU.fetch(offline, say)));
    }
    given.into_iter().chain(found.into_iter().map(Ok)).chain(fetched.into_iter().flatten())
}

/// A pinned version of ONNX Runtime on Python's package index, with the packages that its library needs.
#[derive(PartialEq, Eq)]
pub struct PinnedWheel {
    /// Name for the user.
    name: &'static str,
    /// Beginning of the message when it is missing.
    absent: &'static str,
    /// Name of its folder in the cache.
    folder: &'static str,
    /// Packages, versions and the hashes of their wheels, in pip's format.
    lock: &'static str,
    /// Size of the download, for the user.
    size: &'static str,
    /// The most bytes that pip may write, with its temporary copies.
    max_bytes: u64,
}

/// ONNX Runtime for the CPU.
pub const CPU: PinnedWheel = PinnedWheel {
    name: "ONNX Runtime 1.31.1",
    absent: "no usable ONNX Runtime found on this machine",
    folder: "onnxruntime-1.31.1",
    lock: include_str!("../../onnxruntime.lock"),
    size: "24 MB",
    max_bytes: 200_000_000,
};

/// ONNX Runtime for the CPU and CUDA, with the CUDA libraries that its provider needs.
pub const CUDA: PinnedWheel = PinnedWheel {
    name: "ONNX Runtime 1.31.1 with CUDA",
    absent: "no ONNX Runtime with CUDA found in the cache",
    folder: "onnxruntime-1.31.1-cuda",
    // Not `onnxruntime-gpu[cuda]`: that extra lacks cuBLAS.
    lock: include_str!("../../onnxruntime-cuda.lock"),
    size: "740 MB, 1 GB unpacked",
    max_bytes: 4_000_000_000,
};

/// The CUDA libraries that ONNX Runtime's CUDA provider is linked with. Each comes after the libraries that it needs itself.
#[cfg(not(windows))]
pub const CUDA_LIBRARIES: &[&str] = &["libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13", "libcurand.so.10"];
#[cfg(windows)]
pub const CUDA_LIBRARIES: &[&str] = &["cudart64_13.dll", "cublasLt64_13.dll", "cublas64_13.dll"];

fn is_library(name: &str) -> bool {
    let unix =
        name.starts_with("libonnxruntime.so") || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"));
    unix || name == "onnxruntime.dll"
}

fn is_named_library(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(is_library)
}

/// The libraries in these folders, the newest version first.
fn libraries_in(folders: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let files = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let mut libraries: Vec<PathBuf> =
        files.map(|entry| entry.path()).filter(|path| is_named_library(path) && path.is_file()).collect();
    libraries.sort_by_cached_key(|path| Reverse(version(path)));
    // A library often has links of other names beside it.
    let mut seen = HashSet::new();
    libraries.retain(|path| seen.insert(fs::canonicalize(path).unwrap_or(path.clone())));
    libraries
}

/// The version in a library's file name as numbers, or in the name of the file that it links to. Empty if there is none.
fn version(library: &Path) -> Vec<u64> {
    let file = fs::canonicalize(library).unwrap_or(library.into());
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Whether a CUDA provider lies beside ONNX Runtime's library.
pub fn has_cuda(library: &Path) -> bool {
    library.with_file_name("libonnxruntime_providers_cuda.so").exists()
        || library.with_file_name("onnxruntime_providers_cuda.dll").exists()
}

/// The paths where one of [`CUDA_LIBRARIES`] exists: beside ONNX Runtime's library, or in Python's `nvidia` packages, which
/// PyTorch installs.
pub fn cuda_library(library: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let beside = library.parent().map(PathBuf::from);
    let nvidia = iter::once_with(|| &python_packages()[1]).flatten();
    let packages = nvidia.filter_map(|nvidia| fs::read_dir(nvidia).ok());
    let packages = packages
        .flatten()
        .flatten()
        .flat_map(|package| ["lib", "bin", "bin/x86_64"].map(|libraries| package.path().join(libraries)));
    beside.into_iter().chain(packages).map(move |folder| folder.join(name)).filter(|path| path.is_file())
}

/// The folders from which the Python beside the program, or else the first of `PATH`, imports `onnxruntime` and `nvidia`.
/// Nothing is imported to find out.
fn python_packages() -> &'static [Vec<PathBuf>; 2] {
    static ANSWER: OnceLock<[Vec<PathBuf>; 2]> = OnceLock::new();
    // Python runs isolated, so the places that PYTHONPATH and the user add are put back, but no relative ones.
    let ask = "import sys, os, site\n\
        from importlib.machinery import PathFinder\n\
        path = os.environ.get('PYTHONPATH', '').split(os.pathsep) + sys.path\n\
        path += [site.getusersitepackages()] if sys.prefix == sys.base_prefix else []\n\
        path = [p for p in path if os.path.isabs(p)]\n\
        for name in ('onnxruntime', 'nvidia'):\n    \
            spec = PathFinder.find_spec(name, path)\n    \
            print(*(spec and spec.submodule_search_locations or ()), sep=os.pathsep)";
    ANSWER.get_or_init(|| {
        let answer = clients::python(ask);
        let mut lines = answer.lines();
        [(); 2].map(|()| {
            let folders = std::env::split_paths(lines.next().unwrap_or_default());
            folders.filter(|folder| folder.is_absolute()).collect()
        })
    })
}

fn python_package() -> Vec<Candidate> {
    let libraries = libraries_in(python_packages()[0].iter().map(|package| package.join("capi")));
    let candidates = libraries.into_iter().map(|path| {
        let version = path.ancestors().nth(2).and_then(distribution).unwrap_or("onnxruntime".into());
        Candidate { path, source: format!("Python package {version}") }
    });
    candidates.collect()
}

/// Name and version of the distribution that an installed package belongs to.
fn distribution(package: &Path) -> Option<String> {
    let beside = fs::read_dir(package.parent()?).ok()?.flatten();
    let mut names = beside.filter_map(|entry| entry.file_name().into_string().ok());
    names.find_map(|name| {
        let (name, version) = name.strip_suffix(".dist-info")?.split_once('-')?;
        ["onnxruntime", "onnxruntime_gpu"].contains(&name).then(|| format!("{name} {version}").replace('_', "-"))
    })
}

fn system() -> Vec<Candidate> {
    let given = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/opt/homebrew/lib"].map(PathBuf::from);
    let multiarch = PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    // A relative folder depends on the current one, where anybody's files may be.
    let given = std::env::split_paths(&given).filter(|folder| folder.is_absolute());
    let libraries = libraries_in(given.chain(usual).chain([multiarch]));
    libraries.into_iter().map(|path| Candidate { path, source: "system library".into() }).collect()
}

impl PinnedWheel {
    /// Packages with their versions, as `pip install` takes them.
    fn packages(&self) -> Vec<&'static str> {
        let pins = self.lock.lines().filter(|line| line.contains("=="));
        pins.filter_map(|line| line.split(' ').next()).collect()
    }

    /// The library in the cache, if it was fetched before and is as it was unpacked.
    ///
    /// # Errors
    /// When the cache is not this user's alone, or a file in it is not as it was unpacked.
    pub fn cached(&self) -> Result<Option<Candidate>> {
        let folder = cache::folder(self.folder)?;
        if !folder.exists() {
            return Ok(None);
        }
        let path = unpacked::check(&folder)?
            .into_iter()
            .filter(|path| is_named_library(path))
            .max_by_key(|path| version(path));
        let path = path.with_context(|| format!("{}: it holds no library", folder.display()))?;
        Ok(Some(Candidate { path, source: format!("{} from the cache", self.name) }))
    }

    /// Downloads the pinned wheels with pip and unpacks their libraries into the cache. Their hashes are checked.
    ///
    /// # Errors
    /// When `offline` forbids it, there is no wheel for this platform, or pip fails. The sentence says what to do.
    pub fn fetch(&self, offline: bool, say: &mut dyn FnMut(&str)) -> Result<Candidate> {
        let (Self { name, size, .. }, packages) = (self, self.packages().join(" "));
        let absent = match self.cached() {
            Err(problem) => format!("{} ({problem:#})", self.absent),
            Ok(_) => self.absent.to_string(),
        };
        ensure!(
            !offline,
            "{absent}, and --offline forbids fetching it; set ORT_DYLIB_PATH to its library, install it with `pip install \
             {packages}`, or run once without --offline"
        );
        say(&format!("{absent}; fetching {name} (about {size}) with pip"));
        let fetched = self.fetch_into_cache(say).map_err(|problem| {
            let problem = format!("{problem:#}");
            let advice = advice(&problem);
            anyhow!("{absent}, and fetching it failed ({problem}); {advice}set ORT_DYLIB_PATH to its library")
        })?;
        say(&format!("{name} is now in {}", fetched.path.with_file_name("").display()));
        Ok(fetched)
    }

    /// Fetches the wheels while other trainers that need them wait.
    fn fetch_into_cache(&self, say: &mut dyn FnMut(&str)) -> Result<Candidate> {
        let folder = cache::folder(self.folder)?;
        let cache = folder.parent().context("a cache folder with a parent expected")?;
        let lock = cache::lock(cache, || say("waiting for another trainer, which fetches ONNX Runtime"))?;
        if let Ok(Some(fetched)) = self.cached() {
            return Ok(fetched); // by another trainer meanwhile
        }
        cache::remove_leftovers(cache);
        let done = self.download_into(&folder);
        if done.is_err() {
            cache::remove_if_empty(cache);
        }
        drop(lock);
        done?;
        self.cached()?.with_context(|| format!("{}: another program changes the files there", folder.display()))
    }

    fn download_into(&self, folder: &Path) -> Result<()> {
        let work = cache::private_folder(folder.parent().context("a folder with a parent expected")?)?;
        let lock = work.path().join("onnxruntime.lock");
        fs::write(&lock, self.lock).with_context(|| files::cannot_write(&lock))?;
        let platforms = match (std::env::consts::OS, std::env::consts::ARCH) {
            _ if cfg!(target_env = "musl") => bail!("{NO_WHEEL} musl"),
            (os, "aarch64") if *self == CUDA => bail!("{NO_WHEEL} {os} on aarch64"),
            ("linux", "x86_64") => "manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux2014_x86_64",
            ("linux", "aarch64") => "manylinux_2_28_aarch64",
            ("macos", "aarch64") => "macosx_14_0_arm64",
            ("windows", "x86_64") => "win_amd64",
            ("windows", "aarch64") => "win_arm64",
            (os, arch) => bail!("{NO_WHEEL} {os} on {arch}"),
        };
        let (name, mut pip) = clients::pip(work.path())?;
        // The wheel for one version of Python serves every version: only the libraries in it are used.
        let options = "download --disable-pip-version-check --no-input --no-deps --only-binary=:all: \
            --python-version 3.12 --implementation cp --abi cp312 --require-hashes";
        pip.args(options.split_whitespace()).arg("-d").arg(work.path()).arg("-r").arg(&lock);
        platforms.split(' ').for_each(|platform| _ = pip.args(["--platform", platform]));
        // pip draws its progress bar on standard output, and tells there what is wrong with a certificate.
        let log = work.path().join("stdout");
        if *self == CUDA && std::io::stderr().is_terminal() {
            pip.stdout(std::io::stderr());
        } else {
            pip.args(["--progress-bar", "off"]).stdout(fs::File::create(&log)?);
        }
        let (mut largest, mut grown) = (0, Instant::now());
        let go_on = &mut || {
            let size = cache::size(work.path());
            if size > largest {
                (largest, grown) = (size, Instant::now());
            }
            ensure!(grown.elapsed() < SILENCE, "nothing came within {} s", SILENCE.as_secs());
            ensure!(size < self.max_bytes, "at most {} bytes expected, more came", self.max_bytes);
            Ok(())
        };
        clients::run(&mut pip, work.path(), go_on).with_context(|| {
            let advice = clients::certificate_advice(&fs::read_to_string(&log).unwrap_or_default());
            advice.map_or(name.to_string(), |advice| format!("{name} ({advice})"))
        })?;
        self.unpack(work.path(), folder)
    }

    /// Unpacks the libraries of the wheels in `work` into a new folder and renames that folder to `folder`.
    fn unpack(&self, work: &Path, folder: &Path) -> Result<()> {
        let new = work.join("unpacked");
        cache::create(&new)?;
        let files = fs::read_dir(work)?.flatten().map(|entry| entry.path());
        for wheel in files.filter(|path| path.extension().is_some_and(|extension| extension == "whl")) {
            let found = unpacked::sha256(&wheel)?;
            let shown = wheel.file_name().unwrap_or_default().display();
            ensure!(
                self.lock.contains(&format!("sha256:{found}")),
                "{shown}: a pinned SHA-256 expected, {found} found"
            );
            let mut archive = zip::ZipArchive::new(fs::File::open(&wheel)?).context("the wheel is no zip file")?;
            for i in 0..archive.len() {
                let mut file = archive.by_index(i).context("the wheel is damaged")?;
                let name = file.name()?.rsplit('/').next().unwrap_or_default().to_string();
                if is_wanted(&name) {
                    let mut target = fs::File::create(new.join(&name))?;
                    std::io::copy(&mut file, &mut target).context("the wheel is damaged")?;
                    target.sync_all()?;
                }
            }
        }
        unpacked::record(&new)?;
        if folder.exists() {
            // Programs that have loaded the old library keep it until they end.
            fs::rename(folder, work.join("old")).with_context(|| format!("{}: cannot be moved", folder.display()))?;
        }
        fs::rename(&new, folder).with_context(|| format!("{}: cannot be created", folder.display()))
    }
}

/// Beginning of the problem that a platform has no wheel.
const NO_WHEEL: &str = "there is no wheel of it for";

/// Time without a new byte after which pip is stopped. pip gives up by itself before, after five tries of 15 s.
const SILENCE: Duration = Duration::from_secs(180);

/// What to do about a problem of pip, as the beginning of a sentence.
fn advice(problem: &str) -> &'static str {
    let has_advice = ["SSL_CERT_FILE", "install pip", "pip 20.3"].iter().any(|words| problem.contains(words));
    if has_advice {
        "or "
    } else if problem.contains("activated virtualenv") {
        // The user allows pip only in a virtual environment, so pip is not told otherwise.
        "activate a virtual environment, which PIP_REQUIRE_VIRTUALENV or pip's settings ask for, or "
    } else if problem.contains("HASHES") || problem.contains("SHA-256") {
        "name another package index in PIP_INDEX_URL, or "
    } else if problem.contains("No matching distribution") {
        "run again where pip reaches a package index, name one in PIP_INDEX_URL, or "
    } else {
        ""
    }
}

/// Whether a file of a wheel is needed, by its name.
fn is_wanted(name: &str) -> bool {
    let providers = ["onnxruntime_providers_shared.", "onnxruntime_providers_cuda."];
    is_library(name) || providers.iter().any(|provider| name.contains(provider)) || CUDA_LIBRARIES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_are_the_locks() {
        for wheel in [CPU, CUDA] {
            let version = wheel.packages()[0].split_once("==").unwrap().1;
            assert!(wheel.name.contains(version) && wheel.folder.contains(version), "{}", wheel.name);
            for pin in wheel.packages() {
                assert!(include_str!("../../pyproject.toml").contains(&format!("\"{pin}")), "{pin} in pyproject.toml");
            }
        }
    }

    #[test]
    fn the_newest_version_of_all_folders_comes_first_and_versions_are_numbers() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for name in ["a/libonnxruntime.so.1.9.0", "b/libonnxruntime.so.1.31.1", "b/libonnxruntime.so", "a/other.so.2"] {
            fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            fs::write(path(name), "").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("libonnxruntime.so.1.9.0", path("a/libonnxruntime.so.1")).unwrap();
        let found = libraries_in(["missing", "a", "b"].map(path).into_iter());
        let names: Vec<_> = found.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0] == "libonnxruntime.so.1.31.1" && names[1].starts_with("libonnxruntime.so.1"), "{names:?}");
    }

    #[test]
    fn only_onnx_runtime_itself_counts_as_its_library() {
        for name in ["libonnxruntime.so", "libonnxruntime.so.1.31.1", "libonnxruntime.1.31.1.dylib", "onnxruntime.dll"]
        {
            assert!(is_library(name), "{name}");
        }
        for name in ["libonnxruntime_providers_shared.so", "onnxruntime_pybind11_state.so", "libonnxruntime.pc", ""] {
            assert!(!is_library(name), "{name}");
        }
    }
}
