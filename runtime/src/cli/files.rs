//! Output files and folders. Each appears complete, or the old one stays. Only labels that are replaced together with their images
//! can be lost, by a `kill -9`.
//!
//! A file is written under a temporary name and then renamed. A link stays a link, and a replaced file's mode and owner are kept.
//! Files that cannot be replaced are written in place: devices, pipes, mount points, and files whose owner cannot be kept.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::output::is_gzip;
use super::temporary::{self, Temporary};

/// One output file, or stdout. A file whose name ends with .gz is compressed with gzip.
pub struct OutputFile {
    writer: Writer,
    sink: Sink,
    /// For messages.
    name: String,
}

enum Writer {
    Plain(BufWriter<Box<dyn Write>>),
    Gzip(Box<GzEncoder<BufWriter<Box<dyn Write>>>>),
}

enum Sink {
    Stdout,
    InPlace(File),
    Replace { temporary: Temporary, file: File, to: PathBuf },
}

impl OutputFile {
    /// Opens `path`, or stdout without one. `input` is a file that the program reads.
    ///
    /// # Errors
    /// `path` exists and `force` is not set, it is `input`, or its folder is missing, read-only or has less than `bytes` free.
    pub fn create(path: Option<&Path>, input: Option<&Path>, force: bool, bytes: u64) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::new("stdout".into(), Sink::Stdout, Box::new(io::stdout()), false));
        };
        let to = resolve(path);
        let found = fs::metadata(&to).ok();
        if let Some(found) = &found {
            ensure!(!found.is_dir(), "{}: a file expected, a folder found", flag(path));
            if is_stdout(&to) {
                return Self::create(None, input, force, bytes);
            }
            let is_input = input.is_some_and(|input| is_same(input, &to));
            ensure!(!is_input, "{}: another file than --model expected, the same one found", flag(path));
            ensure!(force || !holds_data(found), "{}: exists already; --force overwrites it", flag(path));
        }
        let gzip = is_gzip(path);
        let sink = Sink::open(to, found).with_context(|| cannot_write(path))?;
        if let Sink::Replace { to, .. } = &sink {
            check_room(&flag(path), folder_of(to), if gzip { bytes / MOST_GZIP_RATIO } else { bytes })?;
        }
        let file = sink.file().expect("only stdout has none").try_clone()?;
        Ok(Self::new(flag(path), sink, Box::new(file), gzip))
    }

    fn new(name: String, sink: Sink, file: Box<dyn Write>, gzip: bool) -> Self {
        let buffered = BufWriter::with_capacity(1 << 16, file);
        let writer = match gzip {
            true => Writer::Gzip(Box::new(GzEncoder::new(buffered, Compression::default()))),
            false => Writer::Plain(buffered),
        };
        Self { writer, sink, name }
    }

    /// Whether this is a file on a disk, and not a device, a pipe or stdout.
    pub fn is_on_disk(&self) -> bool {
        self.sink.file().is_some_and(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.writer {
            Writer::Plain(writer) => writer.write_all(bytes),
            Writer::Gzip(writer) => writer.write_all(bytes),
        };
        written.with_context(|| format!("{}: cannot be written", self.name))
    }

    /// [`Self::write`] and then [`Self::finish`].
    pub fn write_all(mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)?;
        self.finish()
    }

    /// Flushes the bytes to disk and gives the file its name.
    pub fn finish(self) -> Result<()> {
        Self::finish_together(vec![self])
    }

    /// [`Self::finish`] for files that belong together. A program that is killed never leaves a new one beside an old one.
    pub fn finish_together(mut files: Vec<Self>) -> Result<()> {
        for file in &mut files {
            file.flush().with_context(|| format!("{}: cannot be written", file.name))?;
        }
        let replaced = files.iter().filter_map(|file| match &file.sink {
            Sink::Replace { temporary, to, .. } => Some(Rename { from: temporary.path().into(), to: to.clone() }),
            _ => None,
        });
        let replaced: Vec<_> = replaced.collect();
        match &replaced[..] {
            [] => Ok(()),
            [one] => fs::rename(&one.from, &one.to).with_context(|| cannot_write(&one.to)),
            [.., last] => {
                let old = Temporary::folder(folder_of(&last.to)).with_context(|| cannot_write(&last.to))?;
                rename_all(&replaced, old.path(), true)
            }
        }?;
        replaced.iter().for_each(|rename| sync_folder(folder_of(&rename.to)));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.writer {
            Writer::Plain(writer) => writer.flush()?,
            Writer::Gzip(writer) => {
                writer.try_finish()?;
                writer.get_mut().flush()?;
            }
        }
        match &mut self.sink {
            Sink::Replace { file, .. } => file.sync_all(),
            Sink::InPlace(file) if file.metadata()?.is_file() => {
                let end = file.stream_position()?;
                file.set_len(end)?; // the old file may have been longer
                file.sync_all()
            }
            Sink::InPlace(_) | Sink::Stdout => Ok(()),
        }
    }
}

impl Sink {
    /// `found` is what `to` was before.
    fn open(to: PathBuf, found: Option<Metadata>) -> io::Result<Self> {
        let in_place = || File::options().write(true).open(&to).map(Self::InPlace);
        if found.is_some() && !is_replaceable(&to) {
            return in_place();
        }
        temporary::sweep(folder_of(&to));
        let replacement = Temporary::file(folder_of(&to)).and_then(|(temporary, file)| {
            found.as_ref().map_or(Ok(()), |found| keep_owner_and_mode(&file, found))?;
            Ok((temporary, file))
        });
        match replacement {
            Ok((temporary, file)) => Ok(Self::Replace { temporary, file, to }),
            Err(e) if found.is_some() && is_refusal(&e) => in_place().map_err(|_| e),
            Err(e) => Err(e),
        }
    }

    fn file(&self) -> Option<&File> {
        match self {
            Self::Stdout => None,
            Self::InPlace(file) | Self::Replace { file, .. } => Some(file),
        }
    }
}

/// Writes many files into a folder. A new folder appears when it is complete. In an existing one the files appear one by one when
/// all are complete, and its other files stay.
pub struct OutputFolder {
    temporary: Temporary,
    to: PathBuf,
    /// As the user named it.
    path: PathBuf,
}

impl OutputFolder {
    /// # Errors
    /// As [`OutputFile::create`], for `count` files of about `pixels` bytes at most.
    pub fn create(path: &Path, force: bool, count: u64, pixels: u64) -> Result<Self> {
        let to = resolve(path);
        let exists = to.is_dir();
        ensure!(exists || !to.exists(), "{}: a folder expected, a file found", flag(path));
        let place = if exists { &to } else { folder_of(&to) };
        [folder_of(&to), place].into_iter().for_each(temporary::sweep);
        let empty = !exists || fs::read_dir(&to).is_ok_and(|mut entries| entries.next().is_none());
        ensure!(empty || force, "{}: contains files already; --force adds to them and overwrites", flag(path));
        check_room(&flag(path), place, count.saturating_mul((pixels + 64).next_multiple_of(4096)))?;
        let temporary = Temporary::folder(place).with_context(|| cannot_write(path))?;
        Ok(Self { temporary, to, path: path.into() })
    }

    /// Creates a folder in this one.
    pub fn create_folder(&self, name: &str) -> Result<()> {
        let folder = self.temporary.path().join(name);
        let cannot_write = || cannot_write(&self.path.join(name));
        temporary::before_signals(|| fs::create_dir(folder)).with_context(cannot_write)
    }

    /// Writes a file, whose name may begin with that of a folder and a slash.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let file = self.temporary.path().join(name);
        temporary::before_signals(|| fs::write(file, bytes)).with_context(|| cannot_write(&self.path))
    }

    pub fn finish(self) -> Result<()> {
        let from = self.temporary.path();
        sync_files(from).with_context(|| cannot_write(&self.path))?;
        if !self.to.is_dir() {
            // A signal that came meanwhile could empty the folder under its final name.
            temporary::before_signals(|| fs::rename(from, &self.to)).with_context(|| cannot_write(&self.path))?;
            sync_folder(folder_of(&self.to));
            return Ok(());
        }
        let (mut renames, mut rewrites) = (vec![], vec![]);
        sort_out(from, &self.to, &mut renames, &mut rewrites)?;
        let old = from.join(".old"); // no class's folder has this name
        fs::create_dir(&old).with_context(|| cannot_write(&self.path))?;
        rename_all(&renames, &old, false)?;
        for Rename { from, to } in rewrites {
            OutputFile::create(Some(&to), None, true, 0)?.write_all(&fs::read(from)?)?;
        }
        let folders: BTreeSet<&Path> = renames.iter().map(|rename| folder_of(&rename.to)).collect();
        folders.into_iter().for_each(sync_folder);
        Ok(())
    }
}

/// Divides the files in `from`, and in its folders, into those that can be renamed into `to` and those that must be written in
/// place. A folder that `to` does not have is renamed as a whole.
fn sort_out(from: &Path, to: &Path, renames: &mut Vec<Rename>, rewrites: &mut Vec<Rename>) -> Result<()> {
    for entry in fs::read_dir(from).with_context(|| cannot_write(to))? {
        let name = entry?.file_name();
        let rename = Rename { from: from.join(&name), to: to.join(&name) };
        let found = fs::symlink_metadata(&rename.to).ok();
        if found.is_some() && rename.from.is_dir() {
            ensure!(rename.to.is_dir(), "{}: a folder expected, a file found", flag(&rename.to));
            sort_out(&rename.from, &rename.to, renames, rewrites)?;
            continue;
        }
        let replaceable = match found {
            Some(found) => {
                is_replaceable(&rename.to) && keep_owner_and_mode(&File::open(&rename.from)?, &found).is_ok()
            }
            None => true,
        };
        if replaceable { renames.push(rename) } else { rewrites.push(rename) }
    }
    Ok(())
}

struct Rename {
    from: PathBuf,
    to: PathBuf,
}

/// Renames all files, or none if one fails: then the old files come back from the folder `old`. Of files that belong `together`, all
/// old ones but the first are gone before the first new one appears.
fn rename_all(renames: &[Rename], old: &Path, together: bool) -> Result<()> {
    temporary::before_signals(|| {
        let mut undo = vec![];
        let renamed = rename_each(renames, old, together, &mut undo);
        if renamed.is_err() {
            for Rename { from, to } in undo.iter().rev() {
                let _ = fs::rename(from, to); // the first error is on its way to the user
            }
        }
        renamed
    })
}

fn rename_each(renames: &[Rename], old: &Path, together: bool, undo: &mut Vec<Rename>) -> Result<()> {
    for (i, Rename { to, .. }) in renames.iter().enumerate().skip(1) {
        if together && to.exists() {
            let old = old.join(i.to_string());
            fs::rename(to, &old).with_context(|| cannot_write(to))?;
            undo.push(Rename { from: old, to: to.clone() });
        }
    }
    for (i, Rename { from, to }) in renames.iter().enumerate() {
        let old = old.join(i.to_string());
        let back = match fs::hard_link(to, &old) {
            Ok(()) => Some(Rename { from: old, to: to.clone() }),
            Err(e) if e.kind() == ErrorKind::NotFound => Some(Rename { from: to.clone(), to: from.clone() }),
            // A file system without hard links.
            Err(_) => fs::rename(to, &old).ok().map(|()| Rename { from: old, to: to.clone() }),
        };
        undo.extend(back);
        fs::rename(from, to).with_context(|| cannot_write(to))?;
    }
    Ok(())
}

/// Deflate makes a file at most this many times smaller.
const MOST_GZIP_RATIO: u64 = 1032;

/// Follows links from `path`. In /proc, a link leads to an open file, such as /dev/stdout, and only the kernel can follow it.
fn resolve(path: &Path) -> PathBuf {
    let mut path = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let Ok(link) = fs::read_link(&path) else { break };
        if folder_of(&path).canonicalize().is_ok_and(|folder| folder.starts_with("/proc")) {
            break;
        }
        path = folder_of(&path).join(link);
    }
    path
}

/// As in Linux.
const MAX_LINKS: usize = 40;

/// The folder of a file; `.` for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether the user may not do this, here, or the file system cannot: EINVAL is its answer to an owner that has no number in this
/// container. Doing it in another way may be possible.
fn is_refusal(error: &io::Error) -> bool {
    use ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem | InvalidInput | Unsupported)
}

/// Whether a file can be renamed to `path`, which exists.
fn is_replaceable(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) && !is_mount_point(path)
}

#[cfg(target_os = "linux")]
fn is_mount_point(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mount_point(_: &Path) -> bool {
    false
}

/// Gives `file` the owner and mode of the file that it replaces.
#[cfg(unix)]
fn keep_owner_and_mode(file: &File, replaced: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (replaced.uid(), replaced.gid()) {
        fchown(file, Some(replaced.uid()), Some(replaced.gid()))?;
    }
    file.set_permissions(replaced.permissions())
}

#[cfg(not(unix))]
fn keep_owner_and_mode(_: &File, _: &Metadata) -> io::Result<()> {
    Ok(())
}

/// Whether writing into the file destroys something: it is on a disk, or is a disk.
fn holds_data(file: &Metadata) -> bool {
    #[cfg(unix)]
    return file.is_file() || std::os::unix::fs::FileTypeExt::is_block_device(&file.file_type());
    #[cfg(not(unix))]
    file.is_file()
}

/// Whether two paths lead to one file, also through links.
#[cfg(unix)]
fn is_same(a: &Path, b: &Path) -> bool {
    fs::metadata(a).and_then(|a| Ok(identity(&a) == identity(&fs::metadata(b)?))).unwrap_or(false)
}

#[cfg(unix)]
fn is_stdout(path: &Path) -> bool {
    use std::os::fd::AsFd;
    let stdout = io::stdout().as_fd().try_clone_to_owned().and_then(|stdout| File::from(stdout).metadata());
    stdout.and_then(|stdout| Ok(identity(&stdout) == identity(&fs::metadata(path)?))).unwrap_or(false)
}

#[cfg(unix)]
fn identity(file: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino())
}

#[cfg(not(unix))]
fn is_same(a: &Path, b: &Path) -> bool {
    a.canonicalize().and_then(|a| Ok(a == b.canonicalize()?)).unwrap_or(false)
}

#[cfg(not(unix))]
fn is_stdout(_: &Path) -> bool {
    false
}

/// The flag and its path, for messages.
fn flag(path: &Path) -> String {
    format!("--out: {}", path.display())
}

fn cannot_write(path: &Path) -> String {
    format!("{}: cannot be written", flag(path))
}

/// Flushes a folder's files to disk, on Linux all at once: flushing thousands of small files one by one is slow.
#[cfg(target_os = "linux")]
fn sync_files(folder: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_files(folder: &Path) -> io::Result<()> {
    fs::read_dir(folder)?.try_for_each(|entry| match entry?.path() {
        folder if folder.is_dir() => sync_files(&folder),
        file => File::open(file)?.sync_all(),
    })
}

/// Flushes the names in a folder to disk. Not every file system can.
pub fn sync_folder(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

/// Fails if the disk of `folder` has less than `bytes` free. The message begins with `name`.
#[cfg(unix)]
pub fn check_room(name: &str, folder: &Path, bytes: u64) -> Result<()> {
    let disk = rustix::fs::statvfs(folder).map_err(io::Error::from);
    let disk = disk.with_context(|| format!("{name}: cannot be written"))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    ensure!(
        bytes <= free,
        "{name}: {} MB free expected, {} MB found; draw fewer images",
        bytes.div_ceil(1_000_000),
        free / 1_000_000
    );
    Ok(())
}

#[cfg(not(unix))]
pub fn check_room(_: &str, _: &Path, _: u64) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_one_file_of_a_set_cannot_be_renamed_the_old_ones_come_back() {
        let place = Temporary::folder(&std::env::temp_dir()).unwrap();
        let at = |name: &str| place.path().join(name);
        let rename = |from: &str, to: &str| Rename { from: at(from), to: at(to) };
        let set = [rename("new a", "a"), rename("new b", "b"), rename("new c", "c"), rename("no file", "d")];
        for together in [false, true] {
            ["a", "b", "d", "new a", "new b", "new c"].iter().for_each(|name| fs::write(at(name), name).unwrap());
            fs::create_dir(at("old")).unwrap();
            rename_all(&set, &at("old"), together).unwrap_err();
            assert_eq!(["a", "b", "d"].map(|name| fs::read_to_string(at(name)).unwrap()), ["a", "b", "d"]);
            assert!(!at("c").exists());
            fs::remove_dir_all(at("old")).unwrap();
        }
        ["new a", "new b"].iter().for_each(|name| fs::write(at(name), name).unwrap());
        fs::create_dir(at("old")).unwrap();
        rename_all(&set[..3], &at("old"), true).unwrap();
        assert_eq!(["a", "b", "c"].map(|name| fs::read_to_string(at(name)).unwrap()), ["new a", "new b", "new c"]);
    }
}
