//! The C interface of include/runtime.h, which documents it. Both precisions share the functions below.

use core::ffi::{c_char, c_void};
use core::slice;

use crate::generate::{Generate, Network};
use crate::image::Image;
use crate::latent::{Digit, LATENT, Latent};
use crate::weights::{CONDITIONAL, GENERATOR, INT8};
use crate::{latent_of, latent_stream, png};

/// Success.
const OK: i32 = 0;
/// A pointer is null.
const NULL: i32 = -1;
/// The caller asks for a digit, but the generator is not class-conditional.
const UNCONDITIONAL: i32 = -2;
/// The digit is above 9.
const NO_DIGIT: i32 = -3;
/// The buffer is too small.
const TOO_SMALL: i32 = -4;

type Pixels = [u8; Image::PIXELS];
type Row = Option<unsafe extern "C" fn(*mut c_void, *const u8)>;

/// # Safety
/// `pixels` is null or valid for writes of 784 bytes.
unsafe fn write_image(generator: &impl Generate, z: &Latent, pixels: *mut u8) -> i32 {
    // SAFETY: the caller promises it; bytes have no alignment.
    match unsafe { pixels.cast::<Pixels>().as_mut() } {
        Some(pixels) => {
            *pixels = generator.draw(z).0;
            OK
        }
        None => NULL,
    }
}

/// # Safety
/// As for [`write_image`].
unsafe fn write_digit(generator: &impl Generate, seed: u64, digit: u8, pixels: *mut u8) -> i32 {
    match Digit::new(digit) {
        _ if !CONDITIONAL => UNCONDITIONAL,
        None => NO_DIGIT,
        // SAFETY: the caller promises it.
        Some(digit) => unsafe { write_image(generator, &Latent::with_digit(seed, digit), pixels) },
    }
}

/// # Safety
/// `seeds` is null or valid for reads of `n` numbers, `pixels` is null or valid for writes of 784 · `n` bytes, and the two do
/// not overlap.
unsafe fn write_batch(generator: &impl Generate, seeds: *const u64, n: usize, pixels: *mut u8) -> i32 {
    if seeds.is_null() || pixels.is_null() {
        return NULL;
    }
    // SAFETY: the caller promises it; an `Image` is 784 bytes of any value.
    let (seeds, images) = unsafe { (slice::from_raw_parts(seeds, n), slice::from_raw_parts_mut(pixels.cast(), n)) };
    generator.draw_batch(&mut seeds.iter().map(|&seed| latent_of(seed)), images);
    OK
}

/// # Safety
/// `row` may be called with `context` and a pointer to 28 bytes.
unsafe fn write_rows(generator: &impl Network, seed: u64, row: Row, context: *mut c_void) -> i32 {
    let Some(row) = row else { return NULL };
    // SAFETY: the caller promises it.
    generator.rows(latent_stream(seed), |pixels| unsafe { row(context, pixels.as_ptr()) });
    OK
}

macro_rules! functions {
    ($generator:ident: $generate:ident, $digit:ident, $batch:ident, $rows:ident, $draw:ident) => {
        /// # Safety
        /// See include/runtime.h.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $generate(seed: u64, pixels: *mut u8) -> i32 {
            // SAFETY: the caller passes pointers as the header demands.
            unsafe { write_image(&$generator, &latent_of(seed), pixels) }
        }

        /// # Safety
        /// See include/runtime.h.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $digit(seed: u64, digit: u8, pixels: *mut u8) -> i32 {
            // SAFETY: the caller passes pointers as the header demands.
            unsafe { write_digit(&$generator, seed, digit, pixels) }
        }

        /// # Safety
        /// See include/runtime.h.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $batch(seeds: *const u64, n: usize, pixels: *mut u8) -> i32 {
            // SAFETY: the caller passes pointers as the header demands.
            unsafe { write_batch(&$generator, seeds, n, pixels) }
        }

        /// # Safety
        /// See include/runtime.h.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $rows(seed: u64, row: Row, context: *mut c_void) -> i32 {
            // SAFETY: the caller passes pointers as the header demands.
            unsafe { write_rows(&$generator, seed, row, context) }
        }

        /// # Safety
        /// See include/runtime.h.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $draw(z: *const f32, pixels: *mut u8) -> i32 {
            // SAFETY: the caller passes pointers as the header demands.
            match unsafe { z.cast::<[f32; LATENT]>().as_ref() } {
                // SAFETY: the caller passes pointers as the header demands.
                Some(z) => unsafe { write_image(&$generator, &Latent::from_numbers(z), pixels) },
                None => NULL,
            }
        }
    };
}

functions!(
    GENERATOR: mnist_gan_generate, mnist_gan_generate_digit, mnist_gan_generate_batch, mnist_gan_generate_rows, mnist_gan_draw
);
functions!(
    INT8: mnist_gan_generate_int8, mnist_gan_generate_digit_int8, mnist_gan_generate_batch_int8, mnist_gan_generate_rows_int8,
    mnist_gan_draw_int8
);

/// # Safety
/// See include/runtime.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mnist_gan_latent(seed: u64, z: *mut f32) -> i32 {
    // SAFETY: the caller passes pointers as the header demands.
    match unsafe { z.cast::<[f32; LATENT]>().as_mut() } {
        Some(z) => {
            *z = latent_of(seed).numbers();
            OK
        }
        None => NULL,
    }
}

/// # Safety
/// See include/runtime.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mnist_gan_png(pixels: *const u8, file: *mut u8, capacity: usize, size: *mut usize) -> i32 {
    // SAFETY: the caller passes pointers as the header demands.
    let (Some(pixels), Some(size)) = (unsafe { pixels.cast::<Pixels>().as_ref() }, unsafe { size.as_mut() }) else {
        return NULL;
    };
    if file.is_null() {
        return NULL;
    }
    let png = png::encode(&Image(*pixels));
    *size = png.len();
    // SAFETY: the caller passes pointers as the header demands.
    match unsafe { slice::from_raw_parts_mut(file, capacity) }.get_mut(..png.len()) {
        Some(file) => {
            file.copy_from_slice(&png);
            OK
        }
        None => TOO_SMALL,
    }
}

/// 1 if the built-in generator is class-conditional, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn mnist_gan_conditional() -> i32 {
    i32::from(CONDITIONAL)
}

/// The library's version, as text that ends with a zero byte.
#[unsafe(no_mangle)]
pub extern "C" fn mnist_gan_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// A static library without std must define what a panic does. No function here panics.
#[cfg(all(not(feature = "std"), not(test)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

const _: () = assert!(size_of::<Image>() == Image::PIXELS && align_of::<Image>() == 1);
