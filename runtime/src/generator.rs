//! The network, and the contract that makes it the same everywhere.
//!
//! Every operation is a single IEEE 754 binary32 one, rounded to nearest, in this order:
//!
//! - dense: `acc = bias; for k in 0..I { acc = acc + w[k][j] · x[k] }`, a multiplication and an addition, never fused;
//!   kernels may be as wide as they like over the outputs j, never over k;
//! - LeakyReLU: `max(a, 0.2 · a)`;
//! - tanh: the rational function of [`tanh`], a fixed sequence of operations;
//! - pixel: `127.5 · t + 127.5`, rounded to the nearest integer, ties to even.

use nalgebra::{SMatrix, SVector};

use crate::dense::{self, Kernel};
use crate::image::Image;
use crate::latent::LATENT;

/// A dense layer, y = W x + b: I inputs, O outputs.
///
/// The weight is a matrix of O rows, stored by columns: the byte order of ONNX's row-major (I, O).
#[repr(C, align(64))]
#[derive(Clone)]
pub struct Dense<const I: usize, const O: usize> {
    pub(crate) weight: SMatrix<f32, O, I>,
    pub(crate) bias: SVector<f32, O>,
}

impl<const I: usize, const O: usize> Dense<I, O> {
    /// From the weight (I, O), row-major, and the bias; `None` where their lengths are others.
    pub fn new(weight: &[f32], bias: &[f32]) -> Option<Self> {
        let fits = weight.len() == I * O && bias.len() == O;
        fits.then(|| Self { weight: SMatrix::from_column_slice(weight), bias: SVector::from_column_slice(bias) })
    }
}

/// The generator: z (100) → 32 → 64 → 128 → 784 pixels.
#[repr(C)]
#[derive(Clone)]
pub struct Generator {
    #[allow(missing_docs)]
    pub fc1: Dense<LATENT, 32>,
    #[allow(missing_docs)]
    pub fc2: Dense<32, 64>,
    #[allow(missing_docs)]
    pub fc3: Dense<64, 128>,
    #[allow(missing_docs)]
    pub fc4: Dense<128, { Image::PIXELS }>,
}

impl Generator {
    /// The image of z.
    pub fn draw(&self, kernel: Kernel, z: &[f32; LATENT]) -> Image {
        let mut image = [Image::BLANK];
        dense::draw_one(kernel, self, core::array::from_ref(z), &mut image);
        image[0]
    }

    /// The images of many z, byte for byte those of [`Self::draw`], in less time. The longer slice's rest is left alone.
    pub fn draw_batch(&self, kernel: Kernel, z: &[[f32; LATENT]], images: &mut [Image]) {
        let n = z.len().min(images.len());
        let (z, z_rest) = z[..n].as_chunks::<{ dense::BATCH }>();
        let (images, images_rest) = images[..n].as_chunks_mut::<{ dense::BATCH }>();
        for (z, images) in z.iter().zip(images) {
            dense::draw_many(kernel, self, z, images);
        }
        for (z, image) in z_rest.iter().zip(images_rest) {
            *image = self.draw(kernel, z);
        }
    }

    /// The image of z before it is rounded to grey levels: 784 values of tanh.
    pub fn draw_f32(&self, z: &[f32; LATENT]) -> [f32; Image::PIXELS] {
        let mut out = [0.0; Image::PIXELS];
        dense::draw_f32(self, z, &mut out);
        out
    }
}

/// tanh x, by a rational function of degree 13 over 6 within ±7.905 and constant beyond.
///
/// Its largest error over all f32 is 4.7·10⁻⁷, against tanh in f64.
///
/// Source of the coefficients: Eigen, `generic_fast_tanh_float` in MathFunctionsImpl.h.
pub fn tanh(x: f32) -> f32 {
    dense::tanh(x)
}
