//! The C interface, on the host and on an emulated Cortex-M4F, and PNG without a heap.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, PoisonError};

use object::{Object, ObjectSymbol};
use runtime::{Digit, Image, int8, png};
use tests::{build_library, device_target, device_tools, generator_of, letters, peers_python, program, run, sha256};

/// What gcc must not complain of.
const STRICT: [&str; 5] = ["-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror"];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn passes(command: &mut Command) -> Vec<u8> {
    let (output, stderr) = run(command);
    assert!(output.status.success(), "{command:?}: {} {stderr}", output.status);
    output.stdout
}

/// Builds the library and copies it into the folder `into`.
fn library(into: &Path, target: Option<(&Path, &str)>, generator: Option<&Path>) -> PathBuf {
    // Generators share a build folder: one at a time, and the library is copied elsewhere.
    static HOST: Mutex<()> = Mutex::new(());
    static DEVICES: Mutex<()> = Mutex::new(());
    let (one, target_folder, triple) = match target {
        None => (&HOST, root("target"), ""),
        Some((_, triple)) => (&DEVICES, device_target(), triple),
    };
    let _one = one.lock().unwrap_or_else(PoisonError::into_inner);
    passes(&mut build_library(target, generator));
    let name = if triple.starts_with("wasm") { "runtime.wasm" } else { "libruntime.a" };
    fs::copy(target_folder.join(triple).join("release").join(name), into.join(name)).unwrap();
    into.join(name)
}

/// The host's library with the shipped generator: the bytes of the file.
static SHIPPED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    fs::read(library(folder.path(), None, None)).unwrap()
});

/// What a C program writes on this machine.
fn on_the_host(folder: &Path, library: &Path, source: &str) -> Vec<u8> {
    let program = folder.join("program");
    let mut cc = Command::new("cc");
    cc.args(STRICT).arg("-I").arg(root("runtime/include")).arg(root(source)).arg(library);
    passes(cc.args(["-lm", "-lpthread", "-ldl", "-o"]).arg(&program));
    passes(&mut Command::new(&program))
}

/// What a C program writes on an emulated Cortex-M4F.
fn on_a_cortex_m4f(folder: &Path, tools: &Path, library: &Path, source: &str) -> Vec<u8> {
    let (program, device) = (folder.join("program.elf"), root("tests/peers/device"));
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
    gcc.args([&device.join("board.c"), &root(source), library]).args(["-lgcc", "-o"]).arg(&program);
    passes(&mut gcc);
    let mut qemu = Command::new("timeout");
    qemu.arg("600").arg(tools.join("qemu-system-arm"));
    qemu.args(["-machine", "mps2-an386", "-display", "none", "-monitor", "none", "-serial", "none"]);
    passes(qemu.args(["-semihosting-config", "enable=on,target=native", "-kernel"]).arg(&program))
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
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libruntime.a");
    fs::write(&library, &*SHIPPED).unwrap();
    for (source, bytes) in [("runtime/examples/digit.c", expected()), ("tests/peers/nulls.c", vec![])] {
        assert!(on_the_host(folder.path(), &library, source) == bytes, "{source}: other bytes");
    }
}

/// tests/golden/pytorch.onnx is what `seed_gan.py --steps 200 --onnx` wrote.
#[test]
fn what_pytorch_exports_can_be_built_in() {
    const DRAW: &str = "#include \"runtime.h\"
        #include <stdio.h>
        int main(void) {
            uint8_t pixels[MNIST_GAN_PIXELS];
            return mnist_gan_generate(1, pixels) != MNIST_GAN_OK || fwrite(pixels, 1, sizeof pixels, stdout) != sizeof pixels;
        }";
    let folder = tempfile::tempdir().unwrap();
    let (source, exported) = (folder.path().join("draw.c"), root("tests/golden/pytorch.onnx"));
    fs::write(&source, DRAW).unwrap();
    let library = library(folder.path(), None, Some(&exported));
    let mut draw = program("runtime");
    let drawn = passes(draw.args(["gen", "--seed", "1", "--format", "raw", "--model"]).arg(&exported));
    assert!(on_the_host(folder.path(), &library, source.to_str().unwrap()) == drawn, "other bytes than the program's");
    let spoilt = folder.path().join("spoilt.onnx");
    fs::write(&spoilt, generator_of("one-hot:65", "")).unwrap();
    for (file, expected) in [
        (root("Cargo.toml"), "Cargo.toml: an ONNX file expected, something else found"),
        (spoilt, "spoilt.onnx: conditional: one-hot:0 to one-hot:64 expected, one-hot:65 found"),
    ] {
        let (refused, stderr) = run(&mut build_library(None, Some(&file)));
        assert!(!refused.status.success() && stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn the_c_example_draws_the_same_bytes_on_a_cortex_m4f() {
    let Some(tools) = device_tools() else { return };
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path(), Some((&tools, "thumbv7em-none-eabihf")), None);
    let drawn = on_a_cortex_m4f(folder.path(), &tools, &library, "runtime/examples/digit.c");
    assert!(drawn == expected(), "other bytes than the host's");
}

#[test]
fn the_c_example_draws_the_same_bytes_on_aarch64_with_neon() {
    let Some(tools) = device_tools() else { return };
    let folder = tempfile::tempdir().unwrap();
    let library = library(folder.path(), Some((&tools, "aarch64-unknown-none")), None);
    let program = folder.path().join("digit");
    let mut gcc = Command::new(tools.join("aarch64-linux-gnu-gcc"));
    gcc.args(STRICT).args(["-O2", "-static", "-I"]).arg(root("runtime/include"));
    passes(gcc.args([root("runtime/examples/digit.c"), library]).arg("-o").arg(&program));
    let drawn = passes(Command::new(tools.join("qemu-aarch64")).arg(&program));
    assert!(drawn == expected(), "other bytes than the host's");
}

/// All draw what tests/peers/classes.c says.
#[test]
fn the_program_c_web_assembly_and_a_cortex_m4f_draw_the_same_26_classes() {
    const DRAW: &str = "
        import { readFileSync } from 'fs';
        import { pathToFileURL } from 'url';
        const [, script, module] = process.argv, bytes = readFileSync(module), images = [];
        const { load } = await import(pathToFileURL(script));
        const f32 = await load(bytes), seeds = f32.classes.map((_, i) => BigInt(i));
        for (const name of f32.classes) images.push(f32.generate(7n, name));
        for (const seed of seeds) images.push(f32.generate(seed));
        const int8 = (await WebAssembly.instantiate(bytes)).instance.exports, at = 65536 * int8.memory.grow(1);
        const drawn = () => images.push(new Uint8Array(int8.memory.buffer, at, 784).slice());
        f32.classes.forEach((_, i) => drawn(int8.mnist_gan_generate_class_int8(7n, i, at)));
        for (const seed of seeds) drawn(int8.mnist_gan_generate_int8(seed, at));
        process.stdout.write(Buffer.concat([...images, Buffer.from(f32.classes.join('') + f32.weightsSha256)]));";
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let (generator, source) = (at.join("letters.onnx"), "tests/peers/classes.c");
    fs::write(&generator, letters()).unwrap();
    let names: String = ('A'..='Z').collect();
    let mut by_the_program = vec![];
    for precision in ["f32", "int8"] {
        let draws = |flags: &[&str]| {
            let mut draw = program("runtime");
            draw.args(["gen", "--format", "raw", "--precision", precision, "--model"]).arg(&generator);
            passes(draw.args(flags))
        };
        names.chars().for_each(|name| by_the_program.extend(draws(&["--seed", "7", "--class", &name.to_string()])));
        by_the_program.extend(draws(&["--count", "26"]));
    }
    by_the_program.extend(names.as_bytes());
    let told = passes(program("runtime").args(["inspect", "--json"]).arg(&generator));
    let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
    by_the_program.extend(told["weights_sha256"].as_str().unwrap().as_bytes());
    let expected = sha256(&by_the_program);
    println!("26 classes: {expected}");
    assert_eq!(by_the_program.len(), 2 * 52 * Image::PIXELS + 26 + 64);
    assert_eq!(sha256(on_the_host(at, &library(at, None, Some(&generator)), source)), expected, "in C on the host");
    let Some(tools) = device_tools() else { return };
    let device = library(at, Some((&tools, "thumbv7em-none-eabihf")), Some(&generator));
    assert_eq!(sha256(on_a_cortex_m4f(at, &tools, &device, source)), expected, "in C on a Cortex-M4F");
    let module = library(at, Some((&tools, "wasm32-unknown-unknown")), Some(&generator));
    let mut node = Command::new("node");
    node.args(["--no-warnings", "--input-type=module", "-e", DRAW]).arg(root("runtime/web/digit.js")).arg(module);
    assert_eq!(sha256(passes(&mut node)), expected, "in WebAssembly");
}

#[test]
fn the_header_declares_what_the_library_exports() {
    let archive = object::read::archive::ArchiveFile::parse(&**SHIPPED).unwrap();
    let mut exported = BTreeSet::new();
    for member in archive.members() {
        let Ok(member) = object::File::parse(member.unwrap().data(&**SHIPPED).unwrap()) else { continue };
        let symbols = member.symbols().filter(|symbol| symbol.is_global() && symbol.is_definition());
        exported
            .extend(symbols.filter_map(|s| s.name().ok().filter(|n| n.starts_with("mnist_gan_")).map(String::from)));
    }
    let header = fs::read_to_string(root("runtime/include/runtime.h")).unwrap();
    let named = header.match_indices("mnist_gan_").map(|(at, _)| {
        header[at..].split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_string()
    });
    assert_eq!(named.collect::<BTreeSet<_>>(), exported);
    assert!(exported.len() >= 18);
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
    assert_eq!([sizes[0], sizes[500], sizes[999]], [173, 316, 506], "{documented}");

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
