//! The kernels: one loop, written once over [`Lanes`], and the instruction sets that it is compiled for.
//!
//! `unsafe` here is of two kinds: intrinsics, which are called only where [`Kernel`] has seen that the CPU has them, and
//! loads and stores through pointers, whose bounds are constants that the loop asserts when it is compiled.

#[cfg(target_arch = "aarch64")]
use core::arch::aarch64::*;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;

use crate::generator::{Dense, Generator};
use crate::image::Image;
use crate::latent::LATENT;

/// A set of instructions to compute with. All give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Isa);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Sse2,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "aarch64")]
    Neon,
}

// Known when the library is compiled, or with std asked when the program runs.
#[cfg(target_arch = "x86_64")]
fn has_avx2() -> bool {
    #[cfg(feature = "std")]
    return std::is_x86_feature_detected!("avx2");
    #[cfg(not(feature = "std"))]
    cfg!(target_feature = "avx2")
}

#[cfg(target_arch = "x86_64")]
fn has_avx512() -> bool {
    #[cfg(feature = "std")]
    return std::is_x86_feature_detected!("avx512f");
    #[cfg(not(feature = "std"))]
    cfg!(target_feature = "avx512f")
}

impl Kernel {
    /// Plain Rust, for any CPU.
    pub const SCALAR: Self = Self(Isa::Scalar);

    /// The fastest that this CPU can run.
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if has_avx512() {
            Self(Isa::Avx512)
        } else if has_avx2() {
            Self(Isa::Avx2)
        } else {
            Self(Isa::Sse2)
        }
        #[cfg(target_arch = "aarch64")]
        {
            Self(Isa::Neon)
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        Self::SCALAR
    }

    /// All that this CPU can run, the slowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        let all = [
            Some(Isa::Scalar),
            #[cfg(target_arch = "x86_64")]
            Some(Isa::Sse2),
            #[cfg(target_arch = "x86_64")]
            has_avx2().then_some(Isa::Avx2),
            #[cfg(target_arch = "x86_64")]
            has_avx512().then_some(Isa::Avx512),
            #[cfg(target_arch = "aarch64")]
            Some(Isa::Neon),
        ];
        all.into_iter().flatten().map(Self)
    }

    /// For people and for benchmarks.
    pub fn name(self) -> &'static str {
        match self.0 {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Sse2 => "sse2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => "neon",
        }
    }
}

/// Images that [`draw_many`] draws in one pass over the weights.
pub(crate) const BATCH: usize = 4;

/// One image: bound by reading the weights.
pub(crate) fn draw_one(kernel: Kernel, g: &Generator, z: &[[f32; LATENT]; 1], out: &mut [Image; 1]) {
    match kernel.0 {
        Isa::Scalar => unsafe { draw::<f32, 1, 16, 16, 16, 16>(g, z, out) },
        #[cfg(target_arch = "x86_64")]
        Isa::Sse2 => unsafe { draw::<__m128, 1, 8, 8, 8, 7>(g, z, out) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::one_avx2(g, z, out) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::one_avx512(g, z, out) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { draw::<float32x4_t, 1, 8, 8, 8, 14>(g, z, out) },
    }
}

/// A batch: each weight that is loaded serves all its images.
pub(crate) fn draw_many(kernel: Kernel, g: &Generator, z: &[[f32; LATENT]; BATCH], out: &mut [Image; BATCH]) {
    match kernel.0 {
        Isa::Scalar => unsafe { draw::<f32, BATCH, 2, 2, 2, 2>(g, z, out) },
        #[cfg(target_arch = "x86_64")]
        Isa::Sse2 => unsafe { draw::<__m128, BATCH, 2, 2, 2, 2>(g, z, out) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::many_avx2(g, z, out) },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::many_avx512(g, z, out) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { draw::<float32x4_t, BATCH, 4, 4, 4, 4>(g, z, out) },
    }
}

/// One image, before rounding.
pub(crate) fn draw_f32(g: &Generator, z: &[f32; LATENT], out: &mut [f32; Image::PIXELS]) {
    let to = out.as_mut_ptr();
    // SAFETY: f32 is a Lanes of plain Rust; forward hands out j below 784.
    unsafe { forward::<f32, 1, 16, 16, 16, 16>(g, core::array::from_ref(z), |_, j, t| t.store(to.add(j))) }
}

pub(crate) fn tanh(x: f32) -> f32 {
    // SAFETY: f32 is a Lanes of plain Rust.
    unsafe { tanh_of(x) }
}

/// The loops compiled for more than the target's baseline.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    #[target_feature(enable = "avx2")]
    pub unsafe fn one_avx2(g: &Generator, z: &[[f32; LATENT]; 1], out: &mut [Image; 1]) {
        unsafe { draw::<__m256, 1, 4, 8, 8, 7>(g, z, out) }
    }

    #[target_feature(enable = "avx2")]
    pub unsafe fn many_avx2(g: &Generator, z: &[[f32; LATENT]; BATCH], out: &mut [Image; BATCH]) {
        unsafe { draw::<__m256, BATCH, 2, 2, 2, 2>(g, z, out) }
    }

    #[target_feature(enable = "avx512f")]
    pub unsafe fn one_avx512(g: &Generator, z: &[[f32; LATENT]; 1], out: &mut [Image; 1]) {
        unsafe { draw::<__m512, 1, 2, 4, 8, 7>(g, z, out) }
    }

    #[target_feature(enable = "avx512f")]
    pub unsafe fn many_avx512(g: &Generator, z: &[[f32; LATENT]; BATCH], out: &mut [Image; BATCH]) {
        unsafe { draw::<__m512, BATCH, 2, 4, 4, 7>(g, z, out) }
    }
}

/// B images with vectors V; N1 to N4 vectors of each layer's outputs are in registers at a time.
///
/// # Safety
/// The CPU has the instructions of V, and the caller is compiled for them.
#[inline(always)]
unsafe fn draw<V: Lanes, const B: usize, const N1: usize, const N2: usize, const N3: usize, const N4: usize>(
    g: &Generator,
    z: &[[f32; LATENT]; B],
    out: &mut [Image; B],
) {
    let out = out.as_mut_ptr().cast::<u8>();
    // SAFETY: Image is 784 bytes; forward hands out b below B and j, with the lanes after it, below 784.
    unsafe { forward::<V, B, N1, N2, N3, N4>(g, z, |b, j, t| t.store_pixels(out.add(b * Image::PIXELS + j))) }
}

/// The generator up to tanh: `emit(b, j, t)` gets pixels j, j + 1, … of image b, as many as V has lanes.
#[inline(always)]
unsafe fn forward<V: Lanes, const B: usize, const N1: usize, const N2: usize, const N3: usize, const N4: usize>(
    g: &Generator,
    z: &[[f32; LATENT]; B],
    mut emit: impl FnMut(usize, usize, V),
) {
    let (mut h1, mut h2, mut h3) = ([[0f32; 32]; B], [[0f32; 64]; B], [[0f32; 128]; B]);
    let (to1, to2, to3) = (h1.as_mut_ptr(), h2.as_mut_ptr(), h3.as_mut_ptr());
    // SAFETY: the caller's, and dense hands out b below B and j, with the lanes after it, below the layer's outputs.
    unsafe {
        dense::<V, LATENT, 32, B, N1>(&g.fc1, z, |b, j, a| leaky_relu(a).store(to1.add(b).cast::<f32>().add(j)));
        dense::<V, 32, 64, B, N2>(&g.fc2, &h1, |b, j, a| leaky_relu(a).store(to2.add(b).cast::<f32>().add(j)));
        dense::<V, 64, 128, B, N3>(&g.fc3, &h2, |b, j, a| leaky_relu(a).store(to3.add(b).cast::<f32>().add(j)));
        dense::<V, 128, { Image::PIXELS }, B, N4>(&g.fc4, &h3, |b, j, a| emit(b, j, tanh_of(a)));
    }
}

/// acc = bias; for k ascending: acc = acc + w[k][j] · x[k].
#[inline(always)]
unsafe fn dense<V: Lanes, const I: usize, const O: usize, const B: usize, const N: usize>(
    layer: &Dense<I, O>,
    x: &[[f32; I]; B],
    mut emit: impl FnMut(usize, usize, V),
) {
    const { assert!(O.is_multiple_of(N * V::LANES)) };
    let (weight, bias, x) = (layer.weight.as_ptr(), layer.bias.as_ptr(), x.as_ptr().cast::<f32>());
    for j in (0..O).step_by(N * V::LANES) {
        // SAFETY: j + N · LANES ≤ O by the assertion above, so all loads are within the I · O weights, the O biases and
        // the B · I inputs.
        unsafe {
            let mut first = [V::splat(0.0); N];
            for (n, first) in first.iter_mut().enumerate() {
                *first = V::load(bias.add(j + n * V::LANES));
            }
            let mut acc = [first; B];
            for k in 0..I {
                let row = weight.add(k * O + j);
                let mut w = [V::splat(0.0); N];
                for (n, w) in w.iter_mut().enumerate() {
                    *w = V::load(row.add(n * V::LANES));
                }
                for (b, acc) in acc.iter_mut().enumerate() {
                    let x = V::splat(*x.add(b * I + k));
                    for (acc, w) in acc.iter_mut().zip(w) {
                        *acc = acc.add(w.mul(x));
                    }
                }
            }
            for (b, acc) in acc.into_iter().enumerate() {
                for (n, a) in acc.into_iter().enumerate() {
                    emit(b, j + n * V::LANES, a);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn leaky_relu<V: Lanes>(a: V) -> V {
    unsafe { a.max(a.mul(V::splat(0.2))) }
}

/// See [`crate::generator::tanh`].
#[inline(always)]
unsafe fn tanh_of<V: Lanes>(x: V) -> V {
    const LIMIT: f32 = 7.905_311;
    const ALPHA: [f32; 7] =
        [-2.760_768_5e-16, 2.000_188e-13, -8.604_672e-11, 5.122_297e-8, 1.485_722_4e-5, 6.372_619e-4, 4.893_524_6e-3];
    const BETA: [f32; 4] = [1.198_258_4e-6, 1.185_347e-4, 2.268_434_6e-3, 4.893_525e-3];
    unsafe {
        let x = x.max(V::splat(-LIMIT)).min(V::splat(LIMIT));
        let x2 = x.mul(x);
        let mut p = V::splat(ALPHA[0]);
        for alpha in &ALPHA[1..] {
            p = p.mul(x2).add(V::splat(*alpha));
        }
        let mut q = V::splat(BETA[0]);
        for beta in &BETA[1..] {
            q = q.mul(x2).add(V::splat(*beta));
        }
        p.mul(x).div(q)
    }
}

/// A vector of f32. Each method is one IEEE operation on every lane; `max(a, b)` is `if a > b { a } else { b }`.
///
/// # Safety
/// Of all methods: the CPU has the instructions. Of loads and stores: the lanes lie in bounds; no alignment is needed.
trait Lanes: Copy {
    const LANES: usize;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;

    /// Rounds 127.5 t + 127.5 to the nearest integer, ties to even: in t + 2²³ the unit in the last place is 1, and the
    /// integer stands in the low bits.
    #[inline(always)]
    unsafe fn store_pixels(self, to: *mut u8) {
        unsafe {
            let half = Self::splat(127.5);
            let mut wide = [0f32; 16];
            self.mul(half).add(half).add(Self::splat(8_388_608.0)).store(wide.as_mut_ptr());
            for (i, x) in wide.iter().take(Self::LANES).enumerate() {
                *to.add(i) = x.to_bits() as u8;
            }
        }
    }
}

impl Lanes for f32 {
    const LANES: usize = 1;
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { *from }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        x
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { *to = self }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self + other
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self * other
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self / other
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        if self < other { self } else { other }
    }
}

/// The same few lines for each instruction set.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! lanes {
    ($vector:ty, $lanes:literal, $load:ident, $splat:ident, $store:ident, $add:ident, $mul:ident, $div:ident, $max:ident,
     $min:ident $(, $store_pixels:item)?) => {
        impl Lanes for $vector {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                unsafe { $store(to, self) }
            }
            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                unsafe { $add(self, other) }
            }
            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                unsafe { $mul(self, other) }
            }
            #[inline(always)]
            unsafe fn div(self, other: Self) -> Self {
                unsafe { $div(self, other) }
            }
            #[inline(always)]
            unsafe fn max(self, other: Self) -> Self {
                unsafe { $max(self, other) }
            }
            #[inline(always)]
            unsafe fn min(self, other: Self) -> Self {
                unsafe { $min(self, other) }
            }
            $(#[inline(always)] $store_pixels)?
        }
    };
}

#[cfg(target_arch = "x86_64")]
lanes!(__m128, 4, _mm_loadu_ps, _mm_set1_ps, _mm_storeu_ps, _mm_add_ps, _mm_mul_ps, _mm_div_ps, _mm_max_ps, _mm_min_ps);
#[cfg(target_arch = "x86_64")]
lanes!(
    __m256,
    8,
    _mm256_loadu_ps,
    _mm256_set1_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_mul_ps,
    _mm256_div_ps,
    _mm256_max_ps,
    _mm256_min_ps
);
#[cfg(target_arch = "x86_64")]
lanes!(
    __m512,
    16,
    _mm512_loadu_ps,
    _mm512_set1_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_mul_ps,
    _mm512_div_ps,
    _mm512_max_ps,
    _mm512_min_ps,
    unsafe fn store_pixels(self, to: *mut u8) {
        unsafe {
            let half = _mm512_set1_ps(127.5);
            let wide = _mm512_add_ps(_mm512_add_ps(_mm512_mul_ps(self, half), half), _mm512_set1_ps(8_388_608.0));
            _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_castps_si512(wide)))
        }
    }
);
#[cfg(target_arch = "aarch64")]
lanes!(float32x4_t, 4, vld1q_f32, vdupq_n_f32, vst1q_f32, vaddq_f32, vmulq_f32, vdivq_f32, vmaxq_f32, vminq_f32);

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::GENERATOR;
    use crate::latent::latent;

    #[test]
    fn every_kernel_gives_the_same_bytes_alone_and_in_a_batch() {
        let z: Vec<_> = (0..1023).map(latent).collect();
        let expected: Vec<Image> = z.iter().map(|z| GENERATOR.draw(Kernel::SCALAR, z)).collect();
        for kernel in Kernel::all() {
            let alone: Vec<Image> = z.iter().map(|z| GENERATOR.draw(kernel, z)).collect();
            assert!(alone == expected, "{} alone", kernel.name());
            let mut batch = std::vec![Image::BLANK; z.len()];
            GENERATOR.draw_batch(kernel, &z, &mut batch);
            assert!(batch == expected, "{} in a batch", kernel.name());
        }
    }

    #[test]
    fn tanh_is_as_near_to_the_truth_as_its_documentation_says() {
        // All f32 between 2⁻¹⁴ and 8; below, tanh x is x to within the bound, beyond ±7.905 it is constant.
        let step = if cfg!(debug_assertions) { 997 } else { 1 };
        let worst = (0x3880_0000u32..0x4100_0000).step_by(step).map(|bits| {
            let x = f32::from_bits(bits);
            assert_eq!(tanh(-x).to_bits(), tanh(x).to_bits() | 0x8000_0000);
            (tanh(x) as f64 - (x as f64).tanh()).abs()
        });
        let worst = worst.fold(0f64, f64::max);
        for x in [0.0, 1e-45, 1e-20, 6e-5, 7.9, 8.0, 100.0, f32::MAX, f32::INFINITY] {
            assert!((tanh(x) as f64 - (x as f64).tanh()).abs() <= worst, "tanh {x} is {}", tanh(x));
        }
        std::println!("largest error of tanh: {worst:e}");
        assert!(worst < 4.7e-7, "{worst:e}");
    }
}
