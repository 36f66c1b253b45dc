//! AVX2: 16 registers of 8 f32 or 32 bytes.

use core::arch::x86_64::*;

use super::f32_ops::{F32, f32_lanes};
use super::int8_ops::{I16Lanes, I32Accumulator, Int8, i16_lanes};
use super::tiling::{self, Accumulator, kernel};

// One image: 12 sums hide the latency of the adds; 784 outputs are 8 strips of 12 · 8 and one of 2 · 8.
// Several: 2 × 6 sums, two inputs, a weight and a product fill the 16 registers.
kernel!(f32_layer, F32, __m256, single 12, batch 2 x 6, "avx2");
// One image: 784 outputs are 14 strips of 7 · 8.
// Several: 4 × 2 sums, and two registers each for an input, a weight and products.
kernel!(int8_layer, Int8, Int8Sums, single 7, batch 4 x 2, "avx2");

f32_lanes!(
    __m256, 8,
    load _mm256_loadu_ps, broadcast _mm256_set1_ps, add _mm256_add_ps, mul _mm256_mul_ps, div _mm256_div_ps,
    min _mm256_min_ps, max _mm256_max_ps, store _mm256_storeu_ps,
    store_low_bytes |v, p| {
        let low = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(255));
        let (a, b) = (_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
        _mm_storel_epi64(p.cast(), _mm_packus_epi16(_mm_packs_epi32(a, b), a))
    }
);

/// Eight outputs, times 256.
#[derive(Clone, Copy)]
pub(super) struct Int8Sums(__m256i);

impl Accumulator for Int8Sums {
    type Precision = Int8;
    const LANES: usize = 8;
    /// Weights 0 and 2 of each group of four times 256 as i16, and weights 1 and 3 times 256.
    type Weights = [__m256i; 2];
    /// Inputs 0 and 2 of a group of four as i16, and inputs 1 and 3.
    type Broadcast = [__m256i; 2];
    #[inline(always)]
    unsafe fn start(_: *const i32) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self(_mm256_setzero_si256()) }
    }
    #[inline(always)]
    unsafe fn load(weights: *const [i8; 4]) -> [__m256i; 2] {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let w = _mm256_loadu_si256(weights.cast());
            // Times 256, because moving a byte to the top of its i16 takes one instruction, and extending its sign two.
            [_mm256_slli_epi16::<8>(w), _mm256_and_si256(w, _mm256_set1_epi16(-256))]
        }
    }
    #[inline(always)]
    unsafe fn broadcast(x: [u8; 4]) -> [__m256i; 2] {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let x = _mm256_set1_epi32(i32::from_le_bytes(x));
            [_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16::<8>(x)]
        }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, [even, odd]: [__m256i; 2], x: [__m256i; 2]) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers. (VPMADDUBSW would need no widening, but it
        // saturates the sum of two products to i16.)
        unsafe {
            let products = _mm256_add_epi32(_mm256_madd_epi16(even, x[0]), _mm256_madd_epi16(odd, x[1]));
            Self(_mm256_add_epi32(self.0, products))
        }
    }
}

impl I32Accumulator for Int8Sums {
    type I16 = __m128i;
    #[inline(always)]
    unsafe fn requantize(self, bias: *const i32, shift: *const i16, scale: *const i16) -> __m128i {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { requantize(_mm256_srai_epi32::<8>(self.0), bias, shift, scale) }
    }
}

/// [`I32Accumulator::requantize`] of eight sums.
///
/// # Safety
/// As for the method.
#[inline(always)]
pub(super) unsafe fn requantize(sums: __m256i, bias: *const i32, shift: *const i16, scale: *const i16) -> __m128i {
    // SAFETY: the caller promises these instructions and valid pointers.
    unsafe {
        let sums = _mm256_add_epi32(sums, _mm256_loadu_si256(bias.cast()));
        let sums = _mm256_srav_epi32(sums, _mm256_cvtepi16_epi32(_mm_loadu_si128(shift.cast())));
        let r = _mm_packs_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
        r.multiply(_mm_loadu_si128(scale.cast()))
    }
}

// PMULHRSW is SSSE3, so that this is AVX2's although its registers are SSE2's.
i16_lanes!(
    __m128i,
    splat _mm_set1_epi16, add _mm_add_epi16, add_saturating _mm_adds_epi16, sub _mm_sub_epi16, multiply _mm_mulhrs_epi16,
    min _mm_min_epi16, max _mm_max_epi16, and _mm_and_si128, xor _mm_xor_si128,
    shift_left |a, bits| _mm_sll_epi16(a, _mm_cvtsi32_si128(bits as i32)), shift_right _mm_srai_epi16,
    store_bytes |v, p| _mm_storel_epi64(p.cast(), _mm_packus_epi16(v, v))
);
