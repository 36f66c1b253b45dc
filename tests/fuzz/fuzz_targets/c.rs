//! The C interface: whatever the arguments, it returns the code and writes the bytes that the header says, and no others.
//!
//! An input is the function, flags, a size and a seed. The flags choose the precision, null pointers and an odd address. A
//! size is at most that of the buffer, or larger than any memory.
#![no_main]

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use libfuzzer_sys::fuzz_target;
use runtime::capi::*;
use runtime::{CLASSES, Class, Digit, Image, int8, png};

/// Images in the buffer: more than a kernel draws in one pass.
const N: usize = 20;
/// Fills the buffer, to show where a function writes.
const BLANK: u8 = 0xA5;

const OK: i32 = 0;
const NULL: i32 = -1;
const NO_DIGIT: i32 = -3;
const TOO_SMALL: i32 = -4;
const TOO_LARGE: i32 = -5;
const NO_CLASS: i32 = -7;

fuzz_target!(|input: (u8, u8, u64, u64)| {
    let (function, flags, size, seed) = input;
    let [no_output, no_input, is_odd, is_int8, no_size] = [0, 1, 2, 3, 4].map(|bit| flags >> bit & 1 == 1);
    let image = |seed| if is_int8 { int8::generate(seed) } else { runtime::generate(seed) };
    let mut buffer = vec![BLANK; N * Image::PIXELS + 1];
    let at = usize::from(is_odd);
    let output = if no_output { null_mut() } else { buffer[at..].as_mut_ptr() };
    let (is_huge, small) = (size >> 63 == 1, size as usize % (N * Image::PIXELS));
    let mut nulls = no_output;
    // What the function returned, and the bytes or the error that are right.
    let (code, expected) = match function % 7 {
        0 => {
            let generate = if is_int8 { mnist_gan_generate_int8 } else { mnist_gan_generate };
            (unsafe { generate(seed, output) }, Ok(image(seed).0.to_vec()))
        }
        1 => {
            let generate = if is_int8 { mnist_gan_generate_digit_int8 } else { mnist_gan_generate_digit };
            let draw = if is_int8 { int8::generate_digit } else { runtime::generate_digit };
            let drawn = Digit::new(size as u8).and_then(|digit| draw(seed, digit));
            (unsafe { generate(seed, size as u8, output) }, drawn.map(|image| image.0.to_vec()).ok_or(NO_DIGIT))
        }
        2 => {
            let generate = if is_int8 { mnist_gan_generate_batch_int8 } else { mnist_gan_generate_batch };
            let seeds = [seed; N];
            let n = if is_huge { size as usize } else { small % (N + 1) };
            nulls |= no_input;
            let code = unsafe { generate(if no_input { null() } else { seeds.as_ptr() }, n, output) };
            (code, if is_huge { Err(TOO_LARGE) } else { Ok(image(seed).0.repeat(n)) })
        }
        3 => {
            let generate = if is_int8 { mnist_gan_generate_rows_int8 } else { mnist_gan_generate_rows };
            let (row, mut rows) = (if no_input { None } else { Some(append as _) }, Vec::<u8>::new());
            nulls = no_input;
            let code = unsafe { generate(seed, row, (&raw mut rows).cast()) };
            buffer[at..][..rows.len()].copy_from_slice(&rows);
            (code, Ok(image(seed).0.to_vec()))
        }
        4 => {
            let draw = if is_int8 { mnist_gan_draw_int8 } else { mnist_gan_draw };
            let mut z = [0.0; 100];
            assert_eq!(unsafe { mnist_gan_latent(seed, z.as_mut_ptr()) }, OK);
            nulls |= no_input;
            (unsafe { draw(if no_input { null() } else { z.as_ptr() }, output) }, Ok(image(seed).0.to_vec()))
        }
        5 => {
            let generate = if is_int8 { mnist_gan_generate_class_int8 } else { mnist_gan_generate_class };
            let draw = if is_int8 { int8::generate_class } else { runtime::generate_class };
            let index = if is_huge { size as u32 } else { size as u32 % 12 };
            let drawn = Class::new(index as usize, CLASSES.len()).and_then(|class| draw(seed, class));
            assert_eq!(mnist_gan_class_name(index).is_null(), drawn.is_none());
            (unsafe { generate(seed, index, output) }, drawn.map(|image| image.0.to_vec()).ok_or(NO_CLASS))
        }
        _ => {
            let (image, mut length) = (image(seed), 0);
            let (pixels, length) =
                (if no_input { null() } else { image.0.as_ptr() }, if no_size { null_mut() } else { &raw mut length });
            let capacity = if is_huge { size as usize } else { small };
            nulls |= no_input || no_size;
            let png = png::encode(&image).to_vec();
            let expected = match is_huge {
                true => Err(TOO_LARGE),
                false if capacity < png.len() => Err(TOO_SMALL),
                false => Ok(png),
            };
            (unsafe { mnist_gan_png(pixels, output, capacity, length) }, expected)
        }
    };
    let written = match expected {
        Ok(bytes) if !nulls => {
            assert_eq!(code, OK);
            bytes
        }
        expected => {
            assert!(expected == Err(code) || (nulls && code == NULL), "{code}");
            vec![]
        }
    };
    assert_eq!(buffer[at..][..written.len()], written);
    buffer[at..][..written.len()].fill(BLANK);
    assert!(buffer.iter().all(|&byte| byte == BLANK));
});

/// Appends a row to the `Vec` in `context`.
unsafe extern "C" fn append(context: *mut c_void, row: *const u8) {
    let (rows, row) = unsafe { (&mut *context.cast::<Vec<u8>>(), std::slice::from_raw_parts(row, Image::SIDE)) };
    rows.extend(row);
}
