//! What of CUDA is tested without a GPU; on one, tests/gpu tests the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::{Array1, Array2, s};
use tests::{data_set, digits, mnist, peers_python, program, run};
use trainer::config::{Plan, Recipe};
use trainer::data::Dataset;
use trainer::gan::block::{metrics, prepare, step_graph};
use trainer::gan::inputs::StepKind;
use trainer::gan::networks::sampler;
use trainer::run::export::write_model;

#[test]
fn every_operator_that_a_gpu_is_asked_for_has_a_cuda_kernel() {
    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut models = vec![];
    let mut add = |name: String, model| {
        let path = folder.path().join(name);
        write_model(&path, &model).unwrap();
        models.push(path);
    };
    let convolutional = Recipe { d_conv: vec![4, 6], ..Recipe::seed() };
    for (recipe, of) in [Recipe::seed(), Recipe::tuned(), Recipe::best(), convolutional].into_iter().zip(0..) {
        // A data set with a smaller last batch.
        let plan = Plan { recipe, batch: 64, ..Plan::seed_recipe() };
        for (kind, i) in StepKind::all(&plan, 100).into_iter().zip(0..) {
            add(format!("{of}-{i}.onnx"), step_graph(&plan.recipe, kind));
        }
        add(format!("{of}-prepare.onnx"), prepare(&plan.recipe, plan.batch, 100, 32));
        add(format!("{of}-metrics.onnx"), metrics(&plan.recipe, plan.batch, 32));
    }
    add("sampler.onnx".into(), sampler(16));
    assert_eq!(models.len(), 4 + 6 + 6 + 4 + 1);

    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let kernels = tests.join("golden/cuda_kernels.txt");
    let check = |kernels: &Path| {
        run(Command::new(&python).arg(tests.join("peers/check_cuda_kernels.py")).arg(kernels).args(&models))
    };
    let (output, stderr) = check(&kernels);
    assert!(output.status.success(), "{stderr}");
    // Were one of them missing, or of other types, it would be named.
    let list = fs::read_to_string(kernels).unwrap();
    for (there, missing, named) in [
        ("\nGemm|", "\nOther|", "no CUDA kernel for  Gemm"),
        ("Concat|13-|T: bfloat16,bool,", "Concat|13-|T: bfloat16,", "Concat of bool"),
    ] {
        assert!(list.contains(there));
        let spoilt = folder.path().join("spoilt.txt");
        fs::write(&spoilt, list.replace(there, missing)).unwrap();
        let (output, stderr) = check(&spoilt);
        assert!(!output.status.success() && stderr.contains(named), "{stderr}");
    }
}

/// ONNX Runtime's CUDA build with an emulated CUDA beside it; `None`, with a word why, without it.
fn emulated() -> Option<PathBuf> {
    let folder = std::env::var_os("EMULATED_CUDA").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: EMULATED_CUDA is not set; tests/run sets it, on Linux on x86_64");
    }
    folder
}

/// A machine with an emulated GPU.
struct Machine {
    onnxruntime: PathBuf,
    /// With a data set in `data`.
    folder: tempfile::TempDir,
}

impl Machine {
    fn new(write_data: impl FnOnce(&Path)) -> Option<Self> {
        let (onnxruntime, folder) = (emulated()?, tempfile::tempdir().unwrap());
        fs::create_dir(folder.path().join("data")).unwrap();
        write_data(&folder.path().join("data"));
        Some(Self { onnxruntime, folder })
    }

    fn give(&self, command: &mut Command) {
        command.current_dir(self.folder.path()).env("LD_LIBRARY_PATH", &self.onnxruntime);
        command.env("ORT_DYLIB_PATH", self.onnxruntime.join("libonnxruntime.so"));
    }

    fn trainer(&self, options: &str) -> Command {
        let mut trainer = program("trainer");
        self.give(&mut trainer);
        trainer.args(["--data", "data", "--device", "cuda", "--json"]).args(options.split_whitespace());
        trainer
    }
}

#[test]
fn the_checks_for_a_gpu_pass_on_an_emulated_one() {
    let Some(mnist) = mnist() else { return };
    let first_images = |folder: &Path| {
        let (mnist, n) = (Dataset::open(&mnist).unwrap(), 33 * 64);
        let first = |n: usize, images: &Array2<u8>, labels: &Array1<u8>| {
            (images.slice(s![..n, ..]).iter().copied().collect::<Vec<u8>>(), labels.slice(s![..n]).to_vec())
        };
        let (images, labels) = first(n, &mnist.images, &mnist.labels);
        data_set(folder, "train", &images, &labels);
        let (images, labels) = first(100, &mnist.test_images, &mnist.test_labels);
        data_set(folder, "t10k", &images, &labels);
    };
    let Some(machine) = Machine::new(first_images) else { return };
    let bin = machine.folder.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let smi = "#!/bin/sh\ncase \"$1\" in *compute_cap) echo 9.0;; *) echo an emulated GPU;; esac\n";
    fs::write(bin.join("nvidia-smi"), smi).unwrap();
    assert!(run(Command::new("chmod").arg("+x").arg(bin.join("nvidia-smi"))).0.status.success());
    let mut gpu = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("gpu"));
    machine.give(&mut gpu);
    gpu.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    gpu.arg(program("trainer").get_program()).arg(&machine.onnxruntime).arg("data");
    // What takes PyTorch on the GPU, what takes a GPU's time, and convolutions, whose kernels are not emulated.
    gpu.args(["--except", "a_full_gpu_is_a_clear_error", "benchmark", "convolutions_train"]);
    let (output, stderr) = run(&mut gpu);
    let table = String::from_utf8_lossy(&output.stdout);
    println!("{table}");
    assert!(output.status.success() && table.contains("an emulated GPU"), "{table} {stderr}");
}

#[test]
fn a_step_is_one_cuda_graph_and_a_block_is_one_copy_each_way() {
    // Epochs of 40 steps, in blocks of 32 and 8.
    let Some(machine) = Machine::new(|folder| digits(folder, 40 * 64)) else { return };
    let of_epochs = |epochs: usize| -> serde_json::Value {
        let options = format!("--epochs {epochs} --score-every 0 --run-dir run-{epochs} --out g.onnx");
        let (output, stderr) = run(machine.trainer(&options).env("EMULATED_REPORT", "report.json"));
        assert!(output.status.success(), "{stderr}");
        serde_json::from_str(&fs::read_to_string(machine.folder.path().join("report.json")).unwrap()).unwrap()
    };
    let (once, twice) = (of_epochs(1), of_epochs(2));
    let number = |of: &serde_json::Value, what: &str| of[what].as_u64().unwrap();
    let more = |what: &str| number(&twice, what) - number(&once, what);
    assert_eq!(number(&once, "nodes"), 127, "gan/block.rs says so");
    assert_eq!((number(&once, "captures"), number(&once, "replays")), (32, 40));
    assert_eq!(
        (more("captures"), more("replays")),
        (0, 40),
        "the same places in the block, from the same copies of the state"
    );
    assert_eq!(more("to_device"), 2);
    // The metrics of two blocks; the state's six vectors; the samples.
    assert_eq!(more("to_host"), 2 + 6 + 1);
    assert!(more("waits") < 40, "a wait a step: {}", more("waits"));
}

#[test]
fn models_of_unknown_origin_and_the_demo_run_on_the_cpu() {
    let Some(machine) = Machine::new(|folder| {
        digits(folder, 40);
        let others: Vec<u8> = (100..110).flat_map(|seed| runtime::generate(seed).0).collect();
        data_set(folder, "t10k", &others, &[0; 10]);
    }) else {
        return;
    };
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/g.onnx");
    for (file, data) in [(&*model, "data"), (Path::new("data/t10k-images-idx3-ubyte"), "demo")] {
        let mut score = program("trainer");
        machine.give(&mut score);
        score.arg("score").arg(file).args(["--data", data, "--device", "cuda", "--json"]);
        let (output, stderr) = run(score.env("EMULATED_REPORT", "report.json"));
        assert!(output.status.success(), "{stderr}");
        let report = fs::read_to_string(machine.folder.path().join("report.json")).unwrap();
        // Only the product that shows that CUDA works.
        assert!(report.contains("\"to_host\": 1,"), "{data}: {report}");
    }
}

#[test]
fn what_goes_wrong_with_a_gpu_is_told_in_a_sentence_and_checkpoints_stay() {
    let Some(machine) = Machine::new(|folder| digits(folder, 40 * 64)) else { return };
    let cases = [
        ("cudaGetDeviceCount:35:1", "NVIDIA's driver is too old; CUDA 13 needs NVIDIA's driver 580 or newer"),
        ("cudaGetDeviceCount:100:1", "no GPU found; `nvidia-smi` tells which the driver sees"),
        ("cudaSetDevice:46:1", "the GPU is busy, or another process has it to itself"),
        ("cudaMalloc:2:1", "out of memory; use a smaller --batch"),
        ("cudaMalloc:2:8", "out of memory; use a smaller --batch"),
        ("cudaGraphLaunch:719:1", "the run failed before its first checkpoint: the GPU failed or went away (719"),
        ("waits:719:175", "step-000000040.ckpt: the GPU failed or went away (719: unspecified launch failure)"),
        (
            "cudaGraphLaunch:719:100",
            "step-000000080.ckpt: the GPU failed or went away (719: unspecified launch failure)",
        ),
    ];
    for (fault, words) in cases {
        let options = format!("--epochs 3 --score-every 0 --run-dir {fault} --out g.onnx");
        let (output, stderr) = run(machine.trainer(&options).env("EMULATED_FAULT", fault));
        assert!(output.status.code() == Some(1) && stderr.contains(words), "{fault}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{fault}: {stderr}");
        let told = String::from_utf8_lossy(&output.stdout).lines().count();
        let epochs = if words.starts_with("step-") { words[5..14].parse::<usize>().unwrap() / 40 } else { 0 };
        assert_eq!(told, epochs, "{fault}: epochs told, and recorded");
    }
    let mut elsewhere = program("trainer");
    elsewhere.current_dir(machine.folder.path()).args(["--resume", "cudaGraphLaunch:719:100"]);
    elsewhere.args(["--device", "cpu", "--quiet"]);
    let (output, stderr) = run(&mut elsewhere);
    assert!(output.status.success(), "it goes on elsewhere: {stderr}");
    for options in ["bench", "--dry-run --data data"] {
        let mut trainer = program("trainer");
        machine.give(&mut trainer);
        trainer.args(options.split_whitespace()).args(["--device", "cuda"]);
        trainer.env("EMULATED_FAULT", "cudaGraphLaunch:719:1");
        let (output, stderr) = run(&mut trainer);
        let told = stderr.contains("error: the GPU failed or went away (719: unspecified launch failure)");
        assert!(output.status.code() == Some(1) && told, "{options}: {stderr}");
    }
}
