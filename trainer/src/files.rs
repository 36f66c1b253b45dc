//! Files: atomic writes, hexadecimal digests.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use crate::signals::{Cleanup, with_cleanup};

/// Writes a file atomically: writes a temporary file beside it, syncs it, and renames it to `path`.
///
/// # Errors
/// Names the file and why it cannot be written. An older file at `path` stays as it was.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let (mut file, _cleanup) = temporary_beside(path)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).with_context(|| cannot_write(path))?;
    file.persist(path).with_context(|| cannot_write(path))?;
    Ok(())
}

/// Succeeds if [`write()`] can write `path` now. For a check before hours of work.
///
/// # Errors
/// As [`write()`], and when `path` is a folder.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        bail!("{}: a file name expected, a folder found", path.display());
    }
    temporary_beside(path).map(drop)
}

/// Deletes the temporary files that killed programs left in `folder`. The caller makes sure that nobody writes there.
pub fn remove_temporary(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(TEMPORARY) {
            let _ = fs::remove_file(entry.path()); // a file that cannot be deleted does no harm
        }
    }
}

/// Ending of a temporary file's name, which starts with a dot.
const TEMPORARY: &str = ".tmp";

fn temporary_beside(path: &Path) -> Result<(tempfile::NamedTempFile, Cleanup)> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(anyhow!("{}: the folder {} does not exist; create it first", path.display(), folder.display()));
    }
    let name = path.file_name().with_context(|| format!("{}: a file name expected", path.display()))?;
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask, as for any new file
    let prefix = format!(".{}.", name.to_string_lossy());
    builder.prefix(&prefix).suffix(TEMPORARY);
    let remove = |file: &tempfile::NamedTempFile| {
        let path = file.path().to_path_buf();
        move || _ = fs::remove_file(path)
    };
    with_cleanup(|| builder.tempfile_in(folder), remove).with_context(|| cannot_write(path))
}

/// The context of an error in writing a file.
pub(crate) fn cannot_write(path: &Path) -> String {
    format!("{}: cannot be written", path.display())
}

/// The bytes in hexadecimal: two lower-case digits for each.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.onnx");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_temporary_files_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.onnx");
        write(&path, b"good").unwrap();
        temporary_beside(&path).unwrap().0.keep().unwrap(); // as a killed program leaves it
        remove_temporary(folder.path());
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [path]);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error = check_writable(Path::new("no/such/g.onnx")).unwrap_err();
        assert_eq!(error.to_string(), "no/such/g.onnx: the folder no/such does not exist; create it first");
    }
}
