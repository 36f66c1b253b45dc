//! The lock that keeps a second trainer out of a run folder.

use std::fs::{self, File, OpenOptions};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Locks `folder` until the returned file is dropped. The operating system releases the lock of a killed process. A file
/// system without locks gets a warning.
///
/// # Errors
/// When another trainer holds the lock, or the folder does not exist or cannot be written.
pub fn lock(folder: &Path, say: &mut dyn FnMut(&str)) -> Result<File> {
    let path = folder.join(FILE);
    // Windows cannot lock a file that is open for appending only.
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.with_context(|| format!("{}: a writable run folder expected", folder.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            bail!("{}: another trainer is using this run folder; wait for it or stop it", folder.display())
        }
        Err(fs::TryLockError::Error(why)) => {
            say(&format!(
                "warning: {}: cannot be locked ({why}); make sure that no other trainer uses this run folder",
                path.display()
            ));
            Ok(file)
        }
    }
}

/// Name of the locked file.
pub const FILE: &str = ".lock";
