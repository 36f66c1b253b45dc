//! The `runtime` program and library as their users meet them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::{GENERATOR, generate};
use tests::{peers_python, program, run};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn script(name: &str) -> PathBuf {
    root("tests/peers").join(name)
}

#[test]
fn onnx_runtime_draws_the_same_digits() {
    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, mut bytes) = (folder.path().join("drawn"), vec![]);
    for seed in 0..1000 {
        let z = runtime::latent_of(seed);
        bytes.extend(z.numbers().iter().chain(&GENERATOR.draw_f32(&z)).flat_map(|x| x.to_le_bytes()));
        bytes.extend(generate(seed).0);
    }
    fs::write(&file, bytes).unwrap();
    let mut compare = Command::new(python);
    let (output, stderr) = run(compare.arg(script("compare_generator.py")).arg(root("models/g.onnx")).arg(file));
    assert!(output.status.success(), "{stderr}");
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_png_holds_the_librarys_pixels() {
    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("digit.png");
    let (piped, _) = run(program("runtime").args(["gen", "--seed", "42"]));
    assert!(piped.status.success());
    let (output, stderr) = run(program("runtime").args(["gen", "--seed", "42", "--out"]).arg(&out));
    assert!(output.status.success() && output.stdout.is_empty(), "{stderr}");
    assert_eq!(fs::read(&out).unwrap(), piped.stdout);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    let (seen, stderr) = run(Command::new(python).arg(script("check_png.py")).arg(&out));
    let hex: String = generate(42).0.iter().map(|pixel| format!("{pixel:02x}")).collect();
    assert_eq!(String::from_utf8(seen.stdout).unwrap().trim(), format!("L 28 28 {hex}"), "{stderr}");
}

#[test]
fn a_model_file_draws_what_the_same_model_built_in_draws() {
    let (built_in, _) = run(program("runtime").args(["gen", "--seed", "7"]));
    let (loaded, stderr) = run(program("runtime").args(["gen", "--seed", "7", "--model"]).arg(root("models/g.onnx")));
    assert!(loaded.status.success(), "{stderr}");
    assert_eq!(loaded.stdout, built_in.stdout);
}

#[test]
fn both_gemm_layouts_and_a_matmul_draw_the_same_digit() {
    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (expected, _) = run(program("runtime").args(["gen", "--seed", "3"]));
    for layout in ["transB", "matmul", "float_data"] {
        let file = folder.path().join(format!("{layout}.onnx"));
        let mut respell = Command::new(&python);
        respell.arg(script("respell_generator.py")).arg(root("models/g.onnx")).arg(&file).arg(layout);
        let (output, stderr) = run(&mut respell);
        assert!(output.status.success(), "{stderr}");
        let (drawn, stderr) = run(program("runtime").args(["gen", "--seed", "3", "--model"]).arg(&file));
        assert!(drawn.status.success(), "{layout}: {stderr}");
        assert!(drawn.stdout == expected.stdout, "{layout}: another digit");
    }
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_what_was_expected_and_found() {
    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("shape", "fc2.bias: shape [64] expected, [63] found"),
        ("short", "fc2.bias: 64 values expected, 63 found"),
        ("nan", "fc3.weight: finite values expected, NaN found at 5"),
        ("alpha", "alpha 0.2 expected, 0.3 found"),
        ("double", "fc1.bias: float32 (data type 1) expected, data type 11 found"),
        ("relu", "LeakyRelu expected, Relu found"),
        ("end", "the graph to end after Tanh expected"),
    ];
    for (spelling, expected) in cases {
        let file = folder.path().join(format!("{spelling}.onnx"));
        let mut respell = Command::new(&python);
        respell.arg(script("respell_generator.py")).arg(root("models/g.onnx")).arg(&file).arg(spelling);
        let (output, stderr) = run(&mut respell);
        assert!(output.status.success(), "{stderr}");
        refuses_model(&file, &[&format!("{spelling}.onnx"), expected]);
    }
}

#[test]
fn a_model_that_is_no_onnx_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.onnx");
    fs::write(&file, "This is a text, and not a model.").unwrap();
    refuses_model(&file, &["text.onnx", "an ONNX file expected"]);
    let whole = fs::read(root("models/g.onnx")).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    refuses_model(&file, &["text.onnx", "an ONNX file expected"]);
    fs::write(&file, "").unwrap();
    refuses_model(&file, &["text.onnx", "graph"]);
    refuses_model(&folder.path().join("none.onnx"), &["none.onnx", "No such file"]);
}

/// `--model FILE` must fail with exit code 1, say `expected`, and leave the good picture alone.
fn refuses_model(file: &Path, expected: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("digit.png");
    fs::write(&out, "good").unwrap();
    let (output, stderr) = run(program("runtime").args(["gen", "--model"]).arg(file).arg("--out").arg(&out));
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("error: --model: ") && stderr.lines().count() == 1, "{stderr}");
    expected.iter().for_each(|word| assert!(stderr.contains(word), "{word:?} is missing from {stderr}"));
    assert_eq!(fs::read(&out).unwrap(), b"good");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_out_in_a_missing_folder_is_named() {
    let (output, stderr) = run(program("runtime").args(["gen", "--out", "no/such/digit.png"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.starts_with("error: --out: no/such/digit.png: cannot be written"), "{stderr}");
}

#[test]
fn a_terminal_gets_characters_and_a_pipe_gets_a_png() {
    let Some(python) = peers_python() else { return };
    let in_a_terminal = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))";
    let runtime = program("runtime");
    let (seen, _) = run(Command::new(python).args(["-c", in_a_terminal]).arg(runtime.get_program()).args(["gen"]));
    let text = String::from_utf8(seen.stdout).unwrap();
    assert_eq!((text.lines().count(), text.matches('▀').count()), (14, 14 * 28));
    let (piped, _) = run(program("runtime").arg("gen"));
    assert_eq!(&piped.stdout[..8], b"\x89PNG\r\n\x1a\n");
}

/// Builds and runs the program with another generator built in.
fn built_with(generator: &Path) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--release", "--locked", "-p", "runtime", "--", "gen", "--seed", "1"]);
    cargo
        .current_dir(root("."))
        .env("GENERATOR_ONNX", generator)
        .env("CARGO_TARGET_DIR", root("target/generator-onnx"));
    cargo
}

/// tests/golden/pytorch.onnx is what `seed_gan.py --steps 200 --onnx` wrote.
#[test]
fn what_pytorch_exports_is_read_at_build_time_and_at_run_time() {
    let file = root("tests/golden/pytorch.onnx");
    let (output, stderr) = run(program("runtime").args(["gen", "--seed", "1", "--model"]).arg(&file));
    assert!(output.status.success(), "{stderr}");
    let (built, stderr) = run(&mut built_with(&file));
    assert!(built.stdout == output.stdout, "{stderr}");
    let (refused, stderr) = run(&mut built_with(&root("Cargo.toml")));
    assert!(!refused.status.success());
    assert!(stderr.contains("Cargo.toml: an ONNX file expected, something else found"), "{stderr}");
    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (png, z) = (folder.path().join("digit.png"), folder.path().join("z"));
    fs::write(&png, output.stdout).unwrap();
    fs::write(&z, runtime::Latent::new(1).numbers().iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let check = "import sys, numpy as np, onnxruntime as o; from PIL import Image; \
        t, = o.InferenceSession(sys.argv[1]).run(None, {'z': np.fromfile(sys.argv[2], '<f4').reshape(1, 100)}); \
        d = np.abs(np.rint(127.5 * t + 127.5).reshape(28, 28) - np.asarray(Image.open(sys.argv[3]), float)); \
        assert d.max() <= 1, d.max()";
    let (seen, stderr) = run(Command::new(python).args(["-c", check]).arg(&file).arg(&z).arg(&png));
    assert!(seen.status.success(), "{stderr}");
}
