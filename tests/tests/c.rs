//! The C interface, on the host and on an emulated Cortex-M4F, and PNG without a heap.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use object::{Object, ObjectSymbol};
use runtime::{Digit, Image, int8, png};
use tests::{peers_python, run};

/// What gcc must not complain of.
const STRICT: [&str; 5] = ["-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror"];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The folder of `tests/toolchain`; `None`, with a word why, without it.
fn tools() -> Option<PathBuf> {
    let tools = env::var_os("DEVICE_TOOLS").map(PathBuf::from);
    if tools.is_none() {
        eprintln!("skipped: DEVICE_TOOLS is not set; tests/run sets it, and tests/toolchain prints it");
    }
    tools
}

fn passes(command: &mut Command) -> Vec<u8> {
    let (output, stderr) = run(command);
    assert!(output.status.success(), "{command:?}: {} {stderr}", output.status);
    output.stdout
}

/// The static library: of the host, or of a target with the rustc in `tools`.
fn library(target: Option<(&Path, &str)>) -> PathBuf {
    let folder = root("target/c");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["rustc", "--quiet", "--release", "--locked", "-p", "runtime", "--lib", "--no-default-features"]);
    cargo.args(["--crate-type", "staticlib", "--features", if target.is_none() { "capi,std" } else { "capi" }]);
    cargo.current_dir(root(".")).env("CARGO_TARGET_DIR", &folder).env_remove("RUSTFLAGS").env_remove("GENERATOR_ONNX");
    match target {
        Some((tools, target)) => {
            passes(cargo.args(["--target", target]).env("RUSTC", tools.join("rustc")));
            folder.join(target).join("release/libruntime.a")
        }
        None => {
            passes(&mut cargo);
            folder.join("release/libruntime.a")
        }
    }
}

/// What examples/digit.c writes.
fn expected() -> Vec<u8> {
    let seeds = (0..16).flat_map(|seed| [runtime::generate(seed), int8::generate(seed)]);
    let seven = runtime::generate_digit(42, Digit::new(7).unwrap()).unwrap();
    let mut bytes: Vec<u8> = seeds.chain([seven]).flat_map(|image| image.0).collect();
    bytes.extend(png::encode(&seven));
    bytes
}

#[test]
fn the_c_example_draws_the_same_bytes_on_the_host() {
    let library = library(None);
    let folder = tempfile::tempdir().unwrap();
    for (source, bytes) in [("runtime/examples/digit.c", expected()), ("tests/peers/nulls.c", vec![])] {
        let program = folder.path().join("program");
        let mut cc = Command::new("cc");
        cc.args(STRICT).arg("-I").arg(root("runtime/include")).arg(root(source)).arg(&library);
        passes(cc.args(["-lm", "-lpthread", "-ldl", "-o"]).arg(&program));
        assert!(passes(&mut Command::new(&program)) == bytes, "{source}: other bytes");
    }
}

#[test]
fn the_c_example_draws_the_same_bytes_on_a_cortex_m4f() {
    let Some(tools) = tools() else { return };
    let library = library(Some((&tools, "thumbv7em-none-eabihf")));
    let (folder, device) = (tempfile::tempdir().unwrap(), root("tests/peers/device"));
    let program = folder.path().join("digit.elf");
    let mut gcc = Command::new(tools.join("arm-none-eabi-gcc"));
    gcc.args([
        "-mcpu=cortex-m4",
        "-mthumb",
        "-mfloat-abi=hard",
        "-mfpu=fpv4-sp-d16",
        "-O2",
        "-ffreestanding",
        "-nostdlib",
    ]);
    gcc.args(STRICT).arg("-T").arg(device.join("link.ld")).arg("-I").arg(root("runtime/include"));
    gcc.args([device.join("board.c"), root("runtime/examples/digit.c"), library]).args(["-lgcc", "-o"]).arg(&program);
    passes(&mut gcc);
    let mut qemu = Command::new("timeout");
    qemu.arg("600").arg(tools.join("qemu-system-arm"));
    qemu.args(["-machine", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "none"]);
    let drawn = passes(qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(&program));
    assert!(drawn == expected(), "other bytes than the host's");
}

#[test]
fn the_c_example_draws_the_same_bytes_on_aarch64_with_neon() {
    let Some(tools) = tools() else { return };
    let library = library(Some((&tools, "aarch64-unknown-none")));
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("digit");
    let mut gcc = Command::new(tools.join("aarch64-linux-gnu-gcc"));
    gcc.args(STRICT).args(["-O2", "-static", "-I"]).arg(root("runtime/include"));
    passes(gcc.args([root("runtime/examples/digit.c"), library]).arg("-o").arg(&program));
    let drawn = passes(Command::new(tools.join("qemu-aarch64")).arg(&program));
    assert!(drawn == expected(), "other bytes than the host's");
}

#[test]
fn the_header_declares_what_the_library_exports() {
    let bytes = fs::read(library(None)).unwrap();
    let archive = object::read::archive::ArchiveFile::parse(&*bytes).unwrap();
    let mut exported = BTreeSet::new();
    for member in archive.members() {
        let Ok(member) = object::File::parse(member.unwrap().data(&*bytes).unwrap()) else { continue };
        let symbols = member.symbols().filter(|symbol| symbol.is_global() && symbol.is_definition());
        exported
            .extend(symbols.filter_map(|s| s.name().ok().filter(|n| n.starts_with("mnist_gan_")).map(String::from)));
    }
    let header = fs::read_to_string(root("runtime/include/runtime.h")).unwrap();
    let named = header.match_indices("mnist_gan_").map(|(at, _)| {
        header[at..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_string()
    });
    assert_eq!(named.collect::<BTreeSet<_>>(), exported);
    assert!(exported.len() >= 14);
}

#[test]
fn a_png_without_a_heap_holds_the_pixels() {
    let mut noise = 1u32;
    let mut random = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    };
    let noisy = std::array::from_fn(|_| random());
    let dotted = std::array::from_fn(|i| if i % 97 == 0 { 255 } else { 0 });
    let edges = [Image::BLANK, Image([255; 784]), Image([143; 784]), Image([144; 784]), Image(noisy), Image(dotted)];
    let images: Vec<Image> = (0..1000).map(runtime::generate).chain(edges).collect();
    let mut sizes: Vec<usize> = images.iter().map(|image| png::encode(image).len()).collect();
    assert_eq!(sizes[1004], png::MOST, "noise is stored");
    let edges = sizes.split_off(1000);
    sizes.sort();
    println!("PNG: {} to {} bytes, {} in the median; edges {edges:?}", sizes[0], sizes[999], sizes[500]);
    let documented = "the sizes in runtime/src/png.rs and runtime/README.md";
    assert_eq!([sizes[0], sizes[500], sizes[999]], [189, 316, 636], "{documented}");

    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("files");
    let files = images.iter().flat_map(|image| {
        let png = png::encode(image);
        [&(png.len() as u32).to_le_bytes()[..], &png, &image.0].concat()
    });
    fs::write(&path, files.collect::<Vec<u8>>()).unwrap();
    let check = "import io, sys; from PIL import Image; b = open(sys.argv[1], 'rb').read(); i = n = 0\n\
        while i < len(b):\n    \
            k = int.from_bytes(b[i:i + 4], 'little'); image = Image.open(io.BytesIO(b[i + 4:i + 4 + k])); image.load()\n    \
            assert image.mode == 'L' and image.size == (28, 28) and image.tobytes() == b[i + 4 + k:i + 788 + k], n\n    \
            i += 788 + k; n += 1\n\
        print(n)";
    let told = passes(Command::new(python).args(["-c", check]).arg(&path));
    assert_eq!(String::from_utf8(told).unwrap().trim(), images.len().to_string());
}
