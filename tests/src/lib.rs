//! End-to-end tests of the two programs, against other implementations. This crate holds what they share.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// The folder of the real MNIST, from `MNIST_DIR` or beside the project; `None`, with a word why, where it is not.
pub fn mnist() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/mnist");
    let dir = std::env::var_os("MNIST_DIR").map_or(beside, PathBuf::from);
    let found = dir.is_dir();
    if !found {
        eprintln!("skipped: no MNIST in {}; name its folder in MNIST_DIR", dir.display());
    }
    found.then_some(dir)
}

/// The Python that `tests/run` gave the peers (onnx, onnxruntime, numpy, pillow, scikit-learn); `None`, with a word why, without it.
pub fn peers_python() -> Option<PathBuf> {
    let python = std::env::var_os("PEERS_PYTHON").map(PathBuf::from);
    if python.is_none() {
        eprintln!("skipped: PEERS_PYTHON is not set; tests/run sets it");
    }
    python
}

/// The peers' Python with PyTorch and torch-fidelity, which `tests/run` fetches; `None`, with a word why, without them.
pub fn peers_torch() -> Option<Command> {
    let Some(torch) = std::env::var_os("PEERS_TORCH").map(PathBuf::from) else {
        eprintln!("skipped: PEERS_TORCH is not set; tests/run sets it");
        return None;
    };
    let mut python = Command::new(peers_python()?);
    python.env("LD_LIBRARY_PATH", torch.join("stand-ins")).env("PYTHONPATH", torch);
    Some(python)
}

/// The folder of `tests/toolchain`; `None`, with a word why, without it.
pub fn device_tools() -> Option<PathBuf> {
    let tools = std::env::var_os("DEVICE_TOOLS").map(PathBuf::from);
    if tools.is_none() {
        eprintln!("skipped: DEVICE_TOOLS is not set; tests/run sets it, and tests/toolchain prints it");
    }
    tools
}

/// Cargo's target folder for builds with the rustc of [`device_tools`]. No other rustc builds there, so these builds and those in
/// `target` do not wait for each other.
pub fn device_target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/devices")
}

/// Builds the runtime's library with the shipped generator or another one built in: the host's, in `target`, or that of a target
/// with the rustc in a folder of [`device_tools`], in [`device_target`]. It is static, or a module for WebAssembly. With another
/// generator it is hardly optimised, which halves the time of the build.
pub fn build_library(target: Option<(&Path, &str)>, generator: Option<&Path>) -> Command {
    let kind = if matches!(target, Some((_, "wasm32-unknown-unknown"))) { "cdylib" } else { "staticlib" };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["rustc", "--quiet", "--release", "--locked", "-p", "runtime", "--lib", "--no-default-features"]);
    cargo.args(["--crate-type", kind, "--features", if target.is_none() { "capi,std" } else { "capi" }]);
    cargo.current_dir(&root).env("CARGO_TARGET_DIR", target.map_or(root.join("target"), |_| device_target()));
    cargo.env_remove("RUSTFLAGS").env_remove("GENERATOR_ONNX");
    generator.map(|generator| cargo.env("GENERATOR_ONNX", generator));
    target.map(|(tools, target)| cargo.args(["--target", target]).env("RUSTC", tools.join("rustc")));
    generator.map(|_| cargo.args(["--", "-Copt-level=1"]));
    cargo
}

/// One of the project's programs, as built beside the tests.
pub fn program(name: &str) -> Command {
    let mut path = std::env::current_exe().expect("the test's own path");
    path.pop(); // the test's name
    path.pop(); // deps
    Command::new(path.join(name))
}

/// Runs a command to its end; its standard error as text, for tests of what it says.
pub fn run(command: &mut Command) -> (Output, String) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}; build the workspace first"));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, stderr)
}

/// Writes a data set of `n` digits of the shipped generator, from 10 on some of each digit.
pub fn digits(folder: &Path, n: usize) {
    for (prefix, seeds) in [("train", 0..n), ("t10k", n..n + 10)] {
        let labels: Vec<u8> = seeds.clone().map(|seed| (seed % 10) as u8).collect();
        let draw = |(seed, label)| runtime::generate_digit(seed as u64, runtime::Digit::new(label)?);
        let images = seeds.zip(labels.iter().copied()).flat_map(|seed| draw(seed).expect("the shipped generator").0);
        data_set(folder, prefix, &images.collect::<Vec<u8>>(), &labels);
    }
}

/// Writes images (n, 784) and labels (n,) as IDX files.
pub fn data_set(folder: &Path, prefix: &str, images: &[u8], labels: &[u8]) {
    let count = (labels.len() as u32).to_be_bytes();
    let images = [&[0, 0, 8, 3][..], &count, &[0, 0, 0, 28, 0, 0, 0, 28], images].concat();
    let labels = [&[0, 0, 8, 1][..], &count, labels].concat();
    for (kind, bytes) in [("images-idx3", images), ("labels-idx1", labels)] {
        std::fs::write(folder.join(format!("{prefix}-{kind}-ubyte")), bytes).expect("a folder that can be written");
    }
}

/// The SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A protobuf field: its tag, its length, its bytes.
pub fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let (mut header, mut len) = (vec![tag << 3 | 2], bytes.len());
    while len > 127 {
        header.push(len as u8 | 128);
        len >>= 7;
    }
    header.push(len as u8);
    [header, bytes.to_vec()].concat()
}

/// The shipped generator with other metadata: `conditional`, 10 characters such as `one-hot:26`, and `classes`, unless that is
/// empty.
pub fn generator_of(conditional: &str, classes: &str) -> Vec<u8> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/g.onnx");
    let mut model = std::fs::read(shipped).expect("models/g.onnx");
    let at = model.windows(10).position(|part| part == b"one-hot:10").expect("ten classes");
    model[at..at + 10].copy_from_slice(conditional.as_bytes());
    let entry = field(14, &[field(1, b"classes"), field(2, classes.as_bytes())].concat());
    if classes.is_empty() { model } else { [model, entry].concat() }
}

/// [`generator_of`] the 26 classes A to Z.
pub fn letters() -> Vec<u8> {
    let names = ('A'..='Z').map(|name| format!("{name:?}").replace('\'', "\"")).collect::<Vec<_>>();
    generator_of("one-hot:26", &format!("[{}]", names.join(",")))
}

/// `command` with the default effect for all signals, also where the parent ignores them, as a shell does for programs in the
/// background; or with another `option` of env(1), such as `--ignore-signal=HUP`. Keeps only the standard error.
pub fn with_signals(option: &str, command: &Command) -> Command {
    let mut env = Command::new("/usr/bin/env"); // by its path, because the command may have another PATH
    env.arg(option).arg(command.get_program()).args(command.get_args());
    command.get_envs().for_each(|(name, value)| _ = value.map(|value| env.env(name, value)));
    command.get_current_dir().map(|folder| env.current_dir(folder));
    env.stdout(Stdio::null()).stderr(Stdio::piped());
    env
}

/// Sends a signal, a name such as `TERM`. It comes too late if the program has ended. Until [`end_of`] nobody else gets its number.
pub fn send(signal: &str, pid: u32) {
    let sent = Command::new("kill").args(["-s", signal, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -s {signal}");
}

/// Waits for the end of a program that was started by [`with_signals`]; its standard error.
pub fn end_of(program: Child) -> (ExitStatus, String) {
    let output = program.wait_with_output().expect("the program's end");
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Starts a command, sends it `signal` after some time, and waits for its end.
pub fn kill_after(command: &Command, time: Duration, signal: &str) -> (ExitStatus, String) {
    let child = with_signals("--default-signal", command).spawn().expect("coreutils' env");
    std::thread::sleep(time);
    send(signal, child.id());
    end_of(child)
}

/// Random shares of a whole, from 0 to 1. Source: xorshift64, Marsaglia 2003.
pub fn random_shares() -> impl Iterator<Item = f64> {
    let mut random = 88_172_645_463_325_252u64;
    std::iter::repeat_with(move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % 1000) as f64 / 1000.0
    })
}
