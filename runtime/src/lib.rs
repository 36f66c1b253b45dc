//! Draws handwritten digits with a GAN's generator: no heap, no libm, the same bytes everywhere.
//!
//! ```
//! let digit = runtime::generate(42);
//! assert_eq!(digit.row(14).len(), 28);
//! assert_eq!(digit, runtime::generate(42));
//! ```
//!
//! A seed names one image for ever: the same 784 bytes on every CPU, alone or in a batch. That holds because every
//! floating-point operation and its order is fixed, see [`generator`].
#![no_std]
#![warn(missing_docs)]

#[cfg(any(test, feature = "std"))]
extern crate std;

#[cfg(feature = "capi")]
pub mod capi;
pub mod dense;
pub mod generator;
mod image;
pub mod int8;
pub mod latent;
pub mod png;
mod weights;

pub use dense::Kernel;
pub use generator::Generator;
pub use image::Image;
use latent::Numbers;
pub use latent::{Digit, Latent};
pub use weights::{CONDITIONAL, GENERATOR};

/// The digit that a seed names.
pub fn generate(seed: u64) -> Image {
    GENERATOR.draw(&latent_of(seed))
}

/// The digit that a seed names from its first row to its last, in about 1 KB of stack and no other memory.
///
/// ```
/// let mut pixels: Vec<u8> = vec![];
/// runtime::generate_rows(42, |row: &[u8; 28]| pixels.extend(row));
/// assert_eq!(pixels, runtime::generate(42).0);
/// ```
pub fn generate_rows(seed: u64, row: impl FnMut(&[u8; Image::SIDE])) {
    GENERATOR.rows(numbers_of(seed), row);
}

/// The digits of many seeds, byte for byte those of [`generate`], in less time. The longer slice's rest is left alone.
pub fn generate_batch(seeds: &[u64], images: &mut [Image]) {
    GENERATOR.draw_batch(seeds.iter().map(|&seed| latent_of(seed)), images);
}

/// The digit asked for, in the handwriting that a seed names; `None` where the generator is not class-conditional
/// (see [`CONDITIONAL`]).
pub fn generate_digit(seed: u64, digit: Digit) -> Option<Image> {
    CONDITIONAL.then(|| GENERATOR.draw(&Latent::with_digit(seed, digit)))
}

/// The z of a seed for the built-in generator.
pub fn latent_of(seed: u64) -> Latent {
    Latent::of_seed(seed, CONDITIONAL)
}

/// As [`latent_of`], one number after another.
fn numbers_of(seed: u64) -> Numbers {
    Numbers::new(seed, CONDITIONAL.then(|| Digit::of(seed)))
}
