//! The programs installed with `cargo install`, and the runtime's library built in other ways: unoptimised, for this CPU, for
//! aarch64, under AddressSanitizer, and into programs that must not panic. Most share the folder `target`, where cargo keeps builds
//! with other flags apart, so no build script is compiled twice.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments).current_dir(root()).env("CARGO_TARGET_DIR", root().join("target"));
    cargo
}

/// The standard output of a command that succeeds.
fn passes(command: &mut Command) -> String {
    let (output, stderr) = tests::run(command);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{stdout}\n{stderr}");
    stdout
}

/// The library's own tests, the golden run among them; without the program, which takes long to build.
const TEST: [&str; 7] = ["test", "--quiet", "--locked", "-p", "runtime", "--no-default-features", "--features=std"];

#[test]
fn an_unoptimised_build_draws_the_same() {
    passes(&mut cargo(&[&TEST[..], &["--lib", "--test", "same"]].concat()));
}

#[test]
fn a_build_for_this_very_cpu_draws_the_same() {
    // With --target the flag is not for build scripts.
    let arguments = [&TEST[..], &["--release", "--target", "host-tuple", "--test", "same", "golden"]].concat();
    passes(cargo(&arguments).env("RUSTFLAGS", "-Ctarget-cpu=native"));
}

#[test]
fn a_build_without_std_chooses_its_kernel_when_it_is_compiled_and_draws_the_same() {
    let test = [
        "test",
        "--quiet",
        "--locked",
        "-p",
        "runtime",
        "--no-default-features",
        "--release",
        "--test",
        "same",
        "golden",
    ];
    passes(&mut cargo(&test));
}

#[test]
fn aarch64_draws_the_same_with_and_without_dot_products() {
    let Some(tools) = tests::device_tools() else { return };
    let target = ["--release", "--target=aarch64-unknown-linux-gnu", "--lib", "--test=same"];
    let some = ["--", "--nocapture", "every_kernel", "layer"];
    for (cpu, kernels) in [("cortex-a53", "scalar, neon"), ("max", "scalar, neon, dotprod")] {
        let mut test = cargo(&[&TEST[..], &target, &some].concat());
        test.env("RUSTC", tools.join("rustc")).env("CARGO_TARGET_DIR", tests::device_target());
        // Debug assertions let the tests take fewer seeds.
        test.env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cdebug-assertions");
        test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", tools.join("aarch64-linux-gnu-gcc"));
        let qemu = format!("{} -cpu {cpu}", tools.join("qemu-aarch64").display());
        let stdout = passes(test.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", qemu));
        assert!(stdout.contains(&format!("kernels: {kernels}\n")), "{cpu}: {kernels} expected: {stdout}");
    }
}

#[test]
fn address_sanitizer_finds_nothing() {
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return eprintln!("skipped: AddressSanitizer is used on x86-64 Linux alone");
    }
    let arguments = [&TEST[..], &["--release", "--target", "host-tuple", "--lib", "--test", "same"]].concat();
    // Debug assertions check pointers too, and let the tests take fewer seeds. Little optimisation keeps the build short.
    let mut command = cargo(&arguments);
    let flags = "-Zsanitizer=address -Cdebug-assertions -Copt-level=1";
    // In a folder of its own, because build scripts run again if RUSTC_BOOTSTRAP changes, and nearly all crates are compiled again.
    command.env("CARGO_TARGET_DIR", root().join("target/asan"));
    passes(command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", flags));
}

#[test]
fn nothing_in_the_library_can_panic_and_each_precision_costs_its_own_weights_alone() {
    let manifest = root().join("tests/nopanic/Cargo.toml");
    passes(cargo(&["build", "--quiet", "--release", "--manifest-path"]).arg(manifest));
    for (program, most) in [("f32", 500_000), ("int8", 180_000)] {
        let file = root().join("target/release").join(program);
        let bytes = std::fs::metadata(&file).unwrap().len();
        assert!(bytes < most, "{program}: fewer than {most} bytes expected, {bytes} found");
    }
}

#[test]
fn both_programs_install_and_run_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    for name in ["runtime", "trainer"] {
        // In the folder that `cargo run -p NAME` builds in, so nothing is compiled twice.
        let install = ["install", "--quiet", "--locked", "--offline", "--path", name, "--root"];
        let mut install = cargo(&install);
        // `cargo test` sets variables of this package, and ring's build script runs again when one of them changes.
        let of_a_package = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        std::env::vars().filter(|(name, _)| of_a_package(name)).for_each(|(name, _)| _ = install.env_remove(name));
        passes(install.arg(root.path()));
        let installed = root.path().join("bin").join(name).with_extension(std::env::consts::EXE_EXTENSION);
        let (output, stderr) = tests::run(Command::new(&installed).arg("--version").current_dir(&root));
        assert!(output.status.success() && output.stdout.starts_with(name.as_bytes()), "{output:?} {stderr}");
        // The shell reads the completions, and groff the page, without a complaint.
        let readers = [("completions bash", "bash -n"), ("man", "groff -Kutf8 -Tutf8 -man -ww -z")];
        for (verb, reader) in readers.map(|(verb, reader)| (verb, reader.split(' ').collect::<Vec<_>>())) {
            let (output, stderr) = tests::run(Command::new(&installed).args(verb.split(' ')));
            assert!(output.status.success() && output.stdout.len() > 100, "{name} {verb}: {stderr}");
            let text = root.path().join("text");
            std::fs::write(&text, output.stdout).unwrap();
            match Command::new(reader[0]).args(&reader[1..]).arg(text).output() {
                Ok(read) => assert!(read.status.success() && read.stderr.is_empty(), "{name} {verb}: {read:?}"),
                Err(error) => eprintln!("skipped: {}: {error}", reader[0]),
            }
        }
    }
}

#[test]
fn miri_finds_nothing_in_the_plain_and_sse2_kernels() {
    if !Command::new(env!("CARGO")).args(["miri", "--version"]).output().is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: Miri is not installed");
    }
    passes(cargo(&["miri"]).args(TEST).args(["--lib", "layer", "every_kernel", "z_is"]));
}
