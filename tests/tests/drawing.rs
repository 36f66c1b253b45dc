//! `runtime gen`: many digits, in every format, whole or not at all.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::{peers_python, program, run};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// `runtime gen` in a folder, with arguments as on a command line.
fn generate(folder: &Path, arguments: &str) -> Command {
    let mut command = program("runtime");
    command.arg("gen").args(arguments.split_whitespace()).current_dir(folder);
    command
}

fn draws(folder: &Path, arguments: &str) -> Vec<u8> {
    let (output, stderr) = run(&mut generate(folder, arguments));
    assert!(output.status.success() && stderr.is_empty(), "{arguments}: {stderr}");
    output.stdout
}

fn refuses(folder: &Path, arguments: &str, code: i32, expected: &str) {
    let before = listing(folder);
    let (output, stderr) = run(&mut generate(folder, arguments));
    assert_eq!(output.status.code(), Some(code), "{arguments}: {stderr}");
    assert!(
        stderr.starts_with("error: ") && stderr.contains(expected),
        "{arguments}: {expected:?} expected in {stderr}"
    );
    assert_eq!(listing(folder), before, "{arguments} left something");
}

/// Every file below a folder with its bytes.
fn listing(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all.into_iter().map(|path| (path.clone(), fs::read(path).ok())).collect()
}

#[test]
fn every_format_holds_the_same_images_to_those_who_read_it() {
    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let ten = "--seed 5 --count 10";
    draws(at, &format!("{ten} --format idx --out ten-images-idx3-ubyte"));
    draws(at, &format!("{ten} --format raw --out ten.raw"));
    draws(at, &format!("{ten} --out png"));
    draws(at, &format!("{ten} --format pgm --out pgm"));
    draws(at, "--seed 5 --grid 2x3 --scale 3 --out sheet.png");
    draws(at, "--count 1000 --format idx --out c-images-idx3-ubyte");
    draws(at, "--count 1000 --format idx --digit 7 --out d");
    let (output, stderr) = run(Command::new(python).arg(root("tests/peers/check_drawn.py")).arg(at));
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    for precision in ["f32", "int8"] {
        let many = format!("--seed 3 --count 20011 --format raw --precision {precision}");
        let one = draws(folder.path(), &format!("{many} --threads 1"));
        assert_eq!(one.len(), 20011 * 784);
        for threads in [2, 3, 16] {
            assert!(
                draws(folder.path(), &format!("{many} --threads {threads}")) == one,
                "{precision}, {threads} threads"
            );
        }
        let mut images = vec![runtime::Image::BLANK; 20011];
        let seeds: Vec<u64> = (3..20014).collect();
        match precision {
            "f32" => runtime::generate_batch(&seeds, &mut images),
            _ => runtime::int8::generate_batch(&seeds, &mut images),
        }
        assert!(
            one.chunks(784).zip(&images).all(|(bytes, image)| bytes == image.0),
            "{precision}: the library's images"
        );
    }
}

#[test]
fn a_model_file_draws_in_int8_what_the_same_model_built_in_draws() {
    let folder = tempfile::tempdir().unwrap();
    let built_in = draws(folder.path(), "--count 100 --format raw --precision int8");
    let (loaded, stderr) =
        run(generate(folder.path(), "--count 100 --format raw --precision int8 --model").arg(root("models/g.onnx")));
    assert!(loaded.stdout == built_in, "{stderr}");
}

#[test]
fn int8_differs_from_f32_by_little() {
    let pairs = (0..1000).map(|seed| (runtime::generate(seed), runtime::int8::generate(seed)));
    let differences: Vec<u8> = pairs.flat_map(|(a, b)| a.0.into_iter().zip(b.0).map(|(a, b)| a.abs_diff(b))).collect();
    let mean = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
    let near = differences.iter().filter(|&&d| d <= 2).count() as f64 / differences.len() as f64;
    println!("int8 against f32: {mean:.2} grey levels in the mean, {:.1} % of the pixels within 2", 100.0 * near);
    assert!(mean < 2.0 && near > 0.85, "{mean} {near}");
}

#[test]
fn what_is_there_stays_unless_force_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("digit.png"), "good").unwrap();
    fs::create_dir(at.join("digits")).unwrap();
    draws(at, "--count 2 --out digits"); // an empty folder is as good as none
    refuses(at, "--out digit.png", 1, "--out: digit.png: exists already; --force overwrites it");
    refuses(at, "--count 2 --out digits", 1, "--out: digits: contains files already; --force");
    refuses(at, "--count 2 --out digit.png", 1, "--out: digit.png: a folder expected, a file found");
    refuses(at, "--out digits", 1, "--out: digits: a file expected, a folder found");
    fs::write(at.join("digits/other"), "mine").unwrap();
    draws(at, "--count 3 --out digits --force");
    draws(at, "--out digit.png --force");
    assert_eq!(fs::read(at.join("digits/other")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(at.join("digits")).unwrap().count(), 4);
    assert_eq!(fs::read(at.join("digit.png")).unwrap(), fs::read(at.join("digits/0.png")).unwrap());
    assert_eq!(fs::read_dir(at).unwrap().count(), 2, "temporary files are gone");
}

#[test]
fn what_cannot_be_drawn_is_refused_with_what_was_expected_and_found() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code, expected) in [
        ("--count 0", 2, "'0' for '--count <N>'"),
        ("--scale 0", 2, "'0' for '--scale <K>'"),
        ("--grid 0x4", 2, "rows and columns expected, such as 4x8"),
        ("--grid four", 2, "rows and columns expected, such as 4x8"),
        ("--grid 60000x60000", 2, "--grid and --scale: at most"),
        ("--grid 2x2 --count 4", 2, "cannot be used with"),
        ("--grid 2x2 --format idx --out x", 2, "--grid: a sheet as png, pgm or raw expected"),
        ("--count 2", 2, "--count 2: --out FOLDER expected"),
        ("--seed 18446744073709551615 --count 2 --out x", 2, "at most 18446744073709551614 expected with 2 images"),
        ("--count 4294967296 --format idx --out x", 2, "at most 4294967295 images fit an idx file"),
        ("--count 1000000000000000 --format raw --out x", 1, "MB free expected"),
        ("--count 1000000000000000 --out x", 1, "MB free expected"),
        ("--count 2 --out /proc/x", 1, "--out: /proc/x: "),
        ("--out /proc/x", 1, "--out: /proc/x: "),
        ("--out no/such/x", 1, "--out: no/such/x: cannot be written"),
        ("--digit 10", 2, "10"),
        ("--digit 3 --model no.onnx", 1, "--model: no.onnx"),
    ] {
        refuses(folder.path(), arguments, code, expected);
    }
    fs::copy(root("models/seed.onnx"), folder.path().join("seed.onnx")).unwrap();
    let expected = "--digit 3: a class-conditional generator expected, an unconditional one found";
    refuses(folder.path(), "--digit 3 --model seed.onnx", 2, expected);
}

#[test]
fn who_closes_the_pipe_has_seen_enough() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = generate(folder.path(), "--count 1000000 --format raw");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 784];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(first, runtime::generate(0).0);
}

#[test]
fn inspect_and_bench_say_it_to_people_and_to_programs() {
    let model = root("models/g.onnx");
    let (text, stderr) = run(program("runtime").arg("inspect").arg(&model));
    assert!(text.status.success(), "{stderr}");
    let text = String::from_utf8(text.stdout).unwrap();
    let (json, _) = run(program("runtime").arg("inspect").arg("--json").arg(&model));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["parameters"], 114_800);
    assert_eq!(json["layers"][3]["outputs"], 784);
    let shown = ["sha256", "producer"].map(|key| json[key].as_str().unwrap().to_string());
    shown.iter().chain(&["114800".into()]).for_each(|fact| assert!(text.contains(fact.as_str()), "{fact} in {text}"));
    let (bench, _) = run(program("runtime").args(["bench", "--json"]));
    let bench: serde_json::Value = serde_json::from_slice(&bench.stdout).unwrap();
    let images = bench["images"].as_array().unwrap();
    assert!(
        images.iter().all(|row| row["single_us"].as_f64().unwrap() > 0.0 && row["batch_us"].as_f64().unwrap() > 0.0)
    );
    assert!(images.iter().any(|row| row["kernel"] == bench["kernel"] && row["precision"] == "int8"), "{bench}");
}
