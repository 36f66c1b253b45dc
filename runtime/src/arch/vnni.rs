//! AVX-512 with VNNI, the dot product of four u8 and four i8 per 32-bit lane: 32 registers of 64 bytes. f32 layers use AVX-512.

use core::arch::x86_64::*;

pub(super) use super::avx512::f32_layer;
use super::int8_ops::{I16Lanes, I32Accumulator, Int8, i16_lanes};
use super::tiling::{self, Accumulator, kernel};

// One image: the 784 outputs are 49 vectors, 7 strips of 7.
// Several: 8 × 3 sums, three vectors of weights and one input in 28 of the 32 registers.
kernel!(int8_layer, Int8, Int8Sums, single 7, batch 8 x 3, "avx512f,avx512bw,avx512vl,avx512vnni");

/// Sixteen outputs.
#[derive(Clone, Copy)]
pub(super) struct Int8Sums(__m512i);

impl Accumulator for Int8Sums {
    type Precision = Int8;
    const LANES: usize = 16;
    type Weights = __m512i;
    type Broadcast = __m512i;
    #[inline(always)]
    unsafe fn start(_: *const i32) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self(_mm512_setzero_si512()) }
    }
    #[inline(always)]
    unsafe fn load(weights: *const [i8; 4]) -> __m512i {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { _mm512_loadu_si512(weights.cast()) }
    }
    #[inline(always)]
    unsafe fn broadcast(x: [u8; 4]) -> __m512i {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { _mm512_set1_epi32(i32::from_le_bytes(x)) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, w: __m512i, x: __m512i) -> Self {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe { Self(_mm512_dpbusd_epi32(self.0, x, w)) }
    }
}

impl I32Accumulator for Int8Sums {
    type I16 = __m256i;
    #[inline(always)]
    unsafe fn requantize(self, bias: *const i32, shift: *const i16, scale: *const i16) -> __m256i {
        // SAFETY: the caller promises these instructions and valid pointers.
        unsafe {
            let sum = _mm512_add_epi32(self.0, _mm512_loadu_si512(bias.cast()));
            let sum = _mm512_srav_epi32(sum, _mm512_cvtepi16_epi32(_mm256_loadu_si256(shift.cast())));
            _mm512_cvtsepi32_epi16(sum).multiply(_mm256_loadu_si256(scale.cast()))
        }
    }
}

i16_lanes!(
    __m256i,
    splat _mm256_set1_epi16, add _mm256_add_epi16, add_saturating _mm256_adds_epi16, sub _mm256_sub_epi16,
    multiply _mm256_mulhrs_epi16, min _mm256_min_epi16, max _mm256_max_epi16, and _mm256_and_si256, xor _mm256_xor_si256,
    shift_left |a, bits| _mm256_sll_epi16(a, _mm_cvtsi32_si128(bits as i32)), shift_right _mm256_srai_epi16,
    store_bytes |v, p| _mm_storeu_si128(p.cast(), _mm256_cvtepi16_epi8(v))
);
