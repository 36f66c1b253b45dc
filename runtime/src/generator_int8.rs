//! The generator in integers: the same four layers with i8 weights and u8 activations, and no floating point at all.
//!
//! `arch/int8_ops.rs` explains the arithmetic, and `quantize.rs` makes the numbers from the f32 weights. Its images differ from
//! the f32 generator's by 1.7 grey levels in the mean.

use core::slice::from_mut;

use crate::arch::{Kernel, pixels_of};
use crate::dense::DenseInt8;
use crate::generate::Network;
use crate::image::Image;
use crate::latent::{LATENT, Latent, ONE};

/// The generator in integers, 121,920 bytes. Its methods are those of [`crate::Generate`].
#[repr(C, align(64))]
pub struct Generator {
    fc1: DenseInt8<{ LATENT / 4 }, 32>,
    fc2: DenseInt8<8, 64>,
    fc3: DenseInt8<16, 128>,
    fc4: DenseInt8<32, { Image::PIXELS }>,
    /// The outputs of fc1, fc2 and fc3 that stand for 0.
    zero_points: [i16; 3],
    /// The unit of fc4's outputs, see `tanh_pixel`.
    pixel_shift: i16,
    /// The length of z's one-hot; 0 for an unconditional generator.
    classes: i16,
}

impl Generator {
    /// z in units of 1/128: noise in [-1, 1) as 0 to 255, the one-hot as 0 or 128.
    fn quantize(&self, numbers: impl Iterator<Item = i32>) -> [u8; LATENT] {
        let mut q = [0; LATENT];
        for (k, (q, z)) in q.iter_mut().zip(numbers).enumerate() {
            let offset = if k < self.classes as usize { 0 } else { ONE };
            *q = ((z + offset) >> 16).clamp(0, 255) as u8;
        }
        q
    }

    /// (B, 100) → (B, 128)
    fn hidden<const B: usize>(&self, kernel: Kernel, x: &[[u8; LATENT]; B], h3: &mut [[u8; 128]]) {
        let (mut h1, mut h2) = ([[0; 32]; B], [[0; 64]; B]);
        let [zero1, zero2, zero3] = self.zero_points;
        self.fc1.leaky(kernel, x, &mut h1, zero1); // (B, 32)
        self.fc2.leaky(kernel, &h1, &mut h2, zero2); // (B, 64)
        self.fc3.leaky(kernel, &h2, h3, zero3); // (B, 128)
    }
}

impl Network for Generator {
    type Input = u8;

    fn encode(&self, z: &Latent) -> [u8; LATENT] {
        self.quantize(z.0.into_iter())
    }

    fn forward<const B: usize>(&self, kernel: Kernel, x: &[[u8; LATENT]; B], images: &mut [Image]) {
        let mut h3 = [[0; 128]; B];
        self.hidden(kernel, x, &mut h3); // (B, 128)
        self.fc4.pixels(kernel, &h3, pixels_of(images), self.pixel_shift); // (B, 784)
    }

    fn rows(&self, numbers: impl Iterator<Item = i32>, mut row: impl FnMut(&[u8; Image::SIDE])) {
        let mut h3 = [0; 128];
        self.hidden(Kernel::best(), &[self.quantize(numbers)], from_mut(&mut h3)); // (128,)
        for y in 0..Image::SIDE {
            row(&self.fc4.pixels_from(y * Image::SIDE, &h3, self.pixel_shift)); // (28,)
        }
    }
}
