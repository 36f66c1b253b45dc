//! The generator in f32: four dense layers, 100 → 32 → 64 → 128 → 784.
//!
//! Its image of a seed never changes, because every f32 operation and its order is fixed: z is exact in f32 (latent.rs), a sum adds
//! its products in ascending order without fusing (dense.rs), and LeakyReLU, tanh and the rounding to grey levels are single
//! IEEE 754 operations in a fixed order (arch/f32_ops.rs). No function of a math library takes part.

use core::slice::{from_mut, from_ref};

use crate::arch::{Kernel, pixels_of};
use crate::dense::Dense;
use crate::generate::Network;
use crate::image::Image;
use crate::latent::{LATENT, Latent, to_f32};

/// The generator in f32, 459,200 bytes. Its methods are those of [`crate::Generate`].
// The layout is that of the weights file: each layer's weight (I, O), then its bias (O).
#[repr(C, align(64))]
pub struct Generator {
    fc1: Dense<LATENT, 32>,
    fc2: Dense<32, 64>,
    fc3: Dense<64, 128>,
    fc4: Dense<128, { Image::PIXELS }>,
}

impl Generator {
    /// The 784 outputs of tanh for `z`, in [-1, 1], row by row: the image before it is rounded to grey levels.
    pub fn draw_f32(&self, z: &Latent) -> [f32; Image::PIXELS] {
        let mut out = [[0.0; Image::PIXELS]];
        let h3 = self.hidden(Kernel::best(), &[z.numbers()]);
        self.fc4.tanh(Kernel::best(), &h3, &mut out);
        out[0]
    }

    /// (B, 100) → (B, 128)
    fn hidden<const B: usize>(&self, kernel: Kernel, z: &[[f32; LATENT]; B]) -> [[f32; 128]; B] {
        let (mut h1, mut h2, mut h3) = ([[0.0; 32]; B], [[0.0; 64]; B], [[0.0; 128]; B]);
        self.fc1.leaky(kernel, z, &mut h1); // (B, 32)
        self.fc2.leaky(kernel, &h1, &mut h2); // (B, 64)
        self.fc3.leaky(kernel, &h2, &mut h3); // (B, 128)
        h3
    }
}

impl Network for Generator {
    type Input = f32;

    fn encode(&self, z: &Latent) -> [f32; LATENT] {
        z.numbers()
    }

    fn forward<const B: usize>(&self, kernel: Kernel, x: &[[f32; LATENT]; B], images: &mut [Image]) {
        let h3 = self.hidden(kernel, x); // (B, 128)
        self.fc4.pixels(kernel, &h3, pixels_of(images)); // (B, 784)
    }

    fn rows(&self, numbers: impl Iterator<Item = i32>, mut row: impl FnMut(&[u8; Image::SIDE])) {
        let kernel = Kernel::best();
        // To save stack, the layers' inputs and outputs lie in two buffers in turns.
        let (mut front, mut back) = ([0.0; 32 + LATENT], [0.0; 64]);
        if let Some((h1, z)) = front.split_first_chunk_mut()
            && let Some(z) = z.first_chunk_mut::<LATENT>()
        {
            z.iter_mut().zip(numbers).for_each(|(x, z)| *x = to_f32(z));
            self.fc1.leaky(kernel, from_ref(z), from_mut(h1)); // (32,)
            self.fc2.leaky(kernel, from_ref(h1), from_mut(&mut back)); // (64,)
        }
        if let Some(h3) = front.first_chunk_mut() {
            self.fc3.leaky(kernel, from_ref(&back), from_mut(h3)); // (128,)
            for y in 0..Image::SIDE {
                row(&self.fc4.pixels_from(y * Image::SIDE, h3)); // (28,)
            }
        }
    }
}
