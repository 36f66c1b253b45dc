//! Draws handwritten digits with a GAN's generator: no heap, no math library, the same bytes everywhere.
//!
//! ```
//! let digit = runtime::generate(42); // 28 × 28 grey levels
//! assert_eq!(digit.row(14).len(), 28);
//! assert_eq!(digit, runtime::generate(42));
//! ```
//!
//! A seed names one image of a generator: it has the same 784 bytes on every CPU, alone or in a batch. [`generator`] says why.
//! Another generator draws another image of the same seed; [`WEIGHTS_SHA256`] names the built-in one.
//!
//! Nothing here allocates, and once built nothing can fail or panic. `cli` is the one module that needs `std`.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![warn(missing_docs)]

mod arch;
#[cfg(feature = "capi")]
pub mod capi;
#[cfg(feature = "cli")]
pub mod cli;
mod dense;
mod generate;
pub mod generator;
mod generator_int8;
mod image;
pub mod latent;
#[cfg(feature = "cli")]
mod onnx;
pub mod png;
#[cfg(feature = "cli")]
mod quantize;
mod weights;

pub use arch::{Kernel, tanh};
pub use generate::Generate;
use generate::Network;
pub use generator::Generator;
pub use image::Image;
use latent::LatentStream;
pub use latent::{Class, Digit, Latent};
pub use weights::{CLASSES, GENERATOR, METADATA, WEIGHTS_SHA256};

/// The image of a seed.
pub fn generate(seed: u64) -> Image {
    GENERATOR.draw(&latent_of(seed))
}

/// Calls `row` with the 28 rows of the image of a seed, from top to bottom. Takes about 1 KB of stack and no other memory.
///
/// ```
/// let mut pixels: Vec<u8> = vec![];
/// runtime::generate_rows(42, |row: &[u8; 28]| pixels.extend(row));
/// assert_eq!(pixels, runtime::generate(42).0);
/// ```
pub fn generate_rows(seed: u64, row: impl FnMut(&[u8; Image::SIDE])) {
    GENERATOR.rows(latent_stream(seed), row);
}

/// Fills `images` with the images of `seeds`, in order: the bytes of [`generate`], in less time. If the seeds run out first,
/// the remaining images keep their pixels.
pub fn generate_batch(seeds: &[u64], images: &mut [Image]) {
    GENERATOR.draw_batch(&mut seeds.iter().map(|&seed| latent_of(seed)), images);
}

/// The image of `class` in the handwriting of a seed; `None` if the generator has another number of classes.
///
/// ```
/// let seven = runtime::class("7").and_then(|seven| runtime::generate_class(42, seven));
/// assert!(seven.is_some());
/// ```
pub fn generate_class(seed: u64, class: Class) -> Option<Image> {
    (class.classes() == CLASSES.len()).then(|| GENERATOR.draw(&Latent::with_class(seed, class)))
}

/// The image of `digit` in the handwriting of a seed; `None` if the generator has no class of this name.
pub fn generate_digit(seed: u64, digit: Digit) -> Option<Image> {
    Class::of_digit(digit, CLASSES).and_then(|class| generate_class(seed, class))
}

/// The built-in generator's class with the name `wanted`. If no class has this name, the class with this number; `None` if there
/// is none either.
pub fn class(wanted: &str) -> Option<Class> {
    Class::find(wanted, CLASSES)
}

/// The z of a seed for the built-in generator.
pub fn latent_of(seed: u64) -> Latent {
    Latent::of_seed(seed, CLASSES.len())
}

/// The numbers of [`latent_of`], one after another.
fn latent_stream(seed: u64) -> LatentStream {
    LatentStream::new(seed, Class::of(seed, CLASSES.len()))
}

/// The same network in integers: a quarter of the bytes, no FPU needed, and images that differ from f32's by 1.7 grey levels in
/// the mean. Every CPU gives the same bytes.
pub mod int8 {
    use super::generate::{Generate, Network};
    use super::{CLASSES, Class, Digit, Image, Latent, latent_of, latent_stream};

    pub use super::arch::tanh_pixel;
    pub use super::generator_int8::Generator;
    pub use super::weights::INT8 as GENERATOR;

    /// The image of a seed.
    pub fn generate(seed: u64) -> Image {
        GENERATOR.draw(&latent_of(seed))
    }

    /// Calls `row` with the 28 rows of the image of a seed, from top to bottom. Takes less than 1 KB of stack and no other
    /// memory.
    pub fn generate_rows(seed: u64, row: impl FnMut(&[u8; Image::SIDE])) {
        GENERATOR.rows(latent_stream(seed), row);
    }

    /// Fills `images` with the images of `seeds`, in order: the bytes of [`generate`], in less time. If the seeds run out
    /// first, the remaining images keep their pixels.
    pub fn generate_batch(seeds: &[u64], images: &mut [Image]) {
        GENERATOR.draw_batch(&mut seeds.iter().map(|&seed| latent_of(seed)), images);
    }

    /// The image of `class` in the handwriting of a seed; `None` if the generator has another number of classes.
    pub fn generate_class(seed: u64, class: Class) -> Option<Image> {
        (class.classes() == CLASSES.len()).then(|| GENERATOR.draw(&Latent::with_class(seed, class)))
    }

    /// The image of `digit` in the handwriting of a seed; `None` if the generator has no class of this name.
    pub fn generate_digit(seed: u64, digit: Digit) -> Option<Image> {
        Class::of_digit(digit, CLASSES).and_then(|class| generate_class(seed, class))
    }
}
