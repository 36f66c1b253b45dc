//! The program's folder for downloads, in the platform's place for caches: `mnist-gan`, and private folders to work in. No file in
//! the cache is used that another user may have put there.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::files;
use crate::signals::{Cleanup, with_cleanup};

/// Path of the folder `name` in the program's cache. It may not exist yet.
///
/// # Errors
/// When the platform's place for caches is not known, or other users may write into the cache or the folder.
pub fn folder(name: &str) -> Result<PathBuf> {
    let place = dirs::cache_dir().context("no folder for caches is known; set XDG_CACHE_HOME or HOME")?;
    let cache = place.join(CACHE);
    let folder = cache.join(name);
    check_owner(&cache)?;
    check_owner(&folder)?;
    Ok(folder)
}

/// Succeeds for a folder that belongs to this user or to root and that nobody else may write to, and for a missing one. On
/// Windows, where caches are in the user's profile, only symbolic links are refused.
///
/// # Errors
/// Names the folder and what is wrong with it.
fn check_owner(folder: &Path) -> Result<()> {
    check_no_link(folder)?;
    #[cfg(unix)]
    if let Ok(data) = fs::metadata(folder) {
        use std::os::unix::fs::MetadataExt;
        let (shown, owner, user) = (folder.display(), data.uid(), rustix::process::geteuid().as_raw());
        ensure!(
            owner == user || owner == 0,
            "{shown}: a folder of user {user} expected, it belongs to user {owner}; name another place in XDG_CACHE_HOME"
        );
        let mode = data.mode() & 0o777;
        ensure!(
            mode & 0o022 == 0,
            "{shown}: a folder that only its owner may write to expected, mode {mode:o} found; delete it, or run `chmod -R \
             go-w {shown}` if you trust its files"
        );
    }
    Ok(())
}

/// Succeeds unless `path` is a symbolic link.
///
/// # Errors
/// Names the link.
pub fn check_no_link(path: &Path) -> Result<()> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|data| data.is_symlink());
    ensure!(!is_link, "{}: no symbolic link is followed in the cache; delete it", path.display());
    Ok(())
}

/// A file of the cache, opened to read.
///
/// # Errors
/// When it cannot be read, or is a symbolic link.
pub fn open(path: &Path) -> Result<File> {
    check_no_link(path)?;
    File::open(path).with_context(|| format!("{}: cannot be read", path.display()))
}

/// The content of a file of the cache.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    open(path)?.read_to_end(&mut bytes).with_context(|| format!("{}: cannot be read", path.display()))?;
    Ok(bytes)
}

/// Creates a folder and its parents if they are missing. Only this user may read and write new folders.
///
/// # Errors
/// Names the folder that cannot be created.
pub fn create(folder: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder).with_context(|| format!("{}: cannot be created", folder.display()))
}

/// A lock on the downloads into a folder, which is created if it is missing. Calls `wait` before it waits for another program.
/// The lock ends when the file is dropped.
///
/// # Errors
/// When the folder or the file `lock` in it cannot be written.
pub fn lock(folder: &Path, wait: impl FnOnce()) -> Result<File> {
    let (path, mut wait) = (folder.join(LOCK), Some(wait));
    loop {
        create(folder)?;
        check_no_link(&path)?;
        let file = match files::open_lock(&path) {
            Err(why) if why.kind() == ErrorKind::NotFound => continue, // another program has removed the folder
            file => file.with_context(|| files::cannot_write(&path))?,
        };
        // Some network file systems know no locks: then both download.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            wait.take().into_iter().for_each(|wait| wait());
            let _ = file.lock();
        }
        // The program that held the lock may have removed its file. Then another program can lock a new file.
        if is_named(&file, &path) {
            return Ok(file);
        }
    }
}

/// Whether `path` names this open file.
fn is_named(file: &File, path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let id = |data: fs::Metadata| (data.dev(), data.ino());
        file.metadata().map(id).ok() == fs::metadata(path).map(id).ok()
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        path.exists()
    }
}

/// Removes the file of a lock that this program holds, and the folder and the program's cache above it if they are empty.
pub fn remove_if_empty(folder: &Path) {
    let _ = fs::remove_file(folder.join(LOCK));
    for folder in folder.ancestors() {
        // A folder that holds anything is not removed.
        if fs::remove_dir(folder).is_err() || folder.ends_with(CACHE) {
            break;
        }
    }
}

/// A folder that is removed when the value is dropped, or when a signal ends the program.
pub struct PrivateFolder {
    folder: TempDir,
    _cleanup: Cleanup,
}

impl PrivateFolder {
    /// The folder's path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A new private folder below `parent`, which is created if it is missing.
///
/// # Errors
/// When `parent` cannot be written.
pub fn private_folder(parent: &Path) -> Result<PrivateFolder> {
    create(parent)?;
    temporary_folder(parent).with_context(|| files::cannot_write(parent))
}

/// A new private folder in `parent`, which exists.
///
/// # Errors
/// When `parent` cannot be written.
pub fn temporary_folder(parent: &Path) -> io::Result<PrivateFolder> {
    let remove = |folder: &TempDir| {
        let path = folder.path().to_path_buf();
        // Unpacking goes on meanwhile and may fill the folder again.
        move || _ = (0..10).any(|_| fs::remove_dir_all(&path).is_ok())
    };
    let (folder, _cleanup) = with_cleanup(|| tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent), remove)?;
    Ok(PrivateFolder { folder, _cleanup })
}

/// Removes the private folders below `parent` that killed programs left. The caller holds the [`lock`] of `parent`, so none of them is in use.
pub fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Sum of the lengths of all files below a folder, in bytes.
pub fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0, // it was removed meanwhile
    });
    sizes.sum()
}

/// Name of the program's folder for downloads.
const CACHE: &str = "mnist-gan";

/// File name of the lock.
const LOCK: &str = "lock";

/// The names of private folders begin with it.
const PREFIX: &str = ".private-";

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn a_lock_whose_file_was_removed_while_another_program_waited_is_held_by_that_program() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join(CACHE).join("data");
        let first = lock(&folder, || panic!("nobody holds the lock")).unwrap();
        let (waits, waiting) = mpsc::channel();
        thread::scope(|scope| {
            let second = scope.spawn(|| lock(&folder, || waits.send(()).unwrap()).unwrap());
            waiting.recv().unwrap();
            remove_if_empty(&folder);
            assert!(!folder.exists());
            drop(first);
            let _second = second.join().unwrap();
            let third = File::open(folder.join(LOCK)).unwrap();
            assert!(matches!(third.try_lock(), Err(TryLockError::WouldBlock)));
        });
    }
}
