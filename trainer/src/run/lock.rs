//! The lock that keeps a second trainer out of a run folder.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::files;

/// Locks `folder` until the returned file is dropped. The operating system releases the lock of a killed process. A file
/// system without locks gets a warning.
///
/// # Errors
/// When another trainer holds the lock, or the folder does not exist or cannot be written.
pub fn lock(folder: &Path, say: &mut dyn FnMut(&str)) -> Result<File> {
    let path = folder.join(FILE);
    let file =
        files::open_lock(&path).with_context(|| format!("{}: a writable run folder expected", folder.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("{}: another trainer is using this run folder; wait for it or stop it", folder.display())
        }
        Err(TryLockError::Error(why)) => {
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
