//! `runtime inspect`: what a generator's ONNX file contains.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::error::printable;
use super::model::ModelFile;
use super::output::{hex, print, print_json};
use crate::onnx::shown;
use crate::{onnx, quantize};

#[derive(Args)]
pub struct Inspect {
    /// A generator's ONNX file.
    file: PathBuf,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Inspect) -> Result<()> {
    let ModelFile { bytes, model } = ModelFile::read(&args.file, None)?;
    let sha256 = |bytes: &[u8]| hex(&Sha256::digest(bytes));
    let parameters: usize = model.layers.iter().map(|layer| layer.weight.len() + layer.bias.len()).sum();
    let (f32_bytes, int8_bytes) = (model.f32_bytes().len(), quantize::int8_bytes(&model).len());
    if args.json {
        let layers = model.layers.iter().map(|layer| {
            let (outputs, inputs) = (layer.bias.len(), layer.weight.len() / layer.bias.len());
            json!({ "weight": layer.names[0], "bias": layer.names[1], "inputs": inputs, "outputs": outputs })
        });
        let metadata: serde_json::Map<_, _> =
            model.metadata.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        let data = model
            .data
            .iter()
            .map(|(path, bytes)| json!({ "file": path, "bytes": bytes.len(), "sha256": sha256(bytes) }));
        let all = json!({
            "file": args.file.display().to_string(), "bytes": bytes.len(), "sha256": sha256(&bytes),
            "data": data.collect::<Vec<_>>(), "opset": model.opset, "producer": model.producer,
            "conditional": !model.classes.is_empty(), "classes": model.classes,
            "looks_conditional": model.likely_classes().is_some(), "likely_classes": model.likely_classes(),
            "parameters": parameters,
            "weights_sha256": sha256(&model.f32_bytes()), "f32_bytes": f32_bytes, "int8_bytes": int8_bytes,
            "layers": layers.collect::<Vec<_>>(), "metadata": metadata,
        });
        return print_json(format_args!("{all:#}"));
    }
    let mut out = String::new();
    writeln!(
        out,
        "{}: a generator, {}",
        printable(&args.file.display().to_string()),
        match (model.classes.len(), model.likely_classes()) {
            (0, None) => "unconditional".into(),
            (0, Some(n)) => format!("by its weights class-conditional with about {n} classes, see gen --classes"),
            (n, _) => format!("class-conditional: z[0..{n}] is the class as one-hot"),
        }
    )?;
    if !model.classes.is_empty() {
        let count = format!("{} classes", model.classes.len());
        writeln!(out, "  {count:<12} {}", printable(&model.classes.join(", ")))?;
    }
    writeln!(out, "  file         {} bytes, sha256 {}", bytes.len(), sha256(&bytes))?;
    for (path, bytes) in &model.data {
        writeln!(out, "  weights in   {}, {} bytes, sha256 {}", shown(path), bytes.len(), sha256(bytes))?;
    }
    writeln!(out, "  written by   {}, opset {}", shown(&model.producer), model.opset)?;
    writeln!(out, "  input        z (N, {}) in [-1, 1]", onnx::SIZES[0])?;
    for (layer, activation) in model.layers.iter().zip(["LeakyReLU 0.2", "LeakyReLU 0.2", "LeakyReLU 0.2", "tanh"]) {
        let (outputs, inputs) = (layer.bias.len(), layer.weight.len() / layer.bias.len());
        let [weight, bias] = layer.names.each_ref().map(|name| shown(name));
        writeln!(
            out,
            "  {inputs:>4} → {outputs:<4}  {weight} ({}) {bias} ({outputs}), {activation}",
            layer.weight.len()
        )?;
    }
    writeln!(out, "  parameters   {parameters}: {f32_bytes} bytes as f32, {int8_bytes} as int8")?;
    writeln!(
        out,
        "  weights      sha256 {} as f32, which names the generator in `runtime shards`",
        sha256(&model.f32_bytes())
    )?;
    for (key, value) in &model.metadata {
        writeln!(out, "  {:<12} {}", printable(key), printable(value))?;
    }
    print(out)
}
