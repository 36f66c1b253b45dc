//! Finds ONNX Runtime's shared library on this machine, or fetches it with pip.

use std::fs;
use std::io::IsTerminal;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::{clients, files};

/// A file that may be ONNX Runtime's library. It is not loaded yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Absolute path of the file.
    pub path: PathBuf,
    /// Where it was found, in words for the user.
    pub source: String,
}

/// The libraries to try, in this order: only the file in `ORT_DYLIB_PATH` if that is set; otherwise those of the installed Python
/// package (`onnxruntime` or `onnxruntime-gpu`), of the system and of the cache. The last item is fetched when the iterator
/// reaches it, unless `offline`. If `cuda` is wanted, libraries with a CUDA provider beside them come first.
///
/// # Errors
/// The last item is an error if nothing can be fetched. It names the ways out.
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
        // The user fetched the CUDA library on purpose, so it comes first.
        found.extend(CUDA.cached().filter(|_| cuda));
        found.extend(python_package());
        found.extend(system());
        found.extend(CPU.cached());
        found.extend(CUDA.cached().filter(|_| !cuda));
        found.sort_by_key(|candidate| cuda && !has_cuda(&candidate.path));
        fetched = Some(iter::once_with(move || CPU.fetch(offline, say)));
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
}

/// ONNX Runtime for the CPU.
pub const CPU: PinnedWheel = PinnedWheel {
    name: "ONNX Runtime 1.31.1",
    absent: "no usable ONNX Runtime found on this machine",
    folder: "onnxruntime-1.31.1",
    lock: include_str!("../../onnxruntime.lock"),
    size: "24 MB",
};

/// ONNX Runtime for the CPU and CUDA, with the CUDA libraries that its provider needs.
pub const CUDA: PinnedWheel = PinnedWheel {
    name: "ONNX Runtime 1.31.1 with CUDA",
    absent: "no ONNX Runtime with CUDA found in the cache",
    folder: "onnxruntime-1.31.1-cuda",
    // Not `onnxruntime-gpu[cuda]`: that extra lacks cuBLAS.
    lock: include_str!("../../onnxruntime-cuda.lock"),
    size: "740 MB, 1 GB unpacked",
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

fn library_in(folder: &Path) -> Option<PathBuf> {
    let mut libraries: Vec<PathBuf> = (fs::read_dir(folder).ok()?.flatten())
        .filter(|entry| entry.file_name().to_str().is_some_and(is_library))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    libraries.sort();
    libraries.pop()
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

/// The folders from which the Python of `PATH` imports `onnxruntime` and `nvidia`. Nothing is imported to find out.
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

fn python_package() -> Option<Candidate> {
    let package = python_packages()[0].first()?;
    let path = library_in(&package.join("capi"))?;
    let version = distribution(package).unwrap_or("onnxruntime".into());
    Some(Candidate { path, source: format!("Python package {version}") })
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

fn system() -> Option<Candidate> {
    let given = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/opt/homebrew/lib"].map(PathBuf::from);
    let multiarch = PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let folders = std::env::split_paths(&given).chain(usual).chain([multiarch]);
    let mut libraries = folders.filter_map(|folder| library_in(&folder));
    libraries.next().map(|path| Candidate { path, source: "system library".into() })
}

impl PinnedWheel {
    /// Packages with their versions, as `pip install` takes them.
    fn packages(&self) -> Vec<&'static str> {
        let pins = self.lock.lines().filter(|line| line.contains("=="));
        pins.filter_map(|line| line.split(' ').next()).collect()
    }

    /// The library in the cache, if it was fetched before.
    pub fn cached(&self) -> Option<Candidate> {
        let path = library_in(&files::cache().ok()?.join(self.folder))?;
        Some(Candidate { path, source: format!("{} from the cache", self.name) })
    }

    /// Downloads the pinned wheels with pip and unpacks their libraries into the cache. pip checks the wheels' hashes.
    ///
    /// # Errors
    /// When `offline` forbids it, there is no wheel for this platform, or pip fails. The sentence names the ways out.
    pub fn fetch(&self, offline: bool, say: &mut dyn FnMut(&str)) -> Result<Candidate> {
        let (Self { name, absent, size, .. }, packages) = (self, self.packages().join(" "));
        let ways_out = format!(
            "set ORT_DYLIB_PATH to its library, install it with `pip install {packages}`, or run once without --offline \
             where pip reaches a package index"
        );
        ensure!(!offline, "{absent}, and --offline forbids fetching it; {ways_out}");
        let cache = files::cache()?.join(self.folder);
        say(&format!("{absent}; fetching {name} (about {size}) with pip"));
        (self.download_into(&cache))
            .map_err(|problem| anyhow!("{absent}, and fetching it failed ({problem:#}); {ways_out}"))?;
        say(&format!("{name} is now in {}", cache.display()));
        self.cached().with_context(|| format!("{}: the fetched wheel holds no library", cache.display()))
    }

    fn download_into(&self, cache: &Path) -> Result<()> {
        let parent = cache.parent().context("a cache folder with a parent expected")?;
        let work = clients::private_folder(parent)?;
        let lock = work.path().join("onnxruntime.lock");
        fs::write(&lock, self.lock).with_context(|| files::cannot_write(&lock))?;
        let platforms = match (std::env::consts::OS, std::env::consts::ARCH) {
            _ if cfg!(target_env = "musl") => bail!("there is no wheel of it for musl"),
            (os, "aarch64") if *self == CUDA => bail!("there is no wheel of it for {os} on aarch64"),
            ("linux", "x86_64") => "manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux2014_x86_64",
            ("linux", "aarch64") => "manylinux_2_28_aarch64",
            ("macos", "aarch64") => "macosx_14_0_arm64",
            ("windows", "x86_64") => "win_amd64",
            ("windows", "aarch64") => "win_arm64",
            (os, arch) => bail!("there is no wheel of it for {os} on {arch}"),
        };
        let (name, mut pip) = clients::pip(work.path())
            .context("neither `python3 -m pip` nor `python -m pip`, `pip3` or `pip` works here")?;
        // The wheel for one version of Python serves every version: only the libraries in it are used.
        let options = "download --disable-pip-version-check --no-input --no-deps --only-binary=:all: \
            --python-version 3.12 --implementation cp --abi cp312 --require-hashes";
        pip.args(options.split_whitespace()).arg("-d").arg(work.path()).arg("-r").arg(&lock);
        platforms.split(' ').for_each(|platform| _ = pip.args(["--platform", platform]));
        // pip draws its own progress bar on standard output.
        if *self == CUDA && std::io::stderr().is_terminal() {
            pip.stdout(std::io::stderr());
        } else {
            pip.arg("--quiet");
        }
        clients::run(&mut pip, work.path(), &mut || true).context(name)?;
        unpack(work.path(), cache)
    }
}

/// Unpacks the libraries of the wheels in `work` into a new folder and renames that folder to `cache`.
fn unpack(work: &Path, cache: &Path) -> Result<()> {
    let folder = work.join("unpacked");
    fs::create_dir(&folder)?;
    let files = fs::read_dir(work)?.flatten().map(|entry| entry.path());
    for wheel in files.filter(|path| path.extension().is_some_and(|extension| extension == "whl")) {
        let mut archive = zip::ZipArchive::new(fs::File::open(&wheel)?).context("the wheel is no zip file")?;
        for i in 0..archive.len() {
            let mut file = archive.by_index(i).context("the wheel is damaged")?;
            let name = file.name()?.rsplit('/').next().unwrap_or_default().to_string();
            if is_wanted(&name) {
                let mut target = fs::File::create(folder.join(&name))?;
                std::io::copy(&mut file, &mut target).context("the wheel is damaged")?;
                target.sync_all()?;
            }
        }
    }
    ensure!(library_in(&folder).is_some(), "pip left no wheel with the library");
    match fs::rename(&folder, cache) {
        Err(_) if library_in(cache).is_some() => Ok(()), // another trainer has made it meanwhile
        result => result.with_context(|| format!("{}: cannot be created", cache.display())),
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
