//! The same generator in integers: 118 KB instead of 459, no floating point at all, and the same bytes everywhere because
//! integer arithmetic is exact.
//!
//! z becomes u8 in steps of 1/128. A layer's i32 sums `Σ w·x + bias` become i16 numbers `r = sat16(sum >> shift) · scale`, and
//! then, with `·` as the product over 2¹⁵ rounded to nearest:
//!
//! - hidden layers, r in sixteenths of a step: `h = max(r, r · 6554)` (LeakyReLU 0.2), `clamp((h + 8 >> 4) + zero, 0, 255)`;
//! - the output: [`tanh_pixel`].
//!
//! Its images are not those of f32: they differ by a grey level or two where pixels are neither black nor white.

use core::slice::from_mut;

use crate::dense::int8::Dense;
pub use crate::dense::int8::tanh_pixel;
use crate::dense::{Kernel, as_arrays};
use crate::image::Image;
use crate::latent::{LATENT, Latent, ONE};
pub use crate::weights::INT8 as GENERATOR;
use crate::{CONDITIONAL, Digit, latent_of, numbers_of};

/// The generator in integers.
#[repr(C, align(64))]
pub struct Generator {
    pub(crate) fc1: Dense<{ LATENT / 4 }, 32>,
    pub(crate) fc2: Dense<8, 64>,
    pub(crate) fc3: Dense<16, 128>,
    pub(crate) fc4: Dense<32, { Image::PIXELS }>,
    /// What stands for 0 in the outputs of fc1, fc2 and fc3.
    pub(crate) zero: [i16; 3],
    /// The output's unit before tanh, see [`tanh_pixel`].
    pub(crate) up: i16,
    /// How many of z's numbers are a one-hot.
    pub(crate) classes: i16,
}

/// The digit that a seed names, by the integer generator.
pub fn generate(seed: u64) -> Image {
    GENERATOR.draw(&latent_of(seed))
}

/// As [`crate::generate_rows`], by the integer generator, in less than 1 KB of stack.
pub fn generate_rows(seed: u64, row: impl FnMut(&[u8; Image::SIDE])) {
    GENERATOR.rows(numbers_of(seed), row);
}

/// The digits of many seeds, byte for byte those of [`generate`], in less time. The longer slice's rest is left alone.
pub fn generate_batch(seeds: &[u64], images: &mut [Image]) {
    GENERATOR.draw_batch(seeds.iter().map(|&seed| latent_of(seed)), images);
}

/// As [`crate::generate_digit`], by the integer generator.
pub fn generate_digit(seed: u64, digit: Digit) -> Option<Image> {
    CONDITIONAL.then(|| GENERATOR.draw(&Latent::with_digit(seed, digit)))
}

/// Images that share one pass over the weights.
const CHUNK: usize = if cfg!(target_arch = "x86_64") { 16 } else { 1 };

impl Generator {
    /// The image of z.
    pub fn draw(&self, z: &Latent) -> Image {
        self.draw_with(Kernel::best(), z)
    }

    /// [`Self::draw`] with a kernel of the caller's choice; all give the same bytes.
    pub fn draw_with(&self, kernel: Kernel, z: &Latent) -> Image {
        let mut image = [Image::BLANK];
        self.pixels(kernel, &[self.quantize(z.0.into_iter())], &mut image);
        image[0]
    }

    /// The images of many z, in order; where either side ends first, the rest is left alone.
    pub fn draw_batch(&self, z: impl IntoIterator<Item = Latent>, images: &mut [Image]) {
        self.draw_batch_with(Kernel::best(), z, images);
    }

    /// [`Self::draw_batch`] with a kernel of the caller's choice.
    pub fn draw_batch_with(&self, kernel: Kernel, z: impl IntoIterator<Item = Latent>, images: &mut [Image]) {
        let mut z = z.into_iter();
        for images in images.chunks_mut(CHUNK) {
            let mut x = [[0; LATENT]; CHUNK]; // (B, 100)
            let drawn = x
                .iter_mut()
                .zip(z.by_ref().take(images.len()))
                .map(|(x, z)| *x = self.quantize(z.0.into_iter()))
                .count();
            self.pixels(kernel, &x, images.get_mut(..drawn).unwrap_or_default());
        }
    }

    /// The image of z from its first row to its last, for devices without memory for all of it.
    pub fn draw_rows(&self, z: &Latent, row: impl FnMut(&[u8; Image::SIDE])) {
        self.rows(z.0.into_iter(), row);
    }

    /// From the numbers of z in fixed point.
    pub(crate) fn rows(&self, numbers: impl Iterator<Item = i32>, mut row: impl FnMut(&[u8; Image::SIDE])) {
        let mut h3 = [0; 128];
        self.hidden(Kernel::best(), &[self.quantize(numbers)], from_mut(&mut h3));
        for y in 0..Image::SIDE {
            row(&self.fc4.pixels_from(y * Image::SIDE, &h3, self.up));
        }
    }

    /// z in steps of 1/128: noise from -1 up, the one-hot as 0 or 128.
    fn quantize(&self, z: impl Iterator<Item = i32>) -> [u8; LATENT] {
        let mut q = [0; LATENT];
        for (k, (q, x)) in q.iter_mut().zip(z).enumerate() {
            let from = if k < self.classes as usize { 0 } else { ONE };
            *q = ((x + from) >> 16).clamp(0, 255) as u8;
        }
        q
    }

    /// (B, 100) → (B, 784)
    fn pixels<const B: usize>(&self, kernel: Kernel, x: &[[u8; LATENT]; B], images: &mut [Image]) {
        let mut h3 = [[0; 128]; B];
        self.hidden(kernel, x, &mut h3); // (B, 128)
        self.fc4.pixels(kernel, &h3, as_arrays(images), self.up); // (B, 784)
    }

    /// (B, 100) → (B, 128)
    fn hidden<const B: usize>(&self, kernel: Kernel, x: &[[u8; LATENT]; B], h3: &mut [[u8; 128]]) {
        let (mut h1, mut h2) = ([[0; 32]; B], [[0; 64]; B]);
        let [zero1, zero2, zero3] = self.zero;
        self.fc1.leaky(kernel, x, &mut h1, zero1); // (B, 32)
        self.fc2.leaky(kernel, &h1, &mut h2, zero2); // (B, 64)
        self.fc3.leaky(kernel, &h2, h3, zero3); // (B, 128)
    }
}
