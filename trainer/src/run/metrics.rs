//! `metrics.jsonl`: one JSON object per epoch.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::files::{self, cannot_write};
use crate::state::Epoch;

/// The metrics file of a run, open for appending, and the epochs in it.
pub struct MetricsLog {
    path: PathBuf,
    file: File,
    epochs: Vec<Epoch>,
}

impl MetricsLog {
    /// Opens the metrics file in `folder`, and removes all epochs but these.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn open(folder: &Path, epochs: Vec<Epoch>) -> Result<Self> {
        let path = folder.join(FILE);
        let mut text = vec![];
        epochs.iter().try_for_each(|epoch| write_line(&mut text, epoch))?;
        files::update(&path, &text)?;
        let file = OpenOptions::new().append(true).open(&path).with_context(|| cannot_write(&path))?;
        Ok(Self { path, file, epochs })
    }

    /// Appends an epoch. It outlasts a power failure.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn push(&mut self, epoch: &Epoch) -> Result<()> {
        let mut line = vec![];
        write_line(&mut line, epoch)?;
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        written.with_context(|| cannot_write(&self.path))?;
        self.epochs.push(epoch.clone());
        Ok(())
    }

    /// All epochs of the run so far, oldest first.
    pub fn epochs(&self) -> &[Epoch] {
        &self.epochs
    }
}

/// The epochs recorded in `folder`, oldest first; empty if there is no metrics file.
///
/// # Errors
/// When the file cannot be read, or a line of it is not an epoch.
pub fn read(folder: &Path) -> Result<Vec<Epoch>> {
    let path = folder.join(FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
        Err(e) => return Err(e).with_context(|| format!("{}: cannot be read", path.display())),
    };
    // A killed run may leave a last line without its end. That line is ignored.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |(i, line)| {
        serde_json::from_str(line).with_context(|| format!("{}: line {}: an epoch expected", path.display(), i + 1))
    };
    complete.lines().enumerate().map(parse).collect()
}

/// Name of the metrics file.
pub const FILE: &str = "metrics.jsonl";

fn write_line(text: &mut Vec<u8>, epoch: &Epoch) -> Result<()> {
    serde_json::to_writer(&mut *text, epoch)?;
    text.push(b'\n');
    Ok(())
}
