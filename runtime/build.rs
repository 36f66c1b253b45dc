//! Writes the weights of models/g.onnx, or of the file that GENERATOR_ONNX names, into the files that weights.rs includes.
//! GENERATOR_CLASSES is the number of classes of the generator, if the file's metadata do not say it.

#![allow(dead_code)] // the shared files have parts that only the command uses

#[path = "src/latent.rs"]
mod latent;
#[path = "src/onnx/mod.rs"]
mod onnx;
#[path = "src/quantize.rs"]
mod quantize;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use sha2::{Digest as _, Sha256};

fn main() {
    println!("cargo::rerun-if-env-changed=GENERATOR_ONNX");
    println!("cargo::rerun-if-env-changed=GENERATOR_CLASSES");
    println!("cargo::rerun-if-changed=build.rs");
    for source in ["latent.rs", "onnx", "quantize.rs"] {
        println!("cargo::rerun-if-changed=src/{source}");
    }
    // Whether a Cortex-M has the DSP extension and an FPU. Stable rustc has no cfg for these target features.
    let target = env::var("TARGET").unwrap_or_default();
    for (cfg, has) in
        [("dsp", target.starts_with("thumbv7em-")), ("fpu", target.starts_with("thumb") && target.ends_with("eabihf"))]
    {
        println!("cargo::rustc-check-cfg=cfg({cfg})");
        if has {
            println!("cargo::rustc-cfg={cfg}");
        }
    }
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
        onnx::read_file(path).map_err(|e| format!("{name}: a generator's ONNX file expected (GENERATOR_ONNX): {e}"))?;
    let parse = |count: String| {
        onnx::classes::parse_count(&count).map_err(|e| format!("GENERATOR_CLASSES: {e}, {count:?} found"))
    };
    let classes = env::var("GENERATOR_CLASSES").ok().map(parse).transpose()?;
    let model = onnx::Model::read(&bytes, &name, classes, &|data| onnx::read_beside(path, data))?;
    for data in model.data.keys() {
        println!("cargo::rerun-if-changed={}", path.with_file_name(data).display());
    }
    if let (None, Some(count)) = (classes, model.likely_classes()) {
        let warning = onnx::classes::unnamed_warning(count);
        println!("cargo::warning={name}: {warning}; set GENERATOR_CLASSES to their number, or to 0 for none");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let write = |file: &str, bytes: &[u8]| fs::write(out.join(file), bytes).map_err(|e| format!("{file}: {e}"));
    let weights = model.f32_bytes();
    let sha256: String = Sha256::digest(&weights).iter().map(|byte| format!("{byte:02x}")).collect();
    write("weights.bin", &weights)?;
    write("weights.sha256", sha256.as_bytes())?;
    write("int8.bin", &quantize::int8_bytes(&model))?;
    write("classes.rs", format!("&{:?}", model.classes).as_bytes())?;
    let c_classes: String = model.classes.iter().map(|name| format!("c{name:?}, ")).collect();
    write("c_classes.rs", format!("&[{c_classes}]").as_bytes())?;
    write("metadata.rs", format!("&{:?}", model.metadata).as_bytes())
}
