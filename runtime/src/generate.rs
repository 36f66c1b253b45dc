//! Drawing images from z, written once for every precision.

use crate::arch::Kernel;
use crate::image::Image;
use crate::latent::{LATENT, Latent};

/// A generator of either precision: it draws the image of a z. All kernels and all methods give the same bytes.
pub trait Generate: Sync {
    /// The image of `z`, by a kernel of the caller's choice.
    fn draw_with(&self, kernel: Kernel, z: &Latent) -> Image;

    /// Fills `images` with the images of `latents`, in order, by a kernel of the caller's choice. If the latents run out
    /// first, the remaining images keep their pixels.
    fn draw_batch_with(&self, kernel: Kernel, latents: &mut dyn Iterator<Item = Latent>, images: &mut [Image]);

    /// Calls `row` with the 28 rows of the image of `z`, from top to bottom, for devices without memory for a whole image.
    fn draw_rows(&self, z: &Latent, row: &mut dyn FnMut(&[u8; Image::SIDE]));

    /// The image of `z`, by this CPU's fastest kernel.
    fn draw(&self, z: &Latent) -> Image {
        self.draw_with(Kernel::best(), z)
    }

    /// [`Self::draw_batch_with`] by this CPU's fastest kernel.
    fn draw_batch(&self, latents: &mut dyn Iterator<Item = Latent>, images: &mut [Image]) {
        self.draw_batch_with(Kernel::best(), latents, images);
    }
}

/// The layers of a generator. Every `Network` implements [`Generate`].
pub(crate) trait Network: Sync {
    /// An input of the first layer.
    type Input: Copy + Default;

    /// z as inputs of the first layer.
    fn encode(&self, z: &Latent) -> [Self::Input; LATENT];

    /// (B, 100) → (B, 784), for as many images as both sides hold.
    fn forward<const B: usize>(&self, kernel: Kernel, x: &[[Self::Input; LATENT]; B], images: &mut [Image]);

    /// Calls `row` with the rows of the image of one z, from top to bottom. `numbers` are in units of 2⁻²³.
    fn rows(&self, numbers: impl Iterator<Item = i32>, row: impl FnMut(&[u8; Image::SIDE]));
}

/// Images per pass over the weights. On CPUs without a vector unit a larger batch gains nothing, and stack is scarce.
const CHUNK: usize = if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) { 16 } else { 1 };

impl<N: Network> Generate for N {
    fn draw_with(&self, kernel: Kernel, z: &Latent) -> Image {
        let mut image = [Image::BLANK];
        self.forward(kernel, &[self.encode(z)], &mut image);
        image[0]
    }

    fn draw_batch_with(&self, kernel: Kernel, latents: &mut dyn Iterator<Item = Latent>, images: &mut [Image]) {
        for images in images.chunks_mut(CHUNK) {
            let mut x = [[N::Input::default(); LATENT]; CHUNK]; // (B, 100)
            let inputs = x.iter_mut().zip(latents.take(images.len()));
            let drawn = inputs.map(|(x, z)| *x = self.encode(&z)).count();
            self.forward(kernel, &x, images.get_mut(..drawn).unwrap_or_default());
        }
    }

    fn draw_rows(&self, z: &Latent, row: &mut dyn FnMut(&[u8; Image::SIDE])) {
        self.rows(z.0.into_iter(), row);
    }
}
