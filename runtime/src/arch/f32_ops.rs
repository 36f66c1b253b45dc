//! The f32 network's arithmetic beside its sums, for any vector width: LeakyReLU, tanh, and the rounding to pixels.
//!
//! Each operation rounds once, as IEEE 754 says, and the order of the operations is fixed. So every width gives the same bits.

use super::tiling::{Accumulator, Epilogue, Precision};

/// Single precision.
pub(crate) struct F32;

impl Precision for F32 {
    type Weight = f32;
    type Bias = f32;
    type Input = f32;
}

/// `LANES` f32 numbers, on which every operation acts lane by lane.
///
/// # Safety of all methods
/// The CPU has the instructions that the type stands for. Pointers are valid for `LANES` elements, of any alignment.
pub(crate) trait F32Lanes: Accumulator<Precision = F32, Weights = Self, Broadcast = Self> {
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn div(self, b: Self) -> Self;
    unsafe fn min(self, b: Self) -> Self;
    unsafe fn max(self, b: Self) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// Stores the lowest byte of each number's bits.
    unsafe fn store_low_bytes(self, p: *mut u8);
}

/// What follows the sums of an f32 layer.
pub(crate) trait F32Activation: Copy {
    type Output;
    /// # Safety
    /// The CPU has the instructions of `V`, and `y` is valid for `LANES` outputs.
    unsafe fn store<V: F32Lanes>(sums: V, y: *mut Self::Output);
}

/// An activation as the tiling's epilogue.
#[derive(Clone, Copy)]
pub(crate) struct Activate<A>(pub A);

impl<V: F32Lanes, A: F32Activation> Epilogue<V> for Activate<A> {
    type Output = A::Output;
    #[inline(always)]
    unsafe fn store(self, sums: V, _: usize, y: *mut A::Output) {
        // SAFETY: the caller promises it.
        unsafe { A::store(sums, y) }
    }
}

/// LeakyReLU: `max(a, 0.2·a)`.
#[derive(Clone, Copy)]
pub(crate) struct Leaky;

impl F32Activation for Leaky {
    type Output = f32;
    #[inline(always)]
    unsafe fn store<V: F32Lanes>(a: V, y: *mut f32) {
        // SAFETY: the caller promises it.
        unsafe { a.max(a.mul(V::broadcast(0.2))).store(y) }
    }
}

/// [`tanh`].
#[derive(Clone, Copy)]
pub(crate) struct Tanh;

impl F32Activation for Tanh {
    type Output = f32;
    #[inline(always)]
    unsafe fn store<V: F32Lanes>(a: V, y: *mut f32) {
        // SAFETY: the caller promises it.
        unsafe { tanh_lanes(a).store(y) }
    }
}

/// [`tanh`] as a grey level: `127.5·t + 127.5`, rounded to nearest, ties to even.
#[derive(Clone, Copy)]
pub(crate) struct Pixel;

impl F32Activation for Pixel {
    type Output = u8;
    #[inline(always)]
    unsafe fn store<V: F32Lanes>(a: V, y: *mut u8) {
        // SAFETY: the caller promises it. Between 2²³ and 2²³ + 255 neighbouring f32 are 1 apart, so adding 2²³ rounds to the
        // nearest integer, ties to even, and leaves that integer in the lowest byte.
        unsafe {
            let grey = tanh_lanes(a).mul(V::broadcast(127.5)).add(V::broadcast(127.5));
            grey.add(V::broadcast(8_388_608.0)).store_low_bytes(y)
        }
    }
}

/// tanh x, in [-1, 1], within 4.4e-7 of the true value for every f32 (4.353e-7 at worst).
///
/// It is `x·P(x²) / Q(x²)` with x clamped to [-8, 8]. P has degree 3 and Q degree 4, both evaluated by Horner's rule. The
/// coefficients are a minimax fit on [0, 8].
pub fn tanh(x: f32) -> f32 {
    // SAFETY: f32 needs no instruction set.
    unsafe { tanh_lanes(x) }
}

/// [`tanh`] of each lane.
///
/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
unsafe fn tanh_lanes<V: F32Lanes>(x: V) -> V {
    const P: [f32; 4] = [1.131_020_3e-5, 0.002_938_825_6, 0.129_136_4, 0.999_999_34];
    const Q: [f32; 5] = [2.423_835_2e-7, 2.370_281_9e-4, 0.023_763_819, 0.462_467_37, 1.0];
    // SAFETY: the caller promises it.
    unsafe {
        let x = x.max(V::broadcast(-8.0)).min(V::broadcast(8.0));
        let y = x.mul(x);
        let (mut p, mut q) = (V::broadcast(P[0]), V::broadcast(Q[0]));
        for &c in &P[1..] {
            p = p.mul(y).add(V::broadcast(c));
        }
        for &c in &Q[1..] {
            q = q.mul(y).add(V::broadcast(c));
        }
        x.mul(p).div(q)
    }
}

/// Implements [`F32Lanes`] for a vector type by the CPU's intrinsics. (Their paths carry the instruction set's prefix.)
#[allow(unused_macros)]
macro_rules! f32_lanes {
    ($vector:ty, $lanes:literal, load $load:path, broadcast $broadcast:path, add $add:path, mul $mul:path, div $div:path,
     min $min:path, max $max:path, store $store:path, store_low_bytes |$v:ident, $p:ident| $store_low_bytes:expr) => {
        #[allow(unused_unsafe)] // arithmetic in WebAssembly is safe
        impl $crate::arch::tiling::Accumulator for $vector {
            type Precision = $crate::arch::f32_ops::F32;
            const LANES: usize = $lanes;
            type Weights = Self;
            type Broadcast = Self;
            #[inline(always)]
            unsafe fn start(bias: *const f32) -> Self {
                // SAFETY: the caller promises these instructions and valid pointers.
                unsafe { $load(bias) }
            }
            #[inline(always)]
            unsafe fn load(weights: *const f32) -> Self {
                // SAFETY: the caller promises these instructions and valid pointers.
                unsafe { $load(weights) }
            }
            #[inline(always)]
            unsafe fn broadcast(x: f32) -> Self {
                // SAFETY: the caller promises these instructions and valid pointers.
                unsafe { $broadcast(x) }
            }
            #[inline(always)]
            unsafe fn multiply_add(self, w: Self, x: Self) -> Self {
                // SAFETY: the caller promises these instructions and valid pointers. Two roundings: never fused, or
                // kernels would differ.
                unsafe { $add(self, $mul(w, x)) }
            }
        }

        #[allow(unused_unsafe)] // arithmetic in WebAssembly is safe
        impl $crate::arch::f32_ops::F32Lanes for $vector {
            $crate::arch::tiling::binary! { add: $add; mul: $mul; div: $div; min: $min; max: $max; }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32) {
                // SAFETY: the caller promises these instructions and valid pointers.
                unsafe { $store(p, self) }
            }
            #[inline(always)]
            unsafe fn store_low_bytes(self, $p: *mut u8) {
                let $v = self;
                // SAFETY: the caller promises these instructions and valid pointers.
                unsafe { $store_low_bytes }
            }
        }
    };
}
#[allow(unused_imports)]
pub(super) use f32_lanes;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tanh_is_as_near_to_the_truth_as_its_documentation_says() {
        // All f32 between 2⁻¹⁴ and 9. Below, tanh x differs from x by less than the bound; beyond ±8 it is constant.
        let step = if cfg!(debug_assertions) { 997 } else { 1 };
        let worst = (0x3880_0000u32..0x4110_0000).step_by(step).map(|bits| {
            let x = f32::from_bits(bits);
            assert_eq!(tanh(-x).to_bits(), tanh(x).to_bits() | 0x8000_0000);
            (tanh(x) as f64 - (x as f64).tanh()).abs()
        });
        let worst = worst.fold(0f64, f64::max);
        for x in [0.0, 1e-45, 1e-20, 6e-5, 7.9, 8.0, 100.0, f32::MAX, f32::INFINITY] {
            assert!((tanh(x) as f64 - (x as f64).tanh()).abs() <= worst, "tanh {x} is {}", tanh(x));
        }
        std::println!("largest error of tanh: {worst:e}");
        assert!(worst < 4.4e-7, "{worst:e}");
    }
}
