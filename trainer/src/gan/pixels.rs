//! Images as the networks see them: real ones out of the data set, and the gradient of G's last operator, tanh.
//!
//! Both are one node of an operator of this crate, so that a CPU runs them in one pass over memory: on one Zen 1 core this saves
//! 0.16 of 5.9 ms a step.

use multiversion::multiversion;

use crate::graph::onnx::Type;
use crate::graph::{Graph, Var};
use crate::pixel::unit;

/// The rows (B, 784) of `images` (n, 784) u8 at `indices` (B,), from grey levels to [-1, 1].
pub(crate) fn real_images(g: &mut Graph, images: Var, indices: Var) -> Var {
    g.fused(REAL_OPERATOR, &[("images", images), ("indices", indices)], |g, inputs| {
        let &[images, indices] = inputs else { unreachable!() };
        let images = g.gather(images, indices);
        let images = g.cast(images, Type::F32);
        let images = g.div_by(images, 127.5);
        let one = g.scalar(1.0);
        vec![("real", g.sub(images, one))]
    })[0]
}

/// y = tanh x.   dx = dy · (1 − y²), as one node that blocks gradients.
pub(crate) fn tanh(g: &mut Graph, x: Var) -> Var {
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

/// Computes [`real_images`] with images of `width` pixels: the bits of its single operations. The indices must be those of images.
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
