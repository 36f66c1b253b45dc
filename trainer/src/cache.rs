//! The program's folder for downloads, in the platform's place for caches: `mnist-gan`. No file in it is used that another user
//! may have put there.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

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
    create(folder)?;
    let path = folder.join(LOCK);
    check_no_link(&path)?;
    let file = OpenOptions::new().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("{}: cannot be written", path.display()))?;
    if file.try_lock().is_err() {
        wait();
        let _ = file.lock(); // some network file systems know no locks: then both download
    }
    Ok(file)
}

/// Removes the lock's file, and the folder and the program's cache above it if they are empty.
pub fn remove_if_empty(folder: &Path) {
    let _ = fs::remove_file(folder.join(LOCK));
    for folder in folder.ancestors() {
        // A folder that holds anything is not removed.
        if fs::remove_dir(folder).is_err() || folder.ends_with(CACHE) {
            break;
        }
    }
}

/// Name of the program's folder for downloads.
const CACHE: &str = "mnist-gan";

/// File name of the lock.
const LOCK: &str = "lock";
