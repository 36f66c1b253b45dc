//! The table of `trainer compare`.

use std::path::PathBuf;

use anyhow::Result;

use crate::print::printable;
use crate::run::metrics;
use crate::run::resume::RunConfig;
use crate::state::Epoch;

/// A table with one line per run folder: settings, losses after the last epoch, latest score.
///
/// # Errors
/// When a folder holds no run, or its files cannot be read.
pub fn table(run_dirs: &[PathBuf]) -> Result<String> {
    let mut rows = vec![
        ["run", "recipe", "seed", "lr", "batch", "epochs", "d_loss", "g_loss", "FD", "variety", "steps/s"]
            .map(String::from),
    ];
    for run_dir in run_dirs {
        let plan = RunConfig::read(run_dir)?.settings.plan;
        let epochs = metrics::read(run_dir)?;
        let last = |value: fn(&Epoch) -> f64, digits: usize| {
            epochs.last().map_or("-".into(), |epoch| format!("{:.digits$}", value(epoch)))
        };
        rows.push([
            printable(&run_dir.file_name().unwrap_or(run_dir.as_os_str()).to_string_lossy(), NAME),
            printable(&plan.recipe.name, NAME),
            plan.seed.to_string(),
            plan.recipe.adam.alpha.to_string(),
            plan.batch.to_string(),
            format!("{}/{}", epochs.len(), plan.epochs),
            last(|e| e.d_loss as f64, 4),
            last(|e| e.g_loss as f64, 4),
            (epochs.iter().rev().find_map(|e| e.frechet_distance)).map_or("-".into(), |fd| format!("{fd:.1}")),
            last(|e| e.variety as f64, 2),
            last(|e| e.steps_per_second, 0),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let line = |row: &[String; 11]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, &w)| format!("{cell:<w$}")).collect();
        cells.join("  ").trim_end().to_string()
    };
    Ok(rows.iter().map(line).collect::<Vec<_>>().join("\n"))
}

/// Longest name in the table, in characters.
const NAME: usize = 60;
