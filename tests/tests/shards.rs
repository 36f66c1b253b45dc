//! `runtime shards` and `runtime verify`: a data set that many programs draw together.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use tests::{kill_after, peers_python, program, random_shares, run, send, with_signals};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// `runtime shards` or another command in a folder, with arguments as on a command line, outside any job array.
fn runtime(folder: &Path, arguments: &str) -> Command {
    let mut command = program("runtime");
    command.args(arguments.split_whitespace()).current_dir(folder);
    ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX"].iter().for_each(|name| _ = command.env_remove(name));
    command
}

/// The standard output of a command that succeeds.
fn succeeds(folder: &Path, arguments: &str) -> String {
    let (output, stderr) = run(&mut runtime(folder, arguments));
    assert!(output.status.success() && stderr.is_empty(), "{arguments}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn refuses(folder: &Path, arguments: &str, code: i32, expected: &str) {
    refuses_command(&mut runtime(folder, arguments), code, expected);
}

fn refuses_command(command: &mut Command, code: i32, expected: &str) {
    let (output, stderr) = run(command);
    assert_eq!(output.status.code(), Some(code), "{command:?}: {stderr}");
    assert!(
        stderr.starts_with("error: ") && stderr.contains(expected),
        "{command:?}: {expected:?} expected in {stderr}"
    );
}

/// Every file below a folder, hidden ones too, with its bytes.
fn listing(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match path.is_dir() {
            true => found.extend(listing(&path).into_iter().map(|(below, bytes)| (path.join(below), bytes))),
            false => _ = found.insert(path.clone(), fs::read(&path).unwrap()),
        }
    }
    let relative = |(path, bytes): (PathBuf, Vec<u8>)| (path.strip_prefix(folder).unwrap_or(&path).into(), bytes);
    found.into_iter().map(relative).collect()
}

const IMAGES: &str = "data/train-00000-of-00004-images-idx3-ubyte";

#[test]
fn one_program_or_many_parts_in_any_order_draw_the_same_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let plan = "--seed 7 --count 6000 --shard-size 700"; // 9 shards
    succeeds(at, &format!("shards one {plan}"));
    let one = listing(&at.join("one"));
    assert_eq!(one.len(), 9 * 3 + 2, "{:?}", one.keys());
    let images = one.iter().filter(|(path, _)| path.to_string_lossy().contains("images"));
    let pixels: Vec<u8> = images.flat_map(|(_, bytes)| bytes[16..].to_vec()).collect();
    let mut drawn = vec![runtime::Image::BLANK; 6000];
    runtime::generate_batch(&(7..6007).collect::<Vec<_>>(), &mut drawn);
    assert!(pixels.chunks(784).eq(drawn.iter().map(|image| &image.0[..])), "the library's images");

    for (name, parts) in [("two", vec![1, 2]), ("seven", vec![5, 2, 7, 1, 6, 3, 4]), ("many", (1..=12).rev().collect())]
    {
        let of = parts.len();
        let draw = |part| {
            let said = succeeds(at, &format!("shards {name} {plan} --part {part}/{of} --json"));
            serde_json::from_str::<serde_json::Value>(said.lines().last().unwrap()).unwrap()["complete"] == true
        };
        let complete: Vec<bool> = parts.into_iter().map(draw).collect();
        assert!(!complete[0] && complete[of - 1], "{name}: {complete:?}"); // some of 12 parts have no shard
        assert!(listing(&at.join(name)) == one, "{name}");
    }
    // Two programs draw all shards at once.
    let programs: Vec<_> = (0..2).map(|_| runtime(at, &format!("shards both {plan}")).spawn().unwrap()).collect();
    programs.into_iter().for_each(|mut program| assert!(program.wait().unwrap().success()));
    assert!(listing(&at.join("both")) == one);

    let (checked, stderr) =
        run(Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(at.join("seven")));
    assert!(checked.status.success(), "{stderr}");
    assert_eq!(String::from_utf8_lossy(&one[Path::new("SHA256SUMS")]).lines().count(), 18);
    assert!(succeeds(at, "verify one --redraw 100%").contains("6000 images in 9 shards"));
    assert!(succeeds(at, &format!("shards one {plan}")).contains("0 of 9 shards drawn"));
}

#[test]
fn precision_digit_and_model_are_part_of_the_plan() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    succeeds(at, "shards set --count 40 --shard-size 10 --seed 1");
    for (options, expected) in [
        ("--count 40 --shard-size 10", "set/manifest.json: seed 0 expected, 1 found; repeat the options"),
        ("--count 41 --shard-size 10 --seed 1", "count 41 expected, 40 found"),
        ("--count 40 --seed 1", "shard_size 1000000 expected, 10 found"),
        ("--count 40 --shard-size 10 --seed 1 --precision int8", "precision \"int8\" expected, \"f32\" found"),
        ("--count 40 --shard-size 10 --seed 1 --digit 3", "class 3 expected, null found"),
    ] {
        refuses(at, &format!("shards set {options}"), 1, expected);
    }
    let seed = root("models/seed.onnx").display().to_string();
    refuses(
        at,
        &format!("shards set --count 40 --shard-size 10 --seed 1 --model {seed}"),
        1,
        "classes [] expected, [\"0\",\"1\"",
    );

    succeeds(at, "shards int8 --count 600 --digit 3 --precision int8");
    let labels = fs::read(at.join("int8/data/train-00000-of-00001-labels-idx1-ubyte")).unwrap();
    assert!(labels.len() == 608 && labels[8..].iter().all(|label| *label == 3));
    succeeds(at, "verify int8 --redraw 100%");

    succeeds(at, &format!("shards unconditional --count 600 --model {seed}"));
    assert_eq!(listing(&at.join("unconditional")).len(), 4, "no labels");
    succeeds(at, &format!("verify unconditional --redraw 100% --model {seed}"));
    refuses(at, "verify unconditional", 1, "error: the built-in generator: weights with SHA-256 ");
    succeeds(at, "verify unconditional --redraw 0%");
}

#[test]
fn verify_names_each_fault_and_makes_room_for_drawing_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let plan = "--count 400 --shard-size 100";
    let mut other = fs::read(root("models/g.onnx")).unwrap();
    let middle = other.len() / 2;
    other[middle..middle + 4000].iter_mut().for_each(|byte| *byte ^= 1); // other weights, all of them finite
    fs::write(at.join("other.onnx"), other).unwrap();
    succeeds(at, &format!("shards set {plan}"));
    succeeds(at, "shards overlapping --count 400 --shard-size 150");
    succeeds(at, &format!("shards other {plan} --model other.onnx"));
    succeeds(at, &format!("shards elsewhere {plan} --seed 1000"));
    let whole = listing(&at.join("set"));
    let file = |name: &str| at.join("set").join(name);
    let copy = |from: &str, name: &str| _ = fs::copy(at.join(from).join(name), file(name)).unwrap();
    let labels = IMAGES.replace("images-idx3", "labels-idx1");
    let digests = "digests/train-00000-of-00004.sha256";
    type Fault<'a> = (&'a str, usize, Box<dyn Fn() + 'a>, Vec<String>); // files that --delete-broken deletes
    let faults: Vec<Fault> = vec![
        (
            "a flipped bit",
            4,
            Box::new(|| {
                let mut bytes = fs::read(file(IMAGES)).unwrap();
                bytes[5000] ^= 4;
                fs::write(file(IMAGES), bytes).unwrap();
            }),
            vec![format!("{IMAGES}: SHA-256 ")],
        ),
        (
            "a truncated file",
            0,
            Box::new(|| fs::File::options().write(true).open(file(&labels)).unwrap().set_len(100).unwrap()),
            vec![format!("{labels}: 108 bytes expected, 100 found")],
        ),
        ("a missing file", 0, Box::new(|| fs::remove_file(file(&labels)).unwrap()), vec![format!("{labels}: missing")]),
        (
            "a missing shard",
            0,
            Box::new(|| [IMAGES, &labels, digests].iter().for_each(|name| fs::remove_file(file(name)).unwrap())),
            vec![format!("{IMAGES}: missing, with the images 0 to 99")],
        ),
        (
            "a missing digest",
            0,
            Box::new(|| fs::remove_file(file(digests)).unwrap()),
            vec![format!("{digests}: a line of sha256sum per file of the shard expected, no file found")],
        ),
        (
            "a shard of another model",
            4,
            Box::new(|| [IMAGES, digests].iter().for_each(|name| copy("other", name))),
            vec![
                format!("{IMAGES}: image "),
                "SHA256SUMS: the lines of all files in digests expected, others found".into(),
            ],
        ),
        (
            "a shard of other seeds",
            4,
            Box::new(|| [IMAGES, &labels, digests].iter().for_each(|name| copy("elsewhere", name))),
            vec![format!("{IMAGES}: image "), format!("{labels}: label "), "SHA256SUMS: ".into()],
        ),
        (
            "an overlapping shard",
            1,
            Box::new(|| {
                let name = "data/train-00001-of-00003-images-idx3-ubyte";
                fs::copy(at.join("overlapping").join(name), file(name)).unwrap();
            }),
            vec![
                "data/train-00001-of-00003-images-idx3-ubyte: a shard of 4 expected, one of another plan found".into(),
            ],
        ),
        (
            "no SHA256SUMS",
            0,
            Box::new(|| fs::remove_file(file("SHA256SUMS")).unwrap()),
            vec!["SHA256SUMS: missing; `runtime shards` writes it".into()],
        ),
        (
            "leftovers of another machine",
            0,
            Box::new(|| {
                for name in [".runtime-0.tmp", "data/.runtime-1.tmp"] {
                    let two_days_ago = SystemTime::now() - Duration::from_secs(48 * 60 * 60);
                    fs::File::create(file(name)).unwrap().set_modified(two_days_ago).unwrap();
                }
            }),
            [".runtime-0.tmp", "data/.runtime-1.tmp"]
                .map(|name| format!("{name}: a program writes this file, or was killed"))
                .into(),
        ),
    ];
    for (name, deleted, fault, expected) in faults {
        fault();
        let (output, stderr) = run(&mut runtime(at, "verify set --json"));
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), expected.len() + 1, "{name}: {lines:?}");
        for (line, expected) in lines.iter().zip(&expected) {
            assert!(line["problem"].as_str().unwrap().starts_with(expected), "{name}: {expected:?} expected in {line}");
        }
        let advice = if deleted > 0 { "--delete-broken deletes" } else { "`runtime shards` with" };
        let error = format!("error: set: no problem expected, {} found; {advice}", expected.len());
        assert!(stderr.starts_with(&error), "{name}: {stderr}");
        let (_, stderr) = run(&mut runtime(at, "verify set --delete-broken"));
        assert!(stderr.is_empty() || stderr.contains(&format!("; {deleted} files deleted; ")), "{name}: {stderr}");
        succeeds(at, &format!("shards set {plan}"));
        assert!(listing(&at.join("set")) == whole, "{name}: {:?}", listing(&at.join("set")).keys());
        succeeds(at, "verify set");
    }
    // A closed stdout does not keep shards from deletion, nor make an error a success.
    fs::write(file(IMAGES), vec![0; whole[Path::new(IMAGES)].len()]).unwrap();
    let (_, closed) = std::io::pipe().unwrap();
    refuses_command(runtime(at, "verify set --delete-broken").stdout(closed), 1, "1 found; 4 files deleted; ");
    succeeds(at, &format!("shards set {plan}"));

    fs::write(file("data/\u{9b}note"), "mine").unwrap();
    let (output, stderr) = run(&mut runtime(at, "verify set --delete-broken --json"));
    assert!(output.status.code() == Some(1) && stderr.contains("1 found; 0 files deleted; "), "{stderr}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("\\u009bnote") && !said.contains('\u{9b}'), "{said}");
    assert_eq!(fs::read(file("data/\u{9b}note")).unwrap(), b"mine", "only shards are deleted");
    assert!(file("SHA256SUMS").exists());
    refuses(at, "verify other", 1, "error: the built-in generator: weights with SHA-256 ");
    refuses(at, "verify .", 1, "error: ./manifest.json: missing; a folder of `runtime shards` expected");
    fs::write(at.join("other/manifest.json"), "{").unwrap();
    refuses(at, "verify other", 1, "error: other/manifest.json: the plan of a data set in shards expected: ");
}

#[test]
fn slurm_and_kubernetes_say_which_part_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let with = |variables: &[(&str, &str)], options: &str| {
        let mut command = runtime(at, &format!("shards set --count 80 --shard-size 10 {options}"));
        variables.iter().for_each(|(name, value)| _ = command.env(name, value));
        command
    };
    let names = ["ID", "MIN", "MAX", "COUNT", "STEP"].map(|name| format!("SLURM_ARRAY_TASK_{name}"));
    let [id, min, max, count, step] = names.each_ref().map(String::as_str);
    let kubernetes = "JOB_COMPLETION_INDEX";
    for (variables, options, expected) in [
        (vec![(id, "1"), (min, "1"), (max, "4"), (count, "4")], "", "part\":1,\"parts\":4"),
        (vec![(id, "30"), (min, "10"), (max, "40"), (count, "4"), (step, "10")], "", "part\":3,\"parts\":4"),
        (vec![(id, "3"), (min, "3"), (max, "3"), (count, "1")], "--parts 8", "part\":4,\"parts\":8"),
        (vec![(kubernetes, "0")], "--parts 8", "part\":1,\"parts\":8"),
        (vec![(kubernetes, "7")], "--parts 8", "part\":8,\"parts\":8"),
        (vec![(kubernetes, "7"), (id, "3")], "--part 2/8", "part\":2,\"parts\":8"),
    ] {
        let (output, stderr) = run(&mut with(&variables, &format!("--json {options}")));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains(expected), "{variables:?} {options}: {said}{stderr}");
    }
    for (variables, options, expected) in [
        (
            vec![(id, "3")],
            "",
            "SLURM_ARRAY_TASK_COUNT: expected beside SLURM_ARRAY_TASK_ID, but not set; use --part K/N",
        ),
        (
            vec![(id, "9"), (min, "0"), (max, "7"), (count, "8")],
            "",
            "SLURM_ARRAY_TASK_ID: a job array of 8 tasks in steps of 1 expected, task 9 of 0 to 7 found; use --parts N",
        ),
        (
            vec![(id, "3"), (min, "3"), (max, "5"), (count, "2"), (step, "1")], // sbatch --array=3,5
            "",
            "SLURM_ARRAY_TASK_ID: a job array of 2 tasks in steps of 1 expected, task 3 of 3 to 5 found",
        ),
        (vec![(id, "x")], "", "SLURM_ARRAY_TASK_ID: a number expected, \"x\" found"),
        (vec![(kubernetes, "3")], "", "JOB_COMPLETION_INDEX 3: --parts N expected beside it"),
        (vec![(kubernetes, "8")], "--parts 8", "JOB_COMPLETION_INDEX: 0 to 7 expected with --parts 8, 8 found"),
        (vec![], "--parts 8", "--parts 8: JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID expected, neither is set"),
        (vec![], "--part 0/8", "K/N with K from 1 to N expected, such as 1/8"),
        (vec![], "--part 1/8 --parts 8", "cannot be used with"),
    ] {
        refuses_command(&mut with(&variables, options), 2, expected);
    }
}

#[test]
fn what_cannot_be_planned_or_written_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("file"), "").unwrap();
    for (options, code, expected) in [
        ("set", 2, "--count"),
        ("set --count 0", 2, "1 to 18446744073709551615 expected"),
        ("set --count 10 --shard-size 0", 2, "1 to 4294967295 expected"),
        (
            "set --count 100000000 --shard-size 10",
            2,
            "shard size 10: 1001 to 4294967295 expected, for at most 99999 shards",
        ),
        ("set --count 50000000000", 1, "error: set: 3925000"),
        ("set --count 2 --seed 18446744073709551615", 2, "at most 18446744073709551614 expected"),
        ("no/set --count 10", 1, "error: no"),
        ("/proc/set --count 10", 1, "error: /proc/set: "),
        ("file --count 10", 1, "error: file"),
    ] {
        refuses(at, &format!("shards {options}"), code, expected);
        assert_eq!(fs::read_dir(at).unwrap().count(), 1, "{options} left something");
    }
}

#[test]
fn killed_at_random_moments_and_started_again_it_draws_the_same_bytes_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let plan = "--count 8000 --shard-size 500 --threads 2";
    let start = Instant::now();
    succeeds(at, &format!("shards whole {plan}"));
    let (time, whole) = (start.elapsed(), listing(&at.join("whole")));
    let mut killed = 0;
    for (i, share) in random_shares().take(kills()).enumerate() {
        let (signal, set) = (["KILL", "KILL", "TERM"][i % 3], at.join("set"));
        let (status, stderr) = kill_after(&runtime(at, &format!("shards set {plan}")), time.mul_f64(share), signal);
        killed += usize::from(!status.success());
        let found = if set.is_dir() { listing(&set) } else { BTreeMap::new() };
        let is_temporary = |path: &Path| path.to_string_lossy().contains(".runtime-");
        let mut files = found.iter().filter(|(path, _)| !is_temporary(path));
        assert!(files.all(|(path, bytes)| whole.get(path) == Some(bytes)), "SIG{signal}: {status} {stderr}");
        assert!(signal == "KILL" || !found.keys().any(|path| is_temporary(path)), "{:?}", found.keys());
        succeeds(at, &format!("shards set {plan}"));
        assert!(listing(&set) == whole, "SIG{signal}: {:?}", listing(&set).keys());
        fs::remove_dir_all(set).unwrap();
    }
    assert!(killed > 0, "no program was killed");
}

/// How often a program is killed; `KILLS` says another number.
fn kills() -> usize {
    std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(4)
}

#[test]
fn what_a_living_program_writes_is_not_swept() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let files = || fs::read_dir(at.join("set/data")).map_or(0, Iterator::count);
    // Starts a program and stops it as soon as both files of its shard are there.
    let stopped = |part: usize| {
        let plan = "--count 4000000 --shard-size 2000000 --threads 1";
        let command = runtime(at, &format!("shards set {plan} --part {part}/2"));
        let child = with_signals("--default-signal", &command).spawn().unwrap();
        let start = Instant::now();
        while files() != 2 * part {
            assert!(start.elapsed().as_secs() < 60, "part {part}: {} files", files());
            std::thread::sleep(Duration::from_millis(5));
        }
        send("STOP", child.id());
        child
    };
    let children = [1, 2].map(stopped);
    assert_eq!(files(), 4, "two files of each program");
    for child in children {
        ["TERM", "CONT"].iter().for_each(|signal| send(signal, child.id()));
        tests::end_of(child);
    }
    assert_eq!(files(), 0);
}

#[test]
fn a_slurm_array_of_8_tasks_draws_the_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let mut command = Command::new(root("tests/cluster/slurm"));
    command
        .arg(root("target/slurm"))
        .args(["sbatch", "--wait", "--array=0-7"])
        .arg(root("tests/cluster/shards.sbatch"));
    command.args(["set", "--count", "4000", "--shard-size", "300"]).current_dir(at);
    let (output, stderr) = run(command.env("RUNTIME", program("runtime").get_program()));
    if output.status.code() == Some(77) {
        return eprintln!("skipped: {stderr}");
    }
    let logs = || fs::read_dir(at).unwrap().filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok());
    assert!(output.status.success(), "{stderr}{:?}", logs().collect::<Vec<_>>());
    assert_eq!(logs().filter(|log| log.contains("\"parts\":8")).count(), 8);
    assert!(succeeds(at, "verify set --redraw 10%").contains("4000 images in 14 shards, as planned"));
}

#[test]
fn the_kubernetes_job_follows_the_api_and_its_numbers_agree() {
    let Some(python) = peers_python() else { return };
    let checks = [root("tests/peers/check_job.py"), root("tests/cluster/shards.yaml")];
    let (output, stderr) = run(Command::new(python).args(checks));
    if output.status.code() == Some(77) {
        return eprintln!("skipped: {stderr}");
    }
    assert!(output.status.success(), "{stderr}");
}
