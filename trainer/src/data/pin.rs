//! Pins: the length and SHA-256 that a published file must have.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::data::idx::{IdxFile, Kind};
use crate::files::hex;

/// The one content that a file of a published data set has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Name of the unpacked file. Mirrors have it as `name.gz`.
    pub name: &'static str,
    /// Images or labels.
    pub kind: Kind,
    /// Length of the unpacked file in bytes.
    pub len: u64,
    /// Digest of the file.
    pub sha256: Sha256Of,
}

/// A SHA-256 in hexadecimal, and of which bytes it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sha256Of {
    /// Of the unpacked file: every gzip file of this content is accepted, and so is the raw file.
    Content(&'static str),
    /// Of the gzip file that the publisher offers: only that very file is accepted.
    Gzip(&'static str),
}

/// A file with a pinned name and wrong content, and the error.
pub type Mismatch = (PathBuf, anyhow::Error);

impl Pin {
    /// Path and content of the file of this content in a folder, raw or gzipped, opened by `open`. `None` if there is none. Files
    /// with this name that cannot be opened or have another content are added to `mismatches`.
    pub fn find(
        &self,
        folder: &Path,
        open: impl Fn(&Path) -> Result<File>,
        mismatches: &mut Vec<Mismatch>,
    ) -> Option<(PathBuf, IdxFile)> {
        let paths = [folder.join(self.name), folder.join(format!("{}.gz", self.name))];
        paths.into_iter().filter(|path| path.is_file()).find_map(|path| {
            let read = |file| self.read(file).with_context(|| path.display().to_string());
            match open(&path).and_then(read) {
                Ok(file) => return Some((path, file)),
                Err(problem) => mismatches.push((path, problem)),
            }
            None
        })
    }

    /// The content of `file`.
    ///
    /// # Errors
    /// For another content: says which was expected and found. The caller adds the file's name.
    pub fn read(&self, file: impl Read) -> Result<IdxFile> {
        let file = IdxFile::read(file, self.kind, self.len)?;
        self.check(&file)?;
        Ok(file)
    }

    /// Succeeds for a file of this content.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn check(&self, file: &IdxFile) -> Result<()> {
        let found = file.bytes.len();
        ensure!(found as u64 == self.len, "{} unpacked bytes expected, {found} found", self.len);
        let (of, expected, found) = match (self.sha256, &file.gzip) {
            (Sha256Of::Content(expected), _) => ("content", expected, file.sha256.clone()),
            (Sha256Of::Gzip(expected), Some(gzip)) => ("the gzip file", expected, hex(&Sha256::digest(gzip))),
            (Sha256Of::Gzip(expected), None) => ("the gzip file", expected, "no gzip file".into()),
        };
        ensure!(found == expected, "SHA-256 {expected} of {of} expected, {found} found");
        Ok(())
    }
}
