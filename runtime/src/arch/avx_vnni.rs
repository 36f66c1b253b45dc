//! AVX-VNNI, the dot product of four u8 and four i8 per 32-bit lane, for CPUs without AVX-512 (Intel's Alder Lake and later): 16
//! registers of 32 bytes. f32 layers use AVX2.
//!
//! The sums are `vnni.rs`'s at half the width, and what follows them is `avx2.rs`'s.

use core::arch::x86_64::*;

pub(super) use super::avx2::f32_layer;
use super::avx2::requantize;
use super::int8_ops::{I32Accumulator, Int8};
use super::tiling::{self, Accumulator, kernel};

// One image: 784 outputs are 14 strips of 7 · 8.
// Several: 4 × 3 sums, three vectors of weights and one input fill the 16 registers.
kernel!(int8_layer, Int8, Int8Sums, single 7, batch 4 x 3, "avx2,avxvnni");

/// Eight outputs.
#[derive(Clone, Copy)]
pub(super) struct Int8Sums(__m256i);

impl Accumulator for Int8Sums {
    type Precision = Int8;
    const LANES: usize = 8;
    type Weights = __m256i;
    type Broadcast = __m256i;
    #[inline(always)]
    unsafe fn start(_: *const i32) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self(_mm256_setzero_si256()) }
    }
    #[inline(always)]
    unsafe fn load(weights: *const [i8; 4]) -> __m256i {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { _mm256_loadu_si256(weights.cast()) }
    }
    #[inline(always)]
    unsafe fn broadcast(x: [u8; 4]) -> __m256i {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { _mm256_set1_epi32(i32::from_le_bytes(x)) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, w: __m256i, x: __m256i) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self(_mm256_dpbusd_avx_epi32(self.0, x, w)) }
    }
}

impl I32Accumulator for Int8Sums {
    type I16 = __m128i;
    #[inline(always)]
    unsafe fn requantize(self, bias: *const i32, shift: *const i16, scale: *const i16) -> __m128i {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { requantize(self.0, bias, shift, scale) }
    }
}
