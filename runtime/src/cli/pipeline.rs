//! Draws shards on several threads, and hashes and writes them meanwhile.
//!
//! The drawing threads take blocks of images; a lane is a thread that writes one shard after another, each from its first block to its
//! last. As SHA-256 reads a file in order, one lane alone could not keep up with many drawing threads. So there are as many lanes as
//! drawing threads, if there are enough shards, and all drawing threads help with the last shard. A drawing thread needs a free
//! buffer before it takes a block, so a fixed number of buffers bounds the memory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope};

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use super::draw::Job;
use super::files::sync_folder;
use super::layout::{Shard, ShardFile, write_whole};
use super::output::hex;
use super::temporary::{Temporary, before_signals};
use crate::image::Image;

/// Images that are in memory at a time: 26 MB.
const IN_MEMORY: usize = 32 * 1024;
/// Images of a block, at most: 200 kB. From 32 to 512 the speed is the same.
const MAX_BLOCK: usize = 256;
const MAX_LANES: usize = 32;

/// What is told of the work, from several threads.
pub trait Observer: Sync {
    /// Some images were written.
    fn wrote(&self, images: u64);
    /// A shard is there: from this program, or from `another` one meanwhile.
    fn finished(&self, shard: &Shard, another: bool);
}

/// Draws and writes all `shards` into the folder `out`.
///
/// # Errors
/// A file cannot be written, or a thread not be started. Finished shards stay, and unfinished ones leave nothing.
pub fn draw_shards(job: &Job, out: &Path, shards: &[Shard], observer: &dyn Observer) -> Result<()> {
    let lanes = job.threads.min(shards.len()).min(MAX_LANES);
    let block = (IN_MEMORY / 2 / job.threads).clamp(16, MAX_BLOCK);
    let state = State {
        waiting: shards.iter(),
        lanes: (0..lanes).map(|_| Lane::default()).collect(),
        buffers: vec![vec![Image::BLANK; block]; 2 * job.threads],
        error: None,
    };
    let pipeline = Pipeline { job, out, observer, state: Mutex::new(state), changed: Condvar::new() };
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..lanes).map(|_| channel()).unzip();
    thread::scope(|scope| {
        let pipeline = &pipeline;
        let mut started = receivers.into_iter().enumerate().try_for_each(|(lane, blocks)| {
            start(scope, move || pipeline.write(lane, blocks).unwrap_or_else(|error| pipeline.fail(error)))
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
    observer: &'a dyn Observer,
    state: Mutex<State<'a>>,
    /// A buffer is free, or the work has failed.
    changed: Condvar,
}

struct State<'a> {
    /// Shards that no lane has begun.
    waiting: slice::Iter<'a, Shard>,
    lanes: Vec<Lane<'a>>,
    buffers: Vec<Vec<Image>>,
    error: Option<anyhow::Error>,
}

#[derive(Default)]
struct Lane<'a> {
    /// The shard whose blocks are taken, and how many of its images are taken already.
    shard: Option<(&'a Shard, u64)>,
    /// Blocks that were taken.
    taken: u64,
    /// Blocks that were written.
    written: u64,
}

struct Block<'a> {
    lane: usize,
    /// The number of this block in its lane.
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
    fn draw(&self, lanes: &[Sender<Block<'a>>]) {
        while let Some(mut block) = self.take_block() {
            self.job.draw_each(block.shard.first + block.first.., &mut block.buffer[..block.len]);
            let _ = lanes[block.lane].send(block); // a lane that failed receives no more
        }
    }

    /// Waits for a free buffer, and takes the next block of the lane that has the fewest to write.
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
        let State { lanes, waiting, .. } = &mut *state;
        for lane in lanes.iter_mut().filter(|lane| lane.shard.is_none()) {
            lane.shard = waiting.by_ref().find(|shard| !self.is_there(shard)).map(|shard| (shard, 0));
        }
        let open = lanes.iter_mut().enumerate().filter(|(_, lane)| lane.shard.is_some());
        let Some((number, lane)) = open.min_by_key(|(_, lane)| lane.taken - lane.written) else {
            state.buffers.push(buffer); // for the next thread that looks for work
            self.changed.notify_all();
            return None;
        };
        let (shard, first) = lane.shard?;
        let len = (buffer.len() as u64).min(shard.images - first);
        let block = Block { lane: number, number: lane.taken, shard, first, len: len as usize, buffer };
        lane.taken += 1;
        lane.shard = Some((shard, first + len)).filter(|(shard, taken)| *taken < shard.images);
        Some(block)
    }

    /// Whether another program has finished the shard meanwhile.
    fn is_there(&self, shard: &Shard) -> bool {
        let is_there = shard.is_whole(self.out);
        if is_there {
            self.observer.wrote(shard.images);
            self.observer.finished(shard, true);
        }
        is_there
    }

    /// Writes the blocks of a lane in the order in which they were taken.
    fn write(&self, lane: usize, blocks: Receiver<Block<'a>>) -> Result<()> {
        let mut early = BTreeMap::new();
        let mut next = 0;
        let mut writer = None;
        for block in blocks {
            early.insert(block.number, block);
            while let Some(Block { shard, first, len, buffer, .. }) = early.remove(&next) {
                let mut open = match writer.take() {
                    Some(open) => open,
                    None => ShardWriter::create(self.out, shard)?,
                };
                let classes = (first..first + len as u64).filter_map(|i| self.job.class(shard.first + i));
                let labels: Vec<u8> = classes.map(|class| class.index() as u8).collect();
                open.write(&buffer[..len], &labels)?;
                self.observer.wrote(len as u64);
                next += 1;
                let mut state = self.state();
                state.lanes[lane].written = next;
                state.buffers.push(buffer);
                drop(state);
                self.changed.notify_all();
                match first + len as u64 == shard.images {
                    true => {
                        open.finish()?;
                        self.observer.finished(shard, false);
                    }
                    false => writer = Some(open),
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
struct ShardWriter<'a> {
    out: &'a Path,
    shard: &'a Shard,
    files: Vec<HashedFile>,
    /// The pixels of a block.
    pixels: Vec<u8>,
}

impl<'a> ShardWriter<'a> {
    fn create(out: &'a Path, shard: &'a Shard) -> Result<Self> {
        let files = shard.files.iter().map(|file| HashedFile::create(out, file)).collect::<Result<_>>()?;
        Ok(Self { out, shard, files, pixels: vec![] })
    }

    fn write(&mut self, images: &[Image], labels: &[u8]) -> Result<()> {
        self.pixels.clear();
        images.iter().for_each(|image| self.pixels.extend_from_slice(&image.0));
        self.files.iter_mut().zip([&self.pixels[..], labels]).try_for_each(|(file, bytes)| file.write(bytes))
    }

    /// Gives the files their names, the images after the labels and the digests last.
    fn finish(self) -> Result<()> {
        for file in &self.files {
            file.file.sync_all().with_context(|| file.cannot_write())?;
        }
        let rename =
            |file: &HashedFile| fs::rename(file.temporary.path(), &file.to).with_context(|| file.cannot_write());
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
        let (temporary, created) = created.with_context(|| format!("{}: cannot be written", to.display()))?;
        let mut hashed = Self { temporary, file: created, to, sha256: Sha256::new() };
        hashed.write(&file.header)?;
        Ok(hashed)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sha256.update(bytes);
        self.file.write_all(bytes).with_context(|| self.cannot_write())
    }

    fn cannot_write(&self) -> String {
        format!("{}: cannot be written", self.to.display())
    }
}
