//! `runtime verify`: whether a data set in shards is what its manifest says.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind, Read};
use std::mem;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::draw::{Job, Progress, number};
use super::error::printable;
use super::layout::{FOLDERS, MANIFEST, Plan, SUMS, Shard, ShardFile};
use super::model::Model;
use super::output::{hex, print, print_json};
use super::parallel::{MAX_THREADS, threads};
use super::temporary;
use crate::image::Image;

#[derive(Args)]
pub struct Verify {
    /// The folder of the data set.
    out: PathBuf,
    /// The share of each shard's images that are drawn again and compared. 1% is every 100th image from a random one on, and other
    /// shares are rounded to every n-th image. 0% needs no generator.
    #[arg(long, value_name = "SHARE", default_value = "1%")]
    redraw: Share,
    /// Deletes wrong shards that `runtime shards` would skip, so that it draws them again, and shards of other plans. Meant for a
    /// time when no program draws into the folder.
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

/// n if every n-th image is drawn again; `None` for no image.
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
        temporary::sweep(out);
        FOLDERS.iter().for_each(|folder| temporary::sweep(&out.join(folder)));
    }
    let faulty = check_shards(out, &plan, redraw.as_ref(), threads(args.threads, u64::MAX));
    let extra = extra_files(out, &plan)?;
    let mut problems: Vec<Problem> = faulty.iter().flat_map(|shard| shard.problems.clone()).collect();
    problems.extend(check_sums(out, &plan).map(|sentence| (SUMS.into(), sentence)));
    problems.extend(extra.iter().map(|file| (file.path.clone(), file.sentence(&plan))));
    let deleted = args.delete_broken.then(|| delete(out, &faulty, &extra)); // even if nobody reads what is printed next

    for (path, sentence) in &problems {
        let sentence = printable(sentence);
        let _ = match args.json {
            true => print_json(json!({ "file": path, "problem": sentence })),
            false => print(format!("{sentence}\n")),
        };
    }
    let deleted = deleted.transpose()?;
    let name = printable(&out.display().to_string());
    let printed = if args.json {
        let missing = faulty.iter().filter(|shard| shard.missing).count();
        print_json(json!({
            "shards": plan.shards(), "images": plan.count, "missing": missing, "broken": faulty.len() - missing,
            "problems": problems.len(), "deleted": deleted.unwrap_or(0),
        }))
    } else if problems.is_empty() {
        print(format!("{name}: {} images in {} shards, as planned\n", plan.count, plan.shards()))
    } else {
        Ok(())
    };
    if problems.is_empty() {
        return printed;
    }
    let is_deletable = faulty.iter().any(|shard| shard.wrong.is_some()) || extra.iter().any(ExtraFile::is_shard);
    let advice = match deleted {
        Some(deleted) => format!("{deleted} files deleted; "),
        None if is_deletable => "--delete-broken deletes wrong shards; ".into(),
        None => String::new(),
    };
    bail!(
        "{}: no problem expected, {} found; {advice}`runtime shards` with its first options writes what is missing",
        out.display(),
        problems.len()
    )
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

/// A path relative to the data set, and a sentence that begins with it.
type Problem = (String, String);

/// A shard with at least one problem.
struct FaultyShard {
    shard: Shard,
    problems: Vec<Problem>,
    /// No file of the shard is there.
    missing: bool,
    /// The files have wrong bytes, but the right lengths, so `runtime shards` skips the shard. Holds their states before the check.
    wrong: Option<Vec<FileState>>,
}

/// Length and times of a file. They change when the file is written or replaced.
type FileState = (u64, Option<SystemTime>, Option<SystemTime>);

/// The states of the digests file and the files of a whole shard; `None` if the shard is not whole.
fn states(out: &Path, shard: &Shard) -> Option<Vec<FileState>> {
    let state = |path| {
        let found = File::open(out.join(path)).and_then(|file| file.metadata()).ok()?; // NFS may remember old ones until then
        Some((found.len(), found.modified().ok(), found.created().ok()))
    };
    shard.paths().map(state).collect::<Option<_>>().filter(|_| shard.is_whole(out))
}

/// The shards with problems, in order.
fn check_shards(out: &Path, plan: &Plan, redraw: Option<&(Job, u64)>, threads: usize) -> Vec<FaultyShard> {
    let (next, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let faulty = Mutex::new(BTreeMap::new());
    let progress = Progress::new(plan.count);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= plan.shards() {
                break;
            }
            let shard = plan.shard(index);
            let images = shard.images;
            if let Some(shard) = check_shard(out, plan, redraw, shard) {
                faulty.lock().unwrap_or_else(PoisonError::into_inner).insert(index, shard);
            }
            progress.at(done.fetch_add(images, Ordering::Relaxed) + images);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.min(plan.shards() as usize) {
            let _ = thread::Builder::new().spawn_scoped(scope, work); // fewer threads do the same
        }
        work();
    });
    faulty.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

fn check_shard(out: &Path, plan: &Plan, redraw: Option<&(Job, u64)>, shard: Shard) -> Option<FaultyShard> {
    let states = states(out, &shard);
    let mut checker = Checker { out, plan, redraw, shard: &shard, sample: vec![], problems: vec![], wrong: false };
    let missing = !checker.check();
    let (problems, wrong) = (checker.problems, states.filter(|_| checker.wrong));
    (!problems.is_empty()).then_some(FaultyShard { shard, problems, missing, wrong })
}

struct Checker<'a> {
    out: &'a Path,
    plan: &'a Plan,
    redraw: Option<&'a (Job, u64)>,
    shard: &'a Shard,
    /// Images to draw again, by their number in the data set.
    sample: Vec<(u64, Image)>,
    problems: Vec<Problem>,
    /// A file was read and is wrong. A file that cannot be read may be right.
    wrong: bool,
}

impl Checker<'_> {
    /// Collects the problems; whether any file of the shard is there.
    fn check(&mut self) -> bool {
        let shard = self.shard;
        if shard.files.iter().all(|file| !self.out.join(&file.path).exists()) {
            let path = &shard.files[0].path;
            let last = shard.first + shard.images - 1;
            self.report(path, format!("missing, with the images {} to {last}", shard.first));
            return false;
        }
        let digests = shard.read_digests(self.out);
        for (i, file) in shard.files.iter().enumerate() {
            let digest = digests.as_ref().map(|digests| &*digests[i]);
            if let Err(error) = self.check_file(file, i == 0, digest) {
                self.wrong |= !error.is::<io::Error>();
                self.report(&file.path, format!("{error:#}"));
            }
        }
        if digests.is_none() {
            let found = if self.out.join(&shard.digests).exists() { "other text" } else { "no file" };
            self.report(&shard.digests, format!("a line of sha256sum per file of the shard expected, {found} found"));
        }
        true
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
        // At least one image of each shard is drawn.
        let start = every.map_or(0, |every| RandomState::new().hash_one(()) % every.min(self.shard.images));
        let mut pixels = vec![0; BLOCK as usize * Image::PIXELS];
        let mut wrong = None;
        for first in (0..self.shard.images).step_by(BLOCK as usize) {
            let len = BLOCK.min(self.shard.images - first);
            let pixels = &mut pixels[..len as usize * Image::PIXELS];
            file.read_exact(pixels).context("cannot be read")?;
            sha256.update(&*pixels);
            for (i, pixels) in (first..).zip(pixels.as_chunks::<{ Image::PIXELS }>().0) {
                if every.is_some_and(|every| i % every == start) {
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
    fn check_labels(&self, file: &mut File, sha256: &mut Sha256) -> Result<Option<String>> {
        const BLOCK: u64 = 64 * 1024;
        let mut labels = vec![0; BLOCK.min(self.shard.images) as usize];
        let mut wrong = None;
        for first in (0..self.shard.images).step_by(BLOCK as usize) {
            let labels = &mut labels[..BLOCK.min(self.shard.images - first) as usize];
            file.read_exact(labels).context("cannot be read")?;
            sha256.update(&*labels);
            let mut labels = (self.shard.first + first..).zip(labels);
            wrong = wrong.or(labels.find(|(index, label)| self.plan.label(*index) != **label).map(|(index, label)| {
                format!("label {} of image {index} expected, {label} found", self.plan.label(index))
            }));
        }
        Ok(wrong)
    }
}

/// A sentence if all shards have digests, and SHA256SUMS has others.
fn check_sums(out: &Path, plan: &Plan) -> Option<String> {
    let shards = (0..plan.shards()).map(|index| plan.shard(index));
    let lines = shards.map(|shard| Some(shard.digest_lines(&shard.read_digests(out)?)));
    let sums = lines.collect::<Option<String>>()?;
    match fs::read(out.join(SUMS)) {
        Ok(found) if found == sums.as_bytes() => None,
        Ok(_) => Some(format!("{SUMS}: the lines of all files in {} expected, others found", FOLDERS[1])),
        Err(_) => Some(format!("{SUMS}: missing; `runtime shards` writes it")),
    }
}

/// A file that does not belong to the plan, in a folder of the data set.
struct ExtraFile {
    path: String,
    kind: ExtraKind,
}

#[derive(PartialEq, Eq)]
enum ExtraKind {
    /// A shard of a plan with another number of shards, so that it overlaps with those of this plan.
    Shard,
    Temporary,
    Unknown,
}

impl ExtraFile {
    fn is_shard(&self) -> bool {
        self.kind == ExtraKind::Shard
    }

    fn sentence(&self, plan: &Plan) -> String {
        let path = &self.path;
        match self.kind {
            ExtraKind::Shard => {
                format!("{path}: a shard of {} expected, one of another plan found, which overlaps", plan.shards())
            }
            ExtraKind::Temporary => {
                format!(
                    "{path}: a program writes this file, or was killed; then the next `runtime shards` removes it, on another \
                     machine after a day"
                )
            }
            ExtraKind::Unknown => format!("{path}: only files of the data set expected, another one found; move it"),
        }
    }
}

/// All extra files. In OUT itself only temporary ones count.
fn extra_files(out: &Path, plan: &Plan) -> Result<Vec<ExtraFile>> {
    let mut extra = vec![];
    let shards = plan.shards();
    for folder in [""].into_iter().chain(FOLDERS) {
        let path = out.join(folder);
        let entries = fs::read_dir(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        for entry in entries {
            let name = entry.with_context(|| format!("{}: cannot be read", path.display()))?.file_name();
            let name = name.to_string_lossy().into_owned();
            let is_temporary = temporary::is_temporary(name.as_ref());
            if folder.is_empty() && !is_temporary {
                continue;
            }
            let path = format!("{folder}/{name}").trim_start_matches('/').to_string();
            let numbers = shard_numbers(&name);
            let ours = numbers.filter(|(index, of)| index < of && *of == shards).map(|(index, _)| plan.shard(index));
            if ours.is_some_and(|shard| shard.paths().any(|file| file == path)) {
                continue;
            }
            let kind = match numbers {
                Some(_) => ExtraKind::Shard,
                None if is_temporary => ExtraKind::Temporary,
                None => ExtraKind::Unknown,
            };
            extra.push(ExtraFile { path, kind });
        }
    }
    extra.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(extra)
}

/// K and N of the name of a shard's file, `train-K-of-N` and an ending.
fn shard_numbers(name: &str) -> Option<(u64, u64)> {
    let (index, rest) = name.strip_prefix("train-")?.split_once("-of-")?;
    let endings = ["-images-idx3-ubyte", "-labels-idx1-ubyte", ".sha256"];
    let of = endings.iter().find_map(|ending| rest.strip_suffix(ending))?;
    Some((index.parse().ok()?, of.parse().ok()?))
}

/// Deletes the files of wrong shards that have not changed since their check, and shards of other plans; the number of deleted
/// files. SHA256SUMS goes first, then the digests, so that a shard never seems whole meanwhile.
fn delete(out: &Path, faulty: &[FaultyShard], extra: &[ExtraFile]) -> Result<usize> {
    let delete = |path: &str| match fs::remove_file(out.join(path)) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        done => done.map(|()| 1).with_context(|| format!("{}: cannot be deleted", out.join(path).display())),
    };
    let mut deleted = 0;
    for FaultyShard { shard, wrong, .. } in faulty {
        if wrong.is_some() && *wrong == states(out, shard) {
            for path in [SUMS].into_iter().chain(shard.paths()) {
                deleted += delete(path)?;
            }
        }
    }
    for file in extra.iter().filter(|file| file.is_shard()) {
        deleted += delete(&file.path)?;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::model::Precision;
    use crate::cli::pipeline::{Report, draw_shards};

    #[test]
    fn a_wrong_shard_is_deleted_unless_another_program_replaced_it_after_the_check() {
        let place = temporary::Temporary::folder(&std::env::temp_dir()).unwrap();
        let out = place.path();
        FOLDERS.iter().for_each(|folder| fs::create_dir_all(out.join(folder)).unwrap());
        let model = Model::load(None, Precision::F32, None).unwrap();
        let job = Job { model, class: None, seed: 0, threads: 1 };
        let plan = Plan::new(&job, Precision::F32, 20, 10);
        draw_shards(&job, out, &[plan.shard(0), plan.shard(1)], &Report::new(20, false)).unwrap();
        assert!(plan.finish(out).unwrap());
        let images = out.join(&plan.shard(1).files[0].path);
        let right = fs::read(&images).unwrap();
        fs::write(&images, vec![0; right.len()]).unwrap();
        let check = || check_shards(out, &plan, None, 1);
        let faulty = check();
        assert!(faulty.len() == 1 && faulty[0].wrong.is_some());

        thread::sleep(std::time::Duration::from_millis(20)); // until the file system's clock has moved
        fs::write(out.join("new"), &right).unwrap();
        fs::rename(out.join("new"), &images).unwrap();
        assert_eq!(delete(out, &faulty, &[]).unwrap(), 0);
        assert!(check().is_empty() && out.join(SUMS).exists());

        fs::write(&images, vec![0; right.len()]).unwrap();
        assert_eq!(delete(out, &check(), &[]).unwrap(), 4);
        assert!(!out.join(SUMS).exists() && check()[0].missing);
    }

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
