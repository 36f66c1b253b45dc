//! Draws shards on several threads, and hashes and writes them meanwhile.
//!
//! The drawing threads take blocks of images; a writer is a thread that writes one shard after another, each from its first block to
//! its last. As SHA-256 reads a file in order, one writer alone could not keep up with many drawing threads. So there are as many
//! writers as drawing threads, if there are enough shards, and all drawing threads help with the last shard. A drawing thread needs a
//! free buffer before it takes a block, so a fixed number of buffers bounds the memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::draw::{Job, Progress};
use super::files::sync_folder;
use super::layout::{Shard, ShardFile, cannot_write, write_whole};
use super::output::{hex, print_json};
use super::temporary::{Temporary, before_signals};
use crate::arch::bytes_of;
use crate::image::Image;

/// Images that are in memory at a time: 26 MB.
const IN_MEMORY: usize = 32 * 1024;
/// Images of a block, at most: 200 kB. From 32 to 512 the speed is the same.
const MAX_BLOCK: usize = 256;
const MAX_WRITERS: usize = 32;

/// The progress of the work, on a bar, and with `json` as a line on stdout per shard.
pub struct Report {
    json: bool,
    progress: Option<Progress>,
    /// Images that are there.
    images: AtomicU64,
    /// Shards that this program drew.
    drawn: AtomicU64,
    /// Images of these shards.
    drawn_images: AtomicU64,
}

impl Report {
    /// A report before the first of `images`.
    pub fn new(images: u64, json: bool) -> Self {
        Self { json, progress: Some(Progress::new(images)), ..Self::silent() }
    }

    /// A report that prints nothing.
    pub fn silent() -> Self {
        Self { json: false, progress: None, images: 0.into(), drawn: 0.into(), drawn_images: 0.into() }
    }

    /// The number of shards that this program drew, and of their images.
    pub fn drawn(&self) -> (u64, u64) {
        (self.drawn.load(Ordering::Relaxed), self.drawn_images.load(Ordering::Relaxed))
    }

    fn wrote(&self, images: u64) {
        let there = self.images.fetch_add(images, Ordering::Relaxed) + images;
        if let Some(progress) = &self.progress {
            progress.at(there);
        }
    }

    /// A shard is complete. `another` program may have written it.
    fn finished(&self, shard: &Shard, another: bool) {
        if !another {
            self.drawn.fetch_add(1, Ordering::Relaxed);
            self.drawn_images.fetch_add(shard.images, Ordering::Relaxed);
        }
        if self.json {
            let files: Vec<&str> = shard.files.iter().map(|file| &*file.path).collect();
            let line = json!({ "shard": shard.index, "images": shard.images, "files": files, "drawn": !another });
            let _ = print_json(line); // the shards count, and not the lines
        }
    }
}

/// Draws and writes all `shards` into the folder `out`.
///
/// # Errors
/// A file cannot be written, or a thread not be started. Finished shards stay, and unfinished ones leave nothing.
pub fn draw_shards(job: &Job, out: &Path, shards: &[Shard], report: &Report) -> Result<()> {
    let writers = job.threads.min(shards.len()).min(MAX_WRITERS);
    let block = (IN_MEMORY / 2 / job.threads).clamp(16, MAX_BLOCK);
    let state = State {
        unstarted: shards.iter(),
        writers: (0..writers).map(|_| Writer::default()).collect(),
        buffers: vec![vec![Image::BLANK; block]; 2 * job.threads],
        error: None,
    };
    let pipeline = Pipeline { job, out, report, state: Mutex::new(state), changed: Condvar::new() };
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..writers).map(|_| channel()).unzip();
    thread::scope(|scope| {
        let pipeline = &pipeline;
        let mut started = receivers.into_iter().enumerate().try_for_each(|(writer, blocks)| {
            start(scope, move || pipeline.write(writer, blocks).unwrap_or_else(|error| pipeline.fail(error)))
        });
        for senders in vec![senders; job.threads] {
            started = started.and_then(|()| start(scope, move || pipeline.draw(&senders)));
        }
        if let Err(error) = started {
            pipeline.fail(anyhow::Error::from(error).context(job.cannot_start()));
        }
    });
    pipeline.state.into_inner().unwrap_or_else(PoisonError::into_inner).error.map_or(Ok(()), Err)
}

fn start<'scope>(scope: &'scope Scope<'scope, '_>, work: impl FnOnce() + Send + 'scope) -> io::Result<()> {
    thread::Builder::new().spawn_scoped(scope, work).map(drop)
}

struct Pipeline<'a> {
    job: &'a Job,
    out: &'a Path,
    report: &'a Report,
    state: Mutex<State<'a>>,
    /// A buffer is free, or the work has failed.
    changed: Condvar,
}

struct State<'a> {
    /// Shards that no writer has begun.
    unstarted: slice::Iter<'a, Shard>,
    writers: Vec<Writer<'a>>,
    buffers: Vec<Vec<Image>>,
    error: Option<anyhow::Error>,
}

#[derive(Default)]
struct Writer<'a> {
    /// The shard whose blocks are taken, and how many of its images are taken already.
    shard: Option<(&'a Shard, u64)>,
    /// Blocks that were taken.
    taken: u64,
    /// Blocks that were written.
    written: u64,
}

struct Block<'a> {
    writer: usize,
    /// The number of this block among those of its writer.
    number: u64,
    shard: &'a Shard,
    /// The number of its first image in the shard.
    first: u64,
    /// How many images of the buffer belong to the block.
    len: usize,
    buffer: Vec<Image>,
}

impl<'a> Pipeline<'a> {
    /// Draws blocks until all are taken.
    fn draw(&self, writers: &[Sender<Block<'a>>]) {
        while let Some(mut block) = self.take_block() {
            self.job.draw_each(block.shard.first + block.first.., &mut block.buffer[..block.len]);
            let _ = writers[block.writer].send(block); // a writer that failed receives no more
        }
    }

    /// Waits for a free buffer, and takes the next block of the writer that has the fewest to write.
    fn take_block(&self) -> Option<Block<'a>> {
        let mut state = self.state();
        let buffer = loop {
            if state.error.is_some() {
                return None;
            }
            match state.buffers.pop() {
                Some(buffer) => break buffer,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        let State { writers, unstarted, .. } = &mut *state;
        for writer in writers.iter_mut().filter(|writer| writer.shard.is_none()) {
            writer.shard = unstarted.by_ref().find(|shard| !self.skip_if_whole(shard)).map(|shard| (shard, 0));
        }
        let open = writers.iter_mut().enumerate().filter(|(_, writer)| writer.shard.is_some());
        let Some((number, writer)) = open.min_by_key(|(_, writer)| writer.taken - writer.written) else {
            state.buffers.push(buffer); // for the next thread that looks for work
            self.changed.notify_all();
            return None;
        };
        let (shard, first) = writer.shard?;
        let len = (buffer.len() as u64).min(shard.images - first);
        let block = Block { writer: number, number: writer.taken, shard, first, len: len as usize, buffer };
        writer.taken += 1;
        writer.shard = Some((shard, first + len)).filter(|(shard, taken)| *taken < shard.images);
        Some(block)
    }

    /// Whether another program has written the shard meanwhile. Then it is reported.
    fn skip_if_whole(&self, shard: &Shard) -> bool {
        let is_whole = shard.is_whole(self.out);
        if is_whole {
            self.report.wrote(shard.images);
            self.report.finished(shard, true);
        }
        is_whole
    }

    /// Writes the blocks of a writer in the order in which they were taken.
    fn write(&self, writer: usize, blocks: Receiver<Block<'a>>) -> Result<()> {
        let mut early = BTreeMap::new();
        let mut next = 0;
        let mut unfinished = None;
        for block in blocks {
            early.insert(block.number, block);
            while let Some(Block { shard, first, len, buffer, .. }) = early.remove(&next) {
                let mut open = match unfinished.take() {
                    Some(open) => open,
                    None => OpenShard::create(self.out, shard)?,
                };
                let start = shard.first + first;
                open.write(&buffer[..len], &self.job.labels(start..start + len as u64))?;
                self.report.wrote(len as u64);
                next += 1;
                let mut state = self.state();
                state.writers[writer].written = next;
                state.buffers.push(buffer);
                drop(state);
                self.changed.notify_all();
                match first + len as u64 == shard.images {
                    true => {
                        open.finish()?;
                        self.report.finished(shard, false);
                    }
                    false => unfinished = Some(open),
                }
            }
        }
        Ok(())
    }

    fn fail(&self, error: anyhow::Error) {
        self.state().error.get_or_insert(error);
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files of a shard under temporary names.
struct OpenShard<'a> {
    out: &'a Path,
    shard: &'a Shard,
    files: Vec<HashedFile>,
}

impl<'a> OpenShard<'a> {
    fn create(out: &'a Path, shard: &'a Shard) -> Result<Self> {
        let files = shard.files.iter().map(|file| HashedFile::create(out, file)).collect::<Result<_>>()?;
        Ok(Self { out, shard, files })
    }

    fn write(&mut self, images: &[Image], labels: &[u8]) -> Result<()> {
        self.files.iter_mut().zip([bytes_of(images), labels]).try_for_each(|(file, bytes)| file.write(bytes))
    }

    /// Gives the files their names, the images after the labels and the digests last.
    fn finish(self) -> Result<()> {
        for file in &self.files {
            file.file.sync_all().with_context(|| cannot_write(&file.to))?;
        }
        let rename =
            |file: &HashedFile| fs::rename(file.temporary.path(), &file.to).with_context(|| cannot_write(&file.to));
        before_signals(|| self.files.iter().rev().try_for_each(rename))?;
        self.files[0].to.parent().into_iter().for_each(sync_folder);
        let digests: Vec<String> = self.files.into_iter().map(|file| hex(&file.sha256.finalize())).collect();
        let path = self.out.join(&self.shard.digests);
        let folder = path.parent().unwrap_or(self.out);
        write_whole(folder, &path, self.shard.digest_lines(&digests).as_bytes())
    }
}

struct HashedFile {
    temporary: Temporary,
    file: File,
    to: PathBuf,
    sha256: Sha256,
}

impl HashedFile {
    fn create(out: &Path, file: &ShardFile) -> Result<Self> {
        let to = out.join(&file.path);
        let created = Temporary::file(to.parent().unwrap_or(out));
        let (temporary, created) = created.with_context(|| cannot_write(&to))?;
        let mut hashed = Self { temporary, file: created, to, sha256: Sha256::new() };
        hashed.write(&file.header)?;
        Ok(hashed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sha256.update(bytes);
        self.file.write_all(bytes).with_context(|| cannot_write(&self.to))
    }
}
