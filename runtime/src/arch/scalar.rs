//! Plain Rust, for every CPU. On Cortex-M cores with an FPU or the DSP extension its sums are written in assembly.

use super::f32_ops::{F32, F32Lanes};
use super::int8_ops::{I16Lanes, I32Accumulator, Int8, shift_to_i16};
use super::tiling::{self, Accumulator, binary, kernel};

/// Outputs that one pass over the inputs computes: as many sums as there are registers for.
const OUTPUTS_PER_PASS: usize = if cfg!(dsp) { 4 } else { 16 };
/// Outputs per pass for one row of an image, f32: half a row, whose sums fit the registers of a Cortex-M4F.
pub(super) const ROW_OUTPUTS_PER_PASS: usize = 14;
/// Outputs per pass for one row of an image, int8.
pub(super) const INT8_ROW_OUTPUTS_PER_PASS: usize = if cfg!(dsp) { 4 } else { 14 };

kernel!(f32_layer, F32, f32, single 16, batch 1 x 16);
kernel!(int8_layer, Int8, i32, single OUTPUTS_PER_PASS, batch 1 x OUTPUTS_PER_PASS);

impl Accumulator for f32 {
    type Precision = F32;
    const LANES: usize = 1;
    type Weights = f32;
    type Broadcast = f32;
    #[inline(always)]
    unsafe fn start(bias: *const f32) -> f32 {
        // SAFETY: the caller promises valid pointers.
        unsafe { bias.read() }
    }
    #[inline(always)]
    unsafe fn load(weights: *const f32) -> f32 {
        // SAFETY: the caller promises valid pointers.
        unsafe { weights.read() }
    }
    #[inline(always)]
    unsafe fn broadcast(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    unsafe fn multiply_add(self, w: f32, x: f32) -> f32 {
        self + w * x
    }
    #[cfg(fpu)]
    #[inline(always)]
    unsafe fn tile_sums<const K: usize, const O: usize, const N: usize, const C: usize>(
        weight: *const f32,
        bias: *const f32,
        x: &[[f32; K]; N],
    ) -> [[f32; N]; C] {
        // SAFETY: the caller promises it.
        unsafe { super::armv7em::f32_tile_sums::<K, O, N, C>(weight, bias, x) }
    }
}

impl F32Lanes for f32 {
    binary! {
        add: |a, b| a + b;
        mul: |a, b| a * b;
        div: |a, b| a / b;
        min: |a, b| if a < b { a } else { b };
        max: |a, b| if a > b { a } else { b };
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller promises valid pointers.
        unsafe { p.write(self) }
    }
    #[inline(always)]
    unsafe fn store_low_bytes(self, p: *mut u8) {
        // SAFETY: the caller promises valid pointers.
        unsafe { p.write(self.to_bits() as u8) }
    }
}

impl Accumulator for i32 {
    type Precision = Int8;
    const LANES: usize = 1;
    /// A pointer: loaded as a value, a Cortex-M3 takes 14 % more instructions per image.
    type Weights = *const [i8; 4];
    type Broadcast = [u8; 4];
    #[inline(always)]
    unsafe fn start(_: *const i32) -> i32 {
        0
    }
    #[inline(always)]
    unsafe fn load(weights: *const [i8; 4]) -> *const [i8; 4] {
        weights
    }
    #[inline(always)]
    unsafe fn broadcast(x: [u8; 4]) -> [u8; 4] {
        x
    }
    #[inline(always)]
    unsafe fn multiply_add(self, w: *const [i8; 4], x: [u8; 4]) -> i32 {
        // SAFETY: the caller promises valid pointers.
        let w = unsafe { w.read() };
        let product = |i: usize| w[i] as i32 * x[i] as i32;
        self + product(0) + product(1) + product(2) + product(3)
    }
    #[cfg(dsp)]
    #[inline(always)]
    unsafe fn tile_sums<const K: usize, const O: usize, const N: usize, const C: usize>(
        weight: *const [i8; 4],
        bias: *const i32,
        x: &[[[u8; 4]; K]; N],
    ) -> [[i32; N]; C] {
        // SAFETY: the caller promises it.
        unsafe { super::armv7em::int8_tile_sums::<K, O, N, C>(weight, bias, x) }
    }
}

impl I32Accumulator for i32 {
    type I16 = [i16; 1];
    #[inline(always)]
    unsafe fn requantize(self, bias: *const i32, shift: *const i16, scale: *const i16) -> [i16; 1] {
        // SAFETY: the caller promises valid pointers.
        unsafe { [shift_to_i16(self + *bias, *shift)].multiply([*scale]) }
    }
}

impl<const N: usize> I16Lanes for [i16; N] {
    #[inline(always)]
    unsafe fn splat(x: i16) -> Self {
        [x; N]
    }
    binary! {
        add: |a, b| zip(a, b, i16::wrapping_add);
        add_saturating: |a, b| zip(a, b, i16::saturating_add);
        sub: |a, b| zip(a, b, i16::wrapping_sub);
        multiply: |a, b| zip(a, b, |a, b| ((a as i32 * b as i32 + (1 << 14)) >> 15) as i16);
        min: |a, b| zip(a, b, i16::min);
        max: |a, b| zip(a, b, i16::max);
        and: |a, b| zip(a, b, |a, b| a & b);
        xor: |a, b| zip(a, b, |a, b| a ^ b);
    }
    #[inline(always)]
    unsafe fn shift_left(self, bits: i16) -> Self {
        self.map(|a| a << (bits & 15))
    }
    #[inline(always)]
    unsafe fn shift_right<const BITS: i32>(self) -> Self {
        self.map(|a| a >> BITS)
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8) {
        // SAFETY: valid for N bytes, as the trait demands.
        unsafe { p.copy_from_nonoverlapping(self.map(|a| a as u8).as_ptr(), N) }
    }
}

/// `f` of each pair of numbers.
#[inline(always)]
fn zip<const N: usize>(mut a: [i16; N], b: [i16; N], f: impl Fn(i16, i16) -> i16) -> [i16; N] {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = f(*a, b));
    a
}
