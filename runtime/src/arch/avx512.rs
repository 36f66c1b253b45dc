//! AVX-512 without VNNI: 32 registers of 16 f32. Integer layers use AVX2.

use core::arch::x86_64::*;

pub(super) use super::avx2::int8_layer;
use super::f32_ops::{F32, f32_lanes};
use super::tiling::{self, kernel};

// One image: the 784 outputs are 49 vectors, so one strip of 25 and three of 8 compute them; an image then takes 4.25 µs,
// where reading the weights from the L2 cache takes 3.95 (Zen 4, one core).
// Several: 16 × 1 sums, one vector of weights, and inputs that the multiplication broadcasts from memory. Half as many register
// reads as square tiles, which limited those on Zen 4.
kernel!(f32_layer, F32, __m512, single 25, batch 16 x 1, "avx512f");

f32_lanes!(
    __m512, 16,
    load _mm512_loadu_ps, broadcast _mm512_set1_ps, add _mm512_add_ps, mul _mm512_mul_ps, div _mm512_div_ps,
    min _mm512_min_ps, max _mm512_max_ps, store _mm512_storeu_ps,
    store_low_bytes |v, p| _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_castps_si512(v)))
);
