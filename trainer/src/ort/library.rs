//! Where ONNX Runtime's shared library is: on this machine already, or fetched with pip.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};

/// A library that may serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub path: PathBuf,
    /// How it was found, for people.
    pub source: String,
}

/// The libraries to try, in order: `ORT_DYLIB_PATH` alone where it is set; else that of an installed Python package
/// (`onnxruntime` or `onnxruntime-gpu`), of the system, of our cache, and last, unless `offline`, one that is fetched
/// when the iterator comes to it. Where `cuda` is wanted, those with a CUDA provider beside them come first.
///
/// # Errors
/// The iterator's last item is an error that names the ways out.
pub fn locate(cuda: bool, offline: bool, say: &mut dyn FnMut(&str)) -> impl Iterator<Item = Result<Candidate>> {
    let mut found = vec![];
    let mut last = None;
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        // Absolute, for a loader looks for a mere name in the system's folders.
        let path = std::path::absolute(&path).unwrap_or(path.into());
        if path.is_file() {
            found.push(Candidate { path, source: "ORT_DYLIB_PATH".into() });
        } else {
            last =
                Some(Err(anyhow!("ORT_DYLIB_PATH: ONNX Runtime's library expected, no file {} found", path.display())));
        }
    } else {
        // Whoever fetched it wants it to be used.
        found.extend(CUDA.cached().filter(|_| cuda));
        found.extend(python_package());
        found.extend(system());
        found.extend(CPU.cached());
        found.extend(CUDA.cached().filter(|_| !cuda));
        found.sort_by_key(|candidate| cuda && !has_cuda(&candidate.path));
        last = Some(Ok(()));
    }
    let last = last.into_iter().map(move |last: Result<()>| last.and_then(|()| CPU.fetch(offline, say)));
    found.into_iter().map(Ok).chain(last)
}

/// What can be fetched of the pinned version.
#[derive(PartialEq, Eq)]
pub struct Build {
    name: &'static str,
    /// What is said where it is not to be had.
    absent: &'static str,
    folder: &'static str,
    /// What pip would install for the same.
    packages: &'static str,
    /// The hashes of their wheels.
    lock: &'static str,
    size: &'static str,
}

pub const CPU: Build = Build {
    name: "ONNX Runtime 1.31.1",
    absent: "no usable ONNX Runtime found on this machine",
    folder: "onnxruntime-1.31.1",
    packages: "onnxruntime==1.31.1",
    lock: include_str!("../../onnxruntime.lock"),
    size: "24 MB",
};

/// With the CUDA libraries that its provider needs.
pub const CUDA: Build = Build {
    name: "ONNX Runtime 1.31.1 with CUDA",
    absent: "no ONNX Runtime with CUDA found in the cache",
    folder: "onnxruntime-1.31.1-cuda",
    // Its own extra `cuda` forgets cuBLAS.
    packages: "onnxruntime-gpu==1.31.1 nvidia-cuda-runtime==13.0.96 nvidia-cublas==13.1.0.3 nvidia-curand==10.4.0.35",
    lock: include_str!("../../onnxruntime-cuda.lock"),
    size: "740 MB, 1 GB unpacked",
};

/// The libraries of CUDA that its provider is linked with, each after those that it needs itself.
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

/// Whether a CUDA provider is beside ONNX Runtime's library.
pub fn has_cuda(library: &Path) -> bool {
    library.with_file_name("libonnxruntime_providers_cuda.so").exists()
        || library.with_file_name("onnxruntime_providers_cuda.dll").exists()
}

/// Where one of [`CUDA_LIBRARIES`] is: beside ONNX Runtime's own, and in the `nvidia` packages of the Python here, as those
/// that PyTorch brings along.
pub fn cuda_library(library: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let beside = library.parent().map(PathBuf::from);
    let packages = std::iter::once_with(|| &python()[1]).flatten().filter_map(|nvidia| fs::read_dir(nvidia).ok());
    let packages = packages
        .flatten()
        .flatten()
        .flat_map(|package| ["lib", "bin", "bin/x86_64"].map(|libraries| package.path().join(libraries)));
    beside.into_iter().chain(packages).map(move |folder| folder.join(name)).filter(|path| path.is_file())
}

/// Where the Python here would import `onnxruntime` and `nvidia` from; it imports nothing. A package in the current folder
/// does not count, for whoever filled that folder need not be trusted.
fn python() -> &'static [Vec<PathBuf>; 2] {
    static ANSWER: OnceLock<[Vec<PathBuf>; 2]> = OnceLock::new();
    let ask = "import sys, os, importlib.util as u; sys.path = [p for p in sys.path if p]; \
        specs = [u.find_spec(n) for n in ('onnxruntime', 'nvidia')]; \
        [print(*(s and s.submodule_search_locations or ()), sep=os.pathsep) for s in specs]";
    ANSWER.get_or_init(|| {
        // The first that runs and no other, for starting a Python is a good part of the trainer's own start.
        let answer = ["python3", "python"].into_iter().find_map(|python| {
            let answer = Command::new(python).args(["-c", ask]).stdin(Stdio::null()).stderr(Stdio::null()).output();
            answer.ok().filter(|answer| answer.status.success())
        });
        let answer = answer.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned()).unwrap_or_default();
        let mut lines = answer.lines();
        [(); 2].map(|()| {
            let folders = std::env::split_paths(lines.next().unwrap_or_default());
            folders.filter(|folder| folder.is_absolute()).collect()
        })
    })
}

fn python_package() -> Option<Candidate> {
    let package = python()[0].first()?;
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

impl Build {
    /// Our own copy's folder, in the platform's place for caches.
    fn cache(&self) -> Result<PathBuf> {
        let cache = dirs::cache_dir().context("no folder for caches is known; set XDG_CACHE_HOME or HOME")?;
        Ok(cache.join("mnist-gan").join(self.folder))
    }

    pub fn cached(&self) -> Option<Candidate> {
        let path = library_in(&self.cache().ok()?)?;
        Some(Candidate { path, source: format!("{} from the cache", self.name) })
    }

    /// Downloads the pinned wheels with pip and unpacks their libraries into the cache. It is pip that checks the wheels'
    /// hashes.
    pub fn fetch(&self, offline: bool, say: &mut dyn FnMut(&str)) -> Result<Candidate> {
        let Self { name, absent, packages, size, .. } = self;
        let ways_out = format!(
            "set ORT_DYLIB_PATH to its library, install it with `pip install {packages}`, or run once without --offline \
             where pip reaches a package index"
        );
        ensure!(!offline, "{absent}, and --offline forbids fetching it; {ways_out}");
        let cache = self.cache()?;
        say(&format!("{absent}; fetching {name} (about {size}) with pip"));
        (self.download_into(&cache))
            .map_err(|problem| anyhow!("{absent}, and fetching it failed ({problem:#}); {ways_out}"))?;
        say(&format!("{name} is now in {}", cache.display()));
        self.cached().with_context(|| format!("{}: the fetched wheel holds no library", cache.display()))
    }

    fn download_into(&self, cache: &Path) -> Result<()> {
        let parent = cache.parent().context("a cache folder with a parent expected")?;
        fs::create_dir_all(parent).with_context(|| format!("{}: cannot be made", parent.display()))?;
        let work = tempfile::tempdir_in(parent).with_context(|| format!("{}: cannot be written", parent.display()))?;
        let lock = work.path().join("onnxruntime.lock");
        fs::write(&lock, self.lock).with_context(|| format!("{}: cannot be written", lock.display()))?;
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
        let (name, mut pip) =
            pip().context("neither `python3 -m pip` nor `python -m pip`, `pip3` or `pip` works here")?;
        // The wheel of one Python serves whatever Python is here, for only the libraries in it are used.
        let options = "download --disable-pip-version-check --no-input --no-deps --only-binary=:all: \
            --python-version 3.12 --implementation cp --abi cp312 --require-hashes";
        pip.args(options.split_whitespace()).arg("-d").arg(work.path()).arg("-r").arg(&lock);
        platforms.split(' ').for_each(|platform| _ = pip.args(["--platform", platform]));
        // pip has a bar of its own, for those who see it.
        if *self == CUDA && std::io::stderr().is_terminal() {
            pip.stdout(std::io::stderr());
        } else {
            pip.arg("--quiet").stdout(Stdio::null());
        }
        let output = pip.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?.wait_with_output()?;
        ensure!(output.status.success(), "{name}: {}", last_error(&String::from_utf8_lossy(&output.stderr)));
        unpack(work.path(), cache)
    }
}

/// The first pip that runs, and what it is called.
fn pip() -> Option<(String, Command)> {
    ["python3 -m pip", "python -m pip", "pip3", "pip"].into_iter().find_map(|name| {
        let command = || {
            let mut words = name.split(' ');
            let mut command = Command::new(words.next().unwrap_or_default());
            command.args(words);
            command
        };
        let version = command().arg("--version").stdin(Stdio::null()).output().ok()?;
        version.status.success().then(|| (name.into(), command()))
    })
}

/// pip's last error, whose lines may be several, in one; else the last line that it printed.
fn last_error(stderr: &str) -> String {
    let error = stderr.rfind("ERROR: ").map(|at| &stderr[at..]);
    let last = error.or(stderr.trim_end().lines().last()).unwrap_or("it said nothing");
    last.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Takes the libraries out of the wheels in `work`, and puts their folder in place in one step.
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
        Err(_) if library_in(cache).is_some() => Ok(()), // another trainer was faster
        result => result.with_context(|| format!("{}: cannot be made", cache.display())),
    }
}

/// Whether we need a wheel's file of this name.
fn is_wanted(name: &str) -> bool {
    let providers = ["onnxruntime_providers_shared.", "onnxruntime_providers_cuda."];
    is_library(name) || providers.iter().any(|provider| name.contains(provider)) || CUDA_LIBRARIES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_are_the_locks() {
        for Build { name, folder, packages, lock, .. } in [CPU, CUDA] {
            let pins = lock.lines().filter(|line| line.contains("=="));
            let pinned: Vec<&str> = pins.filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(pinned, packages.split(' ').collect::<Vec<_>>());
            let version = pinned[0].split_once("==").unwrap().1;
            assert!(name.contains(version) && folder.contains(version), "{name}");
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

    #[test]
    fn pips_last_error_is_told_in_one_line() {
        let cases = [
            (
                "WARNING: Retrying\nERROR: No version\nERROR: No matching distribution\n",
                "ERROR: No matching distribution",
            ),
            (
                "ERROR: HASHES DIFFER:\n    Expected sha256 a\n         Got        b\n",
                "ERROR: HASHES DIFFER: Expected sha256 a Got b",
            ),
            ("no such option: --abi\n\n", "no such option: --abi"),
            ("", "it said nothing"),
        ];
        cases.iter().for_each(|(stderr, expected)| assert_eq!(last_error(stderr), *expected));
    }
}
