//! The C interface of include/runtime.h, which documents it. Both precisions share the functions below.

use core::ffi::{c_char, c_void};
use core::{ptr, slice};

use crate::generate::{Generate, Network};
use crate::image::Image;
use crate::latent::{Class, Digit, LATENT, Latent};
use crate::weights::{C_CLASSES, CLASSES, GENERATOR, INT8};
use crate::{latent_of, latent_stream, png};

/// Success.
const OK: i32 = 0;
/// A pointer is null.
const NULL: i32 = -1;
/// The caller asks for a class, but the generator is not class-conditional.
const UNCONDITIONAL: i32 = -2;
/// The digit is above 9, or the generator has no class of this name.
const NO_DIGIT: i32 = -3;
/// The buffer is too small.
const TOO_SMALL: i32 = -4;
/// A size is larger than any memory.
const TOO_LARGE: i32 = -5;
/// Input and output share memory.
const OVERLAP: i32 = -6;
/// The generator has no class of this number.
const NO_CLASS: i32 = -7;

/// C's PTRDIFF_MAX: no object is larger.
const MAX_BYTES: usize = isize::MAX as usize;

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

/// Returns the code in `class` if it is an error.
///
/// # Safety
/// As for [`write_image`].
unsafe fn write_class(generator: &impl Generate, seed: u64, class: Result<Class, i32>, pixels: *mut u8) -> i32 {
    match class {
        _ if pixels.is_null() => NULL,
        _ if CLASSES.is_empty() => UNCONDITIONAL,
        Err(code) => code,
        // SAFETY: the caller promises it.
        Ok(class) => unsafe { write_image(generator, &Latent::with_class(seed, class), pixels) },
    }
}

/// # Safety
/// `seeds` is null or valid for reads of `n` numbers, and `pixels` is null or valid for writes of 784 · `n` bytes.
unsafe fn write_batch(generator: &impl Generate, seeds: *const u64, n: usize, pixels: *mut u8) -> i32 {
    if seeds.is_null() || pixels.is_null() {
        return NULL;
    }
    if n > MAX_BYTES / Image::PIXELS {
        return TOO_LARGE;
    }
    let (first_seed, first_pixel) = (seeds.addr(), pixels.addr());
    if first_seed < first_pixel.saturating_add(n * Image::PIXELS)
        && first_pixel < first_seed.saturating_add(n * size_of::<u64>())
    {
        return OVERLAP;
    }
    // SAFETY: the caller promises it; an `Image` is 784 bytes of any value.
    let images = unsafe { slice::from_raw_parts_mut(pixels.cast(), n) };
    // SAFETY: the caller promises it for i < n, and nothing writes to `seeds`.
    let mut latents = (0..n).map(|i| latent_of(unsafe { seeds.add(i).read_unaligned() }));
    generator.draw_batch(&mut latents, images);
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
    ($generator:ident: $generate:ident, $class:ident, $digit:ident, $batch:ident, $rows:ident, $draw:ident) => {
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
        pub unsafe extern "C" fn $class(seed: u64, index: u32, pixels: *mut u8) -> i32 {
            let class = Class::new(index as usize, CLASSES.len()).ok_or(NO_CLASS);
            // SAFETY: the caller passes pointers as the header demands.
            unsafe { write_class(&$generator, seed, class, pixels) }
        }

        /// # Safety
        /// See include/runtime.h.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $digit(seed: u64, digit: u8, pixels: *mut u8) -> i32 {
            let class = Digit::new(digit).and_then(|digit| Class::of_digit(digit, CLASSES)).ok_or(NO_DIGIT);
            // SAFETY: the caller passes pointers as the header demands.
            unsafe { write_class(&$generator, seed, class, pixels) }
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
            if z.is_null() {
                return NULL;
            }
            // SAFETY: the caller passes pointers as the header demands.
            let z = unsafe { z.cast::<[f32; LATENT]>().read_unaligned() };
            // SAFETY: the caller passes pointers as the header demands.
            unsafe { write_image(&$generator, &Latent::from_numbers(&z), pixels) }
        }
    };
}

functions!(
    GENERATOR: mnist_gan_generate, mnist_gan_generate_class, mnist_gan_generate_digit, mnist_gan_generate_batch,
    mnist_gan_generate_rows, mnist_gan_draw
);
functions!(
    INT8: mnist_gan_generate_int8, mnist_gan_generate_class_int8, mnist_gan_generate_digit_int8,
    mnist_gan_generate_batch_int8, mnist_gan_generate_rows_int8, mnist_gan_draw_int8
);

/// # Safety
/// See include/runtime.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mnist_gan_latent(seed: u64, z: *mut f32) -> i32 {
    if z.is_null() {
        return NULL;
    }
    // SAFETY: the caller passes pointers as the header demands.
    unsafe { z.cast::<[f32; LATENT]>().write_unaligned(latent_of(seed).numbers()) };
    OK
}

/// # Safety
/// See include/runtime.h.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mnist_gan_png(pixels: *const u8, file: *mut u8, capacity: usize, size: *mut usize) -> i32 {
    if pixels.is_null() || file.is_null() || size.is_null() {
        return NULL;
    }
    if capacity > MAX_BYTES {
        return TOO_LARGE;
    }
    // SAFETY: the caller passes pointers as the header demands.
    let png = png::encode(&Image(unsafe { *pixels.cast::<Pixels>() }));
    // SAFETY: the caller passes pointers as the header demands.
    unsafe { size.write_unaligned(png.len()) };
    if capacity < png.len() {
        return TOO_SMALL;
    }
    // SAFETY: the caller passes pointers as the header demands, and `png` is a copy.
    unsafe { file.copy_from_nonoverlapping(png.as_ptr(), png.len()) };
    OK
}

/// 1 if the built-in generator is class-conditional, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn mnist_gan_conditional() -> i32 {
    i32::from(!CLASSES.is_empty())
}

/// The number of classes of the built-in generator, 2 to 64; 0 if it is unconditional.
#[unsafe(no_mangle)]
pub extern "C" fn mnist_gan_classes() -> u32 {
    CLASSES.len() as u32
}

/// The name of a class of the built-in generator, as UTF-8 that ends with a zero byte; null for a number that it does not have.
#[unsafe(no_mangle)]
pub extern "C" fn mnist_gan_class_name(index: u32) -> *const c_char {
    C_CLASSES.get(index as usize).map_or(ptr::null(), |name| name.as_ptr())
}

/// [`crate::WEIGHTS_SHA256`], as text that ends with a zero byte.
#[unsafe(no_mangle)]
pub extern "C" fn mnist_gan_weights_sha256() -> *const c_char {
    concat!(include_str!(concat!(env!("OUT_DIR"), "/weights.sha256")), "\0").as_ptr().cast()
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
