//! The reader of checkpoints: any bytes are a training state of the plan's shapes, or an error.
//!
//! An input is a byte of flags, then the line of JSON. If bit 0 is set, tensors of the plan's size follow it; if bit 1 is
//! set, a byte more. If bit 2 is not set, the checkpoint's digest is right.
#![no_main]

use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use trainer::config::Plan;
use trainer::run::checkpoint;
use trainer::state::state_specs;

static PLAN: LazyLock<Plan> = LazyLock::new(Plan::seed_recipe);
static TENSORS: LazyLock<Vec<u8>> =
    LazyLock::new(|| vec![0; state_specs(&PLAN.recipe).iter().map(|spec| spec.bytes()).sum()]);
static FILE: LazyLock<PathBuf> = LazyLock::new(|| env::temp_dir().join("step-000000001.ckpt"));

fuzz_target!(|input: &[u8]| {
    let Some((flags, json)) = input.split_first() else { return };
    let mut bytes = json.to_vec();
    if flags & 1 != 0 {
        bytes.extend(&*TENSORS);
    }
    if flags & 2 != 0 {
        bytes.push(0);
    }
    let digest = Sha256::digest(&bytes);
    bytes.extend(digest);
    if flags & 4 != 0 {
        bytes[0] ^= 1;
    }
    fs::write(&*FILE, &bytes).unwrap();
    if let Ok(state) = checkpoint::read(&FILE, &PLAN, None) {
        assert!(flags & 4 == 0 && state.step == 1, "{flags} {}", state.step);
        assert_eq!(4 * state.tensors.iter().flatten().count(), TENSORS.len());
    }
});
