//! `runtime verify`: whether a data set in shards is what its manifest says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{ErrorKind, Read};
use std::mem;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::draw::{Job, Progress, number};
use super::error::printable;
use super::layout::{FOLDERS, MANIFEST, Plan, SUMS, Shard, ShardFile};
use super::model::Model;
use super::output::{hex, print};
use super::parallel::{MAX_THREADS, threads};
use super::temporary;
use crate::image::Image;

#[derive(Args)]
pub struct Verify {
    /// The folder of the data set.
    out: PathBuf,
    /// The share of the images that are drawn again and compared, from each shard, at random. 0% needs no generator.
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    redraw: Share,
    /// Deletes the files of shards that are wrong, so that `runtime shards` draws them again, and shards of other plans.
    #[arg(long)]
    delete_broken: bool,
    /// The generator that drew the data set, if it is not the built-in one.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The number of threads, by default one per core.
    #[arg(long, value_name = "N", value_parser = number(NonZeroUsize::MIN..=MAX_THREADS))]
    threads: Option<NonZeroUsize>,
    /// Prints one JSON object per problem and one at the end.
    #[arg(long)]
    json: bool,
}

/// Every how many images one is drawn again; `None` for no image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share(Option<u64>);

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok()) {
            Some(0.0) => Ok(Self(None)),
            Some(percent) if percent > 0.0 && percent <= 100.0 => Ok(Self(Some((100.0 / percent).round() as u64))),
            _ => Err("a percentage from 0% to 100% expected, such as 1%".into()),
        }
    }
}

/// A path relative to the data set, and a sentence that begins with it.
type Problem = (String, String);

pub fn run(args: &Verify) -> Result<()> {
    let out = &args.out;
    let plan = Plan::read(out)?;
    let plan = plan
        .with_context(|| format!("{}: missing; a folder of `runtime shards` expected", out.join(MANIFEST).display()))?;
    let redraw = match args.redraw.0 {
        Some(every) => Some((job(args, &plan)?, every)),
        None => None,
    };
    if args.delete_broken {
        FOLDERS.iter().for_each(|folder| temporary::sweep(&out.join(folder)));
    }
    let (mut problems, broken) = check_shards(out, &plan, redraw.as_ref(), threads(args.threads, u64::MAX))?;
    let strays = strays(out, &plan)?;
    let is_missing = |index: &u64| plan.shard(*index).files.iter().any(|file| !out.join(&file.path).exists());
    let missing = broken.iter().filter(|index| is_missing(index)).count();
    let sums = (0..plan.shards())
        .map(|index| plan.shard(index))
        .map(|shard| Some(shard.digest_lines(&shard.read_digests(out)?)));
    if let Some(sums) = sums.collect::<Option<String>>() {
        match fs::read(out.join(SUMS)) {
            Ok(found) if found == sums.as_bytes() => {}
            Ok(_) => problems.push((
                SUMS.into(),
                format!("{SUMS}: the lines of all files in {} expected, others found", FOLDERS[1]),
            )),
            Err(_) => problems.push((SUMS.into(), format!("{SUMS}: missing; `runtime shards` writes it"))),
        }
    }
    problems.extend(strays.iter().map(|stray| (stray.path.clone(), stray.sentence(&plan))));
    for (path, sentence) in &problems {
        let sentence = printable(sentence);
        let line = if args.json { json!({ "file": path, "problem": sentence }).to_string() } else { sentence };
        print(format!("{line}\n"))?;
    }
    if args.delete_broken && !problems.is_empty() {
        delete(out, &plan, &broken, &strays)?;
    }
    if args.json {
        let line = json!({
            "shards": plan.shards(), "images": plan.count, "broken": broken.len(), "missing": missing, "problems": problems.len(),
        });
        print(format!("{line}\n"))?;
    }
    if problems.is_empty() {
        if !args.json {
            print(format!("{}: {} images in {} shards, as planned\n", out.display(), plan.count, plan.shards()))?;
        }
        return Ok(());
    }
    let advice = match args.delete_broken {
        true => "the files of these shards are deleted, and `runtime shards` with its first options draws them again",
        false => {
            "--delete-broken deletes the files of these shards, and `runtime shards` with its first options draws them again"
        }
    };
    bail!("{}: 0 problems expected, {} found; {advice}", out.display(), problems.len())
}

/// The images of the plan, with their generator.
fn job(args: &Verify, plan: &Plan) -> Result<Job> {
    let model = Model::load(args.model.as_deref(), plan.precision, Some(plan.classes.len()))?;
    let found = model.weights_sha256();
    let source =
        args.model.as_deref().map_or("the built-in generator".into(), |model| format!("--model: {}", model.display()));
    ensure!(
        found == plan.weights_sha256 && model.classes.len() == plan.classes.len(),
        "{source}: weights with SHA-256 {} and {} classes expected by {MANIFEST}, {found} and {} classes found; name the file with \
         --model, or compare digests only, with --redraw 0%",
        plan.weights_sha256,
        plan.classes.len(),
        model.classes.len()
    );
    Ok(Job { model, class: plan.class, seed: plan.seed, threads: 1 })
}

/// What is wrong with the shards, and the numbers of the wrong ones.
fn check_shards(
    out: &Path,
    plan: &Plan,
    redraw: Option<&(Job, u64)>,
    threads: usize,
) -> Result<(Vec<Problem>, BTreeSet<u64>)> {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let found = Mutex::new(BTreeMap::new());
    let progress = Progress::new(plan.count);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= plan.shards() {
                break;
            }
            let shard = plan.shard(index);
            let mut checker = Checker { out, plan, redraw, shard: &shard, sample: vec![], problems: vec![] };
            checker.check();
            if !checker.problems.is_empty() {
                found.lock().unwrap_or_else(PoisonError::into_inner).insert(index, checker.problems);
            }
            progress.at(done.fetch_add(shard.images, Ordering::Relaxed) + shard.images);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(plan.shards() as usize) {
            let _ = thread::Builder::new().spawn_scoped(scope, work); // fewer threads do the same
        }
        work();
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let broken = found.keys().copied().collect();
    Ok((found.into_values().flatten().collect(), broken))
}

struct Checker<'a> {
    out: &'a Path,
    plan: &'a Plan,
    redraw: Option<&'a (Job, u64)>,
    shard: &'a Shard,
    /// Images to draw again, by their number in the data set.
    sample: Vec<(u64, Image)>,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn check(&mut self) {
        let shard = self.shard;
        if shard.files.iter().all(|file| !self.out.join(&file.path).exists()) {
            let path = &shard.files[0].path;
            let last = shard.first + shard.images - 1;
            return self.report(path, format!("missing, with the images {} to {last}", shard.first));
        }
        let digests = shard.read_digests(self.out);
        for (i, file) in shard.files.iter().enumerate() {
            let digest = digests.as_ref().map(|digests| &*digests[i]);
            if let Err(error) = self.check_file(file, i == 0, digest) {
                self.report(&file.path, format!("{error:#}"));
            }
        }
        if digests.is_none() {
            let found = if self.out.join(&shard.digests).exists() { "other text" } else { "no file" };
            self.report(&shard.digests, format!("a line of sha256sum per file of the shard expected, {found} found"));
        }
    }

    fn report(&mut self, path: &str, what: String) {
        self.problems.push((path.into(), format!("{path}: {what}")));
    }

    fn check_file(&mut self, file: &ShardFile, images: bool, digest: Option<&str>) -> Result<()> {
        let mut opened = match File::open(self.out.join(&file.path)) {
            Err(e) if e.kind() == ErrorKind::NotFound => bail!("missing"),
            opened => opened.context("cannot be read")?,
        };
        let found = opened.metadata().context("cannot be read")?.len();
        ensure!(found == file.bytes, "{} bytes expected, {found} found", file.bytes);
        let mut header = vec![0; file.header.len()];
        opened.read_exact(&mut header).context("cannot be read")?;
        let mut sha256 = Sha256::new();
        sha256.update(&header);
        let content = match images {
            true => self.check_images(&mut opened, &mut sha256)?,
            false => self.check_labels(&mut opened, &mut sha256)?,
        };
        let found = hex(&sha256.finalize());
        ensure!(
            digest.is_none_or(|digest| digest == found),
            "SHA-256 {} expected, {found} found",
            digest.unwrap_or_default()
        );
        ensure!(header == file.header, "the header {} expected, {} found", hex(&file.header), hex(&header));
        content.map_or(Ok(()), |content| bail!(content))
    }

    /// Reads all images; a sentence if one differs from what the generator draws.
    fn check_images(&mut self, file: &mut File, sha256: &mut Sha256) -> Result<Option<String>> {
        const BLOCK: u64 = 512;
        const SAMPLE: usize = 64;
        let every = self.redraw.map(|(_, every)| *every);
        // Also of a small shard, one image is drawn.
        let start = every.map_or(0, |every| RandomState::new().hash_one(()) % every.min(self.shard.images));
        let mut pixels = vec![0; BLOCK as usize * Image::PIXELS];
        let mut wrong = None;
        for first in (0..self.shard.images).step_by(BLOCK as usize) {
            let len = BLOCK.min(self.shard.images - first);
            let pixels = &mut pixels[..len as usize * Image::PIXELS];
            file.read_exact(pixels).context("cannot be read")?;
            sha256.update(&*pixels);
            for (i, pixels) in (first..).zip(pixels.as_chunks::<{ Image::PIXELS }>().0) {
                if every.is_some_and(|every| i % every == start % every) {
                    self.sample.push((self.shard.first + i, Image(*pixels)));
                }
            }
            if self.sample.len() >= SAMPLE || first + len == self.shard.images {
                wrong = wrong.or(self.check_sample());
            }
        }
        Ok(wrong)
    }

    fn check_sample(&mut self) -> Option<String> {
        let (job, _) = self.redraw?;
        let sample = mem::take(&mut self.sample);
        let mut drawn = vec![Image::BLANK; sample.len()];
        job.draw_each(sample.iter().map(|(index, _)| *index), &mut drawn);
        let differs = sample.iter().zip(&drawn).find(|((_, found), drawn)| found != *drawn);
        differs.map(|((index, _), _)| {
            let seed = self.plan.seed + index;
            format!("image {index} as the generator draws it from seed {seed} expected, another one found")
        })
    }

    /// Reads all labels; a sentence if one differs from the class of its image.
    fn check_labels(&mut self, file: &mut File, sha256: &mut Sha256) -> Result<Option<String>> {
        let mut labels = vec![];
        file.read_to_end(&mut labels).context("cannot be read")?;
        sha256.update(&labels);
        let wrong = (self.shard.first..).zip(labels).find(|(index, label)| self.plan.label(*index) != *label);
        Ok(wrong
            .map(|(index, label)| format!("label {} of image {index} expected, {label} found", self.plan.label(index))))
    }
}

/// A file in a folder of the data set that is no file of its plan.
struct Stray {
    path: String,
    kind: StrayKind,
}

#[derive(PartialEq, Eq)]
enum StrayKind {
    /// A shard of a plan with another number of shards, so that it overlaps with those of this plan.
    Shard,
    Temporary,
    Unknown,
}

impl Stray {
    fn sentence(&self, plan: &Plan) -> String {
        let path = &self.path;
        match self.kind {
            StrayKind::Shard => {
                format!("{path}: a shard of {} expected, one of another plan found, which overlaps", plan.shards())
            }
            StrayKind::Temporary => {
                format!("{path}: a program writes this file, or was killed; the next `runtime shards` removes it then")
            }
            StrayKind::Unknown => format!("{path}: only files of the data set expected, another one found; move it"),
        }
    }
}

fn strays(out: &Path, plan: &Plan) -> Result<Vec<Stray>> {
    let mut strays = vec![];
    let shards = plan.shards();
    for folder in FOLDERS {
        let path = out.join(folder);
        let entries = fs::read_dir(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        for entry in entries {
            let name = entry.with_context(|| format!("{}: cannot be read", path.display()))?.file_name();
            let name = name.to_string_lossy().into_owned();
            let path = format!("{folder}/{name}");
            let numbers = shard_numbers(&name);
            let ours = numbers.filter(|(index, of)| index < of && *of == shards).map(|(index, _)| plan.shard(index));
            if ours.is_some_and(|shard| shard.digests == path || shard.files.iter().any(|file| file.path == path)) {
                continue;
            }
            let kind = match numbers {
                Some(_) => StrayKind::Shard,
                None if temporary::is_temporary(name.as_ref()) => StrayKind::Temporary,
                None => StrayKind::Unknown,
            };
            strays.push(Stray { path, kind });
        }
    }
    strays.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(strays)
}

/// K and N of the name of a shard's file, `train-K-of-N` and an ending.
fn shard_numbers(name: &str) -> Option<(u64, u64)> {
    let (index, rest) = name.strip_prefix("train-")?.split_once("-of-")?;
    let endings = ["-images-idx3-ubyte", "-labels-idx1-ubyte", ".sha256"];
    let of = endings.iter().find_map(|ending| rest.strip_suffix(ending))?;
    Some((index.parse().ok()?, of.parse().ok()?))
}

/// Deletes the files of wrong shards, their digests first, and shards of other plans.
fn delete(out: &Path, plan: &Plan, broken: &BTreeSet<u64>, strays: &[Stray]) -> Result<()> {
    let broken = broken.iter().map(|index| plan.shard(*index));
    let files =
        broken.flat_map(|shard| [shard.digests].into_iter().chain(shard.files.into_iter().map(|file| file.path)));
    let strays = strays.iter().filter(|stray| stray.kind == StrayKind::Shard).map(|stray| stray.path.clone());
    for path in [SUMS.to_string()].into_iter().chain(files).chain(strays) {
        let path = out.join(path);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                return Err(e).with_context(|| format!("{}: cannot be deleted", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage() {
        let every = |text: &str| text.parse::<Share>().map(|share| share.0);
        assert_eq!(
            ["0%", "1%", "0.5%", "100%", "30%"].map(every),
            [None, Some(100), Some(200), Some(1), Some(3)].map(Ok)
        );
        assert!(["1", "", "%", "101%", "-1%", "nan%", "inf%"].iter().all(|text| every(text).is_err()));
    }
}
