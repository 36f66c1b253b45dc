//! Files: the one way to write an output, hexadecimal digests.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use crate::signals::{Cleanup, with_cleanup};

/// Writes a file. A reader sees the whole old content or the whole new content: the bytes go to a temporary file in the same
/// folder, which is synced and then renamed.
///
/// - A symbolic link stays, and the file that it names is written.
/// - A device, a FIFO or an open descriptor such as `/dev/stdout` is written into.
/// - An old file keeps its mode and owner. If they cannot be kept, or no file may be renamed to this name (a mount point, a
///   folder without write permission), the old file is overwritten in place.
///
/// # Errors
/// Names the file and why it cannot be written. On an error the file is the old one, or, if only the sync of its folder failed,
/// the new one. A file that is overwritten in place may be neither.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let target = follow_links(path);
    let write = || {
        let old = match fs::metadata(&target) {
            Ok(old) if old.is_file() && !is_descriptor(&target) => Some(old),
            Ok(_) => return OpenOptions::new().append(true).open(&target)?.write_all(bytes),
            Err(why) if why.kind() == ErrorKind::NotFound => None,
            Err(why) => return Err(why),
        };
        match replace(&target, old.as_ref(), bytes) {
            Err(why) if old.is_some() && is_refusal(&why) => overwrite(&target, bytes),
            replaced => replaced,
        }
    };
    write().with_context(|| cannot_write(path))
}

/// Does what [`write()`] does, unless the file holds these bytes already.
///
/// # Errors
/// As [`write()`].
pub fn update(path: &Path, bytes: &[u8]) -> Result<()> {
    let is_equal = path.is_file() && fs::read(path).is_ok_and(|old| old == bytes);
    if is_equal { Ok(()) } else { write(path, bytes) }
}

/// Succeeds if [`write()`] can write `path` now. For a check before hours of work. Removes the temporary files that killed
/// programs left beside `path`.
///
/// # Errors
/// As [`write()`], and when `path` is a folder or a write-protected file.
pub fn check_writable(path: &Path) -> Result<()> {
    if path.is_dir() {
        bail!("{}: a file name expected, a folder found", path.display());
    }
    let target = follow_links(path);
    let check = || {
        remove_temporary(folder_of(&target)?);
        match fs::metadata(&target) {
            Ok(old) if old.is_file() => OpenOptions::new().append(true).open(&target).map(drop),
            Ok(_) => Ok(()), // opening a FIFO would wait for its reader
            Err(why) if why.kind() == ErrorKind::NotFound => temporary_in(folder_of(&target)?).map(drop),
            Err(why) => Err(why),
        }
    };
    check().with_context(|| cannot_write(path))
}

/// The file that `path` names, as an absolute path without symbolic links. The file may be missing, its folder may not.
///
/// # Errors
/// When the folder does not exist.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let target = follow_links(path);
    let folder = fs::canonicalize(folder_of(&target)?)?;
    Ok(folder.join(target.file_name().unwrap_or_default()))
}

/// Paths in `folder`, sorted, without those whose names begin with a dot.
///
/// # Errors
/// When the folder cannot be read to its end.
pub fn visible_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| !name_of(path).starts_with('.'));
    paths.sort();
    Ok(paths)
}

/// The last part of a path.
pub fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Deletes the temporary files that killed programs left in `folder`. Those of running programs are locked and stay.
pub fn remove_temporary(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.as_encoded_bytes();
        if name.starts_with(PREFIX.as_bytes())
            && name.ends_with(SUFFIX.as_bytes())
            && let Ok(file) = OpenOptions::new().write(true).open(&path)
            && file.try_lock().is_ok()
        {
            // Still locked, so that a program that has just created it does not lock and keep it.
            let _ = fs::remove_file(path); // a file that cannot be deleted does no harm
        }
    }
}

/// The name of a temporary file is a prefix, random letters and a suffix.
const PREFIX: &str = ".trainer-";
const SUFFIX: &str = ".tmp";

/// A new locked file in `folder`. It is removed when it is dropped or a signal ends the program, unless it was renamed.
fn temporary_in(folder: &Path) -> io::Result<(NamedTempFile, Cleanup)> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask, as for any new file
    builder.prefix(PREFIX).suffix(SUFFIX);
    let remove = |file: &NamedTempFile| {
        let path = file.path().to_path_buf();
        move || _ = fs::remove_file(path)
    };
    loop {
        let (file, cleanup) = with_cleanup(|| builder.tempfile_in(folder), remove)?;
        // Another program may have removed the file before it was locked.
        let is_taken = matches!(file.as_file().try_lock(), Err(TryLockError::WouldBlock));
        if !is_taken && file.path().try_exists().unwrap_or(true) {
            return Ok((file, cleanup)); // without locks on this file system, no program removes temporary files of others
        }
    }
}

/// Renames a new file to `target`, with the mode and owner of the `old` one.
fn replace(target: &Path, old: Option<&Metadata>, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(target)?;
    let (mut file, _cleanup) = temporary_in(folder)?;
    file.write_all(bytes)?;
    old.map_or(Ok(()), |old| keep_owner_and_mode(file.as_file(), old))?;
    file.as_file().sync_all()?;
    file.persist(target)?;
    sync(folder)
}

/// Whether an error says that a file cannot be replaced, although it may be possible to write into it.
fn is_refusal(why: &io::Error) -> bool {
    use ErrorKind::{CrossesDevices, PermissionDenied, ReadOnlyFilesystem, ResourceBusy};
    matches!(why.kind(), CrossesDevices | PermissionDenied | ReadOnlyFilesystem | ResourceBusy)
}

/// Writes over the content of a file.
fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}

fn keep_owner_and_mode(new: &File, old: &Metadata) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let made = new.metadata()?;
        if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
            fchown(new, Some(old.uid()), Some(old.gid()))?;
        }
    }
    new.set_permissions(old.permissions())
}

/// Makes a rename in `folder` outlast a power failure, if the system can sync folders.
fn sync(folder: &Path) -> io::Result<()> {
    let Ok(folder) = File::open(folder) else { return Ok(()) };
    match folder.sync_all() {
        Err(why) if !matches!(why.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) && cfg!(unix) => Err(why),
        _ => Ok(()),
    }
}

/// The path that `path` names after at most 40 symbolic links, as many as Linux follows.
fn follow_links(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) if !is_descriptor(&path) => path = path.parent().unwrap_or(Path::new("")).join(target),
            _ => break,
        }
    }
    path
}

/// Whether a path names an open descriptor, such as `/proc/self/fd/1`, to which `/dev/stdout` is a link.
fn is_descriptor(path: &Path) -> bool {
    let folder = path.parent().and_then(|folder| fs::canonicalize(folder).ok());
    folder.is_some_and(|folder| folder.starts_with("/proc") || folder == Path::new("/dev/fd"))
}

/// The existing folder of a file.
fn folder_of(path: &Path) -> io::Result<&Path> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => return Err(io::Error::new(ErrorKind::InvalidInput, "a file name expected")),
    };
    let missing = || format!("the folder {} does not exist; create it first", folder.display());
    if folder.is_dir() { Ok(folder) } else { Err(io::Error::new(ErrorKind::NotFound, missing())) }
}

/// A file to lock, opened for writing. It is created if it is missing.
///
/// # Errors
/// When the file cannot be opened.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    // Windows cannot lock a file that is open for appending only.
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

/// The first two bytes of a gzip file.
pub(crate) const GZIP: [u8; 2] = [0x1f, 0x8b];

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
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    /// What `folder` holds.
    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_write_replaces_the_file_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.onnx");
        write(&path, b"old").unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["g.onnx"]);
    }

    #[test]
    fn temporary_files_of_killed_programs_are_removed_and_those_of_running_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.onnx");
        write(&path, b"good").unwrap();
        drop(temporary_in(folder.path()).unwrap().0.keep().unwrap()); // as a killed program leaves it
        let (running, _cleanup) = temporary_in(folder.path()).unwrap();
        check_writable(&path).unwrap();
        let mut expected = [running.path().file_name().unwrap().to_str().unwrap(), "g.onnx"];
        expected.sort();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn a_file_that_a_program_has_locked_is_never_removed_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let (end, mut lost) = (AtomicBool::new(false), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !end.load(Ordering::Relaxed) {
                    remove_temporary(folder.path());
                }
            });
            for _ in 0..5000 {
                let (file, _cleanup) = temporary_in(folder.path()).unwrap();
                std::thread::sleep(Duration::from_micros(50));
                lost += i32::from(!file.path().exists());
            }
            end.store(true, Ordering::Relaxed);
        });
        assert_eq!(lost, 0);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let expected = "no/such/g.onnx: cannot be written: the folder no/such does not exist; create it first";
        let path = Path::new("no/such/g.onnx");
        assert_eq!(format!("{:#}", check_writable(path).unwrap_err()), expected);
        assert_eq!(format!("{:#}", write(path, b"").unwrap_err()), expected);
    }

    #[test]
    fn a_name_of_255_bytes_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g".repeat(255));
        check_writable(&path).unwrap();
        write(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[cfg(unix)]
    mod unix {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
        use std::process::Command;

        use super::*;

        #[test]
        fn a_link_stays_and_the_file_that_it_names_is_written() {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            fs::create_dir(path("elsewhere")).unwrap();
            symlink("elsewhere/second", path("first")).unwrap();
            symlink("target", path("elsewhere/second")).unwrap();
            for content in [b"new", b"two"] {
                check_writable(&path("first")).unwrap();
                write(&path("first"), content).unwrap();
                assert!(path("first").is_symlink() && path("elsewhere/second").is_symlink());
                assert_eq!(fs::read(path("elsewhere/target")).unwrap(), content);
            }
            assert_eq!(resolve(&path("first")).unwrap(), fs::canonicalize(path("elsewhere/target")).unwrap());
            symlink("round", path("round")).unwrap();
            let why = format!("{:#}", write(&path("round"), b"").unwrap_err());
            assert!(why.contains("round: cannot be written: "), "{why}");
        }

        #[test]
        fn an_old_file_keeps_its_mode_and_owner() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("g.onnx");
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
            let is_root = std::os::unix::fs::chown(&path, Some(12345), Some(54321)).is_ok();
            let before = fs::metadata(&path).unwrap();
            write(&path, b"new").unwrap();
            let after = fs::metadata(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
            assert!(after.uid() == 12345 || !is_root);
        }

        #[test]
        fn a_fifo_is_written_into() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("fifo");
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            check_writable(&path).unwrap();
            let reader = std::thread::spawn({
                let path = path.clone();
                move || fs::read(path).unwrap()
            });
            write(&path, b"new").unwrap();
            assert_eq!(reader.join().unwrap(), b"new");
            assert_eq!(names(folder.path()), ["fifo"]);
        }

        #[test]
        fn an_open_descriptor_is_written_into() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("log");
            fs::write(&path, "line\n").unwrap();
            let open = OpenOptions::new().append(true).open(&path).unwrap();
            let descriptor = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
            check_writable(Path::new(&descriptor)).unwrap();
            write(Path::new(&descriptor), b"new").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"line\nnew");
        }

        #[cfg(target_os = "linux")]
        #[test]
        fn a_file_that_is_a_mount_point_is_overwritten_in_place() {
            let folder = tempfile::tempdir().unwrap();
            let path = |name: &str| folder.path().join(name);
            fs::write(path("host"), "a long old content").unwrap();
            fs::write(path("g.onnx"), "").unwrap();
            let mount = Command::new("mount").arg("--bind").args([path("host"), path("g.onnx")]).output();
            if !mount.is_ok_and(|output| output.status.success()) {
                eprintln!("skipped: nothing can be mounted here");
                return;
            }
            let written = check_writable(&path("g.onnx")).and_then(|()| write(&path("g.onnx"), b"new"));
            assert!(Command::new("umount").arg(path("g.onnx")).status().unwrap().success());
            written.unwrap();
            assert_eq!(fs::read(path("host")).unwrap(), b"new");
            assert_eq!(names(folder.path()), ["g.onnx", "host"]);
        }
    }
}
