//! NEON with dot products of four u8 and four u8 per 32-bit lane (FEAT_DotProd: Cortex-A55, A76, Apple A13, Neoverse N1 and
//! later). f32 layers use plain NEON.

use core::arch::aarch64::*;
use core::arch::asm;

use super::int8_ops::{I32Accumulator, Int8};
pub(super) use super::neon::f32_layer;
use super::neon::{Int8Sums, requantize};
use super::tiling::{self, Accumulator, kernel};

// One image: 14 sums of two registers; 784 outputs are 7 strips of 14 · 8.
// Several: 4 × 3 sums of two registers, six registers of weights and an input.
kernel!(int8_layer, Int8, Int8Sums<2>, single 14, batch 4 x 3, "dotprod");

impl Accumulator for Int8Sums<2> {
    type Precision = Int8;
    const LANES: usize = 8;
    type Weights = [uint8x16_t; 2];
    type Broadcast = uint8x16_t;
    #[inline(always)]
    unsafe fn start(_: *const i32) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self([vdupq_n_u32(0); 2]) }
    }
    #[inline(always)]
    unsafe fn load(weights: *const [i8; 4]) -> [uint8x16_t; 2] {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self::load_offset(weights) }
    }
    #[inline(always)]
    unsafe fn broadcast(x: [u8; 4]) -> uint8x16_t {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { vreinterpretq_u8_u32(vdupq_n_u32(u32::from_le_bytes(x))) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, [a, b]: [uint8x16_t; 2], x: uint8x16_t) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self([udot(self.0[0], a, x), udot(self.0[1], b, x)]) }
    }
    #[inline(always)]
    unsafe fn tile_sums<const K: usize, const O: usize, const N: usize, const C: usize>(
        weight: *const [i8; 4],
        bias: *const i32,
        x: &[[[u8; 4]; K]; N],
    ) -> [[Self; N]; C] {
        // SAFETY: the caller promises it.
        unsafe { Self::without_offset(tiling::tile_sums::<Self, K, O, N, C>(weight, bias, x), x) }
    }
}

impl I32Accumulator for Int8Sums<2> {
    type I16 = int16x8_t;
    #[inline(always)]
    unsafe fn requantize(self, bias: *const i32, shift: *const i16, scale: *const i16) -> int16x8_t {
        let [low, high] = self.0;
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { requantize(low, high, bias, shift, scale) }
    }
}

/// `sum + w · x`, four products per lane. In assembly, because `vdotq_u32` needs Rust 1.98.
///
/// # Safety
/// The CPU has dot products.
#[inline(always)]
unsafe fn udot(mut sum: uint32x4_t, w: uint8x16_t, x: uint8x16_t) -> uint32x4_t {
    // SAFETY: the instruction only changes the register of `sum`.
    unsafe {
        asm!(
            "udot {sum:v}.4s, {w:v}.16b, {x:v}.16b",
            sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        )
    };
    sum
}
