//! Takes the weights out of models/g.onnx, or the file that GENERATOR_ONNX names, for weights.rs to include.

#[path = "src/onnx.rs"]
mod onnx;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    println!("cargo::rerun-if-env-changed=GENERATOR_ONNX");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/onnx.rs");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/g.onnx");
    let path = env::var_os("GENERATOR_ONNX").map_or(shipped, PathBuf::from);
    println!("cargo::rerun-if-changed={}", path.display());
    if let Err(error) = bake(&path) {
        println!("cargo::error={error}");
        process::exit(1);
    }
}

fn bake(path: &Path) -> Result<(), String> {
    let name = path.display().to_string();
    let bytes =
        fs::read(path).map_err(|e| format!("{name}: a generator's ONNX file expected (GENERATOR_ONNX): {e}"))?;
    let model = onnx::Model::read(&bytes, &name)?;
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let write = |file: &str, bytes: &[u8]| fs::write(out.join(file), bytes).map_err(|e| format!("{file}: {e}"));
    let values = model.layers.iter().flat_map(|layer| layer.weight.iter().chain(&layer.bias));
    write("weights.bin", &values.flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())?;
    write("conditional.rs", format!("{}", model.conditional()).as_bytes())
}
