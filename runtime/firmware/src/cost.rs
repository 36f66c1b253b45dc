//! Measures the cost of an image for CERTIFICATE.md. Instructions: QEMU's `-icount` advances the clock with each one. Stack:
//! the memory below the stack pointer is filled with a pattern, and drawing overwrites a part of it.

use core::arch::asm;
use core::hint::black_box;

use crate::host::{Stream, exit};

/// Writes the images of the seeds 0 to SEEDS − 1.
const SEEDS: u64 = 16;

/// Writes the cost of an image to standard error and images to standard output, then ends the program.
pub fn report(generate: impl Fn(u64, &mut dyn FnMut(&[u8; 28]))) -> ! {
    let draw = || {
        generate(black_box(42), &mut |row| {
            black_box(row);
        })
    };
    let stack = stack_depth(draw);
    let clock = Clock::start();
    draw();
    let ticks = clock.ticks();
    let (out, error) = (Stream::out(), Stream::error());
    error.line("stack", stack);
    error.line("ticks", ticks);
    for seed in 0..SEEDS {
        generate(seed, &mut |row| out.write(row));
    }
    exit()
}

/// The bytes of stack that `work` uses.
#[inline(never)]
fn stack_depth(work: impl Fn()) -> u32 {
    /// More bytes than any of the programs uses.
    const DEPTH: usize = 8192;
    const PAINT: u8 = 0xa5;
    let top: usize;
    // SAFETY: reads the stack pointer.
    unsafe {
        #[cfg(target_arch = "arm")]
        asm!("mov {}, sp", out(reg) top, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "riscv32")]
        asm!("mv {}, sp", out(reg) top, options(nomem, nostack, preserves_flags));
    }
    let bottom = top - DEPTH;
    // SAFETY: the memory below the stack pointer is free. The boards have more than DEPTH bytes of it, no interrupt is enabled,
    // and the loops call nothing that uses the stack.
    unsafe {
        (bottom..top).for_each(|at| (at as *mut u8).write_volatile(PAINT));
        work();
        (top - (bottom..top).find(|&at| (at as *const u8).read_volatile() != PAINT).unwrap_or(top)) as u32
    }
}

/// Cortex-M's SysTick, which counts 24 bits downwards.
#[cfg(target_arch = "arm")]
struct Clock;

#[cfg(target_arch = "arm")]
impl Clock {
    const CONTROL: *mut u32 = 0xe000_e010 as *mut u32;
    const RELOAD: *mut u32 = 0xe000_e014 as *mut u32;
    const VALUE: *mut u32 = 0xe000_e018 as *mut u32;
    const MOST: u32 = 0xff_ffff;

    fn start() -> Self {
        // SAFETY: SysTick's registers, which nothing else uses.
        unsafe {
            Self::RELOAD.write_volatile(Self::MOST);
            Self::VALUE.write_volatile(0);
            Self::CONTROL.write_volatile(0b101); // count with the CPU's clock, without interrupts
        }
        Self
    }

    /// The ticks since the start; the largest 24-bit number if there were more.
    fn ticks(self) -> u32 {
        // SAFETY: as above. Bit 16 of the control register says that the counter reached 0.
        unsafe {
            let value = Self::VALUE.read_volatile();
            if Self::CONTROL.read_volatile() >> 16 & 1 == 1 { Self::MOST } else { Self::MOST - value }
        }
    }
}

/// RISC-V's instruction counter.
#[cfg(target_arch = "riscv32")]
struct Clock(u32);

#[cfg(target_arch = "riscv32")]
impl Clock {
    fn start() -> Self {
        Self(Self::now())
    }

    fn ticks(self) -> u32 {
        Self::now().wrapping_sub(self.0)
    }

    fn now() -> u32 {
        let now;
        // SAFETY: reads a counter.
        unsafe { asm!("csrr {}, minstret", out(reg) now, options(nomem, nostack)) };
        now
    }
}
