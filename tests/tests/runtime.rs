//! The `runtime` program and library as their users meet them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use runtime::{GENERATOR, Latent, generate};
use tempfile::TempDir;
use tests::{field, generator_of, letters, peers_python, program, run};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn script(name: &str) -> PathBuf {
    root("tests/peers").join(name)
}

#[test]
fn onnx_runtime_draws_the_same_digits() {
    onnx_runtime_draws(&fs::read(root("models/g.onnx")).unwrap(), 10);
}

#[test]
fn onnx_runtime_draws_the_same_letters() {
    onnx_runtime_draws(&letters(), 26);
}

/// Compares what the program draws with ONNX Runtime. The model has the weights of the shipped one.
fn onnx_runtime_draws(model: &[u8], classes: usize) {
    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (model_file, file, mut bytes) = (folder.path().join("g.onnx"), folder.path().join("drawn"), vec![]);
    fs::write(&model_file, model).unwrap();
    let (drawn, stderr) =
        run(program("runtime").args(["gen", "--count", "1000", "--format", "raw", "--model"]).arg(&model_file));
    assert!(drawn.status.success(), "{stderr}");
    for (seed, image) in drawn.stdout.chunks_exact(784).enumerate() {
        let z = Latent::of_seed(seed as u64, classes);
        bytes.extend(z.numbers().iter().chain(&GENERATOR.draw_f32(&z)).flat_map(|x| x.to_le_bytes()));
        bytes.extend(image);
    }
    fs::write(&file, bytes).unwrap();
    let mut compare = Command::new(python);
    let (output, stderr) = run(compare.arg(script("compare_generator.py")).args([model_file, file]));
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

/// The folder that `respell_generator.py` fills with models/seed.onnx in other words.
fn respelled(python: &Path) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut respell = Command::new(python);
    let (output, stderr) =
        run(respell.arg(script("respell_generator.py")).arg(root("models/seed.onnx")).arg(folder.path()));
    assert!(output.status.success(), "{stderr}");
    folder
}

fn files(folder: PathBuf) -> Vec<PathBuf> {
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "onnx")).collect()
}

/// Raw pixels of the seeds 0 to 19.
fn drawn(model: &Path, more: &[&str]) -> Vec<u8> {
    let mut command = program("runtime");
    command.args(["gen", "--count", "20", "--format", "raw", "--model"]).arg(model).args(more);
    let (output, stderr) = run(&mut command);
    assert!(output.status.success() && stderr.is_empty(), "{}: {stderr}", model.display());
    output.stdout
}

#[test]
fn what_onnx_runtime_runs_as_the_same_generator_draws_the_same_bytes() {
    let Some(python) = peers_python() else { return };
    let folder = respelled(&python);
    let expected = drawn(&root("models/seed.onnx"), &[]);
    let spellings = files(folder.path().join("same"));
    assert!(spellings.len() > 25);
    for file in spellings.iter().chain([&folder.path().join("same/data/data.onnx")]) {
        assert!(drawn(file, &[]) == expected, "{}: another digit", file.display());
    }
}

#[test]
fn int8_of_a_generator_with_units_of_tiny_weights_is_as_near_to_f32_as_int8_of_the_shipped_one() {
    let Some(python) = peers_python() else { return };
    let folder = respelled(&python);
    let models = files(folder.path().join("int8"));
    assert!(models.len() > 10);
    for file in models {
        let (f32, int8) = (drawn(&file, &[]), drawn(&file, &["--precision", "int8"]));
        let off: f64 = f32.iter().zip(&int8).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
        let mean = off / f32.len() as f64;
        assert!(mean < 1.0, "{}: int8 is {mean} grey levels off", file.display());
    }
}

#[test]
fn a_model_that_does_not_fit_is_refused_with_what_was_expected_and_found() {
    let Some(python) = peers_python() else { return };
    let folder = respelled(&python);
    let cases = [
        ("alpha", "LeakyRelu a0: alpha 0.2 expected, 0.3 found"),
        ("attribute", "Gemm d0: no attribute broadcast expected, one found"),
        ("cast_weight", "Cast w0: stored0: float32 expected, float16 found"),
        ("domain", "LeakyRelu a0: LeakyRelu expected, my.ops.LeakyRelu found"),
        ("double", "Gemm d0: b0: float32 expected, float64 found"),
        ("dropout", "Dropout p0: training_mode false expected, true found"),
        ("escape", r"w\u{1b}[31m\r\nerror: \u{202e}wwww"),
        ("half_z", "z: float32 expected, float16 found"),
        ("max", "Mul s0: slope0: slope 0.2 expected, 0.3 found"),
        ("nan", "w2: finite values expected, NaN found at 5"),
        ("neg", "Neg image: the graph to end after Tanh expected, Neg found"),
        ("negative", "w0: a shape expected, [-100, 32] found"),
        ("other_bias", "Add e0: one bias expected, b0 and more0 found"),
        ("overflow", "w1: sums below 3.4028235e38 expected"),
        ("relu", "Relu a0: LeakyRelu expected, Relu found"),
        ("rounding", "w0: a factor that needs no rounding expected, 0.3 found"),
        ("shape", "Gemm d1: b1: shape [64] expected, [63] found"),
        ("short", "b1: 64 values expected, 63 found"),
        ("sigmoid", "Sigmoid image: Tanh expected, Sigmoid found"),
        ("surplus", "w0: 3200 values expected, 3200 and 2 more bytes found"),
        ("twice", "d0: one definition expected, two found"),
    ];
    let folder = folder.path().join("refused");
    assert_eq!(files(folder.clone()).len(), cases.len());
    for (name, expected) in cases {
        let file = folder.join(name).with_extension("onnx");
        refuses_model(&file, &[&format!("{name}.onnx"), expected]);
    }
}

#[test]
fn weights_in_a_data_file_are_read_from_beside_the_model_only() {
    let Some(python) = peers_python() else { return };
    let folder = respelled(&python);
    let data = folder.path().join("same/data");
    let model = fs::read(data.join("data.onnx")).unwrap();
    let file = data.join("other.onnx");
    let name = b"data.onnx.data"; // 14 letters, as every location below
    let located = |location: &str| {
        let mut model = model.clone();
        while let Some(at) = model.windows(name.len()).position(|part| part == name) {
            model[at..at + name.len()].copy_from_slice(location.as_bytes());
        }
        fs::write(&file, model).unwrap();
    };
    for (location, expected) in [
        ("../secret.dat_", "a data file beside the model expected, ../secret.dat_ found"),
        ("/etc/passwd.__", "a data file beside the model expected, /etc/passwd.__ found"),
        ("no.such.file__", "w0: no.such.file__: a data file beside the model expected: No such file"),
    ] {
        located(location);
        refuses_model(&file, &[expected]);
    }
    let weights = data.join("data.onnx.data");
    fs::copy(&weights, data.join("weights.data")).unwrap();
    located("./weights.data");
    let (inspected, stderr) = run(program("runtime").arg("inspect").arg(&file));
    assert!(inspected.status.success(), "{stderr}");
    fs::write(&weights, &fs::read(&weights).unwrap()[..459_196]).unwrap();
    refuses_model(&data.join("data.onnx"), &["data.onnx.data: the values at byte", "459196 bytes found"]);
}

#[test]
fn a_graph_without_end_or_measure_is_refused_in_little_time_and_memory() {
    let node = |inputs: &[&str], to: &str, operator: &str, more: &[u8]| {
        let inputs: Vec<u8> = inputs.iter().flat_map(|from| field(1, from.as_bytes())).collect();
        [inputs, field(2, to.as_bytes()), field(4, operator.as_bytes()), more.to_vec()].concat()
    };
    let identity = |from: &str, to: &str| field(1, &node(&[from], to, "Identity", &[]));
    let ends = |last: &str| {
        let float32 = field(2, &field(1, &[8, 1, 18, 8, 10, 2, 8, 1, 10, 2, 8, 100]));
        [field(11, &[field(1, b"z"), float32].concat()), field(12, &field(1, last.as_bytes()))].concat()
    };
    let chain = |n: usize| -> Vec<u8> { (0..n).rev().flat_map(|i| identity(&name(i), &name(i + 1))).collect() };
    fn name(i: usize) -> String {
        if i == 0 { "z".into() } else { format!("x{i}") }
    }
    let numbers = field(5, &[field(1, b"value_ints"), field(8, &vec![0; 3_000_000])].concat());
    let constant = |to: &str| node(&[], to, "Constant", &numbers);
    let mut function =
        field(25, &[field(1, b"Numbers"), field(5, b"c"), field(7, &constant("c")), field(10, b"own")].concat());
    function.insert(1, 1); // a tag above 15 takes two bytes
    let call = |to: &str| field(1, &node(&[], to, "Numbers", &field(7, b"own")));
    let concat = field(1, &node(&["a", "b"], "image", "Concat", &[]));
    let squeeze = field(1, &node(&["z", "c"], "image", "Squeeze", &[]));
    let graphs = [
        (
            [field(7, &[call("a"), call("b"), concat, ends("image")].concat()), function].concat(),
            "at most 4194304 numbers expected, more found",
        ),
        (
            field(7, &[field(1, &constant("c")), squeeze, ends("image")].concat()),
            "Squeeze image: axes: at most 8 integers expected, 3000000 found",
        ),
        (field(7, &[identity("z", "z"), ends("z")].concat()), "z: one definition expected, two found"),
        (
            field(7, &[identity("b", "a"), identity("a", "b"), ends("a")].concat()),
            "without circles expected, one found",
        ),
        (
            field(7, &[chain(4000), ends("x4000")].concat()),
            "x4000: Gemm or MatMul expected, the end of the graph found",
        ),
        (field(7, &chain(25_000)), "at most 20000 fields, about 4000 nodes, expected, more found"),
        (field(7, &[10, 0].repeat(2_000_000)), "at most 20000 fields, about 4000 nodes, expected, more found"),
        (vec![0; 4 << 20 | 1], "a generator of at most 4194304 bytes expected, a larger file found"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.onnx");
    for (bytes, expected) in graphs {
        fs::write(&file, bytes).unwrap();
        // At most 5 seconds and 200 MB.
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -t 5; ulimit -v 200000; exec \"$@\"", "sh"]);
        let (output, stderr) = run(limited.arg(program("runtime").get_program()).arg("inspect").arg(&file));
        assert_eq!(output.status.code(), Some(1), "{expected}: {stderr}");
        assert!(stderr.contains(expected) && stderr.lines().count() == 1, "{stderr}");
    }
}

#[test]
fn a_class_conditional_model_without_metadata_draws_digits_with_classes_10_and_warns_without() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.onnx");
    let mut model = fs::read(root("models/g.onnx")).unwrap();
    let at = model.windows(11).position(|part| part == b"conditional").unwrap();
    model[at..at + 11].copy_from_slice(b"ConditionaL");
    fs::write(&file, &model).unwrap();
    let gen_with = |more: &[&str]| {
        run(program("runtime").args(["gen", "--format", "raw", "--seed", "5", "--model"]).arg(&file).args(more))
    };
    let (as_digit, stderr) = gen_with(&["--classes", "10"]);
    assert!(as_digit.stdout == generate(5).0 && stderr.is_empty(), "{stderr}");
    let (as_noise, stderr) = gen_with(&["--classes", "0"]);
    assert!(as_noise.status.success() && as_noise.stdout != generate(5).0 && stderr.is_empty(), "{stderr}");
    let (warned, stderr) = gen_with(&[]);
    assert!(warned.stdout == as_noise.stdout && stderr.starts_with("warning: --model: "), "{stderr}");
    let advice = "look like those of about 10 classes; --classes 10 draws 10 classes";
    assert!(stderr.contains(advice) && stderr.lines().count() == 1, "{stderr}");
    let (seen, _) = run(program("runtime").arg("inspect").arg(&file));
    assert!(String::from_utf8_lossy(&seen.stdout).contains("by its weights class-conditional with about 10 classes"));

    // The rows of the classes at 6.5 times the mean square of the rows beyond all classes: a little training gives 6.4.
    let rows = GENERATOR.as_bytes()[..100 * 128].as_chunks::<128>().0; // 32 f32 each
    let at = model.windows(100 * 128).position(|part| part == rows.as_flattened()).unwrap();
    let numbers = |row: &[u8]| row.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect::<Vec<_>>();
    let square = |row: &[u8; 128]| numbers(row).iter().map(|w| w * w).sum::<f32>();
    let noise = rows[64..].iter().map(square).sum::<f32>() / 36.0;
    for (i, row) in rows[..10].iter().enumerate() {
        let scale = (6.5 * noise / square(row)).sqrt();
        let weak: Vec<u8> = numbers(row).iter().flat_map(|w| (w * scale).to_le_bytes()).collect();
        model[at + i * 128..][..128].copy_from_slice(&weak);
    }
    fs::write(&file, model).unwrap();
    let (_, stderr) = gen_with(&[]);
    assert!(stderr.contains(advice), "{stderr}");
    let (seen, _) = run(program("runtime").args(["inspect", "--json"]).arg(&file));
    let json: serde_json::Value = serde_json::from_slice(&seen.stdout).unwrap();
    assert_eq!((&json["likely_classes"], &json["looks_conditional"]), (&10.into(), &true.into()));
    let (unconditional, stderr) = run(program("runtime").arg("gen").arg("--model").arg(root("models/seed.onnx")));
    assert!(unconditional.status.success() && stderr.is_empty(), "{stderr}");
}

#[test]
fn classes_that_make_no_sense_are_refused_with_one_sentence_until_the_user_says_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.onnx");
    for (conditional, classes, expected) in [
        ("one-hot:aa", "", "conditional: one-hot:0 to one-hot:64 expected, one-hot:aa found; --classes N"),
        ("one-hot:02", r#"["a"]"#, "classes: 2 names expected, 1 found"),
        ("one-hot:02", r#"["a","a"]"#, "classes: 2 different names expected, a found twice"),
        ("one-hot:02", r#"["a",""]"#, "classes: names without control characters expected, \"\" found"),
        (
            "one-hot:02",
            r#"["a","\u001b[2J"]"#,
            r#"classes: names without control characters expected, "\u{1b}[2J" found"#,
        ),
        ("one-hot:02", r#"["a","b""#, "classes: a JSON array of 2 names expected, "),
        ("one-hot:02", r#"["a",2]"#, "classes: a JSON array of 2 names expected, "),
        ("one-hot:65", "", "conditional: one-hot:0 to one-hot:64 expected, one-hot:65 found"),
    ] {
        fs::write(&file, generator_of(conditional, classes)).unwrap();
        refuses_model(&file, &["g.onnx: ", expected]);
        let (refused, stderr) = run(program("runtime").arg("inspect").arg(&file));
        assert!(refused.status.code() == Some(1) && stderr.contains(expected), "{stderr}");
        let flags = ["gen", "--seed", "5", "--format", "raw", "--classes", "10", "--model"];
        let (drawn, stderr) = run(program("runtime").args(flags).arg(&file));
        assert!(drawn.stdout == generate(5).0 && stderr.is_empty(), "{stderr}");
    }
}

#[test]
fn inspect_lists_the_classes_and_a_generator_of_one_class_has_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.onnx");
    let inspect = |model: &[u8], flags: &[&str]| {
        fs::write(&file, model).unwrap();
        let (seen, stderr) = run(program("runtime").arg("inspect").args(flags).arg(&file));
        assert!(seen.status.success(), "{stderr}");
        String::from_utf8(seen.stdout).unwrap()
    };
    let text = inspect(&letters(), &[]);
    assert!(text.contains("class-conditional: z[0..26] is the class as one-hot"), "{text}");
    assert!(text.contains("  26 classes   A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, "), "{text}");
    let most: Vec<String> = (0..64).map(|class| class.to_string()).collect();
    for (model, names) in [
        (generator_of("one-hot:02", r#"["T-shirt/top","\u00e9"]"#), &["T-shirt/top".to_string(), "é".into()][..]),
        (generator_of("one-hot:64", ""), &most),
        (generator_of("one-hot:10", ""), &most[..10]),
        (generator_of("one-hot:01", r#"["a"]"#), &[]),
        (generator_of("one-hot:00", ""), &[]),
    ] {
        let json: serde_json::Value = serde_json::from_str(&inspect(&model, &["--json"])).unwrap();
        assert_eq!((&json["classes"], &json["conditional"]), (&names.into(), &(!names.is_empty()).into()));
    }
}

#[test]
fn control_characters_in_metadata_do_not_reach_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.onnx");
    let mut model = fs::read(root("models/g.onnx")).unwrap();
    let at = model.windows(5).position(|part| part == b"mnist").unwrap();
    model[at..at + 5].copy_from_slice("\u{1b}\u{9b}2J".as_bytes());
    fs::write(&file, model).unwrap();
    for (flags, expected) in [(&[][..], r"\u{1b}\u{9b}2J"), (&["--json"][..], r"\u001b\u009b2J")] {
        let (seen, stderr) = run(program("runtime").arg("inspect").args(flags).arg(&file));
        let text = String::from_utf8(seen.stdout).unwrap();
        assert!(text.contains(expected), "{text}{stderr}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
}

#[test]
fn inspect_shows_a_long_metadata_value_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("g.onnx");
    let value = r#"{"epochs":[1,2]}"#.repeat(20);
    let entry = field(14, &[field(1, b"note"), field(2, value.as_bytes())].concat());
    fs::write(&file, [fs::read(root("models/g.onnx")).unwrap(), entry].concat()).unwrap();
    let (seen, stderr) = run(program("runtime").arg("inspect").arg(&file));
    assert!(String::from_utf8(seen.stdout).unwrap().contains(&value), "{stderr}");
}

#[test]
fn a_model_that_is_no_onnx_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.onnx");
    fs::write(&file, "This is a text, and not a model.").unwrap();
    refuses_model(&file, &["text.onnx", "an ONNX file expected"]);
    let whole = fs::read(root("models/g.onnx")).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    refuses_model(&file, &["text.onnx", "an ONNX file expected, one that lacks "]);
    fs::write(&file, "").unwrap();
    refuses_model(&file, &["text.onnx", "an empty file found"]);
    fs::write(&file, "version https://git-lfs.github.com/spec/v1").unwrap();
    refuses_model(&file, &["text.onnx", "a pointer of Git LFS found"]);
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

/// tests/golden/pytorch.onnx is what `seed_gan.py --steps 200 --onnx` wrote.
#[test]
fn what_pytorch_exports_is_drawn_as_by_onnx_runtime() {
    let file = root("tests/golden/pytorch.onnx");
    let (output, stderr) = run(program("runtime").args(["gen", "--seed", "1", "--model"]).arg(&file));
    assert!(output.status.success(), "{stderr}");
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
