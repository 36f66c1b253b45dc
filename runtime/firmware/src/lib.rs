//! What the programs for boards share: an entry, the host's output, and what an image costs.
#![no_std]

pub mod cost;
pub mod host;

#[cfg(target_arch = "arm")]
pub use cortex_m_rt::entry;
#[cfg(target_arch = "riscv32")]
pub use riscv_rt::entry;

unsafe extern "C" {
    /// Nobody defines it: a program that may panic does not link.
    fn something_here_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: never linked.
    unsafe { something_here_can_panic() }
}
