//! How a file is written: whole or not at all.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

/// Writes a file whole or not at all: to a temporary name beside it, synced, then renamed over `path`.
///
/// # Errors
/// Names the file and why it could not be written; what stood there before is untouched.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = temporary_beside(path)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).with_context(|| cannot_write(path))?;
    file.persist(path).with_context(|| cannot_write(path))?;
    Ok(())
}

/// Finds out before hours of work whether [`write()`] will be able to write `path`.
///
/// # Errors
/// As [`write()`], and when `path` is a folder.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        bail!("{}: a file name expected, a folder found", path.display());
    }
    temporary_beside(path).map(drop)
}

fn temporary_beside(path: &Path) -> Result<tempfile::NamedTempFile> {
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
    builder.prefix(&prefix).suffix(".tmp").tempfile_in(folder).with_context(|| cannot_write(path))
}

fn cannot_write(path: &Path) -> String {
    format!("{}: cannot be written", path.display())
}

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn a_missing_folder_is_named() {
        let error = check_writable(Path::new("no/such/g.onnx")).unwrap_err();
        assert_eq!(error.to_string(), "no/such/g.onnx: the folder no/such does not exist; create it first");
    }
}
