//! SSE2, which every x86-64 has: 16 registers of 4 f32 or 16 bytes.

use core::arch::x86_64::*;

use super::f32_ops::{F32, f32_lanes};
use super::int8_ops::{I16Lanes, I32Accumulator, Int8, shift_to_i16};
use super::tiling::{self, Accumulator, kernel};

// One image: 14 of the 16 registers hold sums; 784 outputs are 14 strips of 14 · 4.
// Several: 2 × 6 sums, two inputs, a weight and a product fill the 16 registers.
kernel!(f32_layer, F32, __m128, single 14, batch 2 x 6, "sse2");
// One image: 784 outputs are 28 strips of 7 · 4.
// Several: 2 × 4 sums, and two registers each for an input, a weight and products.
kernel!(int8_layer, Int8, Int8Sums, single 7, batch 2 x 4, "sse2");

f32_lanes!(
    __m128, 4,
    load _mm_loadu_ps, broadcast _mm_set1_ps, add _mm_add_ps, mul _mm_mul_ps, div _mm_div_ps, min _mm_min_ps, max _mm_max_ps,
    store _mm_storeu_ps,
    store_low_bytes |v, p| {
        let low = _mm_and_si128(_mm_castps_si128(v), _mm_set1_epi32(255));
        let bytes = _mm_packus_epi16(_mm_packs_epi32(low, low), low);
        p.cast::<i32>().write_unaligned(_mm_cvtsi128_si32(bytes))
    }
);

/// Four outputs, times 256.
#[derive(Clone, Copy)]
pub(super) struct Int8Sums(__m128i);

impl Accumulator for Int8Sums {
    type Precision = Int8;
    const LANES: usize = 4;
    /// Weights 0 and 2 of each group of four times 256 as i16, and weights 1 and 3 times 256.
    type Weights = [__m128i; 2];
    /// Inputs 0 and 2 of a group of four as i16, and inputs 1 and 3.
    type Broadcast = [__m128i; 2];
    #[inline(always)]
    unsafe fn start(_: *const i32) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self(_mm_setzero_si128()) }
    }
    #[inline(always)]
    unsafe fn load(weights: *const [i8; 4]) -> [__m128i; 2] {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let w = _mm_loadu_si128(weights.cast());
            [_mm_slli_epi16::<8>(w), _mm_and_si128(w, _mm_set1_epi16(-256))]
        }
    }
    #[inline(always)]
    unsafe fn broadcast(x: [u8; 4]) -> [__m128i; 2] {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let x = _mm_set1_epi32(i32::from_le_bytes(x));
            [_mm_and_si128(x, _mm_set1_epi16(255)), _mm_srli_epi16::<8>(x)]
        }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, [even, odd]: [__m128i; 2], x: [__m128i; 2]) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let products = _mm_add_epi32(_mm_madd_epi16(even, x[0]), _mm_madd_epi16(odd, x[1]));
            Self(_mm_add_epi32(self.0, products))
        }
    }
}

impl I32Accumulator for Int8Sums {
    /// SSE2 lacks PMULHRSW, so plain Rust does it.
    type I16 = [i16; 4];
    #[inline(always)]
    unsafe fn requantize(self, bias: *const i32, shift: *const i16, scale: *const i16) -> [i16; 4] {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let sum = _mm_srai_epi32::<8>(self.0);
            let mut sums = [0i32; 4];
            _mm_storeu_si128(sums.as_mut_ptr().cast(), _mm_add_epi32(sum, _mm_loadu_si128(bias.cast())));
            let (shift, scale) = (shift.cast::<[i16; 4]>().read(), scale.cast::<[i16; 4]>().read());
            core::array::from_fn(|i| shift_to_i16(sums[i], shift[i])).multiply(scale)
        }
    }
}
