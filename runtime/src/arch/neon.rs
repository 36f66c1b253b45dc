//! NEON, which every aarch64 target that we build for has: 32 registers of 4 f32 or 16 bytes.

use core::arch::aarch64::*;

use super::f32_ops::{F32, f32_lanes};
use super::int8_ops::{I16Lanes, I32Accumulator, Int8, i16_lanes};
use super::tiling::{self, Accumulator, kernel};

// One image: 28 of the 32 registers hold sums; 784 outputs are 7 strips of 28 · 4.
// Several: 4 × 4 sums, four inputs, a weight and a product.
kernel!(f32_layer, F32, float32x4_t, single 28, batch 4 x 4, "neon");
// One image: 7 sums of four registers; 784 outputs are 14 strips of 7 · 8.
// Several: 2 × 3 sums of four registers, two registers of weights, an input and products.
kernel!(int8_layer, Int8, Int8Sums<4>, single 7, batch 2 x 3, "neon");

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

/// Eight outputs in R registers, each the sum of R / 2 numbers.
///
/// aarch64 multiplies unsigned by unsigned bytes, or signed by signed, but inputs are u8 and weights i8. So 128 is added to each
/// weight, and `tile_sums` subtracts 128 times the sum of the inputs.
#[derive(Clone, Copy)]
pub(super) struct Int8Sums<const R: usize>(pub(super) [uint32x4_t; R]);

/// The part of a kernel that depends on the CPU's multiplications.
///
/// # Safety of all methods
/// The CPU has the instructions that the type stands for.
pub(super) trait DotProducts: Copy {
    /// Adds the products of eight times four weights and four inputs.
    unsafe fn add_products(self, w: [uint8x16_t; 2], x: uint8x16_t) -> Self;
    /// The eight sums.
    unsafe fn total(self) -> [uint32x4_t; 2];
}

impl<const R: usize> Accumulator for Int8Sums<R>
where
    Self: DotProducts,
{
    type Precision = Int8;
    const LANES: usize = 8;
    type Weights = [uint8x16_t; 2];
    type Broadcast = uint8x16_t;
    #[inline(always)]
    unsafe fn start(_: *const i32) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self([vdupq_n_u32(0); R]) }
    }
    #[inline(always)]
    unsafe fn load(weights: *const [i8; 4]) -> [uint8x16_t; 2] {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let (weights, sign) = (weights.cast::<u8>(), vdupq_n_u8(128));
            [veorq_u8(vld1q_u8(weights), sign), veorq_u8(vld1q_u8(weights.add(16)), sign)]
        }
    }
    #[inline(always)]
    unsafe fn broadcast(x: [u8; 4]) -> uint8x16_t {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(x))) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, w: [uint8x16_t; 2], x: uint8x16_t) -> Self {
        // SAFETY: the caller promises it.
        unsafe { self.add_products(w, x) }
    }
    #[inline(always)]
    unsafe fn tile_sums<const K: usize, const O: usize, const N: usize, const C: usize>(
        weight: *const [i8; 4],
        bias: *const i32,
        x: &[[[u8; 4]; K]; N],
    ) -> [[Self; N]; C] {
        const { assert!(R == 2 || R == 4) };
        // SAFETY: the caller promises it.
        let mut sums = unsafe { tiling::tile_sums::<Self, K, O, N, C>(weight, bias, x) };
        for sums in &mut sums {
            for (Self(sums), x) in sums.iter_mut().zip(x) {
                let x: u32 = x.as_flattened().iter().map(|&x| u32::from(x)).sum();
                for sum in sums {
                    // SAFETY: the caller promises these instructions.
                    *sum = unsafe { vsubq_u32(*sum, vdupq_n_u32(x * (256 / R as u32))) };
                }
            }
        }
        sums
    }
}

impl<const R: usize> I32Accumulator for Int8Sums<R>
where
    Self: DotProducts,
{
    type I16 = int16x8_t;
    #[inline(always)]
    unsafe fn requantize(self, bias: *const i32, shift: *const i16, scale: *const i16) -> int16x8_t {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let [low, high] = self.total();
            let shift = vnegq_s16(vld1q_s16(shift)); // a negative shift is one to the right
            let low = vaddq_s32(vreinterpretq_s32_u32(low), vld1q_s32(bias));
            let high = vaddq_s32(vreinterpretq_s32_u32(high), vld1q_s32(bias.add(4)));
            let low = vqmovn_s32(vshlq_s32(low, vmovl_s16(vget_low_s16(shift))));
            vqmovn_high_s32(low, vshlq_s32(high, vmovl_high_s16(shift))).multiply(vld1q_s16(scale))
        }
    }
}

impl DotProducts for Int8Sums<4> {
    #[inline(always)]
    unsafe fn add_products(self, [a, b]: [uint8x16_t; 2], x: uint8x16_t) -> Self {
        // SAFETY: the caller promises these instructions.
        unsafe {
            let low = vget_low_u8(x);
            Self([
                vpadalq_u16(self.0[0], vmull_u8(vget_low_u8(a), low)),
                vpadalq_u16(self.0[1], vmull_high_u8(a, x)),
                vpadalq_u16(self.0[2], vmull_u8(vget_low_u8(b), low)),
                vpadalq_u16(self.0[3], vmull_high_u8(b, x)),
            ])
        }
    }
    #[inline(always)]
    unsafe fn total(self) -> [uint32x4_t; 2] {
        let [a, b, c, d] = self.0;
        // SAFETY: the caller promises these instructions.
        unsafe { [vpaddq_u32(a, b), vpaddq_u32(c, d)] }
    }
}

// SQRDMULH saturates the product of −32768 and −32768, which PMULHRSW wraps. No such product occurs: scales, 6554 and the
// polynomial's sums are larger than −32768.
i16_lanes!(
    int16x8_t,
    splat vdupq_n_s16, add vaddq_s16, add_saturating vqaddq_s16, sub vsubq_s16, multiply vqrdmulhq_s16, min vminq_s16,
    max vmaxq_s16, and vandq_s16, xor veorq_s16, shift_left |a, bits| vshlq_s16(a, vdupq_n_s16(bits)),
    shift_right vshrq_n_s16, store_bytes |v, p| vst1_u8(p, vqmovun_s16(v))
);
