//! The `trainer` program as its users meet it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use tests::{digits, mnist, peers_python, program, run};

/// A new folder with a small data set.
fn small_data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    digits(folder.path(), 60);
    folder
}

/// A generator that `trainer` wrote.
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/seed.onnx");

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
    fs::copy(SHIPPED, &out).unwrap();
    let (output, stderr) = run(&mut train(data, &out, more));
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    let error = stderr.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: ") && !stderr.contains("panicked"), "{stderr}");
    expected.iter().for_each(|word| assert!(error.contains(word), "{word:?} is missing from {error:?}"));
    assert!(fs::read(&out).unwrap() == fs::read(SHIPPED).unwrap());
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
    exits(2, data, &["--threads", "0"], &["--threads: 1 to 1024 expected, 0 found"]);
    exits(2, data, &["--threads", "4294967297"], &["--threads: 1 to 1024 expected, 4294967297 found"]);
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

/// Asserts that training to `out` is a usage error.
fn is_misuse(data: &Path, out: &Path, more: &[&str], expected: &str) {
    let (output, stderr) = run(&mut train(data, out, more));
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(expected), "{expected:?} is missing from {stderr:?}");
}

fn trains(command: &mut Command) -> String {
    let (output, stderr) = run(command.args(["--score-every", "0", "--quiet"]));
    assert!(output.status.success(), "{stderr}");
    stderr
}

#[test]
fn a_file_that_is_no_generator_of_ours_is_overwritten_only_by_force() {
    let data = small_data();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("notes.txt");
    for (content, what) in [(&b"precious"[..], "text"), (&fs::read(SHIPPED).unwrap()[..99], "half a generator")] {
        fs::write(&out, content).unwrap();
        is_misuse(data.path(), &out, &[], "notes.txt exists and is no generator of trainer; --force overwrites it");
        assert_eq!(fs::read(&out).unwrap(), content, "{what}");
    }
    let (output, stderr) =
        run(program("trainer").args(["judge", "--offline", "--data"]).arg(data.path()).arg("--out").arg(&out));
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("is no judge of trainer"), "{stderr}");
    trains(&mut train(data.path(), &out, &["--force"]));
    trains(
        program("trainer")
            .args(["--epochs", "1", "--device", "cpu", "--data"])
            .arg(data.path())
            .current_dir(&folder)
            .args(["--out", "notes.txt"]),
    );
}

#[test]
fn an_input_is_never_overwritten() {
    let data = small_data();
    let folder = tempfile::tempdir().unwrap();
    let images = data.path().join("train-images-idx3-ubyte");
    let before = fs::read(&images).unwrap();
    let elsewhere = folder.path().join("images");
    fs::rename(&images, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &images).unwrap();
    for out in [&images, &elsewhere, &data.path().join("t10k-labels-idx1-ubyte")] {
        is_misuse(data.path(), out, &["--force"], "is a file of the data set; choose another name");
    }
    assert!(fs::read(&elsewhere).unwrap() == before);
    let out = folder.path().join("g.onnx");
    let run_dir = out.with_extension("run");
    trains(&mut train(data.path(), &out, &[]));
    for name in ["config.json", "metrics.jsonl", "checkpoints/step-000000001.ckpt", "checkpoints/new"] {
        let mut command = program("trainer");
        let (output, stderr) =
            run(command.arg("--resume").arg(&run_dir).arg("--force").arg("--out").arg(run_dir.join(name)));
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("is a file of the run; choose another name"), "{stderr}");
    }
    let mut command = program("trainer");
    command.args(["--epochs", "1", "--run-dir", ".", "--out", "config.json", "--data"]).arg(data.path());
    let (output, stderr) = run(command.current_dir(&folder));
    assert!(output.status.code() == Some(2) && stderr.contains("config.json is a file of the run"), "{stderr}");
}

#[test]
fn an_out_that_ends_in_gz_is_a_gzipped_generator() {
    let data = small_data();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("g.onnx.gz");
    for _ in 0..2 {
        let run_dir = folder.path().join("run");
        trains(train(data.path(), &out, &[]).arg("--run-dir").arg(&run_dir));
        let mut unpacked = vec![];
        flate2::read::GzDecoder::new(fs::File::open(&out).unwrap()).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == fs::read(run_dir.join("g.onnx")).unwrap());
        fs::remove_dir_all(run_dir).unwrap(); // a second run overwrites the file of the first
    }
}

#[test]
fn devices_fifos_and_links_are_written_into() {
    let data = small_data();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::copy(SHIPPED, path("target")).unwrap();
    std::os::unix::fs::symlink("target", path("link")).unwrap();
    assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    let null = Command::new("mknod").arg(path("null")).args(["c", "1", "3"]).output().unwrap().status.success();
    let reader = std::thread::spawn({
        let fifo = path("fifo");
        move || fs::read(fifo).unwrap()
    });
    let train_to = |name: &str| {
        trains(train(data.path(), &path(name), &[]).arg("--run-dir").arg(path(&format!("run-{name}"))));
        fs::read(path(&format!("run-{name}/g.onnx"))).unwrap()
    };
    assert!(train_to("fifo") == reader.join().unwrap());
    assert!(train_to("link") == fs::read(path("target")).unwrap() && path("link").is_symlink());
    if null {
        train_to("null");
        let kind = fs::metadata(path("null")).unwrap().file_type();
        assert!(std::os::unix::fs::FileTypeExt::is_char_device(&kind));
    }
    let mut command = train(data.path(), Path::new("/dev/stdout"), &["--run-dir"]);
    let (output, stderr) = run(command.arg(path("run-stdout")).args(["--score-every", "0", "--quiet"]));
    assert!(output.status.success() && output.stdout == fs::read(path("run-stdout/g.onnx")).unwrap(), "{stderr}");
}

#[test]
fn paths_may_have_any_bytes_and_names_255() {
    use std::os::unix::ffi::OsStrExt;
    let folder = tempfile::tempdir().unwrap();
    let cwd = folder.path().join(OsStr::from_bytes(b"no \xff unicode"));
    let data = cwd.join(OsStr::from_bytes(b"data\xfe"));
    fs::create_dir_all(&data).unwrap();
    digits(&data, 60);
    let out = [b"\xfd", "g".repeat(254).as_bytes()].concat();
    let out = OsStr::from_bytes(&out);
    let mut command = program("trainer");
    command.args(["--epochs", "1", "--device", "cpu", "--run-dir", "run", "--out"]).arg(out);
    trains(command.current_dir(&cwd).env("MNIST_DIR", &data));
    let written = fs::read(cwd.join(out)).unwrap();
    assert!(written == fs::read(cwd.join("run/g.onnx")).unwrap());
    fs::remove_file(cwd.join(out)).unwrap();
    let mut command = program("trainer");
    trains(command.args(["--resume", "run"]).current_dir(&cwd).env_remove("MNIST_DIR"));
    assert!(written == fs::read(cwd.join(out)).unwrap(), "the paths in config.json name other files");
}

#[test]
fn every_number_of_threads_writes_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    digits(folder.path(), 300); // whole batches of each recipe, and smaller last ones
    for recipe in ["seed", "tuned"] {
        let written = |threads: &str| {
            let out = folder.path().join(format!("{recipe}-{threads}.onnx"));
            trains(&mut train(folder.path(), &out, &["--recipe", recipe, "--score-every", "1", "--threads", threads]));
            fs::read(out).unwrap()
        };
        let one = written("1");
        for threads in ["2", "3", "4"] {
            assert!(written(threads) == one, "{recipe}, {threads} threads");
        }
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
