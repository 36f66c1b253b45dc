//! SSE2, which every x86-64 has: 16 registers of 4 f32 or 16 bytes.

use core::arch::x86_64::*;

use super::f32_ops::{F32, f32_lanes};
use super::int8_ops::{I16Lanes, I32Accumulator, Int8, shift_to_i16};
use super::tiling::{self, Accumulator, kernel};

// One image: 14 of the 16 registers hold sums; 784 outputs are 14 strips of 14 · 4.
// Several: 2 × 6 sums, two inputs, a weight and a product fill the 16 registers.
kernel!(f32_layer, F32, __m128, single 14, batch 2 x 6, "sse2");
// 4 sums take 8 registers, and the widened weights, inputs and products the rest.
kernel!(int8_layer, Int8, Int8Sums, single 4, batch 4 x 1, "sse2");

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

/// Four outputs, the first two in one register and the others in the next. Each output has two sums: inputs 0 and 1 of a group
/// of four, and inputs 2 and 3.
#[derive(Clone, Copy)]
pub(super) struct Int8Sums(__m128i, __m128i);

impl Accumulator for Int8Sums {
    type Precision = Int8;
    const LANES: usize = 4;
    type Weights = (__m128i, __m128i);
    type Broadcast = __m128i;
    #[inline(always)]
    unsafe fn start(_: *const i32) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self(_mm_setzero_si128(), _mm_setzero_si128()) }
    }
    #[inline(always)]
    unsafe fn load(weights: *const [i8; 4]) -> (__m128i, __m128i) {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let w = _mm_loadu_si128(weights.cast());
            let sign = _mm_cmpgt_epi8(_mm_setzero_si128(), w);
            (_mm_unpacklo_epi8(w, sign), _mm_unpackhi_epi8(w, sign))
        }
    }
    #[inline(always)]
    unsafe fn broadcast(x: [u8; 4]) -> __m128i {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let x = _mm_cvtsi32_si128(i32::from_le_bytes(x));
            let wide = _mm_unpacklo_epi8(x, _mm_setzero_si128());
            _mm_unpacklo_epi64(wide, wide)
        }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, (low, high): (__m128i, __m128i), x: __m128i) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self(_mm_add_epi32(self.0, _mm_madd_epi16(low, x)), _mm_add_epi32(self.1, _mm_madd_epi16(high, x))) }
    }
}

impl I32Accumulator for Int8Sums {
    /// SSE2 lacks PMULHRSW, so plain Rust does it.
    type I16 = [i16; 4];
    #[inline(always)]
    unsafe fn requantize(self, bias: *const i32, shift: *const i16, scale: *const i16) -> [i16; 4] {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let (a, b) = (_mm_castsi128_ps(self.0), _mm_castsi128_ps(self.1));
            let (even, odd) = (_mm_shuffle_ps::<0b10_00_10_00>(a, b), _mm_shuffle_ps::<0b11_01_11_01>(a, b));
            let sum = _mm_add_epi32(_mm_castps_si128(even), _mm_castps_si128(odd));
            let mut sums = [0i32; 4];
            _mm_storeu_si128(sums.as_mut_ptr().cast(), _mm_add_epi32(sum, _mm_loadu_si128(bias.cast())));
            let (shift, scale) = (shift.cast::<[i16; 4]>().read(), scale.cast::<[i16; 4]>().read());
            core::array::from_fn(|i| shift_to_i16(sums[i], shift[i])).multiply(scale)
        }
    }
}
