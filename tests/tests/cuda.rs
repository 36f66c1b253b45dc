//! What can be said of CUDA without a GPU. With one, tests/gpu says the rest.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{peers_python, run};
use trainer::checkpoint::write_model;
use trainer::gan::{Form, sampler};
use trainer::train::{Plan, step_graphs};

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
    for plan in [Plan::seed_recipe(), Plan::tuned_recipe()] {
        // A data set that leaves a smaller last batch.
        let plan = Plan { batch: 64, ..plan };
        for (graph, i) in step_graphs(&plan, 100, Form::Vectors).into_iter().zip(0..) {
            add(format!("{}-{i}.onnx", plan.recipe.name), graph.model);
        }
    }
    add("sampler.onnx".into(), sampler(16));
    assert_eq!(models.len(), 2 + 4 + 1);

    // ONNX Runtime makes Splits of slices side by side, which are slow on a GPU, unless told not to, as CUDA's sessions are.
    let splits = "import onnx, onnxruntime as ort, sys\n\
        for off in ('', 'GatherSliceToSplitFusion'):\n\
        \x20   options = ort.SessionOptions()\n\
        \x20   options.optimized_model_filepath = sys.argv[2]\n\
        \x20   options.log_severity_level = 3\n\
        \x20   options.add_session_config_entry('optimization.disable_specified_optimizers', off)\n\
        \x20   ort.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])\n\
        \x20   print(sum(node.op_type == 'Split' for node in onnx.load(sys.argv[2]).graph.node))";
    let optimised = folder.path().join("optimised.onnx");
    let (output, stderr) = run(Command::new(&python).args(["-c", splits]).arg(&models[0]).arg(optimised));
    let counts = String::from_utf8(output.stdout).unwrap();
    let counts: Vec<&str> = counts.lines().collect();
    assert!(counts.len() == 2 && counts[0] != "0" && counts[1] == "0", "{counts:?} {stderr}");

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
        ("Equal|13-|T: bool,double,float,float16,int32,int64", "Equal|13-|T: bool", "Equal of int64"),
    ] {
        assert!(list.contains(there));
        let spoilt = folder.path().join("spoilt.txt");
        fs::write(&spoilt, list.replace(there, missing)).unwrap();
        let (output, stderr) = check(&spoilt);
        assert!(!output.status.success() && stderr.contains(named), "{stderr}");
    }
}
