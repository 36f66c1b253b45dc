//! Pins: the length and SHA-256 that a published file must have.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sha2::{Digest, Sha256};

use crate::data::idx::{self, IdxFile};
use crate::files::hex;

/// The one content that a file of a published data set has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Name of the unpacked file. Mirrors have it as `name.gz`.
    pub name: &'static str,
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
    /// The file of this content in a folder, raw or gzipped. `None` if there is none. Files with this name and wrong
    /// content are added to `mismatches`.
    pub fn find(&self, folder: &Path, mismatches: &mut Vec<Mismatch>) -> Option<IdxFile> {
        idx::candidates(folder, self.name).filter(|path| path.is_file()).find_map(|path| {
            let file = IdxFile::read(path.clone(), self.len);
            let file = file.and_then(|file| self.check(&file).map(|()| file));
            file.map_err(|problem| mismatches.push((path, problem))).ok()
        })
    }

    /// Succeeds for a file of this content.
    ///
    /// # Errors
    /// For another content: says which was expected and found.
    pub fn check(&self, file: &IdxFile) -> Result<()> {
        let (shown, found) = (file.path.display(), file.bytes.len());
        let page = if file.bytes.trim_ascii_start().starts_with(b"<") { ", which look like a web page" } else { "" };
        ensure!(found as u64 == self.len, "{shown}: {} unpacked bytes expected, {found} found{page}", self.len);
        let (of, expected, found) = match (self.sha256, &file.gzip) {
            (Sha256Of::Content(expected), _) => ("content", expected, file.sha256.clone()),
            (Sha256Of::Gzip(expected), Some(gzip)) => ("the gzip file", expected, hex(&Sha256::digest(gzip))),
            (Sha256Of::Gzip(expected), None) => ("the gzip file", expected, "no gzip file".into()),
        };
        ensure!(found == expected, "{shown}: SHA-256 {expected} of {of} expected, {found} found");
        Ok(())
    }
}
