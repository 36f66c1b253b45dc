//! A data set in shards together with the generator that draws it, for the command and for the Python package.

use std::fs;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::draw::Job;
use super::files::{check_room, folder_of};
use super::layout::{FOLDERS, MANIFEST, Plan, Shard};
use super::model::{Model, ModelFile, Precision};
use super::pipeline::{Report, draw_shards};
use super::temporary;
use crate::latent::Class;

/// A data set in shards and its generator.
pub struct DataSet {
    out: PathBuf,
    job: Job,
    plan: Plan,
}

impl DataSet {
    /// The data set of `count` images in the folder `out`, drawn by one thread with the generator of `file` or the built-in one.
    /// The generator stays in memory until the program ends.
    ///
    /// # Errors
    /// The numbers are no plan.
    pub fn new(
        out: PathBuf,
        file: Option<&ModelFile>,
        precision: Precision,
        class: Option<Class>,
        seed: u64,
        count: u64,
        shard_size: u64,
    ) -> Result<Self> {
        let job = Job { model: Model::of(file, precision), class, seed, threads: 1 };
        Self::of_job(out, job, precision, count, shard_size)
    }

    /// The data set of `count` images of a job in the folder `out`.
    ///
    /// # Errors
    /// The numbers are no plan.
    pub(super) fn of_job(out: PathBuf, job: Job, precision: Precision, count: u64, shard_size: u64) -> Result<Self> {
        let plan = Plan::new(&job, precision, count, shard_size);
        plan.check_numbers()?;
        Ok(Self { out, job, plan })
    }

    /// The number of shards.
    pub fn shards(&self) -> u64 {
        self.plan.shards()
    }

    /// The text of the manifest.
    pub fn manifest(&self) -> String {
        self.plan.manifest()
    }

    /// Creates the folders and the manifest; returns the numbers of those of `shards` that are not there.
    ///
    /// # Errors
    /// The folder has another plan or cannot be written, or the disk has no room for the missing shards.
    pub fn begin(&self, shards: Range<u64>) -> Result<Vec<u64>> {
        if let Some(found) = Plan::read(&self.out)? {
            self.plan.check(&found, &self.out)?;
        }
        let mut bytes = 0;
        let mut missing = vec![];
        for shard in shards.map(|index| self.plan.shard(index)).filter(|shard| !shard.is_whole(&self.out)) {
            bytes += shard.files.iter().map(|file| file.bytes).sum::<u64>();
            missing.push(shard.index);
        }
        create_folders(&self.out, bytes)?;
        temporary::sweep(&self.out);
        self.remove_leftovers();
        self.plan.claim(&self.out)?;
        Ok(missing)
    }

    /// Draws these shards, unless they are there.
    ///
    /// # Errors
    /// As for [`draw_shards`].
    pub(super) fn draw(&self, shards: &[u64], json: bool) -> Result<Report> {
        let shards: Vec<Shard> = shards.iter().map(|&index| self.plan.shard(index)).collect();
        let report = Report::new(shards.iter().map(|shard| shard.images).sum(), json);
        draw_shards(&self.job, &self.out, &shards, &report)?;
        Ok(report)
    }

    /// Draws a shard, unless it is there, into a folder that [`Self::begin`] has made, perhaps on another machine. Prints nothing.
    /// Returns the number of images that this program drew: all of the shard or none.
    ///
    /// # Errors
    /// The folder has no manifest or another plan, or cannot be written.
    pub fn draw_shard(&self, index: u64) -> Result<u64> {
        let Some(found) = Plan::read(&self.out)? else {
            let path = self.out.join(MANIFEST);
            bail!("{}: not found on this machine; all workers must share the folder", path.display());
        };
        self.plan.check(&found, &self.out)?;
        self.remove_leftovers();
        let report = Report::silent();
        draw_shards(&self.job, &self.out, &[self.plan.shard(index)], &report)?;
        Ok(report.drawn().1)
    }

    /// Writes SHA256SUMS if all shards are there; whether they are. Removes what killed programs of this machine left.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self) -> Result<bool> {
        self.remove_leftovers();
        self.plan.finish(&self.out)
    }

    /// Removes from the folders of shards what killed programs of this machine left.
    fn remove_leftovers(&self) {
        FOLDERS.iter().for_each(|folder| temporary::sweep(&self.out.join(folder)));
    }
}

/// Creates the folders of the data set, if its disk has room for `bytes`.
fn create_folders(out: &Path, bytes: u64) -> Result<()> {
    let create = |folder: &Path| match fs::create_dir(folder) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        created => created.with_context(|| format!("{}: cannot be created", folder.display())),
    };
    check_room(&out.display().to_string(), if out.is_dir() { out } else { folder_of(out) }, bytes)?;
    create(out)?;
    FOLDERS.iter().try_for_each(|folder| create(&out.join(folder)))
}
