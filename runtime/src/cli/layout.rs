//! A data set in shards: its plan, the names of its files and their digests. `README.md` describes the folder.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::draw::{Job, class_of};
use super::files::sync_folder;
use super::model::Precision;
use super::output::{Canvas, idx_header, idx_labels_header, labels_beside};
use super::temporary::Temporary;
use crate::image::Image;
use crate::latent::{Class, MAX_CLASSES};

pub const MANIFEST: &str = "manifest.json";
pub const SUMS: &str = "SHA256SUMS";
/// The folders in a data set: images and labels, and the digests of each shard.
pub const FOLDERS: [&str; 2] = [DATA, DIGESTS];
const DATA: &str = "data";
const DIGESTS: &str = "digests";
/// The version of the layout in manifest.json.
const LAYOUT: u64 = 1;
/// Their numbers have five digits. Most file systems become slow with more files in a folder.
const MAX_SHARDS: u64 = 99_999;

/// All that decides the bytes of a data set.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed of the first image.
    pub seed: u64,
    /// The number of images.
    pub count: u64,
    /// Images per shard. The last shard may have fewer.
    pub shard_size: u64,
    pub precision: Precision,
    /// The names of the classes; empty if the generator is unconditional.
    pub classes: Vec<String>,
    /// The class of all images; without it each seed decides.
    pub class: Option<Class>,
    /// See [`super::model::Model::weights_sha256`].
    pub weights_sha256: String,
}

impl Plan {
    /// The plan of `count` images of a job.
    pub fn new(job: &Job, precision: Precision, count: u64, shard_size: u64) -> Self {
        Self {
            seed: job.seed,
            count,
            shard_size,
            precision,
            classes: job.model.classes.clone(),
            class: job.class,
            weights_sha256: job.model.weights_sha256(),
        }
    }

    /// The plan in the manifest of a folder; `None` without a manifest.
    ///
    /// # Errors
    /// The manifest cannot be read, or is none.
    pub fn read(out: &Path) -> Result<Option<Self>> {
        let path = out.join(MANIFEST);
        let text = match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("{}: cannot be read", path.display()))?,
        };
        let plan = serde_json::from_slice(&text).map_err(anyhow::Error::from).and_then(|json| Self::from_json(&json));
        plan.map(Some).with_context(|| format!("{}: the plan of a data set in shards expected", path.display()))
    }

    /// Writes the manifest. If another worker was first, its plan has to be the same.
    ///
    /// # Errors
    /// The manifest cannot be written, or has another plan.
    pub fn claim(&self, out: &Path) -> Result<()> {
        let path = out.join(MANIFEST);
        let cannot_write = || cannot_write(&path);
        if !path.exists() {
            let (temporary, mut file) = Temporary::file(out).with_context(cannot_write)?;
            let text = self.manifest();
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(cannot_write)?;
            match fs::hard_link(temporary.path(), &path) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                // A file system without hard links. A rename could replace the manifest of another program.
                Err(_) => match File::create_new(&path) {
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                    created => created
                        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
                        .with_context(cannot_write)?,
                },
            }
            sync_folder(out);
        }
        let found = Self::read(out)?.with_context(|| format!("{}: removed by another program", path.display()))?;
        self.check(&found, out)
    }

    /// # Errors
    /// `found`, the plan in the folder, is another one: names the first difference.
    pub fn check(&self, found: &Self, out: &Path) -> Result<()> {
        let (wanted, found) = (self.to_json(), found.to_json());
        let differs = |(key, _): &(&String, &Value)| *key != "program" && wanted.get(key) != found.get(key);
        if let Some((key, value)) = wanted.as_object().into_iter().flatten().find(differs) {
            bail!(
                "{}: {key} {value} expected, {} found; repeat the options of the first call, or choose another folder",
                out.join(MANIFEST).display(),
                found[key]
            );
        }
        Ok(())
    }

    /// The text of the manifest.
    pub fn manifest(&self) -> String {
        format!("{:#}\n", self.to_json())
    }

    fn to_json(&self) -> Value {
        json!({
            "layout": LAYOUT,
            "format": "idx",
            "seed": self.seed,
            "count": self.count,
            "shard_size": self.shard_size,
            "shards": self.shards(),
            "height": Image::SIDE,
            "width": Image::SIDE,
            "precision": self.precision.to_possible_value().map(|value| value.get_name().to_owned()),
            "classes": self.classes,
            "class": self.class.map(Class::index),
            "weights_sha256": self.weights_sha256,
            "program": concat!("runtime ", env!("CARGO_PKG_VERSION")),
        })
    }

    fn from_json(json: &Value) -> Result<Self> {
        let number = |key| json[key].as_u64().with_context(|| format!("{key}: a number expected, {} found", json[key]));
        let text = |key| json[key].as_str().with_context(|| format!("{key}: text expected, {} found", json[key]));
        let classes: Option<Vec<String>> = serde_json::from_value(json["classes"].clone()).ok();
        let classes =
            classes.with_context(|| format!("classes: a list of names expected, {} found", json["classes"]))?;
        let plan = Self {
            seed: number("seed")?,
            count: number("count")?,
            shard_size: number("shard_size")?,
            precision: Precision::from_str(text("precision")?, false)
                .map_err(|_| anyhow!("precision: f32 or int8 expected"))?,
            class: json["class"].as_u64().and_then(|class| Class::new(class as usize, classes.len())),
            classes,
            weights_sha256: text("weights_sha256")?.into(),
        };
        plan.check_numbers()?;
        ensure!(
            plan.classes.is_empty() || Class::new(0, plan.classes.len()).is_some(),
            "classes: none or 2 to {MAX_CLASSES} names expected, {} found",
            plan.classes.len()
        );
        for (key, expected) in plan.to_json().as_object().into_iter().flatten() {
            ensure!(key == "program" || json[key] == *expected, "{key}: {expected} expected, {} found", json[key]);
        }
        Ok(plan)
    }

    /// # Errors
    /// The numbers are no plan, or ask for too many shards.
    pub fn check_numbers(&self) -> Result<()> {
        let least = self.count.div_ceil(MAX_SHARDS).max(1);
        ensure!(self.count > 0, "count: at least 1 expected, 0 found");
        ensure!(
            (least..=u64::from(u32::MAX)).contains(&self.shard_size),
            "shard size {}: {least} to {} expected, for at most {MAX_SHARDS} shards",
            self.shard_size,
            u32::MAX
        );
        ensure!(
            self.seed.checked_add(self.count - 1).is_some(),
            "seed {}: too large for {} images",
            self.seed,
            self.count
        );
        Ok(())
    }

    /// The label of image number `index` of a class-conditional generator.
    pub fn label(&self, index: u64) -> u8 {
        class_of(self.class, self.seed + index, self.classes.len()).map_or(0, |class| class.index() as u8)
    }

    pub fn shards(&self) -> u64 {
        self.count.div_ceil(self.shard_size)
    }

    /// Shard number `index`, from 0 on.
    pub fn shard(&self, index: u64) -> Shard {
        let name = format!("train-{index:05}-of-{:05}", self.shards());
        let first = index * self.shard_size;
        let images = self.shard_size.min(self.count - first);
        let header = idx_header(images, &Canvas::new((1, 1), 1)).expect("`check_numbers` limits the size of a shard");
        let path = format!("{DATA}/{name}-images-idx3-ubyte");
        let bytes = header.len() as u64 + images * Image::PIXELS as u64;
        let mut files = vec![ShardFile { path, header, bytes }];
        if !self.classes.is_empty() {
            let path = labels_beside(Path::new(&files[0].path)).display().to_string();
            let header = idx_labels_header(images).expect("as many as images");
            files.push(ShardFile { path, bytes: header.len() as u64 + images, header });
        }
        Shard { index, first, images, files, digests: format!("{DIGESTS}/{name}.sha256") }
    }

    /// Writes SHA256SUMS if all shards are whole; whether they are.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self, out: &Path) -> Result<bool> {
        let mut sums = String::new();
        for shard in (0..self.shards()).map(|index| self.shard(index)) {
            match shard.whole_digests(out) {
                Some(digests) => sums += &shard.digest_lines(&digests),
                None => return Ok(false),
            }
        }
        let path = out.join(SUMS);
        if fs::read(&path).ok().is_none_or(|found| found != sums.as_bytes()) {
            write_whole(out, &path, sums.as_bytes())?;
        }
        Ok(true)
    }
}

/// A part of a data set.
pub struct Shard {
    pub index: u64,
    /// The number of its first image in the data set.
    pub first: u64,
    /// The number of its images.
    pub images: u64,
    /// The file of images, and if the generator is class-conditional that of labels.
    pub files: Vec<ShardFile>,
    /// The path of the file with the digests of `files`, relative to the data set. It is written last.
    pub digests: String,
}

pub struct ShardFile {
    /// Relative to the data set.
    pub path: String,
    pub header: Vec<u8>,
    /// The length of the file.
    pub bytes: u64,
}

impl Shard {
    /// The paths of all its files, relative to the data set, that of the digests first.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        [&*self.digests].into_iter().chain(self.files.iter().map(|file| &*file.path))
    }

    /// Whether all its files are there with the right lengths. `verify` compares their digests.
    pub fn is_whole(&self, out: &Path) -> bool {
        self.whole_digests(out).is_some()
    }

    /// The digests of [`Self::read_digests`] if the shard is whole, see [`Self::is_whole`].
    fn whole_digests(&self, out: &Path) -> Option<Vec<String>> {
        let has_length =
            |file: &ShardFile| fs::metadata(out.join(&file.path)).is_ok_and(|found| found.len() == file.bytes);
        self.read_digests(out).filter(|_| self.files.iter().all(has_length))
    }

    /// The SHA-256 of each file as the shard's digests file states them; `None` if it is not there or states something else.
    pub fn read_digests(&self, out: &Path) -> Option<Vec<String>> {
        let text = fs::read_to_string(out.join(&self.digests)).ok()?;
        let is_digest = |digest: &&str| digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let digests = text.lines().map(|line| line.split(' ').next().filter(is_digest).map(String::from));
        let digests: Vec<String> = digests.collect::<Option<_>>()?;
        (digests.len() == self.files.len() && self.digest_lines(&digests) == text).then_some(digests)
    }

    /// The lines of these digests as sha256sum writes them.
    pub fn digest_lines(&self, digests: &[String]) -> String {
        self.files.iter().zip(digests).map(|(file, digest)| format!("{digest}  {}\n", file.path)).collect()
    }
}

/// Writes a file that appears complete. `folder` is that of the file.
///
/// # Errors
/// The file cannot be written.
pub fn write_whole(folder: &Path, path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let (temporary, mut file) = Temporary::file(folder)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(temporary.path(), path)
    };
    write().with_context(|| cannot_write(path))?;
    sync_folder(folder);
    Ok(())
}

pub fn cannot_write(path: &Path) -> String {
    format!("{}: cannot be written", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(count: u64, shard_size: u64) -> Plan {
        let weights_sha256 = "0".repeat(64);
        let classes = vec!["A".to_string(), "B".to_string()];
        let class = Class::new(1, 2);
        Plan { seed: 5, count, shard_size, precision: Precision::Int8, classes, class, weights_sha256 }
    }

    #[test]
    fn the_shards_hold_each_image_once() {
        for (count, shard_size) in [(1, 1), (10, 3), (9, 3), (7, 100), (199_998, 2)] {
            let plan = plan(count, shard_size);
            plan.check_numbers().unwrap();
            let mut next = 0;
            for shard in (0..plan.shards()).map(|index| plan.shard(index)) {
                assert!(shard.first == next && shard.images > 0);
                next += shard.images;
            }
            assert_eq!(next, count);
        }
        assert_eq!(plan(10, 3).shard(2).files[1].path, "data/train-00002-of-00004-labels-idx1-ubyte");
        assert!(plan(199_999, 2).check_numbers().is_err());
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written_and_a_difference_is_named() {
        let json = plan(10, 3).to_json();
        assert_eq!(Plan::from_json(&json).unwrap(), plan(10, 3));
        for (key, value, expected) in [
            ("seed", json!("5"), "seed: a number expected, \"5\" found"),
            ("shards", json!(5), "shards: 4 expected, 5 found"),
            ("layout", json!(2), "layout: 1 expected, 2 found"),
            ("precision", json!("f16"), "precision: f32 or int8 expected"),
            ("classes", json!(["A"]), "classes: none or 2 to 64 names expected, 1 found"),
            ("classes", json!(2), "classes: a list of names expected, 2 found"),
            ("class", json!(2), "class: null expected, 2 found"),
            ("shard_size", json!(0), "shard size 0: 1 to"),
            ("count", Value::Null, "count: a number expected, null found"),
        ] {
            let mut json = json.clone();
            json[key] = value;
            let error = Plan::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let error = plan(10, 3).check(&plan(11, 3), Path::new("out")).unwrap_err().to_string();
        assert!(error.contains("manifest.json: count 10 expected, 11 found"), "{error}");
    }
}
