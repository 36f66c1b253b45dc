//! The readers of `config.json` and `metrics.jsonl`: any text is a run that `compare` shows, or an error.
//!
//! An input is `config.json`, a zero byte, and `metrics.jsonl`.
#![no_main]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use trainer::run::resume::RunConfig;
use trainer::run::{compare, metrics};

static FOLDER: LazyLock<PathBuf> = LazyLock::new(env::temp_dir);

fuzz_target!(|input: &[u8]| {
    let at = input.iter().position(|&byte| byte == 0).unwrap_or(input.len());
    fs::write(FOLDER.join("config.json"), &input[..at]).unwrap();
    fs::write(FOLDER.join("metrics.jsonl"), input.get(at + 1..).unwrap_or_default()).unwrap();
    let (config, epochs) = (RunConfig::read(&FOLDER), metrics::read(&FOLDER));
    let table = compare::table(&[FOLDER.clone()]);
    assert_eq!(table.is_ok(), config.is_ok() && epochs.is_ok());
    let Ok(config) = config else { return };
    if config.settings.plan.check().is_ok() {
        let _ = config.settings.plan.steps(60_000);
    }
    assert!(config.settings.plan.contradictions(&config.settings.plan).is_empty());
    // Settings come back from the file that a resumed run writes.
    fs::write(FOLDER.join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
    let again = RunConfig::read(&FOLDER).unwrap();
    assert_eq!(format!("{again:?}"), format!("{config:?}"));
});
