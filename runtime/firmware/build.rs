//! Writes the memory layout of the board that `BOARD` names, for the linker scripts of cortex-m-rt and riscv-rt.

use std::path::PathBuf;
use std::{env, fs, process};

/// Name, then origin and KiB of flash and of RAM: the chip's, or QEMU's if that has less.
const BOARDS: [(&str, (u32, u32), (u32, u32)); 4] = [
    ("microbit", (0, 256), (0x2000_0000, 16)), // nRF51822, Cortex-M0
    ("mps2", (0, 4096), (0x2000_0000, 128)),   // Arm's FPGA boards: an385 Cortex-M3, an386 Cortex-M4F, an500 Cortex-M7
    ("netduinoplus2", (0x0800_0000, 1024), (0x2000_0000, 112)), // STM32F405, Cortex-M4F
    ("virt", (0x8000_0000, 1024), (0x8020_0000, 64)), // QEMU's generic RISC-V board
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BOARD");
    let name = env::var("BOARD").unwrap_or_default();
    let Some((_, flash, ram)) = BOARDS.iter().find(|(board, ..)| *board == name) else {
        println!("cargo::error=BOARD: {} expected, {name:?} found", BOARDS.map(|(board, ..)| board).join(", "));
        process::exit(1);
    };
    let memory = |(origin, size)| format!("ORIGIN = {origin:#x}, LENGTH = {size}K");
    let mut script = format!("MEMORY {{\n  FLASH : {}\n  RAM : {}\n}}\n", memory(*flash), memory(*ram));
    if env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "riscv32") {
        for (region, memory) in
            [("TEXT", "FLASH"), ("RODATA", "FLASH"), ("DATA", "RAM"), ("BSS", "RAM"), ("HEAP", "RAM"), ("STACK", "RAM")]
        {
            script += &format!("REGION_ALIAS(\"REGION_{region}\", {memory});\n");
        }
        println!("cargo::rustc-link-arg-bins=-Tmemory.x");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    if let Err(error) = fs::write(out.join("memory.x"), script) {
        println!("cargo::error=memory.x: {error}");
        process::exit(1);
    }
    println!("cargo::rustc-link-search={}", out.display());
    println!("cargo::rustc-link-arg-bins=-Tlink.x");
    println!("cargo::rustc-link-arg-bins=--nmagic");
}
