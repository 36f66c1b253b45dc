//! A dense layer with its activation, in f32 and in int8: parameters and shapes. `arch` computes it.
//!
//! f32, for each output `j`: `acc = bias[j]`, then for ascending `k` `acc = acc + weight[k][j] · x[k]`, a multiply and then an
//! add, each rounded, never fused.
//!
//! Letters: B images of a batch, I inputs, O outputs.

use nalgebra::{SMatrix, SVector};

use crate::arch::{self, Activate, F32, Int8, Kernel, Layer, Leaky, LeakyI16, Pixel, PixelI16, Requantize, Tanh};

/// An f32 layer. The weight is column-major (O, I), which is byte for byte a row-major ONNX tensor of shape (I, O).
#[repr(C)]
pub(crate) struct Dense<const I: usize, const O: usize> {
    weight: SMatrix<f32, O, I>,
    bias: SVector<f32, O>,
}

impl<const I: usize, const O: usize> Dense<I, O> {
    /// (B, I) → LeakyReLU → (B, O), for as many images as both slices hold.
    pub fn leaky(&self, kernel: Kernel, x: &[[f32; I]], y: &mut [[f32; O]]) {
        kernel.f32_layer(&self.layer(Leaky), x, y);
    }

    /// (B, I) → tanh → (B, O) in [-1, 1].
    pub fn tanh(&self, kernel: Kernel, x: &[[f32; I]], y: &mut [[f32; O]]) {
        kernel.f32_layer(&self.layer(Tanh), x, y);
    }

    /// (B, I) → tanh → grey levels (B, O).
    pub fn pixels(&self, kernel: Kernel, x: &[[f32; I]], y: &mut [[u8; O]]) {
        kernel.f32_layer(&self.layer(Pixel), x, y);
    }

    /// The grey levels of R outputs of one image from output `j` on, always by the scalar kernel.
    pub fn pixels_from<const R: usize>(&self, j: usize, x: &[f32; I]) -> [u8; R] {
        arch::f32_outputs_from(&self.layer(Pixel), x, j)
    }

    fn layer<A>(&self, activation: A) -> Layer<'_, F32, Activate<A>, I, O> {
        let [bias] = &self.bias.data.0;
        Layer { weight: &self.weight.data.0, bias, epilogue: Activate(activation) }
    }
}

/// An int8 layer of G groups of 4 inputs and O outputs. `arch/int8_ops.rs` says what the numbers mean.
#[repr(C)]
pub(crate) struct DenseInt8<const G: usize, const O: usize> {
    /// `weight[g][j][i]` multiplies input `4·g + i` for output `j`.
    weight: [[[i8; 4]; O]; G],
    bias: [i32; O],
    shift: [i16; O],
    scale: [i16; O],
}

impl<const G: usize, const O: usize> DenseInt8<G, O> {
    /// (B, I) → LeakyReLU → (B, O), for as many images as both slices hold, with I = 4·G. `zero_point` stands for 0 in `y`.
    pub fn leaky<const I: usize>(&self, kernel: Kernel, x: &[[u8; I]], y: &mut [[u8; O]], zero_point: i16) {
        kernel.int8_layer(&self.layer(LeakyI16 { zero_point }), groups(x), y);
    }

    /// (B, I) → tanh → grey levels (B, O). [`arch::tanh_pixel`] explains `pixel_shift`.
    pub fn pixels<const I: usize>(&self, kernel: Kernel, x: &[[u8; I]], y: &mut [[u8; O]], pixel_shift: i16) {
        kernel.int8_layer(&self.layer(PixelI16 { pixel_shift }), groups(x), y);
    }

    /// The grey levels of R outputs of one image from output `j` on, always by the scalar kernel.
    pub fn pixels_from<const I: usize, const R: usize>(&self, j: usize, x: &[u8; I], pixel_shift: i16) -> [u8; R] {
        match groups(core::slice::from_ref(x)) {
            [x] => arch::int8_outputs_from(&self.layer(PixelI16 { pixel_shift }), x, j),
            _ => [0; R],
        }
    }

    fn layer<A>(&self, activation: A) -> Layer<'_, Int8, Requantize<'_, A, O>, G, O> {
        const { assert!(4 * G * 128 * 255 * 256 <= i32::MAX as usize, "SSE2 and AVX2 have sums times 256 in i32") };
        let Self { weight, bias, shift, scale } = self;
        Layer { weight, bias, epilogue: Requantize { bias, shift, scale, activation } }
    }
}

/// (B, I) as (B, G, 4).
fn groups<const I: usize, const G: usize>(x: &[[u8; I]]) -> &[[[u8; 4]; G]] {
    const { assert!(I == 4 * G) };
    x.as_flattened().as_chunks::<4>().0.as_chunks::<G>().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_its_matrix_times_the_input_plus_the_bias() {
        let weight = SMatrix::<f32, 32, 5>::from_fn(|j, k| (j as f32 - 9.0) * (k as f32 + 0.3));
        let layer = Dense { weight, bias: SVector::from_fn(|j, _| j as f32) };
        let x = [[0.5, -1.0, 0.25, 3.0, -0.125]; 21];
        let expected = weight * SVector::from(x[0]) + layer.bias;
        for kernel in Kernel::all() {
            let mut y = [[0.0; 32]; 21];
            layer.leaky(kernel, &x, &mut y);
            for y in y.as_flattened().chunks(32) {
                for (y, a) in y.iter().zip(&expected) {
                    assert!((y - a.max(0.2 * a)).abs() < 1e-4, "{}: {a} became {y}", kernel.name());
                }
            }
        }
    }

    #[test]
    fn every_kernel_gives_the_integers_of_plain_loops() {
        let mut seed = 1u32;
        let mut random = || {
            seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
            seed >> 16
        };
        // As many inputs as a layer may have.
        let mut layer =
            DenseInt8::<64, 96> { weight: [[[0; 4]; 96]; 64], bias: [0; 96], shift: [0; 96], scale: [0; 96] };
        layer.weight.as_flattened_mut().as_flattened_mut().iter_mut().for_each(|w| *w = (random() % 255) as i8);
        for weight in &mut layer.weight {
            weight[0] = [-128; 4]; // the extremes, at which no intermediate sum may saturate
            weight[1] = [127; 4];
        }
        layer.bias.iter_mut().for_each(|b| *b = random() as i32 - 32768);
        layer.shift.iter_mut().for_each(|s| *s = (random() % 16) as i16);
        layer.scale.iter_mut().for_each(|s| *s = (random() / 2) as i16);
        let mut x = [[0u8; 256]; 21];
        x.as_flattened_mut().iter_mut().for_each(|x| *x = random() as u8);
        x[0] = [255; 256];
        for kernel in Kernel::all() {
            let (mut leaky, mut pixels) = ([[0; 96]; 21], [[0; 96]; 21]);
            layer.leaky(kernel, &x, &mut leaky, 40);
            layer.pixels(kernel, &x, &mut pixels, 3);
            for (n, x) in x.iter().enumerate() {
                for j in 0..96 {
                    let products = x.iter().enumerate().map(|(k, &x)| layer.weight[k / 4][j][k % 4] as i64 * x as i64);
                    let sum = (products.sum::<i64>() + layer.bias[j] as i64) >> layer.shift[j];
                    let r = (sum.clamp(-32768, 32767) * layer.scale[j] as i64 + (1 << 14)) >> 15;
                    let h = r.max((r * 6554 + (1 << 14)) >> 15);
                    let expected = (((h + 8).min(32767) >> 4) + 40).clamp(0, 255) as u8;
                    let pixel = arch::tanh_pixel(r as i16, 3);
                    assert_eq!((leaky[n][j], pixels[n][j]), (expected, pixel), "{}", kernel.name());
                }
            }
        }
    }
}
