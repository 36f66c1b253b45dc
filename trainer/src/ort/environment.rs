//! Loads ONNX Runtime's shared library into this process.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow, bail, ensure};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::util::preload_dylib;

use crate::ort::library::{self, Candidate};

/// The environment of ONNX Runtime in this process, with the library that it was loaded from. The first call tries the
/// candidates of [`library::locate`] in order; later calls return what the first successful one loaded.
///
/// # Errors
/// When no candidate loads: the sentence names each and why it did not.
pub(super) fn load(cuda: bool, offline: bool, say: &mut dyn FnMut(&str)) -> Result<(Environment, Candidate)> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = &*loaded {
        return Ok(loaded.clone());
    }
    let mut refused = vec![];
    for candidate in library::locate(cuda, offline, say) {
        let candidate = match candidate {
            Ok(candidate) => candidate,
            Err(why) if refused.is_empty() => return Err(why),
            Err(why) => bail!("{why:#} (what was found does not load: {})", refused.join("; ")),
        };
        let builder = check_length(&candidate.path).and_then(|()| {
            ort::init_from(&candidate.path).map_err(|why| match why {
                // ort's own text lacks the loader's reason.
                ort::LoadDynamicError::Dlopen { error, .. } => anyhow!(error),
                other => anyhow!(other),
            })
        });
        match builder {
            Ok(builder) => {
                let environment = builder.with_name("trainer").with_telemetry(false).build()?;
                environment.set_log_level(LogLevel::Fatal); // errors are returned, and told once
                return Ok(loaded.insert((environment, candidate)).clone());
            }
            Err(why) => refused.push(format!("{}: {why:#}", candidate.source)),
        }
    }
    bail!("no usable ONNX Runtime found: {}", refused.join("; "))
}

/// Succeeds unless `library` is an ELF file that ends before its last segment does. The loader maps such a file, and the program
/// dies of SIGBUS.
///
/// # Errors
/// Names the file, and says how long it should be.
fn check_length(library: &Path) -> Result<()> {
    let mut file = File::open(library)?;
    let mut header = [0; 64];
    let is_elf = file.read_exact(&mut header).is_ok() && header.starts_with(b"\x7fELF\x02\x01"); // 64 bits, little-endian
    if !is_elf {
        return Ok(()); // the loader says why it does not load other files
    }
    let word = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (start, count) = (word(&header, 32), u16::from_le_bytes([header[56], header[57]]));
    // A segment's entry has 56 bytes, among them the place in the file and the length there.
    let mut segments = vec![0; 56 * usize::from(count)];
    file.seek(SeekFrom::Start(start))?;
    let found = file.metadata()?.len();
    let whole = file.read_exact(&mut segments).is_ok()
        && segments.chunks_exact(56).all(|entry| word(entry, 8).saturating_add(word(entry, 32)) <= found);
    ensure!(whole, "{}: the library is truncated, {found} bytes found", library.display());
    Ok(())
}

/// ONNX Runtime allows one environment per process.
static LOADED: Mutex<Option<(Environment, Candidate)>> = Mutex::new(None);

/// Loads the CUDA libraries that the CUDA provider beside ONNX Runtime's `library` needs. Without this call, the
/// provider finds only libraries in the folders of the system's loader.
///
/// # Errors
/// Names the first library that is missing or does not load.
pub(super) fn preload(library: &Path) -> Result<()> {
    if !library::has_cuda(library) {
        return Ok(());
    }
    for name in library::CUDA_LIBRARIES {
        let mut problem = "not found".to_string();
        let load = |path: PathBuf| check_length(&path).and_then(|()| Ok(preload_dylib(&path)?));
        let loads = |path: PathBuf| load(path).map_err(|why| problem = format!("{why:#}")).is_ok();
        let found = library::cuda_library(library, name).any(loads) || preload_dylib(*name).is_ok();
        ensure!(
            found,
            "{name} expected beside {}, in Python's nvidia packages or in the system, {problem}; run `trainer setup --cuda`",
            library.display()
        );
    }
    Ok(())
}
