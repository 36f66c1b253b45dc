//! NEON, which every aarch64 target that we build for has: 32 registers of 4 f32. Integer layers are plain Rust,
//! which the compiler vectorises.

use core::arch::aarch64::*;

use super::f32_ops::{F32, f32_lanes};
pub(super) use super::scalar::int8_layer;
use super::tiling::{self, kernel};

// One image: 28 of the 32 registers hold sums; 784 outputs are 7 strips of 28 · 4.
// Several: 4 × 4 sums, four inputs, a weight and a product.
kernel!(f32_layer, F32, float32x4_t, single 28, batch 4 x 4, "neon");

f32_lanes!(
    float32x4_t, 4,
    load vld1q_f32, broadcast vdupq_n_f32, add vaddq_f32, mul vmulq_f32, div vdivq_f32, min vminq_f32, max vmaxq_f32,
    store vst1q_f32,
    store_low_bytes |v, p| {
        let low = vmovn_u32(vreinterpretq_u32_f32(v));
        let bytes = vmovn_u16(vcombine_u16(low, low));
        p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)))
    }
);
