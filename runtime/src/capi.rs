//! The C interface that include/runtime.h describes.

use core::ffi::{c_char, c_void};
use core::slice;

use crate::{CONDITIONAL, Digit, Image, Latent, int8, png};

/// Done.
const OK: i32 = 0;
/// A pointer is null.
const NULL: i32 = -1;
/// A digit was asked for, and the generator cannot be told one.
const UNCONDITIONAL: i32 = -2;
/// A digit from 0 to 9 expected.
const NO_DIGIT: i32 = -3;
/// The buffer is too small.
const TOO_SMALL: i32 = -4;

type Pixels = [u8; Image::PIXELS];
type Row = Option<unsafe extern "C" fn(*mut c_void, *const u8)>;

/// SAFETY: `pixels` is null, or may be written for 784 bytes.
unsafe fn write(pixels: *mut u8, draw: impl FnOnce() -> Image) -> i32 {
    // SAFETY: as above; bytes have no alignment.
    match unsafe { pixels.cast::<Pixels>().as_mut() } {
        Some(pixels) => {
            *pixels = draw().0;
            OK
        }
        None => NULL,
    }
}

/// SAFETY: as for [`write`].
unsafe fn write_digit(digit: u8, pixels: *mut u8, draw: impl FnOnce(Digit) -> Image) -> i32 {
    match Digit::new(digit) {
        _ if !CONDITIONAL => UNCONDITIONAL,
        None => NO_DIGIT,
        // SAFETY: as above.
        Some(digit) => unsafe { write(pixels, || draw(digit)) },
    }
}

/// SAFETY: `seeds` is null, or may be read for `n` numbers; `pixels` is null, or may be written for 784 · `n` bytes; the two
/// do not overlap.
unsafe fn write_batch(seeds: *const u64, n: usize, pixels: *mut u8, draw: fn(&[u64], &mut [Image])) -> i32 {
    if seeds.is_null() || pixels.is_null() {
        return NULL;
    }
    // SAFETY: as above; an `Image` is 784 bytes, any of them.
    draw(unsafe { slice::from_raw_parts(seeds, n) }, unsafe { slice::from_raw_parts_mut(pixels.cast(), n) });
    OK
}

macro_rules! functions {
    ($generate:ident, $digit:ident, $batch:ident, $rows:ident, $draw:ident: $($precision:ident)::*) => {
        /// # Safety
        /// See include/runtime.h.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $generate(seed: u64, pixels: *mut u8) -> i32 {
            // SAFETY: the header asks for it.
            unsafe { write(pixels, || $($precision)::*::generate(seed)) }
        }

        /// # Safety
        /// See include/runtime.h.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $digit(seed: u64, digit: u8, pixels: *mut u8) -> i32 {
            // SAFETY: the header asks for it.
            unsafe { write_digit(digit, pixels, |digit| $($precision)::*::generate_digit(seed, digit).unwrap_or(Image::BLANK)) }
        }

        /// # Safety
        /// See include/runtime.h.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $batch(seeds: *const u64, n: usize, pixels: *mut u8) -> i32 {
            // SAFETY: the header asks for it.
            unsafe { write_batch(seeds, n, pixels, $($precision)::*::generate_batch) }
        }

        /// # Safety
        /// See include/runtime.h.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $rows(seed: u64, row: Row, context: *mut c_void) -> i32 {
            let Some(row) = row else { return NULL };
            // SAFETY: the header asks for a function that takes its context and 28 bytes.
            $($precision)::*::generate_rows(seed, |pixels| unsafe { row(context, pixels.as_ptr()) });
            OK
        }

        /// # Safety
        /// See include/runtime.h.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $draw(z: *const f32, pixels: *mut u8) -> i32 {
            // SAFETY: the header asks for 100 numbers.
            match unsafe { z.cast::<[f32; 100]>().as_ref() } {
                // SAFETY: the header asks for it.
                Some(z) => unsafe { write(pixels, || $($precision)::*::GENERATOR.draw(&Latent::from_numbers(z))) },
                None => NULL,
            }
        }
    };
}

functions!(
    mnist_gan_generate, mnist_gan_generate_digit, mnist_gan_generate_batch, mnist_gan_generate_rows, mnist_gan_draw: crate
);
functions!(
    mnist_gan_generate_int8, mnist_gan_generate_digit_int8, mnist_gan_generate_batch_int8, mnist_gan_generate_rows_int8,
    mnist_gan_draw_int8: int8
);

/// # Safety
/// See include/runtime.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mnist_gan_latent(seed: u64, z: *mut f32) -> i32 {
    // SAFETY: the header asks for room for 100 numbers.
    match unsafe { z.cast::<[f32; 100]>().as_mut() } {
        Some(z) => {
            *z = crate::latent_of(seed).numbers();
            OK
        }
        None => NULL,
    }
}

/// # Safety
/// See include/runtime.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mnist_gan_png(pixels: *const u8, file: *mut u8, capacity: usize, size: *mut usize) -> i32 {
    // SAFETY: the header asks for 784 bytes, and for room for a number.
    let (Some(pixels), Some(size)) = (unsafe { pixels.cast::<Pixels>().as_ref() }, unsafe { size.as_mut() }) else {
        return NULL;
    };
    if file.is_null() {
        return NULL;
    }
    let png = png::encode(&Image(*pixels));
    *size = png.len();
    // SAFETY: the header asks for `capacity` bytes.
    match unsafe { slice::from_raw_parts_mut(file, capacity) }.get_mut(..png.len()) {
        Some(file) => {
            file.copy_from_slice(&png);
            OK
        }
        None => TOO_SMALL,
    }
}

/// 1 where the generator can be told the digit.
#[unsafe(no_mangle)]
pub extern "C" fn mnist_gan_conditional() -> i32 {
    i32::from(CONDITIONAL)
}

/// The library's version, as text that ends in a zero.
#[unsafe(no_mangle)]
pub extern "C" fn mnist_gan_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// A static library of its own must say what a panic does, though none of the functions here has one.
#[cfg(all(not(feature = "std"), not(test)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

const _: () = assert!(size_of::<Image>() == Image::PIXELS && align_of::<Image>() == 1);
