//! Temporary files and folders. They are removed when they are dropped, and when a signal ends the program. The next program on the
//! same machine that writes into the same folder removes those of a killed program.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

/// A file or folder with a random name. Dropping it removes it, unless it was renamed.
pub struct Temporary {
    path: PathBuf,
    /// Locked, so that [`sweep`] sees that its program runs. Windows opens no folders.
    _lock: Option<File>,
}

impl Temporary {
    /// A new file in `folder`, and the file opened for writing.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn file(folder: &Path) -> io::Result<(Self, File)> {
        Self::create(folder, |path| {
            let file = File::create_new(path)?;
            Ok((Some(file.try_clone()?), file))
        })
    }

    /// A new folder in `folder`.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn folder(folder: &Path) -> io::Result<Self> {
        let (temporary, ()) = Self::create(folder, |path| {
            fs::create_dir(path)?;
            Ok((File::open(path).ok(), ()))
        })?;
        Ok(temporary)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn create<T>(folder: &Path, create: impl Fn(&Path) -> io::Result<(Option<File>, T)>) -> io::Result<(Self, T)> {
        watch_signals_if_wanted();
        loop {
            let path = folder.join(format!("{}{:016x}{SUFFIX}", own_prefix(), RandomState::new().hash_one(())));
            let mut begun = begun();
            let (lock, created) = create(&path)?;
            begun.push(path.clone());
            drop(begun);
            let temporary = Self { path, _lock: lock };
            if stays(temporary._lock.as_ref(), &temporary.path) {
                return Ok((temporary, created));
            }
        }
    }
}

/// Locks what was just created. False if another program's [`sweep`] came before the lock.
fn stays(lock: Option<&File>, path: &Path) -> bool {
    !matches!(lock.map(File::try_lock), Some(Err(TryLockError::WouldBlock))) && path.exists()
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut begun = begun();
        remove(&self.path);
        begun.retain(|path| *path != self.path);
    }
}

/// Calls `work`. A signal that comes meanwhile ends the program afterwards.
pub fn before_signals<T>(work: impl FnOnce() -> T) -> T {
    let _begun = BEGUN.read().unwrap_or_else(PoisonError::into_inner);
    work()
}

/// Removes from `folder` what killed programs left. Without file locks on its file system nothing is removed.
///
/// Some network file systems show a lock only to programs on the same machine. So a file of another machine is removed only if
/// no program has written to it for a day.
pub fn sweep(folder: &Path) {
    let own = own_prefix();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !is_temporary(&entry.file_name()) {
            continue;
        }
        let Ok(found) = entry.metadata() else { continue };
        if begun().iter().any(|path| path.file_name() == Some(&*entry.file_name())) {
            continue; // of this program
        }
        let is_own = entry.file_name().to_str().is_some_and(|name| name.starts_with(&own));
        let age = found.modified().ok().and_then(|modified| modified.elapsed().ok());
        let is_old = is_own || age.is_some_and(|age| age > DAY);
        if !is_old || !(found.is_file() || found.is_dir()) {
            continue;
        }
        // NFS locks only files that are open for writing, and folders cannot be opened so.
        let opened = File::options().write(true).open(entry.path()).or_else(|_| File::open(entry.path()));
        if let Ok(file) = opened
            && file.try_lock().is_ok()
        {
            remove(&entry.path()); // still locked, so that a program that has just created it does not lock and keep it
        }
    }
}

/// Whether a file or a folder has the name of a [`Temporary`].
pub fn is_temporary(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
}

/// From now on SIGINT, SIGTERM and SIGHUP remove all temporary files before they end the program. Signals that are ignored stay
/// ignored. If the system starts no thread for this, signals end the program at once. On Windows they always do.
///
/// The thread starts with the first temporary file, because a program that draws one image would wait for it. Process 1 of a
/// container starts it at once, because the system gives it only signals for which it has a handler.
pub fn remove_on_signals() {
    WANTED.store(true, Ordering::Relaxed);
    if std::process::id() == 1 {
        watch_signals_if_wanted();
    }
}

/// Whether [`remove_on_signals`] was called.
static WANTED: AtomicBool = AtomicBool::new(false);

fn watch_signals_if_wanted() {
    #[cfg(unix)]
    if WANTED.load(Ordering::Relaxed) {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| _ = watch_signals()); // the next start sweeps what a signal leaves
    }
}

#[cfg(unix)]
fn watch_signals() -> io::Result<()> {
    use std::sync::mpsc;

    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;
    use signal_hook::low_level::{emulate_default_handler, exit};

    let status = fs::read_to_string("/proc/self/status").unwrap_or_default(); // Linux only
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let ignored = ignored.unwrap_or(1 << (SIGHUP - 1)); // in case that nohup started the program, which ignores SIGHUP
    let watched = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0);
    let (sender, receiver) = mpsc::channel::<Signals>();
    // Starts before any signal is watched, because a signal that is watched by nobody has no effect.
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let Some(signal) = receiver.recv().ok().and_then(|mut signals| signals.forever().next()) else { return };
        let begun = begun(); // to the end, so that other threads wait and report no error about a removed file
        begun.iter().for_each(|path| remove(path));
        // The shell sees 128 + signal either way, but ends its own loop only after a death by signal, which process 1 of a
        // container cannot die.
        if std::process::id() != 1 {
            let _ = emulate_default_handler(signal);
        }
        exit(128 + signal);
    })?;
    let _ = sender.send(Signals::new(watched)?); // the thread waits for it
    Ok(())
}

const PREFIX: &str = ".runtime-";
const SUFFIX: &str = ".tmp";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How the names of this machine's temporary files begin. Linux gives each start of the machine an identifier; on other systems all
/// machines share a name.
fn own_prefix() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    format!("{PREFIX}{}-", boot.get(..8).unwrap_or("0"))
}

/// The paths of all [`Temporary`]. Whoever creates or removes one holds the lock for writing.
static BEGUN: RwLock<Vec<PathBuf>> = RwLock::new(vec![]);

fn begun() -> RwLockWriteGuard<'static, Vec<PathBuf>> {
    BEGUN.write().unwrap_or_else(PoisonError::into_inner)
}

/// Removes a file or a folder. Errors are ignored: it may have been renamed, and a leftover is swept later.
fn remove(path: &Path) {
    let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_another_program_has_locked_is_never_swept() {
        let place = Temporary::folder(&std::env::temp_dir()).unwrap();
        let (end, mut lost) = (AtomicBool::new(false), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    sweep(place.path());
                }
            });
            for i in 0..5000 {
                // As another program creates it, so it is not in BEGUN.
                let path = place.path().join(format!("{}{i}{SUFFIX}", own_prefix()));
                let file = File::create_new(&path).unwrap();
                if stays(Some(&file), &path) {
                    std::thread::sleep(Duration::from_micros(50));
                    lost += i32::from(!path.exists());
                }
                remove(&path);
            }
            end.store(true, Ordering::Relaxed);
        });
        assert_eq!(lost, 0);
    }

    #[test]
    fn what_a_killed_program_left_is_swept_and_what_another_one_writes_stays() {
        let folder = std::env::temp_dir().join(format!("{:x}", RandomState::new().hash_one(())));
        fs::create_dir(&folder).unwrap();
        let (file, directory) = (Temporary::file(&folder).unwrap().0, Temporary::folder(&folder).unwrap());
        let own = own_prefix();
        fs::write(folder.join(format!("{own}0.tmp")), "").unwrap();
        fs::create_dir(folder.join(format!("{own}1.tmp"))).unwrap();
        fs::write(folder.join(format!("{own}1.tmp/0.png")), "").unwrap();
        let elsewhere = [".runtime-elsewhere-0.tmp", ".runtime-elsewhere-1.tmp"].map(|name| folder.join(name));
        elsewhere.iter().for_each(|path| fs::write(path, "").unwrap());
        let two_days_ago = SystemTime::now() - 2 * DAY;
        File::options().write(true).open(&elsewhere[1]).unwrap().set_modified(two_days_ago).unwrap();
        let another = folder.join(format!("{own}2.tmp"));
        let lock = File::create(&another).unwrap();
        lock.lock().unwrap();
        fs::write(folder.join("mine.tmp"), "").unwrap();
        sweep(&folder);
        let left = || fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        let mut expected =
            vec![file.path().into(), directory.path().into(), elsewhere[0].clone(), another, folder.join("mine.tmp")];
        expected.sort();
        let mut found = left();
        found.sort();
        assert_eq!(found, expected);
        drop((file, directory));
        assert_eq!(left().len(), 3);
        fs::remove_dir_all(folder).unwrap();
    }
}
