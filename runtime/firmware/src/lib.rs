//! What the programs for boards share: the entry point, output through the host, and measuring the cost of an image.
#![no_std]

pub mod cost;
pub mod host;

#[cfg(target_arch = "arm")]
pub use cortex_m_rt::entry;
#[cfg(target_arch = "riscv32")]
pub use riscv_rt::entry;

unsafe extern "C" {
    /// Nothing defines this function, so a program that can panic does not link.
    fn something_here_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: no program that links calls it.
    unsafe { something_here_can_panic() }
}
