//! Integer dot products: `sum[j] = Σ weight[k][j] · x[k]` with i8 weights, u8 inputs and i32 sums, exact in any order.
//!
//! Four inputs share a 32-bit lane, as the CPUs' dot-product instructions (VNNI, and SMLAD on Cortex-M) want them.

use super::{Isa, Kernel};

/// A dense layer of G groups of 4 inputs and O outputs, and what follows it.
#[repr(C)]
pub struct Dense<const G: usize, const O: usize> {
    /// `weight[g][j][i]` is that of input `4·g + i` and output `j`.
    pub(crate) weight: [[[i8; 4]; O]; G],
    pub(crate) bias: [i32; O],
    /// `shift` and `scale` bring a sum to the next step's unit, see [`rescale`].
    pub(crate) shift: [i16; O],
    pub(crate) scale: [i16; O],
}

/// From rescaled sums to bytes of the output.
trait Finish: Copy {
    /// # Safety
    /// The CPU has the instructions of `W`.
    unsafe fn finish<W: Words>(self, r: W) -> W;
}

#[derive(Clone, Copy)]
struct Leaky {
    zero: i16,
}

impl Finish for Leaky {
    #[inline(always)]
    unsafe fn finish<W: Words>(self, r: W) -> W {
        // SAFETY: as the caller promises.
        unsafe {
            let h = r.max(r.multiply(W::splat(6554)));
            let y = h.add_saturating(W::splat(8)).right::<4>().add(W::splat(self.zero));
            y.max(W::splat(0)).min(W::splat(255))
        }
    }
}

/// The pixel 127.5·tanh(a) + 127.5 of a = r · 3.25 · 2^up / 65536, within 0.54 of the exact value (0.5 of it are the
/// rounding) where `up` is 2; a larger one takes coarser steps.
///
/// With s = 1 − 2·|a|/3.25, the distance to white or black is a polynomial in s of degree 7, fitted for the least largest
/// error; coefficients and sums in 1/128 of a grey level, s in 1/32768, each product rounded to nearest.
pub fn tanh_pixel(r: i16, up: i16) -> u8 {
    // SAFETY: a plain i16 needs no instruction set.
    unsafe { Pixel { up }.finish([r])[0] as u8 }
}

#[derive(Clone, Copy)]
struct Pixel {
    up: i16,
}

impl Finish for Pixel {
    #[inline(always)]
    unsafe fn finish<W: Words>(self, r: W) -> W {
        const C: [i16; 8] = [-548, -1709, -694, 2935, 5595, 5737, 3782, 1218];
        // SAFETY: as the caller promises.
        unsafe {
            let up = self.up & 15;
            let white = W::splat(-1).sub(r.right::<15>()).and(W::splat(255)); // 255 where r ≥ 0
            let half = r.min(W::splat(0).sub(r)).max(W::splat(-1 << (16 - up))).left(up - 1); // -|a|/3.25 · 2^15
            let s = W::splat(32767).add_saturating(half).add_saturating(half);
            let mut p = W::splat(C[0]);
            for &c in &C[1..] {
                p = p.multiply(s).add(W::splat(c));
            }
            p.add(W::splat(64)).right::<7>().xor(white)
        }
    }
}

/// i16 numbers that are computed alike, wrapping on overflow.
///
/// # Safety of all methods
/// The CPU has the instructions that the type stands for; pointers are valid for as many bytes as there are numbers.
trait Words: Copy {
    unsafe fn splat(x: i16) -> Self;
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn add_saturating(self, b: Self) -> Self;
    unsafe fn sub(self, b: Self) -> Self;
    /// `a · b / 2^15`, rounded to nearest: one instruction on most vector units.
    unsafe fn multiply(self, b: Self) -> Self;
    unsafe fn min(self, b: Self) -> Self;
    unsafe fn max(self, b: Self) -> Self;
    unsafe fn and(self, b: Self) -> Self;
    unsafe fn xor(self, b: Self) -> Self;
    unsafe fn left(self, bits: i16) -> Self;
    unsafe fn right<const BITS: i32>(self) -> Self;
    /// Numbers in 0..=255.
    unsafe fn store_bytes(self, to: *mut u8);
}

impl<const G: usize, const O: usize> Dense<G, O> {
    /// (B, I) → LeakyReLU → (B, O), for as many images as both slices hold; I is 4·G. `zero` stands for 0.
    pub(crate) fn leaky<const I: usize>(&self, kernel: Kernel, x: &[[u8; I]], y: &mut [[u8; O]], zero: i16) {
        self.forward(kernel, x, y, Leaky { zero });
    }

    /// (B, I) → tanh → pixels → (B, O), see [`tanh_pixel`].
    pub(crate) fn pixels<const I: usize>(&self, kernel: Kernel, x: &[[u8; I]], y: &mut [[u8; O]], up: i16) {
        self.forward(kernel, x, y, Pixel { up });
    }

    /// The pixels from output `j` on, of one image; 0 beyond the last output. Always with the plain kernel.
    pub(crate) fn pixels_from<const I: usize, const R: usize>(&self, j: usize, x: &[u8; I], up: i16) -> [u8; R] {
        const { assert!(I == 4 * G && R.is_multiple_of(ROW) && R <= O) };
        let mut y = [0; R];
        for (first, y) in (j..).step_by(ROW).zip(y.as_chunks_mut::<ROW>().0) {
            if first <= O - ROW {
                // SAFETY: plain integers need no instruction set, and first + ROW ≤ O.
                unsafe { tile::<i32, I, G, O, 1, ROW>(self, x, y.as_mut_ptr(), first, Pixel { up }) }
            }
        }
        y
    }

    fn forward<const I: usize>(&self, kernel: Kernel, x: &[[u8; I]], y: &mut [[u8; O]], finish: impl Finish) {
        // SAFETY: a `Kernel` other than the scalar one is made only where the CPU has its instructions.
        unsafe {
            match kernel.0 {
                Isa::Scalar => scalar(self, x, y, finish),
                #[cfg(target_arch = "x86_64")]
                Isa::Sse2 => sse2(self, x, y, finish),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 | Isa::Avx512 => avx2(self, x, y, finish),
                #[cfg(target_arch = "x86_64")]
                Isa::Vnni => vnni(self, x, y, finish),
                #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
                Isa::Neon => scalar(self, x, y, finish), // which the compiler vectorises
            }
        }
    }
}

/// Outputs that one pass over the inputs takes together: as many sums as there are registers for.
const TOGETHER: usize = if cfg!(dsp) { 4 } else { 16 };
/// The same where an image is drawn in rows.
const ROW: usize = if cfg!(dsp) { 4 } else { 14 };

/// As in the f32 kernels: `single` columns of vectors for one image, `images` × `columns` for several.
macro_rules! kernel {
    ($name:ident, $sums:ty, single $single:tt, batch $images:literal x $columns:tt $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name<const I: usize, const G: usize, const O: usize>(
            l: &Dense<G, O>,
            x: &[[u8; I]],
            y: &mut [[u8; O]],
            f: impl Finish,
        ) {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { layer::<$sums, I, G, O, $single, $images, $columns>(l, x, y, f) }
        }
    };
}

kernel!(scalar, i32, single TOGETHER, batch 1 x TOGETHER);
#[cfg(target_arch = "x86_64")]
kernel!(sse2, x86::Sse2, single 4, batch 4 x 1, "sse2");
#[cfg(target_arch = "x86_64")]
kernel!(avx2, x86::Avx2, single 4, batch 2 x 2, "avx2");
#[cfg(target_arch = "x86_64")]
kernel!(vnni, x86::Vnni, single 7, batch 8 x 3, "avx512f,avx512bw,avx512vl,avx512vnni");

/// The whole layer, tiled as the f32 one.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
unsafe fn layer<
    S: Sums,
    const I: usize,
    const G: usize,
    const O: usize,
    const SINGLE: usize,
    const N: usize,
    const C: usize,
>(
    layer: &Dense<G, O>,
    x: &[[u8; I]],
    y: &mut [[u8; O]],
    finish: impl Finish,
) {
    const { assert!(I == 4 * G && O.is_multiple_of(S::LANES)) };
    let images = x.len().min(y.len());
    let together = if N > 1 { images - images % N } else { 0 };
    // SAFETY: every tile covers images `n..n + N` of the `images` that both slices hold and outputs `j..j + C·LANES` of the
    // `O` that a row has.
    unsafe {
        let mut j = 0;
        macro_rules! columns {
            ($c:expr) => {
                while j + $c * S::LANES <= O && together > 0 {
                    for n in (0..together).step_by(N) {
                        let y = y.as_mut_ptr().add(n).cast::<u8>().add(j);
                        tile::<S, I, G, O, N, { $c }>(layer, x.as_ptr().add(n), y, j, finish);
                    }
                    j += $c * S::LANES;
                }
            };
        }
        columns!(C);
        columns!(2);
        columns!(1);
        for n in together..images {
            let (x, y) = (x.as_ptr().add(n), y.as_mut_ptr().add(n));
            let mut j = 0;
            macro_rules! columns {
                ($c:expr) => {
                    while j + $c * S::LANES <= O {
                        tile::<S, I, G, O, 1, { $c }>(layer, x, y.cast::<u8>().add(j), j, finish);
                        j += $c * S::LANES;
                    }
                };
            }
            columns!(SINGLE);
            columns!(8);
            columns!(4);
            columns!(2);
            columns!(1);
        }
    }
}

/// `N` images × `C` vectors of outputs from `j` on.
///
/// # Safety
/// The CPU has the instructions of `S`; `x` is valid for `N` rows, `y` for `C·LANES` outputs of the first image and then of
/// each that follows O further on, and `j + C·LANES ≤ O`.
#[inline(always)]
unsafe fn tile<S: Sums, const I: usize, const G: usize, const O: usize, const N: usize, const C: usize>(
    layer: &Dense<G, O>,
    x: *const [u8; I],
    y: *mut u8,
    j: usize,
    finish: impl Finish,
) {
    // SAFETY: `weight` holds G rows of O groups, `bias`, `shift` and `scale` O numbers, a row of `x` 4·G inputs, and g < G, n < N,
    // j + c·LANES + LANES ≤ O.
    unsafe {
        let weight = layer.weight.as_ptr().cast::<[i8; 4]>().add(j);
        let sums = S::sums::<G, O, N, C, I>(weight, x);
        for (n, sums) in sums.into_iter().enumerate() {
            for (c, sum) in sums.into_iter().enumerate() {
                let j = j + c * S::LANES;
                let (bias, shift, scale) =
                    (layer.bias.as_ptr().add(j), layer.shift.as_ptr().add(j), layer.scale.as_ptr().add(j));
                finish.finish(sum.rescale(bias, shift, scale)).store_bytes(y.add(n * O + c * S::LANES));
            }
        }
    }
}

/// i32 sums of `LANES` outputs.
///
/// # Safety of all methods
/// The CPU has the instructions that the type stands for; pointers are valid for `LANES` outputs, of any alignment.
trait Sums: Copy {
    const LANES: usize;
    type Inputs: Copy;
    unsafe fn zero() -> Self;
    /// Four inputs, for every output.
    unsafe fn splat(x: [u8; 4]) -> Self::Inputs;
    /// Adds the four products for each output.
    unsafe fn dot(self, w: *const [i8; 4], x: Self::Inputs) -> Self;
    /// [`sums`], where there is a better way.
    #[inline(always)]
    unsafe fn sums<const G: usize, const O: usize, const N: usize, const C: usize, const I: usize>(
        weight: *const [i8; 4],
        x: *const [u8; I],
    ) -> [[Self; C]; N] {
        // SAFETY: as the caller promises.
        unsafe { sums::<Self, G, O, N, C, I>(weight, x) }
    }
    type Words: Words;
    /// `(sum + bias) >> shift`, brought into i16, times `scale / 2^15`.
    unsafe fn rescale(self, bias: *const i32, shift: *const i16, scale: *const i16) -> Self::Words;
}

/// The products of the G groups of inputs, for C vectors of outputs and N images.
///
/// # Safety
/// The CPU has the instructions of `S`; `weight` is valid for G rows of `C·LANES` outputs, O apart, and `x` for N rows.
#[inline(always)]
unsafe fn sums<S: Sums, const G: usize, const O: usize, const N: usize, const C: usize, const I: usize>(
    weight: *const [i8; 4],
    x: *const [u8; I],
) -> [[S; C]; N] {
    // SAFETY: as the caller promises; g < G, c < C, n < N.
    unsafe {
        let mut sums = [[S::zero(); C]; N];
        for g in 0..G {
            for (n, sums) in sums.iter_mut().enumerate() {
                let x = S::splat(*x.add(n).cast::<[u8; 4]>().add(g));
                for (c, sum) in sums.iter_mut().enumerate() {
                    *sum = sum.dot(weight.add(g * O + c * S::LANES), x);
                }
            }
        }
        sums
    }
}

impl Sums for i32 {
    const LANES: usize = 1;
    type Inputs = [u8; 4];
    #[inline(always)]
    unsafe fn zero() -> Self {
        0
    }
    #[inline(always)]
    unsafe fn splat(x: [u8; 4]) -> [u8; 4] {
        x
    }
    #[inline(always)]
    unsafe fn dot(self, w: *const [i8; 4], x: [u8; 4]) -> Self {
        // SAFETY: valid for one output, as the trait demands.
        let w = unsafe { *w };
        let product = |i: usize| w[i] as i32 * x[i] as i32;
        self + product(0) + product(1) + product(2) + product(3)
    }
    #[cfg(dsp)]
    #[inline(always)]
    unsafe fn sums<const G: usize, const O: usize, const N: usize, const C: usize, const I: usize>(
        weight: *const [i8; 4],
        x: *const [u8; I],
    ) -> [[i32; C]; N] {
        let mut sums = [[0; C]; N];
        // SAFETY: as the caller promises; `sums` holds N·C numbers, and weights are aligned like the biases in their layer.
        unsafe {
            if N == 1 && C == 4 {
                sums.as_mut_ptr().cast::<[i32; 4]>().write(dsp::four::<G, O>(weight.cast(), x.cast()));
                sums
            } else {
                self::sums::<i32, G, O, N, C, I>(weight, x)
            }
        }
    }
    type Words = [i16; 1];
    #[inline(always)]
    unsafe fn rescale(self, bias: *const i32, shift: *const i16, scale: *const i16) -> [i16; 1] {
        // SAFETY: as above.
        unsafe { [rescale(self + *bias, *shift)].multiply([*scale]) }
    }
}

/// Four outputs of one image by Cortex-M's DSP extension, which multiplies both halves of a word at once: inputs 0 and 2 of a
/// group, then 1 and 3.
#[cfg(dsp)]
mod dsp {
    use core::arch::asm;

    /// # Safety
    /// As for [`super::sums`]; `weight` is aligned to words.
    #[inline(always)]
    pub unsafe fn four<const G: usize, const O: usize>(weight: *const u32, x: *const u32) -> [i32; 4] {
        const { assert!(G > 0 && 4 * O < 4096) };
        let [mut a, mut b, mut c, mut d] = [0; 4];
        // SAFETY: reads G words of inputs, and of G rows of weights the first four words. (A sum that overflows would show in the
        // flag Q; no layer's sum can.)
        unsafe {
            asm!(
                "2:",
                "ldr {t}, [{x}], #4",
                "uxtb16 {even}, {t}",
                "uxtb16 {odd}, {t}, ror #8",
                "ldrd {t}, {u}, [{w}]",
                "sxtb16 {v}, {t}",
                "sxtb16 {t}, {t}, ror #8",
                "smlad {a}, {v}, {even}, {a}",
                "sxtb16 {v}, {u}",
                "smlad {a}, {t}, {odd}, {a}",
                "sxtb16 {u}, {u}, ror #8",
                "smlad {b}, {v}, {even}, {b}",
                "smlad {b}, {u}, {odd}, {b}",
                "ldrd {t}, {u}, [{w}, #8]",
                "sxtb16 {v}, {t}",
                "sxtb16 {t}, {t}, ror #8",
                "smlad {c}, {v}, {even}, {c}",
                "sxtb16 {v}, {u}",
                "smlad {c}, {t}, {odd}, {c}",
                "sxtb16 {u}, {u}, ror #8",
                "smlad {d}, {v}, {even}, {d}",
                "smlad {d}, {u}, {odd}, {d}",
                "addw {w}, {w}, #{row}",
                "cmp {x}, {end}",
                "bne 2b",
                x = inout(reg) x => _,
                w = inout(reg) weight => _,
                end = in(reg) x.add(G),
                even = out(reg) _,
                odd = out(reg) _,
                t = out(reg) _,
                u = out(reg) _,
                v = out(reg) _,
                a = inout(reg) a,
                b = inout(reg) b,
                c = inout(reg) c,
                d = inout(reg) d,
                row = const 4 * O,
                options(pure, readonly, nostack),
            )
        }
        [a, b, c, d]
    }
}

#[inline(always)]
fn rescale(sum: i32, shift: i16) -> i16 {
    (sum >> (shift & 31)).clamp(i16::MIN as i32, i16::MAX as i32) as i16
}

impl<const N: usize> Words for [i16; N] {
    #[inline(always)]
    unsafe fn splat(x: i16) -> Self {
        [x; N]
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        each(self, b, i16::wrapping_add)
    }
    #[inline(always)]
    unsafe fn add_saturating(self, b: Self) -> Self {
        each(self, b, i16::saturating_add)
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        each(self, b, i16::wrapping_sub)
    }
    #[inline(always)]
    unsafe fn multiply(self, b: Self) -> Self {
        each(self, b, |a, b| ((a as i32 * b as i32 + (1 << 14)) >> 15) as i16)
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        each(self, b, i16::min)
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        each(self, b, i16::max)
    }
    #[inline(always)]
    unsafe fn and(self, b: Self) -> Self {
        each(self, b, |a, b| a & b)
    }
    #[inline(always)]
    unsafe fn xor(self, b: Self) -> Self {
        each(self, b, |a, b| a ^ b)
    }
    #[inline(always)]
    unsafe fn left(self, bits: i16) -> Self {
        self.map(|a| a << (bits & 15))
    }
    #[inline(always)]
    unsafe fn right<const BITS: i32>(self) -> Self {
        self.map(|a| a >> BITS)
    }
    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8) {
        // SAFETY: valid for N bytes, as the trait demands.
        unsafe { to.copy_from_nonoverlapping(self.map(|a| a as u8).as_ptr(), N) }
    }
}

#[inline(always)]
fn each<const N: usize>(mut a: [i16; N], b: [i16; N], f: impl Fn(i16, i16) -> i16) -> [i16; N] {
    a.iter_mut().zip(b).for_each(|(a, b)| *a = f(*a, b));
    a
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Sums, Words, rescale};
    use core::arch::x86_64::*;

    /// Outputs 0 and 1, and 2 and 3: two sums each, of inputs 0 and 1 and of inputs 2 and 3.
    #[derive(Clone, Copy)]
    pub struct Sse2(__m128i, __m128i);

    impl Sums for Sse2 {
        const LANES: usize = 4;
        type Inputs = __m128i;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as the trait demands; so in all of these.
            unsafe { Self(_mm_setzero_si128(), _mm_setzero_si128()) }
        }
        #[inline(always)]
        unsafe fn splat(x: [u8; 4]) -> __m128i {
            // SAFETY: as above.
            unsafe {
                let x = _mm_cvtsi32_si128(i32::from_le_bytes(x));
                let wide = _mm_unpacklo_epi8(x, _mm_setzero_si128());
                _mm_unpacklo_epi64(wide, wide)
            }
        }
        #[inline(always)]
        unsafe fn dot(self, w: *const [i8; 4], x: __m128i) -> Self {
            // SAFETY: as above.
            unsafe {
                let w = _mm_loadu_si128(w.cast());
                let sign = _mm_cmpgt_epi8(_mm_setzero_si128(), w);
                let (low, high) = (_mm_unpacklo_epi8(w, sign), _mm_unpackhi_epi8(w, sign));
                Self(_mm_add_epi32(self.0, _mm_madd_epi16(low, x)), _mm_add_epi32(self.1, _mm_madd_epi16(high, x)))
            }
        }
        type Words = [i16; 4];
        #[inline(always)]
        unsafe fn rescale(self, bias: *const i32, shift: *const i16, scale: *const i16) -> [i16; 4] {
            // SAFETY: as above.
            unsafe {
                let (a, b) = (_mm_castsi128_ps(self.0), _mm_castsi128_ps(self.1));
                let (even, odd) = (_mm_shuffle_ps::<0b10_00_10_00>(a, b), _mm_shuffle_ps::<0b11_01_11_01>(a, b));
                let sum = _mm_add_epi32(_mm_castps_si128(even), _mm_castps_si128(odd));
                let mut sums = [0i32; 4];
                _mm_storeu_si128(sums.as_mut_ptr().cast(), _mm_add_epi32(sum, _mm_loadu_si128(bias.cast())));
                let (shift, scale) = (shift.cast::<[i16; 4]>().read(), scale.cast::<[i16; 4]>().read());
                core::array::from_fn(|i| rescale(sums[i], shift[i])).multiply(scale)
            }
        }
    }

    /// As [`Sse2`], outputs 0 to 3 and 4 to 7.
    #[derive(Clone, Copy)]
    pub struct Avx2(__m256i, __m256i);

    impl Sums for Avx2 {
        const LANES: usize = 8;
        type Inputs = __m256i;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm256_setzero_si256(), _mm256_setzero_si256()) }
        }
        #[inline(always)]
        unsafe fn splat(x: [u8; 4]) -> __m256i {
            // SAFETY: as above.
            unsafe { _mm256_broadcastq_epi64(_mm_cvtepu8_epi16(_mm_cvtsi32_si128(i32::from_le_bytes(x)))) }
        }
        #[inline(always)]
        unsafe fn dot(self, w: *const [i8; 4], x: __m256i) -> Self {
            // SAFETY: as above.
            unsafe {
                let low = _mm256_cvtepi8_epi16(_mm_loadu_si128(w.cast()));
                let high = _mm256_cvtepi8_epi16(_mm_loadu_si128(w.add(4).cast()));
                Self(
                    _mm256_add_epi32(self.0, _mm256_madd_epi16(low, x)),
                    _mm256_add_epi32(self.1, _mm256_madd_epi16(high, x)),
                )
            }
        }
        type Words = __m128i;
        #[inline(always)]
        unsafe fn rescale(self, bias: *const i32, shift: *const i16, scale: *const i16) -> __m128i {
            // SAFETY: as above. hadd works within 128-bit halves: outputs 0 1 4 5 2 3 6 7 come out.
            unsafe {
                let sum = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(self.0, self.1));
                let sum = _mm256_add_epi32(sum, _mm256_loadu_si256(bias.cast()));
                let sum = _mm256_srav_epi32(sum, _mm256_cvtepi16_epi32(_mm_loadu_si128(shift.cast())));
                let r = _mm_packs_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
                r.multiply(_mm_loadu_si128(scale.cast()))
            }
        }
    }

    #[derive(Clone, Copy)]
    pub struct Vnni(__m512i);

    impl Sums for Vnni {
        const LANES: usize = 16;
        type Inputs = __m512i;
        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm512_setzero_si512()) }
        }
        #[inline(always)]
        unsafe fn splat(x: [u8; 4]) -> __m512i {
            // SAFETY: as above.
            unsafe { _mm512_set1_epi32(i32::from_le_bytes(x)) }
        }
        #[inline(always)]
        unsafe fn dot(self, w: *const [i8; 4], x: __m512i) -> Self {
            // SAFETY: as above.
            unsafe { Self(_mm512_dpbusd_epi32(self.0, x, _mm512_loadu_si512(w.cast()))) }
        }
        type Words = __m256i;
        #[inline(always)]
        unsafe fn rescale(self, bias: *const i32, shift: *const i16, scale: *const i16) -> __m256i {
            // SAFETY: as above.
            unsafe {
                let sum = _mm512_add_epi32(self.0, _mm512_loadu_si512(bias.cast()));
                let sum = _mm512_srav_epi32(sum, _mm512_cvtepi16_epi32(_mm256_loadu_si256(shift.cast())));
                _mm512_cvtsepi32_epi16(sum).multiply(_mm256_loadu_si256(scale.cast()))
            }
        }
    }

    macro_rules! words {
        ($vector:ty, $splat:path, $add:path, $adds:path, $sub:path, $multiply:path, $min:path, $max:path, $and:path, $xor:path,
         $left:path, $right:ident, |$a:ident, $to:ident| $store:expr) => {
            impl Words for $vector {
                #[inline(always)]
                unsafe fn splat(x: i16) -> Self {
                    // SAFETY: as the trait demands; so in all of these.
                    unsafe { $splat(x) }
                }
                words!(two add $add, add_saturating $adds, sub $sub, multiply $multiply, min $min, max $max, and $and, xor $xor);
                #[inline(always)]
                unsafe fn left(self, bits: i16) -> Self {
                    // SAFETY: as above.
                    unsafe { $left(self, _mm_cvtsi32_si128(bits as i32)) }
                }
                #[inline(always)]
                unsafe fn right<const BITS: i32>(self) -> Self {
                    // SAFETY: as above.
                    unsafe { $right::<BITS>(self) }
                }
                #[inline(always)]
                unsafe fn store_bytes(self, $to: *mut u8) {
                    let $a = self;
                    // SAFETY: as above.
                    unsafe { $store }
                }
            }
        };
        (two $($name:ident $intrinsic:path),*) => {
            $(
                #[inline(always)]
                unsafe fn $name(self, b: Self) -> Self {
                    // SAFETY: as above.
                    unsafe { $intrinsic(self, b) }
                }
            )*
        };
    }

    words!(
        __m128i,
        _mm_set1_epi16,
        _mm_add_epi16,
        _mm_adds_epi16,
        _mm_sub_epi16,
        _mm_mulhrs_epi16,
        _mm_min_epi16,
        _mm_max_epi16,
        _mm_and_si128,
        _mm_xor_si128,
        _mm_sll_epi16,
        _mm_srai_epi16,
        |a, to| _mm_storel_epi64(to.cast(), _mm_packus_epi16(a, a))
    );

    words!(
        __m256i,
        _mm256_set1_epi16,
        _mm256_add_epi16,
        _mm256_adds_epi16,
        _mm256_sub_epi16,
        _mm256_mulhrs_epi16,
        _mm256_min_epi16,
        _mm256_max_epi16,
        _mm256_and_si256,
        _mm256_xor_si256,
        _mm256_sll_epi16,
        _mm256_srai_epi16,
        |a, to| _mm_storeu_si128(to.cast(), _mm256_cvtepi16_epi8(a)) // needs AVX-512, which Vnni alone has
    );
}

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

    #[test]
    fn every_kernel_gives_the_integers_of_plain_loops() {
        let mut seed = 1u32;
        let mut random = || {
            seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
            seed >> 16
        };
        let mut layer = Dense::<3, 96> { weight: [[[0; 4]; 96]; 3], bias: [0; 96], shift: [0; 96], scale: [0; 96] };
        layer.weight.as_flattened_mut().as_flattened_mut().iter_mut().for_each(|w| *w = (random() % 255) as i8);
        layer.weight[0][0] = [-128; 4]; // the extremes, which must not saturate half-way
        layer.weight[1][1] = [127; 4];
        layer.bias.iter_mut().for_each(|b| *b = random() as i32 - 32768);
        layer.shift.iter_mut().for_each(|s| *s = (random() % 5) as i16);
        layer.scale.iter_mut().for_each(|s| *s = (random() / 2) as i16);
        let mut x = [[0u8; 12]; 21];
        x.as_flattened_mut().iter_mut().for_each(|x| *x = random() as u8);
        x[0] = [255; 12];
        for kernel in Kernel::all() {
            let (mut leaky, mut pixels) = ([[0; 96]; 21], [[0; 96]; 21]);
            layer.leaky(kernel, &x, &mut leaky, 40);
            layer.pixels(kernel, &x, &mut pixels, 3);
            for (n, x) in x.iter().enumerate() {
                for j in 0..96 {
                    let products = x.iter().enumerate().map(|(k, &x)| layer.weight[k / 4][j][k % 4] as i64 * x as i64);
                    let sum = (products.sum::<i64>() + layer.bias[j] as i64) >> layer.shift[j];
                    let r = (sum.clamp(-32768, 32767) * layer.scale[j] as i64 + (1 << 14)) >> 15;
                    let h = r.max((r * 6554 + (1 << 14)) >> 15);
                    let expected = (((h + 8).min(32767) >> 4) + 40).clamp(0, 255) as u8;
                    assert_eq!((leaky[n][j], pixels[n][j]), (expected, tanh_pixel(r as i16, 3)), "{}", kernel.name());
                }
            }
        }
    }
}
