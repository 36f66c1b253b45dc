//! The int8 network's arithmetic beside its sums, for any vector width: requantisation, LeakyReLU, and tanh as a pixel.
//!
//! Weights are i8, inputs u8, sums i32. A sum is in units of weight scale × input scale, which differ from output to output;
//! the next layer wants u8 in one unit per layer. In integers:
//!
//! ```text
//! s = Σₖ w[k]·x[k] + bias             i32, exact in any order; the bias also subtracts the inputs' zero point
//! r = sat16(s >> shift) · scale       i16; per output, shift and scale stand for the factor between the two units
//! hidden:  h = max(r, r · 6554)       LeakyReLU: 6554 / 2¹⁵ = 0.2; r is in sixteenths of the next layer's unit
//!          y = clamp((h + 8 >> 4) + zero_point, 0, 255)
//! output:  y = tanh_pixel(r)          a polynomial in 16-bit fixed point
//! ```
//!
//! Here `a · b` is the product of two i16 over 2¹⁵, rounded to nearest: one instruction on most vector units (PMULHRSW). The
//! shift comes first so that the product fits it; a factor below 1 keeps 15 significant bits this way. src/quantize.rs chooses
//! shift, scale, bias and zero point. Integer arithmetic is exact, so every kernel gives the same bytes.
//!
//! Four inputs and their weights share a 32-bit lane, as dot-product instructions want them (VNNI, and SMLAD on Cortex-M).

use super::tiling::{Accumulator, Epilogue, Precision};

/// Weights in i8, inputs in u8; four of each share a 32-bit lane.
pub(crate) struct Int8;

impl Precision for Int8 {
    type Weight = [i8; 4];
    type Bias = i32;
    type Input = [u8; 4];
}

/// `LANES` i32 sums.
///
/// # Safety of all methods
/// The CPU has the instructions that the type stands for. Pointers are valid for `LANES` elements, of any alignment.
pub(super) trait I32Accumulator: Accumulator<Precision = Int8> {
    /// The same number of i16.
    type I16: I16Lanes;
    /// `sat16((sum + bias) >> shift) · scale`.
    unsafe fn requantize(self, bias: *const i32, shift: *const i16, scale: *const i16) -> Self::I16;
}

/// i16 numbers, on which every operation acts lane by lane and wraps on overflow.
///
/// # Safety of all methods
/// The CPU has the instructions that the type stands for. Pointers are valid for one byte per lane.
pub(crate) trait I16Lanes: Copy {
    unsafe fn splat(x: i16) -> Self;
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn add_saturating(self, b: Self) -> Self;
    unsafe fn sub(self, b: Self) -> Self;
    /// `a · b / 2¹⁵`, rounded to nearest.
    unsafe fn multiply(self, b: Self) -> Self;
    unsafe fn min(self, b: Self) -> Self;
    unsafe fn max(self, b: Self) -> Self;
    unsafe fn and(self, b: Self) -> Self;
    unsafe fn xor(self, b: Self) -> Self;
    unsafe fn shift_left(self, bits: i16) -> Self;
    /// Shifts in copies of the sign.
    unsafe fn shift_right<const BITS: i32>(self) -> Self;
    /// Stores numbers in 0..=255 as bytes.
    unsafe fn store_bytes(self, p: *mut u8);
}

/// The tiling's epilogue of an int8 layer with O outputs.
#[derive(Clone, Copy)]
pub(crate) struct Requantize<'a, A, const O: usize> {
    /// Per output, in 0..=31.
    pub shift: &'a [i16; O],
    /// Per output, in units of 2⁻¹⁵.
    pub scale: &'a [i16; O],
    pub bias: &'a [i32; O],
    pub activation: A,
}

impl<A: I32Accumulator, F: I16Activation, const O: usize> Epilogue<A> for Requantize<'_, F, O> {
    type Output = u8;
    #[inline(always)]
    unsafe fn store(self, sums: A, j: usize, y: *mut u8) {
        // SAFETY: the caller promises it; j + LANES ≤ O.
        unsafe {
            let (bias, shift, scale) =
                (self.bias.as_ptr().add(j), self.shift.as_ptr().add(j), self.scale.as_ptr().add(j));
            self.activation.apply(sums.requantize(bias, shift, scale)).store_bytes(y)
        }
    }
}

/// `sum >> shift`, saturated to i16.
#[inline(always)]
pub(super) fn shift_to_i16(sum: i32, shift: i16) -> i16 {
    (sum >> (shift & 31)).clamp(i16::MIN as i32, i16::MAX as i32) as i16
}

/// What follows the requantisation of an int8 layer.
pub(crate) trait I16Activation: Copy {
    /// Outputs in 0..=255.
    ///
    /// # Safety
    /// The CPU has the instructions of `V`.
    unsafe fn apply<V: I16Lanes>(self, r: V) -> V;
}

/// LeakyReLU of numbers in sixteenths of a unit, rounded to units.
#[derive(Clone, Copy)]
pub(crate) struct LeakyI16 {
    /// The output that stands for 0.
    pub zero_point: i16,
}

impl I16Activation for LeakyI16 {
    #[inline(always)]
    unsafe fn apply<V: I16Lanes>(self, r: V) -> V {
        // SAFETY: the caller promises it.
        unsafe {
            let h = r.max(r.multiply(V::splat(6554)));
            let y = h.add_saturating(V::splat(8)).shift_right::<4>().add(V::splat(self.zero_point));
            y.max(V::splat(0)).min(V::splat(255))
        }
    }
}

/// [`tanh_pixel`].
#[derive(Clone, Copy)]
pub(crate) struct PixelI16 {
    pub pixel_shift: i16,
}

impl I16Activation for PixelI16 {
    #[inline(always)]
    unsafe fn apply<V: I16Lanes>(self, r: V) -> V {
        const C: [i16; 8] = [-548, -1709, -694, 2935, 5595, 5737, 3782, 1218];
        // SAFETY: the caller promises it.
        unsafe {
            let shift = self.pixel_shift & 15;
            let white = V::splat(-1).sub(r.shift_right::<15>()).and(V::splat(255)); // 255 where r ≥ 0, else 0
            let least = V::splat(-1 << (16 - shift)); // −3.25
            let half = r.min(V::splat(0).sub(r)).max(least).shift_left(shift - 1); // −|a|/3.25 in units of 2⁻¹⁵
            let s = V::splat(32767).add_saturating(half).add_saturating(half);
            let mut p = V::splat(C[0]);
            for &c in &C[1..] {
                p = p.multiply(s).add(V::splat(c));
            }
            p.add(V::splat(64)).shift_right::<7>().xor(white)
        }
    }
}

/// The grey level of `127.5·tanh(a) + 127.5` for `a = r · 3.25 · 2^pixel_shift / 65536`, with `pixel_shift` in 2..=15.
///
/// With a `pixel_shift` of 2 it is within 0.54 of the exact value, of which the rounding alone is 0.5. A larger shift makes
/// coarser steps.
///
/// Let s = 1 − 2·|a|/3.25. The distance to white (a ≥ 0) or to black is a polynomial in s of degree 7 with the least largest
/// error. Its coefficients and sums are in units of 1/128 grey level, s in units of 2⁻¹⁵, and each product is rounded to nearest.
pub fn tanh_pixel(r: i16, pixel_shift: i16) -> u8 {
    // SAFETY: an array of i16 needs no instruction set.
    unsafe { PixelI16 { pixel_shift }.apply([r])[0] as u8 }
}

/// Implements [`I16Lanes`] for a vector type by the CPU's intrinsics. (Their paths carry the instruction set's prefix.)
#[allow(unused_macros)]
macro_rules! i16_lanes {
    ($vector:ty, splat $splat:path, add $add:path, add_saturating $adds:path, sub $sub:path, multiply $multiply:path,
     min $min:path, max $max:path, and $and:path, xor $xor:path, shift_left |$a:ident, $bits:ident| $left:expr,
     shift_right $right:ident, store_bytes |$v:ident, $p:ident| $store_bytes:expr) => {
        #[allow(unused_unsafe)] // arithmetic in WebAssembly is safe
        impl $crate::arch::int8_ops::I16Lanes for $vector {
            #[inline(always)]
            unsafe fn splat(x: i16) -> Self {
                // SAFETY: the caller promises these instructions and valid pointers.
                unsafe { $splat(x) }
            }
            $crate::arch::tiling::binary! {
                add: $add; add_saturating: $adds; sub: $sub; multiply: $multiply; min: $min; max: $max; and: $and; xor: $xor;
            }
            #[inline(always)]
            unsafe fn shift_left(self, $bits: i16) -> Self {
                let $a = self;
                // SAFETY: the caller promises these instructions and valid pointers.
                unsafe { $left }
            }
            #[inline(always)]
            unsafe fn shift_right<const BITS: i32>(self) -> Self {
                // SAFETY: the caller promises these instructions and valid pointers.
                unsafe { $right::<BITS>(self) }
            }
            #[inline(always)]
            unsafe fn store_bytes(self, $p: *mut u8) {
                let $v = self;
                // SAFETY: the caller promises these instructions and valid pointers.
                unsafe { $store_bytes }
            }
        }
    };
}
#[allow(unused_imports)]
pub(super) use i16_lanes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tanh_pixel_is_as_near_to_the_truth_as_its_documentation_says() {
        for r in i16::MIN..=i16::MAX {
            let exact = 127.5 * (r as f64 * 3.25 / 16384.0).tanh() + 127.5;
            assert!((tanh_pixel(r, 2) as f64 - exact).abs() < 0.54, "{r}");
        }
    }
}
