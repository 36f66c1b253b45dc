//! `trainer sweep`: training runs that differ only in their seeds, and one table of all.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use trainer::config::{Plan, RunDir, UsageError};
use trainer::print::{note, result};
use trainer::report::{Style, Terminal};
use trainer::run::resume::{CONFIG, RunConfig};
use trainer::run::{GENERATOR, compare, metrics};
use trainer::state::Epoch;
use trainer::train::train;

use crate::args::SweepArgs;

/// Trains the seeds of this part that are not finished, and prints the table of all seeds.
pub fn run(args: &SweepArgs) -> Result<ExitCode> {
    let seeds = args.seeds_of_part();
    let epochs = args.config(args.seeds.0.start)?.plan.epochs;
    let mut terminal = Terminal::new(Style::Quiet, epochs);
    let mut failed = vec![];
    for seed in seeds.clone() {
        let config = args.config(seed)?;
        let begun = matches!(config.run_dir, RunDir::Resume(_));
        if begun && is_finished(&args.folder(seed), &config.plan)? {
            continue;
        }
        note(&format!("seed {seed}: {}", if begun { "resuming" } else { "training" }));
        match train(&config, &mut terminal) {
            Ok(_) => {}
            Err(usage) if usage.is::<UsageError>() => return Err(usage.context(format!("seed {seed}"))),
            Err(error) => {
                note(&format!("error: seed {seed}: {error:#}"));
                failed.push(seed);
            }
        }
        if let Some(signal) = terminal.stopped_by() {
            note(&format!("stopped in the run of seed {seed}; the same command goes on"));
            return Ok(signal.exit_code().into());
        }
    }
    let runs = runs(args)?;
    let summary = Summary::of(&runs, epochs, args.seeds.0.end - args.seeds.0.start);
    if args.json {
        result(&summary.json().to_string())?;
    } else {
        let folders: Vec<PathBuf> = runs.iter().map(|(seed, _)| args.folder(*seed)).collect();
        result(&format!("{}\n\n{}", compare::table(&folders)?, summary.text()))?;
    }
    let named = |seeds: &[u64]| seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    ensure!(
        failed.is_empty(),
        "{} runs expected, {} failed: seeds {}; the same command tries them again",
        seeds.end - seeds.start,
        failed.len(),
        named(&failed)
    );
    Ok(ExitCode::SUCCESS)
}

/// Whether the run in a folder was trained to the end of `plan` and exported.
///
/// # Errors
/// The run has another plan, or cannot be read.
fn is_finished(folder: &Path, plan: &Plan) -> Result<bool> {
    let contradictions = plan.contradictions(&RunConfig::read(folder)?.settings.plan).join(", ");
    let name = folder.display();
    ensure!(contradictions.is_empty(), UsageError(format!("options after --: {contradictions} contradicts {name}")));
    Ok(folder.join(GENERATOR).is_file() && metrics::read(folder)?.len() as u64 >= plan.epochs)
}

/// The epochs of each seed's run, of runs that are there.
fn runs(args: &SweepArgs) -> Result<Vec<(u64, Vec<Epoch>)>> {
    let begun = args.seeds.0.clone().filter(|seed| args.folder(*seed).join(CONFIG).is_file());
    begun.map(|seed| Ok((seed, metrics::read(&args.folder(seed)).context("a damaged run")?))).collect()
}

/// The figures of a sweep. Scores are Fréchet distances: the last one of each finished run.
struct Summary {
    seeds: u64,
    /// Seeds of finished runs.
    finished: Vec<u64>,
    /// Seeds of finished runs whose last epoch shows mode collapse.
    collapsed: Vec<u64>,
    /// Scores and their seeds, from the best on.
    scores: Vec<(f64, u64)>,
}

impl Summary {
    fn of(runs: &[(u64, Vec<Epoch>)], epochs: u64, seeds: u64) -> Self {
        let finished: Vec<&(u64, Vec<Epoch>)> = runs.iter().filter(|(_, run)| run.len() as u64 >= epochs).collect();
        let seeds_of =
            |keep: fn(&[Epoch]) -> bool| finished.iter().filter(move |(_, run)| keep(run)).map(|(seed, _)| *seed);
        let score = |run: &[Epoch]| run.iter().rev().find_map(|epoch| epoch.frechet_distance);
        let mut scores: Vec<(f64, u64)> =
            finished.iter().filter_map(|(seed, run)| Some((score(run)?, *seed))).collect();
        scores.sort_by(|a, b| a.0.total_cmp(&b.0));
        Self {
            seeds,
            finished: seeds_of(|_| true).collect(),
            collapsed: seeds_of(|run| run.last().is_some_and(|epoch| epoch.collapse)).collect(),
            scores,
        }
    }

    /// The score of the middle run; the better one of two.
    fn median(&self) -> Option<(f64, u64)> {
        self.scores.get(self.scores.len().saturating_sub(1) / 2).copied()
    }

    fn text(&self) -> String {
        let score = |score: Option<(f64, u64)>| score.map_or("-".into(), |(fd, seed)| format!("{fd:.1} (seed {seed})"));
        let collapsed = match &self.collapsed[..] {
            [] => "none".into(),
            seeds => {
                format!("{} (seeds {})", seeds.len(), seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", "))
            }
        };
        format!(
            "{} of {} seeds finished; FD: best {}, median {}, worst {}; collapsed: {collapsed}",
            self.finished.len(),
            self.seeds,
            score(self.scores.first().copied()),
            score(self.median()),
            score(self.scores.last().copied()),
        )
    }

    fn json(&self) -> Value {
        let score = |score: Option<(f64, u64)>| score.map(|(fd, seed)| json!({ "seed": seed, "frechet_distance": fd }));
        json!({
            "seeds": self.seeds, "finished": self.finished, "collapsed": self.collapsed,
            "best": score(self.scores.first().copied()), "median": score(self.median()),
            "worst": score(self.scores.last().copied()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(frechet_distance: Option<f64>, collapse: bool) -> Epoch {
        Epoch {
            epoch: 1,
            step: 1,
            d_loss: 1.0,
            g_loss: 1.0,
            d_real: 0.5,
            d_fake: 0.5,
            steps_per_second: 1.0,
            variety: 1.0,
            frechet_distance,
            collapse,
        }
    }

    #[test]
    fn a_summary_has_the_last_scores_of_finished_runs() {
        let runs = [
            (3, vec![epoch(Some(1.0), true), epoch(Some(7.0), false)]),
            (4, vec![epoch(Some(2.0), false)]), // not finished
            (5, vec![epoch(Some(5.0), false), epoch(None, true)]),
            (6, vec![epoch(None, false), epoch(Some(6.0), false)]),
        ];
        let summary = Summary::of(&runs, 2, 10);
        assert_eq!((&summary.finished[..], &summary.collapsed[..]), (&[3, 5, 6][..], &[5][..]));
        assert_eq!((summary.scores[0], summary.median()), ((5.0, 5), Some((6.0, 6))));
        let text = "3 of 10 seeds finished; FD: best 5.0 (seed 5), median 6.0 (seed 6), worst 7.0 (seed 3); \
                    collapsed: 1 (seeds 5)";
        assert_eq!(summary.text(), text);
        assert!(Summary::of(&[], 2, 10).text().contains("best -, median -, worst -; collapsed: none"));
    }
}
