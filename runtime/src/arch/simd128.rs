//! WebAssembly's 128-bit vectors: 4 f32 or 16 bytes. An engine compiles them to SSE or NEON, which have 16 or 32 registers.

use core::arch::wasm32::*;

use super::f32_ops::{F32, f32_lanes};
use super::int8_ops::{I16Lanes, I32Accumulator, Int8, i16_lanes, shift_to_i16};
use super::tiling::{self, Accumulator, kernel};

// 14 of 16 registers hold sums; 784 outputs are 14 strips of 14 · 4. Several images are drawn one by one: V8 spills the registers of
// larger tiles (2 × 6: 48 µs an image, one by one: 38, on a Zen 1).
kernel!(f32_layer, F32, v128, single 14, batch 1 x 14, "simd128");
// 7 sums of two registers; 784 outputs are 14 strips of 7 · 8. (2 × 2 sums: 26 µs an image, one by one: 18.)
kernel!(int8_layer, Int8, Int8Sums, single 7, batch 1 x 7, "simd128");

// Of two numbers `f32x4_pmin` and `f32x4_pmax` return what SSE's instructions return; `f32x4_min` takes five of those.
f32_lanes!(
    v128, 4,
    load load, broadcast f32x4_splat, add f32x4_add, mul f32x4_mul, div f32x4_div, min f32x4_pmin, max f32x4_pmax,
    store store,
    store_low_bytes |v, p| {
        let low = v128_and(v, i32x4_splat(255));
        let bytes = u8x16_narrow_i16x8(u16x8_narrow_i32x4(low, low), low);
        v128_store32_lane::<0>(bytes, p.cast())
    }
);

/// # Safety
/// 16 bytes can be read.
#[inline(always)]
unsafe fn load<T>(p: *const T) -> v128 {
    // SAFETY: the caller promises 16 valid bytes.
    unsafe { v128_load(p.cast()) }
}

/// # Safety
/// 16 bytes can be written.
#[inline(always)]
unsafe fn store<T>(p: *mut T, v: v128) {
    // SAFETY: the caller promises 16 valid bytes.
    unsafe { v128_store(p.cast(), v) }
}

/// Eight outputs, times 256.
#[derive(Clone, Copy)]
pub(super) struct Int8Sums([v128; 2]);

impl Accumulator for Int8Sums {
    type Precision = Int8;
    const LANES: usize = 8;
    /// Per register of sums: weights 0 and 2 of each group of four times 256 as i16, and weights 1 and 3 times 256.
    type Weights = [[v128; 2]; 2];
    /// Inputs 0 and 2 of a group of four as i16, and inputs 1 and 3.
    type Broadcast = [v128; 2];
    #[inline(always)]
    unsafe fn start(_: *const i32) -> Self {
        Self([i32x4_splat(0); 2])
    }
    #[inline(always)]
    unsafe fn load(weights: *const [i8; 4]) -> [[v128; 2]; 2] {
        // SAFETY: the caller promises valid pointers.
        let (a, b) = unsafe { (load(weights), load(weights.add(4))) };
        let high = i16x8_splat(-256);
        [[i16x8_shl(a, 8), v128_and(a, high)], [i16x8_shl(b, 8), v128_and(b, high)]]
    }
    #[inline(always)]
    unsafe fn broadcast(x: [u8; 4]) -> [v128; 2] {
        let x = i32x4_splat(i32::from_le_bytes(x));
        [v128_and(x, i16x8_splat(255)), u16x8_shr(x, 8)]
    }
    #[inline(always)]
    unsafe fn multiply_add(self, [a, b]: [[v128; 2]; 2], x: [v128; 2]) -> Self {
        let add =
            |sum, w: [v128; 2]| i32x4_add(sum, i32x4_add(i32x4_dot_i16x8(w[0], x[0]), i32x4_dot_i16x8(w[1], x[1])));
        Self([add(self.0[0], a), add(self.0[1], b)])
    }
}

impl I32Accumulator for Int8Sums {
    type I16 = v128;
    #[inline(always)]
    unsafe fn requantize(self, bias: *const i32, shift: *const i16, scale: *const i16) -> v128 {
        // SAFETY: the caller promises valid pointers.
        unsafe {
            // WebAssembly shifts all lanes by the same number of bits, so plain Rust does it.
            let mut sums = [0i32; 8];
            store(sums.as_mut_ptr(), i32x4_add(i32x4_shr(self.0[0], 8), load(bias)));
            store(sums.as_mut_ptr().add(4), i32x4_add(i32x4_shr(self.0[1], 8), load(bias.add(4))));
            let shift = shift.cast::<[i16; 8]>().read_unaligned();
            let r: [i16; 8] = core::array::from_fn(|i| shift_to_i16(sums[i], shift[i]));
            load(r.as_ptr()).multiply(load(scale))
        }
    }
}

/// Arithmetic shift.
#[inline(always)]
fn shift_right<const BITS: i32>(a: v128) -> v128 {
    i16x8_shr(a, BITS as u32)
}

// `i16x8_q15mulr_sat` saturates the product of −32768 and −32768, which PMULHRSW wraps. No such product occurs: scales, 6554 and
// the polynomial's sums are larger than −32768.
i16_lanes!(
    v128,
    splat i16x8_splat, add i16x8_add, add_saturating i16x8_add_sat, sub i16x8_sub, multiply i16x8_q15mulr_sat,
    min i16x8_min, max i16x8_max, and v128_and, xor v128_xor, shift_left |a, bits| i16x8_shl(a, bits as u32),
    shift_right shift_right, store_bytes |v, p| v128_store64_lane::<0>(u8x16_narrow_i16x8(v, v), p.cast())
);
