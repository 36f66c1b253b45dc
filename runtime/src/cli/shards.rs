//! `runtime shards`: a data set in shards, which any number of programs draw together.

use std::env;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::json;

use super::dataset::DataSet;
use super::draw::{DrawArgs, number};
use super::error::{Usage, printable, usage};
use super::output::{print, print_json};

#[derive(Args)]
pub struct Shards {
    /// The folder of the data set. The same command goes on where a killed one stopped.
    out: PathBuf,
    #[command(flatten)]
    draw: DrawArgs,
    /// The number of images of the whole data set, of the seeds SEED, SEED + 1, …
    #[arg(long, value_name = "N", value_parser = number(1..=u64::MAX))]
    count: u64,
    /// The number of images of each shard; the last one may have fewer.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = number(1..=u64::from(u32::MAX)))]
    shard_size: u64,
    /// Draws part K of N, from 1/N to N/N, and leaves the others to other programs. Without it, Slurm's variables
    /// SLURM_ARRAY_TASK_ID, _MIN, _MAX, _STEP and _COUNT say which part, in a job array.
    #[arg(long, value_name = "K/N", conflicts_with = "parts")]
    part: Option<Part>,
    /// Draws one of N parts: the one that JOB_COMPLETION_INDEX (Kubernetes) or SLURM_ARRAY_TASK_ID (Slurm) numbers from 0 on.
    #[arg(long, value_name = "N", value_parser = number(1..=u64::MAX))]
    parts: Option<u64>,
    /// Prints one JSON object per shard and one at the end.
    #[arg(long)]
    json: bool,
}

/// Part `index`, from 0 on, of `of` parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    index: u64,
    of: u64,
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(k, n)| Some((k.parse::<u64>().ok()?, n.parse().ok()?)));
        match parsed {
            Some((k, n)) if (1..=n).contains(&k) => Ok(Self { index: k - 1, of: n }),
            _ => Err("K/N with K from 1 to N expected, such as 1/8".into()),
        }
    }
}

impl Part {
    /// The part that the options ask for, or the variables of a job array.
    ///
    /// # Errors
    /// The variables contradict each other or the options.
    fn find(args: &Shards, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        const SLURM: &str = "SLURM_ARRAY_TASK_ID";
        const KUBERNETES: &str = "JOB_COMPLETION_INDEX";
        let read = |name: &str| match variable(name) {
            None => Ok(None),
            Some(text) => match text.parse::<u64>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => usage(format!("{name}: a number expected, {text:?} found; say the part with --part K/N")),
            },
        };
        if let Some(part) = args.part {
            return Ok(part);
        }
        let (slurm, kubernetes) = (read(SLURM)?, read(KUBERNETES)?);
        if let Some(of) = args.parts {
            return match kubernetes.or(slurm) {
                Some(index) if index < of => Ok(Self { index, of }),
                Some(index) => {
                    let name = if kubernetes.is_some() { KUBERNETES } else { SLURM };
                    usage(format!("{name}: 0 to {} expected with --parts {of}, {index} found", of - 1))
                }
                None => {
                    usage(format!("--parts {of}: {KUBERNETES} or {SLURM} expected, neither is set; use --part K/{of}"))
                }
            };
        }
        if let Some(id) = slurm {
            let [of, min, max] = ["COUNT", "MIN", "MAX"].map(|name| {
                let name = format!("SLURM_ARRAY_TASK_{name}");
                read(&name)?
                    .with_context(|| Usage(format!("{name}: expected beside {SLURM}, but not set; use --part K/N")))
            });
            let (of, min, max, step) = (of?, min?, max?, read("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1));
            // A list of tasks, such as the failed ones of an array, has gaps.
            let is_whole = max.checked_sub(min).map(|span| span / step) == of.checked_sub(1);
            return match id.checked_sub(min).filter(|_| is_whole && id <= max) {
                Some(above) if above % step == 0 => Ok(Self { index: above / step, of }),
                _ => usage(format!(
                    "{SLURM}: a job array of {of} tasks in steps of {step} expected, task {id} of {min} to {max} found; use \
                     --parts N"
                )),
            };
        }
        match kubernetes {
            Some(index) => {
                usage(format!("{KUBERNETES} {index}: --parts N expected beside it, the number of completions"))
            }
            None => Ok(Self { index: 0, of: 1 }),
        }
    }

    /// The shards of this part, of `shards` in all.
    fn shards(self, shards: u64) -> Range<u64> {
        let start = |index: u64| (u128::from(shards) * u128::from(index) / u128::from(self.of)) as u64;
        start(self.index)..start(self.index + 1)
    }
}

pub fn run(args: &Shards) -> Result<()> {
    let variable = |name: &str| env::var_os(name).map(|text| text.to_string_lossy().into_owned());
    let part = Part::find(args, variable)?;
    let job = args.draw.job(args.count)?;
    let set = DataSet::of_job(args.out.clone(), job, args.draw.precision, args.count, args.shard_size)
        .map_err(|error| Usage(format!("--count and --shard-size: {error}")))?;
    let mine = part.shards(set.shards());
    let shards = mine.end - mine.start;
    let missing = set.begin(mine)?;
    let start = Instant::now();
    let report = set.draw(&missing, args.json)?;
    let complete = set.finish()?;
    let seconds = start.elapsed().as_secs_f64();
    let (drawn, images) = report.drawn();
    drop(report); // removes the progress bar
    let rate = images as f64 / seconds;
    if args.json {
        let line = json!({
            "part": part.index + 1, "parts": part.of, "shards": shards, "drawn": drawn, "images": images,
            "seconds": seconds, "images_per_second": rate, "complete": complete,
        });
        return print_json(line);
    }
    let rest = match complete {
        true => "the data set is complete",
        false => "shards of other parts are missing",
    };
    print(format!(
        "{}: {drawn} of {shards} shards drawn, {} were there; {rate:.0} images/s; {rest}\n",
        printable(&args.out.display().to_string()),
        shards - drawn
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_hold_each_shard_once() {
        for (shards, of) in [(1, 1), (7, 7), (10, 3), (3, 10), (99_999, 999)] {
            let parts = (0..of).flat_map(|index| Part { index, of }.shards(shards));
            assert!(parts.eq(0..shards), "{shards} shards in {of} parts");
        }
        assert_eq!("2/8".parse(), Ok(Part { index: 1, of: 8 }));
        assert!(["0/8", "9/8", "8", "1/0", "-1/8", "1/8/2", ""].iter().all(|part| part.parse::<Part>().is_err()));
    }
}
