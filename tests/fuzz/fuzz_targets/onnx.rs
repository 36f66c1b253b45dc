//! The runtime's reader of ONNX files: any bytes are a generator, which then draws, or an error.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use runtime::cli::ModelFile;
use runtime::{Generate, Latent};

/// The data file `w` of the seeds, which keep their weights there: so many zeros as a generator has parameters.
static DATA: LazyLock<BTreeMap<String, Vec<u8>>> =
    LazyLock::new(|| BTreeMap::from([("w".to_string(), vec![0; 4 * PARAMETERS])]));
const PARAMETERS: usize = 100 * 32 + 32 + 32 * 64 + 64 + 64 * 128 + 128 + 128 * 784 + 784;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = ModelFile::parse(bytes.to_vec(), &DATA, "g.onnx", None) else { return };
    let z = Latent::of_seed(1, file.classes().len());
    file.f32().draw(&z);
    // Quantising takes as long as reading a thousand files.
    if bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0 {
        file.int8().draw(&z);
    }
});
