//! Digits in WebAssembly: each call leaves its image in the module's memory.
#![no_std]

use core::cell::UnsafeCell;

use runtime::Image;

struct Memory(UnsafeCell<Image>);
// SAFETY: a module without threads.
unsafe impl Sync for Memory {}

static IMAGE: Memory = Memory(UnsafeCell::new(Image::BLANK));

fn keep(image: Image) -> *const Image {
    // SAFETY: no reference to it lives on.
    unsafe { *IMAGE.0.get() = image };
    IMAGE.0.get()
}

/// Where the image of a seed lies, until the next call.
#[unsafe(no_mangle)]
extern "C" fn draw_f32(seed: u64) -> *const Image {
    keep(runtime::generate(seed))
}

/// The same by the integer generator.
#[unsafe(no_mangle)]
extern "C" fn draw_int8(seed: u64) -> *const Image {
    keep(runtime::int8::generate(seed))
}

unsafe extern "C" {
    /// Nobody defines it: it shows among the module's imports if anything here may panic.
    fn something_here_can_panic() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: never called.
    unsafe { something_here_can_panic() }
}
