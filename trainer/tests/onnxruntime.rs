//! Where the `trainer` program finds ONNX Runtime, on simulated machines.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What every error says that ends with no library.
const WAY_OUT: &str = "set ORT_DYLIB_PATH";

/// A folder with an empty cache, a small data set, and a folder `bin` that is the whole `PATH`.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "data", "cache"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for prefix in ["train", "t10k"] {
            let images = [&[0, 0, 8, 3, 0, 0, 0, 64, 0, 0, 0, 28, 0, 0, 0, 28], &[0; 64 * 784][..]].concat();
            let labels = [&[0, 0, 8, 1, 0, 0, 0, 64], &[0; 64][..]].concat();
            fs::write(folder.path().join(format!("data/{prefix}-images-idx3-ubyte")), images).unwrap();
            fs::write(folder.path().join(format!("data/{prefix}-labels-idx1-ubyte")), labels).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Adds the real machine's Python, without its installed packages when it runs code of `-c`.
    fn bare_python(&self) {
        let real = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
        let real = String::from_utf8(real.stdout).unwrap();
        let real = real.trim();
        self.script("python3", &format!("case $2 in -c) exec '{real}' -S \"$@\";; *) exec '{real}' \"$@\";; esac"));
    }

    /// `trainer --dry-run`, which prints where it found ONNX Runtime.
    fn trainer(&self) -> Command {
        self.trainer_on("cpu")
    }

    fn trainer_on(&self, device: &str) -> Command {
        let mut command = self.command();
        command.args(["--dry-run", "--device", device, "--data"]).arg(self.path("data"));
        command
    }

    fn setup(&self) -> Command {
        let mut command = self.command();
        command.args(["setup", "--cuda"]);
        command
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command.env("PATH", self.path("bin")).env("XDG_CACHE_HOME", self.path("cache")).current_dir(self.0.path());
        command.env("PYTHONUSERBASE", self.path("user"));
        ["ORT_DYLIB_PATH", "LD_LIBRARY_PATH", "PYTHONPATH"].iter().for_each(|name| _ = command.env_remove(name));
        command
    }

    /// The folder that the fetched library is put into.
    fn cached(&self) -> PathBuf {
        self.path("cache/mnist-gan/onnxruntime-1.31.1")
    }

    /// Names of the files in the cache.
    fn in_cache(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("cache/mnist-gan")).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Gives pip a folder in place of its index, with files that have the names of wheels and another content.
    fn other_wheels(&self, names: &[&str], command: &mut Command) {
        fs::create_dir_all(self.path("wheels")).unwrap();
        names.iter().for_each(|name| fs::write(self.path("wheels").join(name), "other bytes").unwrap());
        command.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", self.path("wheels"));
    }
}

/// The library that the program found, and its standard error.
fn succeeds(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert!(output.status.success(), "{stderr}");
    let line = stdout.lines().find(|line| line.starts_with("runtime ")).unwrap();
    (line.trim_start_matches("runtime").trim().to_string(), stderr)
}

fn fails(command: &mut Command, expected: &[&str]) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let error = stderr.lines().last().unwrap();
    assert!(error.starts_with("error: "), "{stderr}");
    expected.iter().for_each(|words| assert!(error.contains(words), "{words:?} is missing from {error}"));
}

/// Whether the real machine has ONNX Runtime in the system's folders, which no variable hides.
fn system_has_one() -> bool {
    system_has("libonnxruntime.so")
}

#[allow(clippy::print_stderr)] // says why a test is skipped
fn system_has(library: &str) -> bool {
    let folders =
        ["/usr/local/lib", "/usr/lib", "/usr/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"];
    let mut names = folders.iter().filter_map(|f| fs::read_dir(f).ok()).flatten().flatten().map(|e| e.file_name());
    let found = names.any(|name| name.to_string_lossy().starts_with(library));
    if found {
        eprintln!("skipped: {library} is in the system's folders");
    }
    found
}

#[test]
fn the_first_place_that_has_the_library_is_taken_and_the_last_is_a_fetched_wheel() {
    if system_has_one() {
        return;
    }
    let machine = Machine::new();
    machine.bare_python();

    // Two trainers at once fetch it, and neither harms the other.
    let spawn = || machine.trainer().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    for trainer in [spawn(), spawn()] {
        let output = trainer.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && stderr.contains("fetching ONNX Runtime 1.31.1"), "{stderr}");
    }
    assert_eq!(machine.in_cache(), ["lock", "onnxruntime-1.31.1"]);

    let (found, said) = succeeds(machine.trainer().arg("--offline"));
    let library = machine.cached().join("libonnxruntime.so.1.31.1");
    assert_eq!(found, format!("{} (ONNX Runtime 1.31.1 from the cache)", library.display()));
    assert!(!said.contains("fetching"), "{said}");

    let copy = |folder: &str| {
        fs::create_dir_all(machine.path(folder)).unwrap();
        let copy = machine.path(folder).join("libonnxruntime.so.1.31.1");
        fs::hard_link(&library, &copy).unwrap();
        copy
    };
    let system = copy("system");
    let (found, _) = succeeds(machine.trainer().env("LD_LIBRARY_PATH", machine.path("system")));
    assert_eq!(found, format!("{} (system library)", system.display()));

    let package = copy("site/onnxruntime/capi");
    fs::create_dir(machine.path("site/onnxruntime_gpu-1.31.1.dist-info")).unwrap();
    let both = |command: &mut Command| {
        command.env("LD_LIBRARY_PATH", machine.path("system")).env("PYTHONPATH", machine.path("site"));
    };
    let mut command = machine.trainer();
    both(&mut command);
    let expected = format!("{} (Python package onnxruntime-gpu 1.31.1)", package.display());
    assert_eq!(succeeds(&mut command).0, expected);
    // A package in the current folder is not an installed one.
    let (found, _) = succeeds(machine.trainer().current_dir(machine.path("site")));
    assert!(found.ends_with("from the cache)"), "{found}");

    let own = copy("own");
    for given in [own.as_path(), Path::new("own/libonnxruntime.so.1.31.1")] {
        let mut command = machine.trainer();
        both(&mut command);
        let (found, _) = succeeds(command.env("ORT_DYLIB_PATH", given));
        assert_eq!(found, format!("{} (ORT_DYLIB_PATH)", own.display()));
    }
    // What is asked for by name is not replaced by something else.
    fails(machine.trainer().env("ORT_DYLIB_PATH", "no/such.so"), &["ORT_DYLIB_PATH: ", "no/such.so found"]);
    fs::write(machine.path("text.so"), "no library").unwrap();
    let text = machine.path("text.so");
    fails(machine.trainer().env("ORT_DYLIB_PATH", "text.so"), &[&format!("{}: file too short", text.display())]);
    fs::write(&text, "no library, but a longer text than the header of one would be, and more").unwrap();
    fails(machine.trainer().env("ORT_DYLIB_PATH", "text.so"), &[&format!("{}: invalid ELF header", text.display())]);
    // The loader would map this file, and the program would die of SIGBUS.
    fs::write(&text, &fs::read(&own).unwrap()[..1 << 20]).unwrap();
    fails(
        machine.trainer().env("ORT_DYLIB_PATH", "text.so"),
        &["text.so: the library is truncated, 1048576 bytes found"],
    );

    // A relative folder is the current one, whoever writes there.
    let (found, _) = succeeds(machine.trainer().env("LD_LIBRARY_PATH", "system"));
    assert!(found.ends_with("from the cache)"), "{found}");
}

#[test]
fn a_library_of_the_cache_that_is_not_as_it_was_unpacked_is_fetched_again() {
    if system_has_one() {
        return;
    }
    let machine = Machine::new();
    machine.bare_python();
    // As an earlier version left it: nothing says what the file should be.
    let library = machine.cached().join("libonnxruntime.so.1.31.1");
    fs::create_dir_all(machine.cached()).unwrap();
    for folder in [machine.path("cache/mnist-gan"), machine.cached()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(&library, "").unwrap();
    fails(machine.trainer().arg("--offline"), &["onnxruntime-1.31.1/unpacked.json: cannot be read", WAY_OUT]);
    let (found, said) = succeeds(&mut machine.trainer());
    assert!(found.ends_with("from the cache)") && said.contains("fetching ONNX Runtime 1.31.1"), "{found} {said}");

    let whole = fs::read(&library).unwrap();
    fs::write(&library, "").unwrap();
    let expected = format!("libonnxruntime.so.1.31.1: {} bytes expected, 0 found", whole.len());
    fails(machine.trainer().arg("--offline"), &[&expected, WAY_OUT]);
    // A file with another time is digested.
    fs::write(&library, &whole).unwrap();
    succeeds(machine.trainer().arg("--offline"));
    let mut changed = whole;
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&library, changed).unwrap();
    fails(machine.trainer().arg("--offline"), &["libonnxruntime.so.1.31.1: SHA-256 ", WAY_OUT]);
}

#[test]
fn nothing_found_and_nothing_fetchable_is_one_error_with_the_ways_out() {
    if system_has_one() {
        return;
    }
    let says = |words: &[&'static str]| [words, &[WAY_OUT]].concat();
    let machine = Machine::new();
    fails(&mut machine.trainer(), &says(&["`python3 -m pip`", "install pip"]));
    let ways_out = ["--offline forbids fetching", "`pip install onnxruntime==1.31.1`", "without --offline"];
    fails(machine.trainer().arg("--offline"), &says(&ways_out));

    // One Python without pip, and a pip that reaches no index.
    machine.script("python3", "exit 1");
    let refuse =
        "case $1 in --version) echo pip 26.1;; *) echo 'ERROR: No matching distribution found' >&2; exit 1;; esac";
    machine.script("pip3", refuse);
    fails(&mut machine.trainer(), &says(&["pip3: ERROR: No matching distribution found"]));

    // A wheel of other bytes under the right name.
    machine.bare_python();
    let wheels = ["x86_64", "aarch64"].map(|tag| format!("onnxruntime-1.31.1-cp312-cp312-manylinux_2_28_{tag}.whl"));
    let mut command = machine.trainer();
    machine.other_wheels(&wheels.each_ref().map(String::as_str), &mut command);
    fails(&mut command, &says(&["python3 -I -m pip: ERROR: ", "HASHES"]));

    // The same from a program that is not pip and checks nothing.
    machine.script("python3", "exit 1");
    let bring = |what: &str| {
        let download = format!("while [ $1 != -d ]; do shift; done; {what} > $2/onnxruntime-1.31.1-cp312.whl");
        machine.script("pip3", &format!("case $1 in --version) echo pip 26.1;; *) {download};; esac"));
    };
    bring("echo other bytes");
    fails(
        &mut machine.trainer(),
        &["onnxruntime-1.31.1-cp312.whl: a pinned SHA-256 expected, ", "PIP_INDEX_URL", WAY_OUT],
    );
    bring("exec /usr/bin/yes");
    fails(&mut machine.trainer(), &["pip3: at most 200000000 bytes expected, more came", WAY_OUT]);

    assert!(machine.in_cache().is_empty() && machine.path("cache").is_dir());
}

#[test]
fn a_pip_that_cannot_fetch_it_is_told_by_cause() {
    if system_has_one() {
        return;
    }
    let machine = Machine::new();
    machine.script("pip3", "echo pip 19.1.1 from /usr");
    fails(&mut machine.trainer(), &["pip 20.3 or newer expected, pip 19.1.1 found; run `pip3 install --upgrade pip`"]);
    machine.bare_python();
    let says = ["activated virtualenv", "activate a virtual environment", WAY_OUT];
    fails(machine.trainer().env("PIP_REQUIRE_VIRTUALENV", "1"), &says);
    assert!(machine.in_cache().is_empty());
}

#[test]
fn a_cache_that_is_not_this_users_alone_is_refused_and_no_link_in_it_is_followed() {
    if system_has_one() {
        return;
    }
    let machine = Machine::new();
    let mnist_gan = machine.path("cache/mnist-gan");
    fs::create_dir(&mnist_gan).unwrap();
    let mode = |mode| fs::set_permissions(&mnist_gan, fs::Permissions::from_mode(mode)).unwrap();
    for open in [0o777, 0o775] {
        mode(open);
        let expected =
            format!("only its owner may write to expected, mode {open:o} found; delete it, or run `chmod -R go-w ");
        fails(&mut machine.trainer(), &[&expected]);
        fails(machine.command().args(["--dry-run", "--data", "mnist"]), &[&expected]);
    }
    mode(0o755);
    std::os::unix::fs::symlink(machine.path("data"), machine.cached()).unwrap();
    fails(
        machine.trainer().arg("--offline"),
        &["onnxruntime-1.31.1: no symbolic link is followed in the cache; delete it"],
    );
}

#[test]
fn no_file_of_the_current_folder_is_executed() {
    if system_has_one() {
        return;
    }
    let machine = Machine::new();
    machine.bare_python();
    let trap = |name: &str| {
        let path = machine.path("traps").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("open({:?}, 'w')", machine.path("trapped"))).unwrap();
    };
    for name in ["types", "os", "site", "sitecustomize", "usercustomize", "pip", "importlib/__init__", "pip/__main__"] {
        trap(&format!("{name}.py"));
    }
    let mut command = machine.trainer();
    machine.other_wheels(&[], &mut command);
    // An empty entry of PYTHONPATH, and a relative one, are the current folder too.
    // So they are in PATH.
    for name in ["python3", "python", "pip3", "npm"] {
        fs::write(machine.path("traps").join(name), format!("#!/bin/sh\n: > {}\n", machine.path("trapped").display()))
            .unwrap();
        fs::set_permissions(machine.path("traps").join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    command.current_dir(machine.path("traps")).env("PYTHONPATH", ":.");
    command.env("PATH", format!(".::{}", machine.path("bin").display()));
    fails(&mut command, &["python3 -I -m pip: ERROR: No matching distribution found for onnxruntime==1.31.1"]);
    assert!(!machine.path("trapped").exists());
}

#[test]
fn the_build_with_cuda_is_fetched_only_whole_and_only_when_that_is_allowed() {
    let says = |words: &[&'static str]| [words, &[WAY_OUT]].concat();
    let machine = Machine::new();
    let install = "`pip install onnxruntime-gpu==1.31.1 nvidia-cuda-runtime==";
    fails(machine.setup().arg("--offline"), &says(&["--offline forbids fetching", install, "without --offline"]));
    fails(&mut machine.setup(), &says(if cfg!(target_arch = "x86_64") { &["`python3 -m pip`"] } else { &["aarch64"] }));
    if !cfg!(target_arch = "x86_64") {
        return;
    }

    machine.bare_python();
    let wheels = [
        "onnxruntime_gpu-1.31.1-cp312-cp312-manylinux_2_28_x86_64.whl",
        "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        "nvidia_cublas-13.1.0.3-py3-none-manylinux_2_27_x86_64.whl",
        "nvidia_curand-10.4.0.35-py3-none-manylinux_2_27_x86_64.whl",
    ];
    let mut command = machine.setup();
    machine.other_wheels(&wheels, &mut command);
    fails(&mut command, &says(&["python3 -I -m pip: ERROR: ", "HASHES"]));
    assert!(machine.in_cache().is_empty());
}

#[test]
fn a_library_with_cuda_comes_first_but_on_the_cpu_and_what_it_lacks_is_named() {
    if system_has_one() || system_has("libcudart.so.13") || system_has("libcublasLt.so.13") {
        return;
    }
    let machine = Machine::new();
    machine.bare_python();
    let (plain, _) = succeeds(&mut machine.trainer());
    assert!(plain.ends_with("(ONNX Runtime 1.31.1 from the cache)"), "{plain}");

    // The same library with a CUDA provider beside it, which is none.
    let name = "libonnxruntime.so.1.31.1";
    let with_cuda = machine.path("cache/mnist-gan/onnxruntime-1.31.1-cuda");
    fs::create_dir(&with_cuda).unwrap();
    fs::hard_link(machine.cached().join(name), with_cuda.join(name)).unwrap();
    let provider = "libonnxruntime_providers_cuda.so";
    fs::write(with_cuda.join(provider), "no library").unwrap();
    let entry = |name: &str| {
        let data = fs::metadata(with_cuda.join(name)).unwrap();
        serde_json::json!({"sha256": "", "len": data.len(), "modified": data.modified().unwrap()})
    };
    let list = serde_json::json!({name: entry(name), provider: entry(provider)});
    fs::write(with_cuda.join("unpacked.json"), list.to_string()).unwrap();
    assert_eq!(succeeds(&mut machine.trainer()).0, plain);

    let (found, said) = succeeds(&mut machine.trainer_on("auto"));
    let library = with_cuda.join(name);
    assert_eq!(found, format!("{} (ONNX Runtime 1.31.1 with CUDA from the cache)", library.display()));
    let expected = format!(
        "libcudart.so.13 expected beside {}, in Python's nvidia packages or in the system, not found; run `trainer setup \
         --cuda`",
        library.display()
    );
    assert!(said.contains(&format!("device cpu (no CUDA: {expected}")), "{said}");
    let stays = ["error: CUDA does not work here yet; its files stay in the cache: ", &expected];
    fails(&mut machine.setup(), &stays);

    let given = |device| {
        let mut command = machine.trainer_on(device);
        command.env("ORT_DYLIB_PATH", &library);
        command
    };
    fails(&mut given("cuda"), &["error: --device cuda: ", &expected, "(ORT_DYLIB_PATH)"]);
    // The next one that is missing is named once the first is there, in Python's packages as PyTorch brings them along;
    // any library will do for it.
    let packages = machine.path("site/nvidia/cu13/lib");
    fs::create_dir_all(&packages).unwrap();
    fs::hard_link(&library, packages.join("libcudart.so.13")).unwrap();
    let site = machine.path("site");
    fails(given("cuda").env("PYTHONPATH", &site), &["libcublasLt.so.13 expected beside "]);
    fs::write(packages.join("libcublasLt.so.13"), "no library").unwrap();
    fails(given("cuda").env("PYTHONPATH", &site), &["libcublasLt.so.13: file too short"]);
    fails(machine.trainer_on("cuda").env("ORT_DYLIB_PATH", machine.cached().join(name)), &["is built without CUDA"]);
}
