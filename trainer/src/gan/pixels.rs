//! Images as D sees them, which [`seen`](crate::pixel::seen) defines: real ones out of the data set, and G's, with the gradient of its
//! last operator, tanh.
//!
//! Real images without spread and tanh's gradient are one node of an operator of this crate, so that a CPU runs them in one pass over memory: on one Zen 1 core this saves
//! 0.16 of 5.9 ms a step.

use multiversion::multiversion;

use crate::config::{PIXELS, Recipe};
use crate::graph::onnx::Type;
use crate::graph::{Graph, Var};
use crate::pixel::{MOST, seen, unit};

/// The rows (B, 784) of `images` (n, 784) u8 at `indices` (B,), as D sees them.
pub(crate) fn real_images(g: &mut Graph, recipe: &Recipe, images: Var, indices: Var) -> Var {
    if recipe.d_spread > 0.0 {
        let levels: Vec<f32> = (0..=255).map(|level| seen(level, recipe.d_spread)).collect();
        let levels = g.constant("levels", &[256], &levels);
        let images = g.gather(images, indices);
        let images = g.cast(images, Type::I64);
        let batch = g.shape(indices)[0];
        let images = g.reshape(images, &[batch * PIXELS]);
        let images = g.gather(levels, images);
        return g.reshape(images, &[batch, PIXELS]);
    }
    g.fused(REAL_OPERATOR, &[("images", images), ("indices", indices)], |g, inputs| {
        let &[images, indices] = inputs else { unreachable!() };
        let images = g.gather(images, indices);
        let images = g.cast(images, Type::F32);
        let images = g.div_by(images, 127.5);
        let one = g.scalar(1.0);
        vec![("real", g.sub(images, one))]
    })[0]
}

/// Fakes as D sees them, out of the input (B, 784) of G's tanh.
pub(crate) fn fake_images(g: &mut Graph, recipe: &Recipe, x: Var) -> Var {
    let image = tanh(g, x);
    if recipe.d_spread == 0.0 {
        return image;
    }
    let most = MOST.atanh();
    let [image_share, input_share] =
        [1.0 - recipe.d_spread, recipe.d_spread / most].map(|share| g.scalar(share as f32));
    let clamped = clamp(g, x, most as f32);
    let (image, clamped) = (g.mul(image, image_share), g.mul(clamped, input_share));
    g.add(image, clamped)
}

/// y = x, but at most `most` from 0.   dx = dy where |x| < most, else 0
fn clamp(g: &mut Graph, x: Var, most: f32) -> Var {
    let most = g.scalar(most);
    let above = g.sub(x, most);
    let above = g.relu(above);
    let below = g.add(x, most);
    let below = g.neg(below);
    let below = g.relu(below);
    let x = g.sub(x, above);
    g.add(x, below)
}

/// y = tanh x.   dx = dy · (1 − y²), as one node that blocks gradients.
fn tanh(g: &mut Graph, x: Var) -> Var {
    g.tanh_with_gradient(x, |g, y, dy| {
        g.fused(TANH_GRADIENT_OPERATOR, &[("y", y), ("dy", dy)], |g, inputs| {
            let &[y, dy] = inputs else { unreachable!() };
            let (one, y2) = (g.scalar(1.0), g.mul(y, y));
            let slope = g.sub(one, y2);
            vec![("dx", g.mul(dy, slope))]
        })[0]
    })
}

/// Name of the operator of [`real_images`].
pub const REAL_OPERATOR: &str = "RealImages";
/// Name of the operator of the gradient of [`tanh`].
pub const TANH_GRADIENT_OPERATOR: &str = "TanhGradient";

/// Computes [`real_images`] without spread, with images of `width` pixels: the bits of its single operations. The indices must be those of images.
pub fn write_real_images(images: &[u8], width: usize, indices: &[i64], out: &mut [f32]) {
    let units: [f32; 256] = std::array::from_fn(|level| unit(level as u8));
    for (row, &i) in indices.iter().enumerate() {
        let (out, image) = (&mut out[row * width..][..width], &images[i as usize * width..][..width]);
        out.iter_mut().zip(image).for_each(|(x, &level)| *x = units[usize::from(level)]);
    }
}

/// Computes the gradient of [`tanh`]: the same single operations, so the same bits. All have the same length.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub fn tanh_gradient(y: &[f32], dy: &[f32], dx: &mut [f32]) {
    for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
        *dx = dy * (1.0 - y * y);
    }
}
