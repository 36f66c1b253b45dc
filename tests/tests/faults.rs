//! Programs whose system calls fail, one after another, and `runtime gen` killed at random moments.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use tests::{digits, kill_after, program, random_shares, run};

/// The program of `faults/inject.c`, which lets one call of another program fail.
struct Injector(PathBuf);

impl Injector {
    /// Compiles the program into `folder`; `None`, with a word why, where it cannot run.
    fn new(folder: &Path) -> Option<Self> {
        let inject = folder.join("inject");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("faults/inject.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&inject).arg(source);
        match compiler.output() {
            Ok(output) if cfg!(target_os = "linux") => assert!(output.status.success(), "{output:?}"),
            _ => {
                eprintln!("skipped: Linux and a C compiler expected");
                return None;
            }
        }
        Some(Self(inject))
    }

    /// Runs `command`, whose call number `n` that changes a file below `folder` fails; with 0 none fails. Also returns all
    /// these calls, each as its name and path.
    fn run(&self, folder: &Path, n: usize, command: &Command) -> (Output, String, Vec<String>) {
        let log = folder.with_extension("log");
        let mut injected = Command::new(&self.0);
        injected.arg(folder).arg(n.to_string()).arg(&log).arg(command.get_program()).args(command.get_args());
        command.get_envs().for_each(|(name, value)| _ = value.map(|value| injected.env(name, value)));
        let (output, stderr) = run(&mut injected);
        let calls = fs::read_to_string(&log).unwrap().lines().map(String::from).collect();
        (output, stderr, calls)
    }
}

/// Asserts that a program met a failed call as it should: it ended with exit code 1 and one sentence that gives the reason, or
/// it warned and went on to the end. No warning is needed where a folder is not synced or a file not linked: not all file
/// systems can do that. Returns whether the program went on.
fn goes_on(output: &Output, stderr: &str, call: &str) -> bool {
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    let warned = stderr.lines().any(|line| line.starts_with("warning: ") && line.contains("Input/output error"));
    let is_folder_sync = call.rsplit_once("fsync ").is_some_and(|(_, path)| Path::new(path).is_dir());
    let is_optional = is_folder_sync || call.contains("link /");
    let context = format!("{call}: {}\n{stderr}", output.status);
    assert!(!stderr.contains("panicked"), "{context}");
    match output.status.code() {
        Some(0) => assert!((warned || is_optional) && errors.is_empty(), "a warning expected: {context}"),
        Some(1) => {
            assert!(errors.len() == 1 && errors[0].contains("Input/output error"), "an error expected: {context}")
        }
        _ => panic!("exit code 0 or 1 expected: {context}"),
    }
    output.status.success()
}

/// Paths of files, relative to a folder, and their contents. A folder is there too, with empty contents.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// All files and folders below `folder`.
fn files(folder: &Path) -> Files {
    let mut found = Files::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (name, path) = (PathBuf::from(entry.file_name()), entry.path());
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        }
        found.insert(name, if path.is_dir() { vec![] } else { fs::read(&path).unwrap() });
    }
    found
}

/// Whether a path is a temporary file or below a temporary folder.
fn is_temporary(path: &Path) -> bool {
    path.iter().any(|name| name.to_string_lossy().starts_with('.') && name != ".lock")
}

/// Calls `test` with 1 to `n`, on all cores.
fn for_each_call(n: usize, test: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(1);
    let cores = thread::available_parallelism().map_or(1, |n| n.get());
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Ordering::Relaxed) {
                        call if call <= n => test(call),
                        _ => break,
                    }
                }
            });
        }
    });
}

#[test]
fn a_training_run_of_which_any_call_fails_keeps_the_old_generator_and_can_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let Some(injector) = Injector::new(folder.path()) else { return };
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    digits(&data, 64);
    let train = |place: &Path, seed: &str| {
        let mut command = program("trainer");
        command.args(["--device", "cpu", "--threads", "1", "--score-every", "0", "--epochs", "1", "--seed", seed]);
        command.arg("--data").arg(&data).arg("--run-dir").arg(place.join(seed)).arg("--out").arg(place.join("g.onnx"));
        command
    };
    let place = folder.path().join("whole");
    fs::create_dir(&place).unwrap();
    let (output, stderr) = run(&mut train(&place, "1"));
    assert!(output.status.success(), "{stderr}");
    let old = fs::read(place.join("g.onnx")).unwrap();
    let (output, stderr, calls) = injector.run(&place, 0, &train(&place, "2"));
    assert!(output.status.success(), "{stderr}");
    let new = fs::read(place.join("g.onnx")).unwrap();
    assert!(calls.len() > 30 && new != old, "{calls:?}");

    let went_on = AtomicUsize::new(0);
    for_each_call(calls.len(), |n| {
        let place = folder.path().join(n.to_string());
        fs::create_dir(&place).unwrap();
        fs::write(place.join("g.onnx"), &old).unwrap();
        let (output, stderr, calls) = injector.run(&place, n, &train(&place, "2"));
        let call = &calls[n - 1];
        let finished = goes_on(&output, &stderr, call);
        went_on.fetch_add(usize::from(finished), Ordering::Relaxed);
        let found = fs::read(place.join("g.onnx")).unwrap();
        assert!(found == new || (found == old && !finished), "{call}: neither the old generator nor the new one");
        assert!(!files(&place).keys().any(|path| is_temporary(path)), "{call}: {:?}", files(&place).keys());
        if n % 4 == 0 && !finished {
            let mut again = train(&place, "2");
            if place.join("2/config.json").exists() {
                again = program("trainer");
                again.arg("--resume").arg(place.join("2"));
            }
            let (output, stderr) = run(&mut again);
            assert!(output.status.success(), "{call}: {stderr}");
            assert!(fs::read(place.join("g.onnx")).unwrap() == new, "{call}: another generator after it was resumed");
        }
    });
    println!("{} calls failed, one a run; {went_on:?} runs went on", calls.len());
}

#[test]
fn gen_of_which_any_call_fails_leaves_old_files_or_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let Some(injector) = Injector::new(folder.path()) else { return };
    let mut all = 0;
    // What is there before, the arguments, and whether several files appear one by one.
    for (i, (before, arguments, one_by_one)) in [
        ("", "--out out.png", false),
        ("--out out.png", "--out out.png --force", false),
        ("", "--count 20 --format raw --out out", false),
        ("", "--count 20 --format idx --out out", true),
        ("--count 20 --format idx --out out", "--count 20 --format idx --out out --force", true),
        ("", "--count 20 --format idx --out out.gz", true),
        ("", "--count 3 --out out", false),
        ("--count 3 --out out", "--count 3 --out out --force", true),
    ]
    .into_iter()
    .enumerate()
    {
        let generate = |place: &Path, seed: &str, arguments: &str| {
            let mut command = program("runtime");
            command.args(["gen", "--seed", seed]);
            for argument in arguments.split(' ') {
                match argument.starts_with("out") {
                    true => command.arg(place.join(argument)),
                    false => command.arg(argument),
                };
            }
            command
        };
        let prepare = |place: &Path| {
            fs::create_dir(place).unwrap();
            if !before.is_empty() {
                let (output, stderr) = run(&mut generate(place, "1", before));
                assert!(output.status.success(), "{stderr}");
            }
        };
        let place = folder.path().join(format!("{i}-whole"));
        prepare(&place);
        let old = files(&place);
        let (output, stderr, calls) = injector.run(&place, 0, &generate(&place, "2", arguments));
        assert!(output.status.success(), "{stderr}");
        let new = files(&place);
        for_each_call(calls.len(), |n| {
            let place = folder.path().join(format!("{i}-{n}"));
            prepare(&place);
            let (output, stderr, calls) = injector.run(&place, n, &generate(&place, "2", arguments));
            let call = format!("{arguments}: {}", calls[n - 1]);
            let (finished, found) = (goes_on(&output, &stderr, &call), files(&place));
            let whole = found == new || (found == old && !finished);
            let each = |(path, bytes)| old.get(path) == Some(bytes) || new.get(path) == Some(bytes);
            assert!(whole || (one_by_one && !finished && found.iter().all(each)), "{call}: {:?}", found.keys());
            let (output, stderr) = run(generate(&place, "2", arguments).arg("--force"));
            assert!(output.status.success() && files(&place) == new, "{call}: {stderr}");
        });
        all += calls.len();
    }
    println!("{all} calls failed, one a run");
}

#[test]
fn shards_of_which_any_call_fails_go_on_with_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let Some(injector) = Injector::new(folder.path()) else { return };
    let shards = |place: &Path| {
        let mut command = program("runtime");
        command.args(["shards", "--count", "40", "--shard-size", "15"]).arg(place.join("set"));
        command
    };
    let place = folder.path().join("whole");
    fs::create_dir(&place).unwrap();
    let (output, stderr, calls) = injector.run(&place, 0, &shards(&place));
    assert!(output.status.success() && calls.len() > 30, "{stderr}{calls:?}");
    let whole = files(&place);
    for_each_call(calls.len(), |n| {
        let place = folder.path().join(n.to_string());
        fs::create_dir(&place).unwrap();
        let (output, stderr, calls) = injector.run(&place, n, &shards(&place));
        let call = &calls[n - 1];
        let finished = goes_on(&output, &stderr, call);
        let found = files(&place);
        assert!(found == whole || !finished, "{call}: {:?}", found.keys());
        assert!(found.iter().all(|(path, bytes)| whole.get(path) == Some(bytes)), "{call}: {:?}", found.keys());
        let (output, stderr) = run(&mut shards(&place));
        assert!(output.status.success() && files(&place) == whole, "{call}: {stderr}");
    });
}

#[test]
fn gen_killed_at_30_random_moments_leaves_an_old_set_or_a_new_one_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, arguments) in [("file", "--count 1000 --format idx"), ("folder", "--count 100 --format png")] {
        let generate = |place: &Path, seed: &str| {
            let mut command = program("runtime");
            command.args(["gen", "--force", "--seed", seed]).args(arguments.split(' '));
            command.arg("--out").arg(place.join("out"));
            command
        };
        let whole = folder.path().join(format!("{kind}-whole"));
        fs::create_dir(&whole).unwrap();
        let (seeds, start) = (["1000001", "2000001"], Instant::now());
        let sets = seeds.map(|seed| {
            _ = fs::remove_dir_all(whole.join("out")); // fails on a file
            let (output, stderr) = run(&mut generate(&whole, seed));
            assert!(output.status.success(), "{stderr}");
            files(&whole)
        });
        let (mut longest, mut shares) = (start.elapsed() / 2, random_shares());
        for (signal, number) in [("KILL", 9), ("TERM", 15), ("INT", 2), ("HUP", 1)] {
            let place = folder.path().join(format!("{kind}-{signal}"));
            fs::create_dir(&place).unwrap();
            let mut killed = 0;
            for (i, share) in shares.by_ref().take(30).enumerate() {
                if kind == "folder" {
                    _ = fs::remove_dir_all(place.join("out"));
                }
                let (status, stderr) = kill_after(&generate(&place, seeds[i % 2]), longest.mul_f64(share), signal);
                let context = format!("SIG{signal} to gen into a {kind}: {status}: {stderr}");
                let ended = status.signal().or(status.code().map(|code| code - 128));
                assert!(status.success() || ended == Some(number), "{context}");
                killed += usize::from(!status.success());
                // So that many runs are killed, and many of them late, also where the machine's speed changes.
                longest = longest.mul_f64(if status.success() { 0.8 } else { 1.1 });
                let mut found = files(&place);
                match signal {
                    "KILL" => found.retain(|path, _| !is_temporary(path)), // until the next start
                    _ => assert!(!found.keys().any(|path| is_temporary(path)), "{context}: {:?}", found.keys()),
                }
                let is_part = |set: &Files| found.iter().all(|(path, bytes)| set.get(path) == Some(bytes));
                let is_whole = found.is_empty() || sets.contains(&found);
                let agrees = sets.iter().any(is_part) && (kind == "file" || is_whole);
                assert!(agrees, "{context}: {:?}", found.keys());
            }
            assert!(killed > 0, "{kind}: no run was killed by SIG{signal}");
            _ = fs::remove_dir_all(place.join("out"));
            let (output, stderr) = run(&mut generate(&place, seeds[0]));
            assert!(output.status.success() && files(&place) == sets[0], "{stderr}");
        }
    }
}
