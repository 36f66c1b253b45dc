//! The network: four dense layers.

use core::slice::{from_mut, from_ref};

use crate::dense::{Dense, Kernel, as_arrays};
use crate::image::Image;
use crate::latent::{LATENT, Latent, number};

const PIXELS: usize = Image::PIXELS;

/// The generator in f32, with the layout of its weights file: each layer's weight (in, out), then its bias (out).
#[repr(C, align(64))]
pub struct Generator {
    pub(crate) fc1: Dense<LATENT, 32>,
    pub(crate) fc2: Dense<32, 64>,
    pub(crate) fc3: Dense<64, 128>,
    pub(crate) fc4: Dense<128, PIXELS>,
}

/// Images that share one pass over the weights. Where no vector unit gains from it, stack is worth more than the reuse.
const CHUNK: usize = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) { 16 } else { 1 };

impl Generator {
    /// The image of one latent.
    pub fn draw(&self, z: &Latent) -> Image {
        self.draw_with(Kernel::best(), z)
    }

    /// [`Generator::draw`] with a kernel of the caller's choice; all give the same bytes.
    pub fn draw_with(&self, kernel: Kernel, z: &Latent) -> Image {
        let mut image = [Image::BLANK];
        let h = self.hidden(kernel, &[z.numbers()]);
        self.fc4.pixels(kernel, &h, as_arrays(&mut image));
        image[0]
    }

    /// Fills `images` with those of the latents, in order; images left over when the latents end keep what they hold.
    pub fn draw_batch(&self, latents: impl IntoIterator<Item = Latent>, images: &mut [Image]) {
        self.draw_batch_with(Kernel::best(), latents, images);
    }

    /// [`Generator::draw_batch`] with a kernel of the caller's choice.
    pub fn draw_batch_with(&self, kernel: Kernel, latents: impl IntoIterator<Item = Latent>, images: &mut [Image]) {
        let mut latents = latents.into_iter();
        for images in images.chunks_mut(CHUNK) {
            let mut z = [[0.0; LATENT]; CHUNK]; // (B, 100)
            let drawn =
                z.iter_mut().zip(latents.by_ref().take(images.len())).map(|(z, latent)| *z = latent.numbers()).count();
            let h = self.hidden(kernel, &z);
            self.fc4.pixels(kernel, &h, as_arrays(images.get_mut(..drawn).unwrap_or_default()));
        }
    }

    /// The tanh outputs of one latent in [-1, 1], before they are rounded to pixels.
    pub fn draw_f32(&self, z: &Latent) -> [f32; PIXELS] {
        let mut out = [[0.0; PIXELS]];
        let h = self.hidden(Kernel::best(), &[z.numbers()]);
        self.fc4.tanh(Kernel::best(), &h, &mut out);
        out[0]
    }

    /// The image of one latent from its first row to its last, for devices without memory for all of it.
    pub fn draw_rows(&self, z: &Latent, row: impl FnMut(&[u8; Image::SIDE])) {
        self.rows(z.0.into_iter(), row);
    }

    /// From the numbers of z in fixed point. All that it takes is a row, and the layers' inputs and outputs, which lie in the two
    /// halves of the memory in turns.
    pub(crate) fn rows(&self, numbers: impl Iterator<Item = i32>, mut row: impl FnMut(&[u8; Image::SIDE])) {
        let kernel = Kernel::best();
        let (mut front, mut back) = ([0.0; 32 + LATENT], [0.0; 64]);
        if let Some((h1, z)) = front.split_first_chunk_mut()
            && let Some(z) = z.first_chunk_mut::<LATENT>()
        {
            z.iter_mut().zip(numbers).for_each(|(x, z)| *x = number(z));
            self.fc1.leaky(kernel, from_ref(z), from_mut(h1)); // (32,)
            self.fc2.leaky(kernel, from_ref(h1), from_mut(&mut back)); // (64,)
        }
        if let Some(h3) = front.first_chunk_mut() {
            self.fc3.leaky(kernel, from_ref(&back), from_mut(h3)); // (128,)
            for y in 0..Image::SIDE {
                row(&self.fc4.pixels_from(y * Image::SIDE, h3));
            }
        }
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
