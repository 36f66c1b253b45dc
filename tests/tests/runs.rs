//! Runs that are stopped, killed, resumed, spoilt and crowded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::{digits, peers_python, program, run};

const EPOCHS: &str = "30";

/// A folder with a small data set in `data`.
fn workshop() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    digits(&data, 2000);
    (folder, data)
}

/// A trainer on a new run.
fn train(data: &Path, run_dir: &Path, epochs: &str) -> Command {
    let mut command = program("trainer");
    command.args(["--device", "cpu", "--threads", "1", "--epochs", epochs, "--seed", "5", "--data"]).arg(data);
    command.arg("--run-dir").arg(run_dir).arg("--out").arg(run_dir.with_extension("onnx"));
    command
}

fn resume(run_dir: &Path, more: &[&str]) -> Command {
    let mut command = program("trainer");
    command.args(["--device", "cpu", "--threads", "1", "--resume"]).arg(run_dir).args(more);
    command
}

fn succeeds(command: &mut Command) -> String {
    let (output, stderr) = run(command);
    assert!(output.status.success(), "{command:?}: {stderr}");
    stderr
}

/// Fails with exit code 1 and one last line that holds `expected`.
fn fails(command: &mut Command, expected: &[&str]) {
    let (output, stderr) = run(command);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let error = stderr.lines().last().unwrap_or_default();
    assert!(error.starts_with("error: ") && !stderr.contains("panicked"), "{stderr}");
    expected.iter().for_each(|word| assert!(error.contains(word), "{word:?} is missing from {error:?}"));
}

fn newest_checkpoint(run_dir: &Path) -> PathBuf {
    let checkpoints = fs::read_dir(run_dir.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    checkpoints.filter(|path| !path.ends_with("best.ckpt")).max().unwrap()
}

fn generator(run_dir: &Path) -> Vec<u8> {
    fs::read(run_dir.join("g.onnx")).unwrap()
}

#[test]
fn a_run_killed_at_20_random_moments_ends_in_the_bytes_of_one_that_was_not() {
    let (folder, data) = workshop();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let start = Instant::now();
    succeeds(&mut train(&data, &whole, EPOCHS));
    let time = start.elapsed(); // moments are shares of it, so that a slow machine gets as far as a fast one
    let mut random = 88_172_645_463_325_252u64; // xorshift64, Marsaglia 2003
    let mut progress = vec![];
    let go_on = || match killed.join("config.json").exists() {
        true => resume(&killed, &[]),
        false => train(&data, &killed, EPOCHS),
    };
    for _ in 0..20 {
        let mut trainer = go_on().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(time.mul_f64(0.2 * (random % 1000) as f64 / 1000.0));
        trainer.kill().unwrap(); // SIGKILL
        trainer.wait().unwrap();
        let metrics = fs::read_to_string(killed.join("metrics.jsonl")).unwrap_or_default();
        progress.push(metrics.lines().count());
    }
    println!("epochs recorded when the kills came: {progress:?}");
    succeeds(&mut go_on());
    assert!(generator(&killed) == generator(&whole), "the killed run ended in another generator");
    assert!(generator(&killed) == fs::read(killed.with_extension("onnx")).unwrap());
    let leftovers = |below: &str| {
        fs::read_dir(killed.join(below))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"))
            .count()
    };
    assert_eq!(leftovers("checkpoints") + leftovers("samples") + leftovers("."), 0);
}

#[test]
fn ctrl_c_ends_a_run_with_a_checkpoint_and_a_word_on_how_to_go_on() {
    let (folder, data) = workshop();
    let (whole, stopped) = (folder.path().join("whole"), folder.path().join("stopped"));
    succeeds(&mut train(&data, &whole, "12"));
    let trainer = train(&data, &stopped, "12").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !stopped.join("samples/epoch-002.png").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &trainer.id().to_string()]).status().unwrap().success());
    let output = trainer.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let expected = format!("go on with --resume {}", stopped.display());
    assert!(stderr.contains("stopped after step ") && stderr.contains(&expected), "{stderr}");
    succeeds(&mut resume(&stopped, &[]));
    assert!(generator(&stopped) == generator(&whole), "the stopped run ended in another generator");

    let Some(python) = peers_python() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/check_events.py");
    for run_dir in [&whole, &stopped] {
        let (output, stderr) = run(Command::new(&python).arg(&script).arg(run_dir).arg("12"));
        assert!(output.status.success(), "{stderr}");
    }
}

#[test]
fn a_run_may_be_extended_and_is_then_the_longer_run() {
    let (folder, data) = workshop();
    let (long, short) = (folder.path().join("long"), folder.path().join("short"));
    succeeds(&mut train(&data, &long, "4"));
    succeeds(&mut train(&data, &short, "2"));
    succeeds(&mut resume(&short, &["--epochs", "4"]));
    assert!(generator(&short) == generator(&long));
    fails(&mut resume(&short, &["--epochs", "3"]), &["--epochs", "at least the 4", "3 found"]);
    let (table, _) = run(program("trainer").arg("compare").args([&long, &short]));
    let table = String::from_utf8(table.stdout).unwrap();
    assert_eq!((table.lines().count(), table.matches("4/4").count()), (3, 2), "{table}");
}

#[test]
fn what_contradicts_a_run_or_spoils_it_is_refused_and_nothing_good_is_lost() {
    let (folder, data) = workshop();
    let (good, other) = (folder.path().join("good"), folder.path().join("other"));
    succeeds(&mut train(&data, &good, "3"));
    succeeds(train(&data, &other, "3").args(["--lr", "0.001"]));
    let kept = || (generator(&good), fs::read(good.join("metrics.jsonl")).unwrap());
    let before = kept();

    fails(
        &mut resume(&good, &["--lr", "0.1", "--seed", "9"]),
        &["--lr 0.1 (the run has 0.002)", "--seed 9 (the run has 5)"],
    );
    fails(&mut train(&data, &good, "3"), &["good holds a run already", "--resume"]);
    fails(&mut resume(&folder.path().join("none"), &[]), &["none: a run folder with a config.json expected"]);
    let out = folder.path().join("out.onnx");
    let unwritable = &["--run-dir: /proc/run: cannot be made"];
    fails(train(&data, Path::new("/proc/run"), "3").arg("--out").arg(out), unwritable);
    digits(&data, 1000);
    fails(&mut resume(&good, &[]), &["--data: the run in", "was trained on", "sha256"]);
    digits(&data, 2000);

    let checkpoint = newest_checkpoint(&good);
    let whole = fs::read(&checkpoint).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    for spoilt in [&flipped[..], &whole[..whole.len() / 3], b""] {
        fs::write(&checkpoint, spoilt).unwrap();
        let name = checkpoint.file_name().unwrap().to_str().unwrap();
        fails(&mut resume(&good, &[]), &[name, "a whole checkpoint expected, a damaged one found", "delete it"]);
    }
    fs::copy(newest_checkpoint(&other), &checkpoint).unwrap();
    fails(&mut resume(&good, &[]), &["a checkpoint of plan", "0.001"]);
    assert!(kept() == before);

    // As the error said: without the damaged checkpoint the run goes on from the one before.
    fs::remove_file(&checkpoint).unwrap();
    let said = succeeds(&mut resume(&good, &[]));
    assert!(said.contains("going on from "), "{said}");
    assert!(generator(&good) == before.0);
}

#[test]
fn a_run_folder_serves_one_trainer_at_a_time() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    let mut first = train(&data, &run_dir, "100000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !run_dir.join("samples/epoch-001.png").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    fails(&mut resume(&run_dir, &[]), &["another trainer is at work in this run folder"]);
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(newest_checkpoint(&run_dir).exists());
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoints() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    // One step an epoch; the first leaves weights so large that the second's losses overflow.
    let mut command = train(&data, &run_dir, "9");
    let expected = ["last good checkpoint is", "step-000000001.ckpt", "step 2: d_loss is", "try --lr below"];
    fails(command.args(["--lr", "5e7", "--batch", "100000"]), &expected);
    assert!(newest_checkpoint(&run_dir).ends_with("step-000000001.ckpt"));
}

#[test]
fn a_full_disk_is_an_error_and_the_last_checkpoint_stays_good() {
    let (folder, data) = workshop();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=7m", "tmpfs"]).arg(&disk).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no small file system can be mounted here");
        return;
    }
    let run_dir = disk.join("run");
    let (output, stderr) = run(train(&data, &run_dir, "50").args(["--checkpoints", "9"]));
    let checkpoints: Vec<PathBuf> =
        fs::read_dir(run_dir.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let rescued = folder.path().join("rescued");
    assert!(Command::new("cp").arg("-r").arg(&run_dir).arg(&rescued).status().unwrap().success());
    let sizes: Vec<u64> = checkpoints.iter().map(|path| fs::metadata(path).unwrap().len()).collect();
    assert!(Command::new("umount").arg(&disk).status().unwrap().success());
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let error = stderr.lines().last().unwrap_or_default();
    assert!(error.contains("cannot be written") && error.contains("No space left"), "{stderr}");
    assert!(!sizes.is_empty() && sizes.iter().all(|&size| size == sizes[0] && size > 2_000_000), "{sizes:?}");
    succeeds(&mut resume(&rescued, &["--out", rescued.with_extension("onnx").to_str().unwrap()]));
}

#[test]
fn the_library_does_what_the_program_does() {
    use trainer::train::{Config, Engine, Folder, Plan};
    let (folder, data) = workshop();
    let (by_program, by_library) = (folder.path().join("program"), folder.path().join("library"));
    succeeds(&mut train(&data, &by_program, "2"));
    let config = Config {
        plan: Plan { epochs: 2, seed: 5, ..Plan::seed_recipe() },
        data: data.to_str().unwrap().parse().unwrap(),
        engine: Engine { device: Some(trainer::session::Device::Cpu), threads: Some(1), offline: false },
        out: None,
        step_graph: None,
        folder: Folder::New(by_library.clone()),
        checkpoints: 3,
        score_every: 10,
    };
    let outcome = trainer::train::train(&config, &mut ()).unwrap();
    assert!(outcome.finished);
    assert!(generator(&by_library) == generator(&by_program));
}

#[test]
fn data_that_cannot_be_had_is_an_error_with_the_ways_out() {
    let cache = tempfile::tempdir().unwrap();
    let mut command = program("trainer");
    command.args(["--data", "mnist"]).env("XDG_CACHE_HOME", cache.path()).env_remove("MNIST_DIR");
    let ways = ["--data DIR", "MNIST_DIR", "MNIST_MIRROR", "--data demo"];
    fails(command.env("MNIST_MIRROR", "http://127.0.0.1:9"), &ways);
    fails(command.arg("--offline"), &ways);
}

#[test]
fn the_demo_is_said_to_be_no_mnist_in_the_terminal_and_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("g.onnx");
    let mut command = program("trainer");
    command
        .args(["--data", "demo", "--epochs", "1", "--quiet", "--device", "cpu", "--batch", "1000", "--out"])
        .arg(&out);
    let said = succeeds(command.arg("--run-dir").arg(folder.path().join("run")));
    assert!(said.contains("NOT MNIST"), "{said}");
    assert!(String::from_utf8_lossy(&fs::read(&out).unwrap()).contains("demo (no MNIST)"));
}
