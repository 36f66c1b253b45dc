//! NEON with dot products of four u8 and four u8 per 32-bit lane (FEAT_DotProd: Cortex-A55, A76, Apple A13, Neoverse N1 and
//! later). f32 layers use plain NEON.

use core::arch::aarch64::*;
use core::arch::asm;

use super::int8_ops::Int8;
pub(super) use super::neon::f32_layer;
use super::neon::{DotProducts, Int8Sums};
use super::tiling::{self, kernel};

// One image: 14 sums of two registers; 784 outputs are 7 strips of 14 · 8.
// Several: 4 × 3 sums of two registers, six registers of weights and an input.
kernel!(int8_layer, Int8, Int8Sums<2>, single 14, batch 4 x 3, "dotprod");

impl DotProducts for Int8Sums<2> {
    #[inline(always)]
    unsafe fn add_products(self, [a, b]: [uint8x16_t; 2], x: uint8x16_t) -> Self {
        // SAFETY: the caller promises these instructions.
        unsafe { Self([udot(self.0[0], a, x), udot(self.0[1], b, x)]) }
    }
    #[inline(always)]
    unsafe fn total(self) -> [uint32x4_t; 2] {
        self.0
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
