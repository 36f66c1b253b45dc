//! The list of files that were unpacked into a folder of the cache. A file that changed since is noticed before it is loaded.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{cache, files};

/// File name of the list.
const LIST: &str = "unpacked.json";

/// What is known of a file.
#[derive(Clone, Serialize, Deserialize)]
struct Entry {
    sha256: String,
    len: u64,
    modified: SystemTime,
}

/// Writes the list of the files in `folder`.
///
/// # Errors
/// When a file cannot be read or the list cannot be written.
pub fn record(folder: &Path) -> Result<()> {
    let mut list = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, data) = (entry.path(), entry.metadata()?);
        let name = entry.file_name().to_string_lossy().into_owned();
        list.insert(name, Entry { sha256: sha256(&path)?, len: data.len(), modified: data.modified()? });
    }
    files::write(&folder.join(LIST), &serde_json::to_vec_pretty(&list)?)
}

/// Paths of the listed files of `folder`. Only those whose time of change is not the listed one are read and digested.
///
/// # Errors
/// When a file is missing, a symbolic link, or has another content than it had.
pub fn check(folder: &Path) -> Result<Vec<PathBuf>> {
    let path = folder.join(LIST);
    let mut list: BTreeMap<String, Entry> = serde_json::from_slice(&cache::read(&path)?)
        .with_context(|| format!("{}: a list of files expected", path.display()))?;
    let mut touched = false;
    for (name, entry) in &mut list {
        let path = folder.join(name);
        let data = cache::open(&path)?.metadata()?;
        let (shown, found) = (path.display(), data.len());
        ensure!(found == entry.len, "{shown}: {} bytes expected, {found} found", entry.len);
        if data.modified()? != entry.modified {
            let (expected, found) = (&entry.sha256, sha256(&path)?);
            ensure!(found == *expected, "{shown}: SHA-256 {expected} expected, {found} found");
            entry.modified = data.modified()?;
            touched = true;
        }
    }
    if touched {
        let _ = files::write(&path, &serde_json::to_vec_pretty(&list)?); // or the next start digests the files again
    }
    Ok(list.keys().map(|name| folder.join(name)).collect())
}

/// SHA-256 of a file in hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        let n = file.read(&mut buffer).with_context(|| format!("{}: cannot be read", path.display()))?;
        if n == 0 {
            return Ok(files::hex(&digest.finalize()));
        }
        digest.update(&buffer[..n]);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_changed_file_is_noticed_and_a_touched_one_is_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("library");
        fs::write(&path, "content").unwrap();
        record(folder.path()).unwrap();
        let check = || check(folder.path()).map_err(|problem| format!("{problem:#}"));
        assert_eq!(check(), Ok(vec![path.clone()]));
        let touch = || {
            File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() + Duration::from_secs(1))
        };
        touch().unwrap();
        assert_eq!(check(), Ok(vec![path.clone()]));
        fs::write(&path, "CONTENT").unwrap();
        touch().unwrap();
        assert!(check().unwrap_err().contains("library: SHA-256 "));
        fs::write(&path, "").unwrap();
        assert!(check().unwrap_err().ends_with("library: 7 bytes expected, 0 found"));
        fs::remove_file(&path).unwrap();
        assert!(check().unwrap_err().contains("library: cannot be read"));
        #[cfg(unix)]
        {
            let other = folder.path().join("other");
            fs::write(&other, "content").unwrap();
            std::os::unix::fs::symlink(&other, &path).unwrap();
            assert!(check().unwrap_err().contains("no symbolic link"));
        }
    }
}
