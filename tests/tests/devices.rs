//! The runtime on small devices, each built for its target and run: the digits of every board are the host's, byte for byte,
//! and what they cost is what runtime/CERTIFICATE.md says. `BLESS=1` rewrites that file.
//!
//! `tests/toolchain` has what these tests run; they say that they skip where `DEVICE_TOOLS` does not name its folder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs};

use object::{Object, ObjectSection, ObjectSymbol, SectionFlags};
use runtime::{GENERATOR, Image, int8, latent_of};
use tests::{device_target, device_tools, sha256};

/// Seeds 0, 1, … whose images a board draws.
const SEEDS: u64 = 16;
/// QEMU's clock moves on 2⁵ ns with each instruction.
const SHIFT: u32 = 5;

struct Board {
    cpu: &'static str,
    target: &'static str,
    /// Of runtime/firmware/build.rs.
    memory: &'static str,
    machine: &'static str,
    /// Nanoseconds of a tick of the clock that runtime/firmware counts instructions with.
    tick: f64,
    /// What a precision may cost at most.
    limits: &'static [Limits],
}

struct Limits {
    precision: &'static str,
    instructions: u32,
    stack: u32,
    /// Bytes of flash, the weights not counted.
    code: u64,
}

const fn most(precision: &'static str, instructions: u32, stack: u32, code: u64) -> Limits {
    Limits { precision, instructions, stack, code }
}

const BOARDS: [Board; 6] = [
    Board {
        cpu: "Cortex-M0 (nRF51822)",
        target: "thumbv6m-none-eabi",
        memory: "microbit",
        machine: "microbit",
        tick: 62.5,
        limits: &[most("int8", 4_000_000, 1126, 12_000)],
    },
    Board {
        cpu: "Cortex-M3",
        target: "thumbv7m-none-eabi",
        memory: "mps2",
        machine: "mps2-an385",
        tick: 40.0,
        limits: &[most("f32", 17_000_000, 1126, 12_288), most("int8", 1_900_000, 1126, 12_000)],
    },
    Board {
        cpu: "Cortex-M4F",
        target: "thumbv7em-none-eabihf",
        memory: "mps2",
        machine: "mps2-an386",
        tick: 40.0,
        limits: &[most("f32", 310_000, 1126, 12_000), most("int8", 266_000, 1126, 12_000)],
    },
    Board {
        cpu: "Cortex-M4F (STM32F405)",
        target: "thumbv7em-none-eabihf",
        memory: "netduinoplus2",
        machine: "netduinoplus2",
        tick: 1000.0 / 168.0,
        limits: &[most("f32", 310_000, 1126, 12_000), most("int8", 266_000, 1126, 12_000)],
    },
    Board {
        cpu: "Cortex-M7",
        target: "thumbv7em-none-eabihf",
        memory: "mps2",
        machine: "mps2-an500",
        tick: 40.0,
        limits: &[most("f32", 310_000, 1126, 12_000), most("int8", 266_000, 1126, 12_000)],
    },
    Board {
        cpu: "RISC-V (RV32IMAC)",
        target: "riscv32imac-unknown-none-elf",
        memory: "virt",
        machine: "virt",
        tick: 1.0,
        limits: &[most("f32", 17_000_000, 1126, 16_000), most("int8", 1_900_000, 1126, 12_000)],
    },
];

#[test]
fn every_board_draws_the_hosts_digits_at_the_cost_that_is_certified() {
    let Some(tools) = device_tools() else { return };
    let mut found = Certificate::new(&tools);
    for board in &BOARDS {
        let bins: Vec<&str> = board.limits.iter().map(|limits| limits.precision).collect();
        let programs = build(&tools, board, &bins, None);
        for (limits, program) in board.limits.iter().zip(&programs) {
            let name = format!("{} {}", board.machine, limits.precision);
            let (pixels, figures) = run(&tools, board, program);
            assert!(pixels == host(limits.precision), "{name}: other pixels than the host's");
            let size = Size::of(program);
            let row = Row {
                name: format!("{} | {} | {}", board.cpu, board.machine, limits.precision),
                costs: [size.flash, size.ram, figure(&figures, "stack"), instructions(board, &figures)],
                panics: size.panics,
                allocators: size.allocators,
                hash: sha256(&pixels),
            };
            let [flash, _, stack, instructions] = row.costs;
            let code = flash - weights(limits.precision);
            assert!(instructions <= limits.instructions as u64, "{name}: {instructions} instructions an image");
            assert!(stack <= limits.stack as u64, "{name}: {stack} bytes of stack");
            assert!(code <= limits.code, "{name}: {code} bytes of flash beside the weights");
            assert_eq!((row.panics, row.allocators), (0, 0), "{name}: symbols of panics and of allocators");
            found.rows.push(row);
        }
    }
    found.compare();
}

#[test]
fn a_cortex_m4f_draws_faster_than_c_and_emlearn() {
    /// Times as fast as each peer, at least.
    const LEAST: f64 = 1.9;
    let Some(tools) = device_tools() else { return };
    let Some(python) = tests::peers_python() else { return };
    let board = BOARDS.iter().find(|board| board.machine == "mps2-an386").unwrap();
    let (_, figures) = run(&tools, board, &build(&tools, board, &["f32"], None)[0]);
    let ours = instructions(board, &figures);

    let folder = device_target().join("peers");
    let sources = root().join("tests/peers/device");
    fs::create_dir_all(&folder).unwrap();
    passes(
        Command::new(python)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
            .args(["--only-binary", ":all:", "--upgrade", "--target"])
            .args([&folder, Path::new("-r"), &sources.join("emlearn.txt")]),
    );
    fs::write(folder.join("weights.bin"), GENERATOR.as_bytes()).unwrap();
    let z: Vec<u8> = (0..SEEDS).flat_map(|seed| latent_of(seed).numbers()).flat_map(f32::to_le_bytes).collect();
    fs::write(folder.join("z.bin"), z).unwrap();
    for peer in ["plain", "emlearn"] {
        let program = folder.join(peer).with_extension("elf");
        passes(
            Command::new(tools.join("arm-none-eabi-gcc"))
                .current_dir(&folder)
                .args(["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", "-O3", "-nostartfiles"])
                .args([Path::new("-T"), &sources.join("link.ld"), Path::new("-Iemlearn"), &sources.join("main.c")])
                .args([&sources.join(peer).with_extension("c"), Path::new("-lm"), Path::new("-o"), &program]),
        );
        let (outputs, figures) = run(&tools, board, &program);
        let outputs = outputs.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let expected = (0..SEEDS).flat_map(|seed| GENERATOR.draw_f32(&latent_of(seed)));
        assert_eq!(outputs.len(), SEEDS as usize * Image::PIXELS);
        for (output, expected) in outputs.zip(expected) {
            assert!((output - expected).abs() < 1e-4, "{peer}: another network: {output} where we have {expected}");
        }
        let theirs = instructions(board, &figures);
        let times = theirs as f64 / ours as f64;
        println!("Cortex-M4F, f32: {ours} instructions an image; {peer} {theirs}, {times:.2} times as many");
        assert!(times >= LEAST, "{peer}: {theirs} instructions, ours {ours}: {LEAST} times as many expected");
    }
}

#[test]
fn the_example_draws_the_digit_of_ones_own_model() {
    let Some(tools) = device_tools() else { return };
    let board = BOARDS.iter().find(|board| board.machine == "mps2-an386").unwrap();
    let model = root().join("tests/golden/pytorch.onnx");
    let program = &build(&tools, board, &["digit"], Some(&model))[0];
    let (text, _) = run(&tools, board, program);
    let mut gen_ = tests::program("runtime");
    gen_.args(["gen", "--seed", "42", "--precision", "int8", "--format", "raw", "--model"]).arg(model);
    let (output, stderr) = tests::run(&mut gen_);
    let image = Image(output.stdout.try_into().unwrap_or_else(|_| panic!("an image expected; {stderr}")));
    assert_ne!(image, int8::generate(42), "the shipped model's digit");
    assert_eq!(String::from_utf8(text).unwrap(), format!("{image:?}"));
}

#[test]
fn web_assembly_draws_the_hosts_digits() {
    /// Imports would be undefined symbols, that of a panic among them.
    const DRAW: &str = "
        const module = new WebAssembly.Module(require('fs').readFileSync(process.argv[1]));
        if (WebAssembly.Module.imports(module).length) throw 'imports: ' + JSON.stringify(WebAssembly.Module.imports(module));
        const { exports } = new WebAssembly.Instance(module);
        const images = [];
        for (let seed = 0n; seed < BigInt(process.argv[3]); seed++) {
            const at = exports[process.argv[2]](seed);
            images.push(Buffer.from(exports.memory.buffer.slice(at, at + 784)));
        }
        process.stdout.write(Buffer.concat(images));";
    let Some(tools) = device_tools() else { return };
    let manifest = root().join("tests/wasm/Cargo.toml");
    let build = ["build", "--quiet", "--release", "--locked", "--target=wasm32-unknown-unknown", "--manifest-path"];
    passes(
        Command::new(env!("CARGO"))
            .args(build)
            .arg(manifest)
            .env("CARGO_TARGET_DIR", device_target())
            .env("RUSTC", tools.join("rustc"))
            .env_remove("RUSTFLAGS"),
    );
    let module = device_target().join("wasm32-unknown-unknown/release/wasm.wasm");
    for precision in ["f32", "int8"] {
        let mut node = Command::new("node");
        node.args(["-e", DRAW]).arg(&module).args([format!("draw_{precision}"), SEEDS.to_string()]);
        let (output, stderr) = tests::run(&mut node);
        assert!(output.status.success(), "{stderr}");
        assert!(
            output.stdout == host(precision),
            "{precision}: other pixels than the host's: {}",
            sha256(&output.stdout)
        );
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn passes(command: &mut Command) {
    let (output, stderr) = tests::run(command);
    assert!(output.status.success(), "{}\n{stderr}", String::from_utf8_lossy(&output.stdout));
}

/// Programs of runtime/firmware for a board, with the shipped model or another.
fn build(tools: &Path, board: &Board, bins: &[&str], model: Option<&Path>) -> Vec<PathBuf> {
    // Boards share a folder, for what they share: one at a time, and what comes out is copied elsewhere. Boards with the same CPU
    // and memory share their programs too.
    static BUILT: Mutex<Vec<PathBuf>> = Mutex::new(vec![]);
    let mut built = BUILT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let target = device_target();
    let kept = |bin: &&str| {
        let kept = target.join(format!("{}-{bin}{}", board.memory, if model.is_some() { "-own" } else { "" }));
        kept.with_extension(board.target)
    };
    let programs: Vec<PathBuf> = bins.iter().map(kept).collect();
    if programs.iter().all(|program| built.contains(program)) {
        return programs;
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--release", "--locked", "--target", board.target])
        .args(bins.iter().flat_map(|bin| ["--bin", bin]))
        .current_dir(root().join("runtime/firmware"))
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTC", tools.join("rustc"))
        .env("BOARD", board.memory)
        .env_remove("RUSTFLAGS");
    match model {
        Some(model) => cargo.env("GENERATOR_ONNX", model),
        None => cargo.env_remove("GENERATOR_ONNX"),
    };
    passes(&mut cargo);
    for (bin, program) in bins.iter().zip(&programs) {
        fs::copy(target.join(board.target).join("release").join(bin), program).unwrap();
    }
    built.extend(programs.clone());
    programs
}

/// What a program writes on a board, to standard output and to standard error.
fn run(tools: &Path, board: &Board, program: &Path) -> (Vec<u8>, String) {
    let risc_v = board.target.starts_with("riscv");
    let mut qemu = Command::new("timeout");
    qemu.arg("600").arg(tools.join(if risc_v { "qemu-system-riscv32" } else { "qemu-system-arm" }));
    if risc_v {
        qemu.args(["-bios", "none"]);
    }
    qemu.args(["-machine", board.machine, "-display", "none", "-monitor", "none", "-serial", "none"])
        .args(["-semihosting-config", "enable=on,target=native", "-icount", &format!("shift={SHIFT}"), "-kernel"])
        .arg(program);
    let (output, stderr) = tests::run(&mut qemu);
    assert!(output.status.success(), "{}: {} {stderr}", program.display(), output.status);
    (output.stdout, stderr)
}

/// The pixels that the host draws.
fn host(precision: &str) -> Vec<u8> {
    let draw = if precision == "f32" { runtime::generate } else { int8::generate };
    (0..SEEDS).flat_map(|seed| draw(seed).0).collect()
}

fn weights(precision: &str) -> u64 {
    if precision == "f32" { size_of::<runtime::Generator>() as u64 } else { size_of::<int8::Generator>() as u64 }
}

/// The number after a name on a line of its own.
fn figure(lines: &str, name: &str) -> u64 {
    let figure = lines.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    figure.unwrap_or_else(|| panic!("a line {name:?} expected in {lines:?}"))
}

fn instructions(board: &Board, figures: &str) -> u64 {
    let ticks = figure(figures, "ticks");
    assert!(ticks < 0xff_ffff || board.machine == "virt", "{}: the clock came round", board.machine);
    (ticks as f64 * board.tick / f64::from(1 << SHIFT)).round() as u64
}

/// What a program takes before it runs.
struct Size {
    /// Code, constants, and what variables start with.
    flash: u64,
    /// Variables; not the stack.
    ram: u64,
    panics: usize,
    allocators: usize,
}

impl Size {
    fn of(program: &Path) -> Self {
        let bytes = fs::read(program).unwrap();
        let elf = object::File::parse(&*bytes).unwrap();
        let (mut flash, mut ram) = (0, 0);
        for section in elf.sections() {
            let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
            let has = |flag: u32| sh_flags & u64::from(flag) != 0;
            let free = [".stack", ".heap"].contains(&section.name().unwrap()); // riscv-rt's word for what is left of the RAM
            if has(object::elf::SHF_ALLOC) && !free {
                let stored = section.file_range().is_some_and(|(_, size)| size > 0);
                flash += if stored { section.size() } else { 0 };
                ram += if has(object::elf::SHF_WRITE) { section.size() } else { 0 };
            }
        }
        let symbols: Vec<&str> = elf.symbols().filter_map(|symbol| symbol.name().ok()).collect();
        assert!(symbols.iter().any(|name| name.contains("GENERATOR") || name.contains("INT8")), "no symbols: stripped");
        let count = |names: &[&str]| symbols.iter().filter(|s| names.iter().any(|name| s.contains(name))).count();
        Self {
            flash,
            ram,
            panics: count(&["panic", "rust_begin_unwind", "unwrap_failed"]),
            allocators: count(&["alloc", "sbrk"]),
        }
    }
}

/// runtime/CERTIFICATE.md, as found now.
struct Certificate {
    rustc: String,
    rows: Vec<Row>,
}

struct Row {
    /// CPU, machine and precision.
    name: String,
    /// Flash, static RAM, stack, instructions.
    costs: [u64; 4],
    panics: usize,
    allocators: usize,
    hash: String,
}

impl Certificate {
    /// A figure may grow by this much, for another version of the compiler.
    const GROWTH: f64 = 1.02;

    fn new(tools: &Path) -> Self {
        let rustc = Command::new(tools.join("rustc")).arg("--version").output().expect("rustc runs").stdout;
        let rustc = String::from_utf8_lossy(&rustc).split(' ').take(2).collect::<Vec<_>>().join(" ");
        Self { rustc, rows: vec![] }
    }

    /// With the file: hashes are equal, no figure has grown, and nothing is missing on either side.
    fn compare(&self) {
        let path = root().join("runtime/CERTIFICATE.md");
        if env::var_os("BLESS").is_some() {
            fs::write(&path, self.text()).unwrap();
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let certified: Vec<Vec<&str>> = text.lines().filter(|line| line.starts_with("| ")).skip(1).map(cells).collect();
        let found = self.text();
        let found: Vec<Vec<&str>> = found.lines().filter(|line| line.starts_with("| ")).skip(1).map(cells).collect();
        let names = |rows: &[Vec<&str>]| rows.iter().map(|row| row[..3].join(" ")).collect::<Vec<_>>();
        let how = "BLESS=1 tests/run rewrites runtime/CERTIFICATE.md";
        assert_eq!(names(&certified), names(&found), "rows certified, and found; {how}");
        for (certified, found) in certified.iter().zip(&found) {
            let name = found[..3].join(" ");
            for ((what, certified), found) in COLUMNS.iter().zip(certified).zip(found).skip(3) {
                match (number(certified), number(found)) {
                    (Some(most), Some(found)) => {
                        assert!(found <= most * Self::GROWTH, "{name}: {what}: {most} certified, {found} found; {how}");
                    }
                    _ => assert_eq!(certified, found, "{name}: {what}, certified and found; {how}"),
                }
            }
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "# What a digit costs\n\n\
             Written by `BLESS=1 tests/run`. `tests/run` runs each of these programs (`runtime/firmware`) in QEMU, and fails where a \
             hash differs or a\nfigure has grown by more than 2 %. Compiled by {}.\n\n\
             - flash: code, constants and weights, in bytes, of the whole program that measures and writes images\n\
             - static RAM: variables, in bytes\n\
             - stack: the deepest that drawing an image row by row reaches, in bytes, by a painted pattern\n\
             - instructions: for one image from its seed, by QEMU's `-icount`\n\
             - panics, allocators: how many symbols of them the program has\n\
             - SHA-256: of the images of seeds 0 to {}, which are the host's\n\n",
            self.rustc,
            SEEDS - 1
        );
        let _ = writeln!(text, "| {} |\n|---|---|---|{}---|", COLUMNS.join(" | "), "--:|".repeat(6));
        for row in &self.rows {
            let costs = row.costs.map(spaced).join(" | ");
            let _ = writeln!(text, "| {} | {costs} | {} | {} | `{}` |", row.name, row.panics, row.allocators, row.hash);
        }
        text
    }
}

const COLUMNS: [&str; 10] = [
    "CPU",
    "QEMU machine",
    "precision",
    "flash",
    "static RAM",
    "stack",
    "instructions",
    "panics",
    "allocators",
    "SHA-256",
];

fn cells(line: &str) -> Vec<&str> {
    line.trim_matches(['|', ' ']).split(" | ").collect()
}

/// 1234567 as 1,234,567.
fn spaced(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

fn number(cell: &str) -> Option<f64> {
    cell.replace(',', "").parse().ok()
}
