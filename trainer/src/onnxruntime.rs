//! Where ONNX Runtime's shared library is: on this machine already, or fetched with pip.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
/// when the iterator comes to it. With `cuda`, those with a CUDA provider beside them come first.
///
/// # Errors
/// The iterator's last item is an error that names the ways out.
pub fn locate(cuda: bool, offline: bool, say: &mut dyn FnMut(&str)) -> impl Iterator<Item = Result<Candidate>> {
    let mut found = vec![];
    let mut last = None;
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        if path.is_file() {
            found.push(Candidate { path, source: "ORT_DYLIB_PATH".into() });
        } else {
            last =
                Some(Err(anyhow!("ORT_DYLIB_PATH: ONNX Runtime's library expected, no file {} found", path.display())));
        }
    } else {
        found.extend(python_packages());
        found.extend(system());
        found.extend(cached());
        found.sort_by_key(|candidate| cuda && !has_cuda(&candidate.path));
        last = Some(Ok(()));
    }
    let last = last.into_iter().map(move |last: Result<()>| last.and_then(|()| fetch(offline, say)));
    found.into_iter().map(Ok).chain(last)
}

/// The pinned version, and the hashes of its wheels.
const LOCK: &str = include_str!("../onnxruntime.lock");
const VERSION: &str = "1.31.1";

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

fn has_cuda(library: &Path) -> bool {
    library.with_file_name("libonnxruntime_providers_cuda.so").exists()
        || library.with_file_name("onnxruntime_providers_cuda.dll").exists()
}

/// Asks Python where it would import onnxruntime from, without importing it.
fn python_packages() -> Option<Candidate> {
    let ask = "import importlib.util as u; s = u.find_spec('onnxruntime'); print(s.submodule_search_locations[0])";
    for python in PYTHONS {
        let Ok(answer) = Command::new(python).args(["-c", ask]).stderr(Stdio::null()).stdin(Stdio::null()).output()
        else {
            continue;
        };
        let package = PathBuf::from(String::from_utf8_lossy(&answer.stdout).trim());
        return library_in(&package.join("capi")).map(|path| Candidate { path, source: "Python package".into() });
    }
    None
}

const PYTHONS: [&str; 2] = ["python3", "python"];

fn system() -> Option<Candidate> {
    let given = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/opt/homebrew/lib"].map(PathBuf::from);
    let multiarch = PathBuf::from(format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let folders = std::env::split_paths(&given).chain(usual).chain([multiarch]);
    let mut libraries = folders.filter_map(|folder| library_in(&folder));
    libraries.next().map(|path| Candidate { path, source: "system library".into() })
}

/// Our own copy's folder, in the platform's place for caches.
fn cache() -> Result<PathBuf> {
    let cache = dirs::cache_dir().context("no folder for caches is known; set XDG_CACHE_HOME or HOME")?;
    Ok(cache.join("mnist-gan").join(format!("onnxruntime-{VERSION}")))
}

fn cached() -> Option<Candidate> {
    let path = library_in(&cache().ok()?)?;
    Some(Candidate { path, source: format!("ONNX Runtime {VERSION} from the cache") })
}

/// Downloads the pinned wheel with pip, which checks its hash, and unpacks the library into the cache.
fn fetch(offline: bool, say: &mut dyn FnMut(&str)) -> Result<Candidate> {
    let ways_out = format!(
        "set ORT_DYLIB_PATH to its library, install it with `pip install onnxruntime=={VERSION}`, or run once without \
         --offline where pip reaches a package index"
    );
    ensure!(!offline, "no ONNX Runtime found on this machine, and --offline forbids fetching it; {ways_out}");
    say(&format!("no ONNX Runtime found on this machine; fetching version {VERSION} with pip"));
    let cache = cache()?;
    download_into(&cache).with_context(|| format!("no ONNX Runtime found, and it could not be fetched; {ways_out}"))?;
    say(&format!("ONNX Runtime {VERSION} is in {}", cache.display()));
    cached().with_context(|| format!("{}: the fetched wheel holds no library", cache.display()))
}

fn download_into(cache: &Path) -> Result<()> {
    let parent = cache.parent().context("a cache folder with a parent expected")?;
    fs::create_dir_all(parent).with_context(|| format!("{}: cannot be made", parent.display()))?;
    let work = tempfile::tempdir_in(parent).with_context(|| format!("{}: cannot be written", parent.display()))?;
    let lock = work.path().join("onnxruntime.lock");
    fs::write(&lock, LOCK)?;
    let platform = match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "manylinux_2_28_x86_64",
        ("linux", "aarch64") => "manylinux_2_28_aarch64",
        ("macos", "aarch64") => "macosx_14_0_arm64",
        ("windows", "x86_64") => "win_amd64",
        ("windows", "aarch64") => "win_arm64",
        (os, arch) => bail!("there is no wheel of it for {os} on {arch}"),
    };
    // The wheel of one Python serves whatever Python is here, for only the library in it is used.
    let options = "-m pip download --quiet --disable-pip-version-check --no-input --no-deps --only-binary=:all: \
        --python-version 3.12 --implementation cp --abi cp312 --require-hashes --platform";
    let mut problem = anyhow!("no python3 was found to run pip");
    for python in PYTHONS {
        let mut pip = Command::new(python);
        pip.args(options.split_whitespace()).arg(platform).arg("-d").arg(work.path()).arg("-r").arg(&lock);
        let Ok(output) = pip.stdin(Stdio::null()).output() else { continue };
        if output.status.success() {
            return unpack(work.path(), cache);
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let line = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").trim();
        problem = anyhow!("{python} -m pip download: {line}");
        break;
    }
    Err(problem)
}

/// Takes the libraries out of the wheel in `work`, and puts their folder in place in one step.
fn unpack(work: &Path, cache: &Path) -> Result<()> {
    let wheel = fs::read_dir(work)?.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "whl"));
    let wheel = wheel.context("pip left no wheel")?;
    let mut archive = zip::ZipArchive::new(fs::File::open(&wheel)?).context("the wheel is no zip file")?;
    let folder = work.join("unpacked");
    fs::create_dir(&folder)?;
    for i in 0..archive.len() {
        let mut file = archive.by_index(i).context("the wheel is damaged")?;
        let name = file.name()?.rsplit('/').next().unwrap_or_default().to_string();
        if is_library(&name) || name.contains("onnxruntime_providers_") {
            let mut target = fs::File::create(folder.join(&name))?;
            std::io::copy(&mut file, &mut target).context("the wheel is damaged")?;
            target.sync_all()?;
        }
    }
    match fs::rename(&folder, cache) {
        Err(_) if library_in(cache).is_some() => Ok(()), // another trainer was faster
        result => result.with_context(|| format!("{}: cannot be made", cache.display())),
    }
}
