//! The network: four dense layers.

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

    /// The image of one latent row by row, for devices without memory for a whole one.
    pub fn rows(&self, z: &Latent) -> Rows<'_> {
        self.rows_of(z.0.into_iter())
    }

    /// From the numbers of z in fixed point.
    #[inline(always)]
    pub(crate) fn rows_of(&self, z: impl Iterator<Item = i32>) -> Rows<'_> {
        let mut rows = Rows { fc4: &self.fc4, h: [0.0; 128], y: 0 };
        let kernel = Kernel::best();
        let (mut h1, mut h2) = ([[0.0; 32]], [[0.0; 64]]);
        // z lies where the last hidden layer's outputs are going to be: each array less is a stack that much smaller.
        rows.h.iter_mut().zip(z.take(LATENT)).for_each(|(x, z)| *x = number(z));
        self.fc1.leaky(kernel, rows.h.first_chunk().map_or(&[], core::slice::from_ref), &mut h1); // (1, 32)
        self.fc2.leaky(kernel, &h1, &mut h2); // (1, 64)
        self.fc3.leaky(kernel, &h2, core::slice::from_mut(&mut rows.h)); // (1, 128)
        rows
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

/// The rows of an image from the top, each drawn when it is asked for: byte for byte those of [`Generator::draw`].
pub struct Rows<'a> {
    fc4: &'a Dense<128, PIXELS>,
    /// The last hidden layer's outputs.
    h: [f32; 128],
    y: usize,
}

impl Iterator for Rows<'_> {
    type Item = [u8; Image::SIDE];

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.fc4.pixels_from(self.y * Image::SIDE, &self.h)?;
        self.y += 1;
        Some(row)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (Image::SIDE - self.y, Some(Image::SIDE - self.y))
    }
}

impl ExactSizeIterator for Rows<'_> {}
