//! The `trainer` program as its users meet it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use tests::{digits, mnist, peers_python, program, run};

/// A new folder with a small data set.
fn small_data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    digits(folder.path(), 60);
    folder
}

fn train(data: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = program("trainer");
    command.args(["--epochs", "1", "--device", "cpu", "--data"]).arg(data).arg("--out").arg(out);
    command.arg("--run-dir").arg(out.with_extension("run")).args(more);
    command
}

#[test]
fn the_same_command_gives_the_same_bytes_and_any_onnx_tool_reads_them() {
    let Some(mnist) = mnist() else { return };
    let folder = tempfile::tempdir().unwrap();
    let [a, b, other, graph] = ["a.onnx", "b.onnx", "other.onnx", "step.onnx"].map(|name| folder.path().join(name));
    let (output, stderr) = run(train(&mnist, &a, &["--seed", "7", "--write-step-graph"]).arg(&graph));
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(stdout.starts_with("Epoch [    1/    1] | d_loss: "), "{stdout}");
    assert!(run(&mut train(&mnist, &b, &["--seed", "7"])).0.status.success());
    assert!(run(&mut train(&mnist, &other, &["--seed", "8"])).0.status.success());
    assert!(fs::read(&a).unwrap() == fs::read(&b).unwrap(), "two runs of one seed differ");
    assert!(fs::read(&a).unwrap() != fs::read(&other).unwrap(), "two seeds gave one file");

    let Some(python) = peers_python() else { return };
    let script = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name);
    let (output, stderr) = run(Command::new(&python).arg(script("check_generator.py")).arg(&a).args([
        "recipe=seed",
        "seed=7",
        "epochs=1",
    ]));
    assert!(output.status.success(), "{stderr}");
    let check = "import onnx, sys; onnx.checker.check_model(onnx.load(sys.argv[1]), full_check=True)";
    let (output, stderr) = run(Command::new(&python).args(["-c", check]).arg(&graph));
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn a_training_run_stays_below_700_mb() {
    let (Some(mnist), Some(python)) = (mnist(), peers_python()) else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/peak_memory.py");
    let trainer = train(&mnist, &folder.path().join("g.onnx"), &[]);
    let (output, stderr) = run(Command::new(python).arg(script).arg(trainer.get_program()).args(trainer.get_args()));
    assert!(output.status.success(), "{stderr}");
    let peak: f64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
    println!("peak resident size: {peak:.0} MB");
    assert!(peak < 700.0, "{peak} MB");
}

/// Asserts that the trainer fails on spoilt input with exit code 1, says `expected` and leaves the good file alone.
fn refuses(data: &Path, more: &[&str], expected: &[&str]) {
    exits(1, data, more, expected);
}

fn exits(code: i32, data: &Path, more: &[&str], expected: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("g.onnx");
    fs::write(&out, "good").unwrap();
    let (output, stderr) = run(&mut train(data, &out, more));
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let error = stderr.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: ") && !stderr.contains("panicked"), "{stderr}");
    expected.iter().for_each(|word| assert!(error.contains(word), "{word:?} is missing from {error:?}"));
    assert_eq!(fs::read(&out).unwrap(), b"good");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left beside {}", out.display());
}

#[test]
fn spoilt_data_is_refused_with_the_file_and_what_is_wrong_with_it() {
    const IMAGES: &str = "train-images-idx3-ubyte";
    type Spoil = fn(&mut Vec<u8>);
    let cases: &[(Spoil, &[&str])] = &[
        (|raw| raw.truncate(1000), &[IMAGES, "47056", "1000"]),
        (|raw| raw[2] = 9, &[IMAGES, "magic"]),
        (|raw| raw[7] ^= 1, &[IMAGES, "61"]),
        (|raw| raw.clear(), &[IMAGES, "empty"]),
    ];
    let data = small_data();
    let path = data.path().join(IMAGES);
    let whole = fs::read(&path).unwrap();
    for (spoil, expected) in cases {
        let mut raw = whole.clone();
        spoil(&mut raw);
        fs::write(&path, raw).unwrap();
        refuses(data.path(), &[], expected);
    }
    fs::remove_file(&path).unwrap();
    refuses(data.path(), &[], &[IMAGES]);
    let mut packer = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packer.write_all(&whole).unwrap();
    let gzip = packer.finish().unwrap();
    fs::write(path.with_extension("gz"), &gzip[..gzip.len() / 2]).unwrap();
    refuses(data.path(), &[], &["train-images-idx3-ubyte.gz", "gzip"]);
    refuses(Path::new("no/such/folder"), &[], &["no/such/folder"]);
}

#[test]
fn options_that_make_no_sense_are_refused_before_any_work() {
    let data = small_data();
    let data = data.path();
    exits(2, data, &["--batch", "0"], &["--batch", "at least 1", "0 found"]);
    exits(2, data, &["--lr", "0"], &["--lr", "above 0", "0 found"]);
    exits(2, data, &["--threads", "0"], &["--threads", "at least 1"]);
    let (output, stderr) = run(program("trainer").args(["--epochs", "0", "--data"]).arg(data));
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr.contains("--epochs: at least 1 expected, 0 found"), "{stderr}");
}

#[test]
fn an_out_that_cannot_be_written_is_found_before_training() {
    let data = small_data();
    for out in ["no/such/folder/g.onnx", "/proc/g.onnx", "."] {
        let (output, stderr) = run(train(data.path(), Path::new(out), &["--epochs", "100000"]).arg("--offline"));
        assert_eq!(output.status.code(), Some(1), "{out}: {stderr}");
        assert!(stderr.starts_with("error: --out: "), "{stderr}");
    }
}

#[test]
fn cuda_asked_for_and_not_there_is_an_error_that_says_what_is_missing() {
    let data = small_data();
    if Path::new("/dev/nvidia0").exists() {
        eprintln!("skipped: this machine has a GPU");
        return;
    }
    refuses(data.path(), &["--device", "cuda"], &["--device cuda", "CUDA"]);
}

#[test]
fn completions_and_man_pages_name_the_options() {
    let text = |args: &[&str]| {
        let (output, stderr) = run(program("trainer").args(args));
        assert!(output.status.success(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(text(&["completions", shell]).contains("shared-z"), "{shell}");
    }
    let (page, bench) = (text(&["man"]), text(&["man", "bench"]));
    assert!(page.contains(".TH trainer 1") && page.contains("\\-\\-shared\\-z"), "{page}");
    assert!(bench.contains(".TH trainer\\-bench 1") || bench.contains(".TH trainer-bench 1"), "{bench}");
    let (output, stderr) = run(program("trainer").args(["man", "paint"]));
    assert_eq!(output.status.code(), Some(2), "{stderr}");
}
