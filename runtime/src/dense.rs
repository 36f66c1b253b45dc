//! One dense layer, on every CPU in the same order of f32 operations.
//!
//! For each output `j`: `acc = bias[j]`, then for ascending `k`: `acc = acc + weight[k][j] · x[k]`, a multiply and then an add,
//! each rounded, never fused. A vector unit takes several `j` (and several images) at once and never splits `k`, so any width
//! gives the same bits. LeakyReLU is `max(a, 0.2·a)`; [`tanh`] and the rounding to pixels are fixed likewise.
//!
//! Legend: B images in a batch, I inputs, O outputs of the layer.

pub(crate) mod int8;

#[cfg(fpu)]
use core::mem::MaybeUninit;
use core::slice;

use nalgebra::{SMatrix, SVector};

use crate::image::Image;

/// `y = weight · x + bias`. The weight is column-major (O, I), which is byte for byte a row-major ONNX tensor of shape (I, O).
#[repr(C)]
pub struct Dense<const I: usize, const O: usize> {
    pub(crate) weight: SMatrix<f32, O, I>,
    pub(crate) bias: SVector<f32, O>,
}

impl<const I: usize, const O: usize> Dense<I, O> {
    /// (B, I) → LeakyReLU → (B, O), for as many images as both slices hold.
    pub(crate) fn leaky(&self, kernel: Kernel, x: &[[f32; I]], y: &mut [[f32; O]]) {
        kernel.run::<I, O, Leaky>(self, x, y);
    }

    /// (B, I) → tanh → (B, O).
    pub(crate) fn tanh(&self, kernel: Kernel, x: &[[f32; I]], y: &mut [[f32; O]]) {
        kernel.run::<I, O, Tanh>(self, x, y);
    }

    /// (B, I) → tanh → pixels, round-to-nearest-even of 127.5·t + 127.5 → (B, O).
    pub(crate) fn pixels(&self, kernel: Kernel, x: &[[f32; I]], y: &mut [[u8; O]]) {
        kernel.run::<I, O, Pixels>(self, x, y);
    }

    /// The pixels from output `j` on, of one image; 0 beyond the last output. Always with the plain kernel.
    pub(crate) fn pixels_from<const R: usize>(&self, j: usize, x: &[f32; I]) -> [u8; R] {
        const { assert!(R.is_multiple_of(ROW) && R <= O) };
        let mut y = [0; R];
        for (first, y) in (j..).step_by(ROW).zip(y.as_chunks_mut::<ROW>().0) {
            if first <= O - ROW {
                // SAFETY: plain f32 needs no instruction set, and first + ROW ≤ O.
                unsafe { tile::<f32, I, O, Pixels, 1, ROW>(self, x, y.as_mut_ptr(), first) }
            }
        }
        y
    }
}

/// Outputs that one pass over the inputs takes together where an image is drawn in rows: half a row, whose sums fit the
/// registers of a Cortex-M4F.
const ROW: usize = 14;

/// A way to compute that this CPU can run. Which one never shows in the result.
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
    /// AVX-512 with integer dot products; for f32 the same.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon,
}

/// Whether the CPU has a feature: asked when the program runs where `std` can tell, known when it is compiled otherwise.
#[cfg(target_arch = "x86_64")]
macro_rules! has {
    ($feature:tt) => {{
        #[cfg(feature = "std")]
        let has = std::arch::is_x86_feature_detected!($feature);
        #[cfg(not(feature = "std"))]
        let has = cfg!(target_feature = $feature);
        has
    }};
}

#[cfg(target_arch = "x86_64")]
fn has_vnni() -> bool {
    has!("avx512f") && has!("avx512bw") && has!("avx512vl") && has!("avx512vnni")
}

impl Kernel {
    /// Plain Rust; the only one on small devices.
    pub const SCALAR: Kernel = Kernel(Isa::Scalar);

    /// The fastest.
    pub fn best() -> Kernel {
        #[cfg(target_arch = "x86_64")]
        return if has_vnni() {
            Kernel(Isa::Vnni)
        } else if has!("avx512f") {
            Kernel(Isa::Avx512)
        } else if has!("avx2") {
            Kernel(Isa::Avx2)
        } else {
            Kernel(Isa::Sse2)
        };
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        return Kernel(Isa::Neon);
        #[allow(unreachable_code)]
        Kernel::SCALAR
    }

    /// All that this CPU can run, the slowest first.
    pub fn all() -> impl Iterator<Item = Kernel> {
        [
            Some(Kernel::SCALAR),
            #[cfg(target_arch = "x86_64")]
            Some(Kernel(Isa::Sse2)),
            #[cfg(target_arch = "x86_64")]
            has!("avx2").then_some(Kernel(Isa::Avx2)),
            #[cfg(target_arch = "x86_64")]
            has!("avx512f").then_some(Kernel(Isa::Avx512)),
            #[cfg(target_arch = "x86_64")]
            has_vnni().then_some(Kernel(Isa::Vnni)),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Some(Kernel(Isa::Neon)),
        ]
        .into_iter()
        .flatten()
    }

    /// `scalar`, `sse2`, `avx2`, `avx512`, `avx512vnni` or `neon`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Isa::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Isa::Sse2 => "sse2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Isa::Vnni => "avx512vnni",
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Isa::Neon => "neon",
        }
    }

    fn run<const I: usize, const O: usize, E: Epilogue>(
        self,
        layer: &Dense<I, O>,
        x: &[[f32; I]],
        y: &mut [[E::Out; O]],
    ) {
        // SAFETY: a `Kernel` other than the scalar one is made only where the CPU has its instructions (SSE2 is part of every
        // x86-64, NEON of every aarch64 that this is compiled for).
        unsafe {
            match self.0 {
                Isa::Scalar => scalar::<I, O, E>(layer, x, y),
                #[cfg(target_arch = "x86_64")]
                Isa::Sse2 => sse2::<I, O, E>(layer, x, y),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx2 => avx2::<I, O, E>(layer, x, y),
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512 | Isa::Vnni => avx512::<I, O, E>(layer, x, y),
                #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
                Isa::Neon => neon::<I, O, E>(layer, x, y),
            }
        }
    }
}

/// One instance of [`layer`] per instruction set: `single` columns of vectors at once for one image, `images` × `columns` for
/// several, chosen so that the accumulators fill the registers.
macro_rules! kernel {
    ($name:ident, $vector:ty, single $single:literal, batch $images:literal x $columns:literal $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $name<const I: usize, const O: usize, E: Epilogue>(l: &Dense<I, O>, x: &[[f32; I]], y: &mut [[E::Out; O]]) {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { layer::<$vector, I, O, E, $single, $images, $columns>(l, x, y) }
        }
    };
}

kernel!(scalar, f32, single 16, batch 1 x 16);
#[cfg(target_arch = "x86_64")]
kernel!(sse2, core::arch::x86_64::__m128, single 14, batch 2 x 6, "sse2");
#[cfg(target_arch = "x86_64")]
kernel!(avx2, core::arch::x86_64::__m256, single 12, batch 2 x 6, "avx2");
#[cfg(target_arch = "x86_64")]
kernel!(avx512, core::arch::x86_64::__m512, single 25, batch 16 x 1, "avx512f");
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
kernel!(neon, core::arch::aarch64::float32x4_t, single 28, batch 4 x 4, "neon");

/// The whole layer: `N` × `C` tiles while they fit, then narrower and single ones for what is left.
///
/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
unsafe fn layer<
    V: Vector,
    const I: usize,
    const O: usize,
    E: Epilogue,
    const S: usize,
    const N: usize,
    const C: usize,
>(
    layer: &Dense<I, O>,
    x: &[[f32; I]],
    y: &mut [[E::Out; O]],
) {
    const { assert!(O.is_multiple_of(V::LANES)) };
    let images = x.len().min(y.len());
    let together = images - images % N;
    // SAFETY: every tile below covers images `n..n + N` of the `images` that both slices hold and outputs `j..j + C·LANES`
    // of the `O` that a row has.
    unsafe {
        let mut j = 0;
        macro_rules! columns {
            ($c:expr) => {
                while N > 1 && j + $c * V::LANES <= O {
                    for n in (0..together).step_by(N) {
                        let y = y.as_mut_ptr().add(n).cast::<E::Out>().add(j);
                        tile::<V, I, O, E, N, { $c }>(layer, x.as_ptr().add(n), y, j);
                    }
                    j += $c * V::LANES;
                }
            };
        }
        columns!(C);
        columns!(4);
        columns!(2);
        columns!(1);
        for n in if N > 1 { together } else { 0 }..images {
            let (x, y) = (x.as_ptr().add(n), y.as_mut_ptr().add(n));
            let mut j = 0;
            macro_rules! columns {
                ($c:expr) => {
                    while j + $c * V::LANES <= O {
                        tile::<V, I, O, E, 1, { $c }>(layer, x, y.cast::<E::Out>().add(j), j);
                        j += $c * V::LANES;
                    }
                };
            }
            columns!(S);
            columns!(8);
            columns!(4);
            columns!(2);
            columns!(1);
        }
    }
}

/// `N` images × `C` vectors of outputs from `j` on; the accumulators stay in registers for the whole of `k`.
///
/// # Safety
/// The CPU has the instructions of `V`; `x` is valid for `N` rows, `y` for `C·LANES` outputs of the first image and then of
/// each that follows O further on, and `j + C·LANES ≤ O`.
#[inline(always)]
unsafe fn tile<V: Vector, const I: usize, const O: usize, E: Epilogue, const N: usize, const C: usize>(
    layer: &Dense<I, O>,
    x: *const [f32; I],
    y: *mut E::Out,
    j: usize,
) {
    // SAFETY: `weight` holds I rows of O, `bias` O numbers, and k < I, n < N, j + c·LANES + LANES ≤ O.
    unsafe {
        let weight = layer.weight.data.0.as_ptr().cast::<f32>().add(j);
        let bias = layer.bias.data.0.as_ptr().cast::<f32>().add(j);
        let acc = V::sums::<I, O, N, C>(bias, weight, x);
        for (c, acc) in acc.iter().enumerate() {
            for (n, &a) in acc.iter().enumerate() {
                E::store(a, y.add(n * O + c * V::LANES));
            }
        }
    }
}

/// What happens to a sum before it is stored.
trait Epilogue {
    type Out;
    /// # Safety
    /// The CPU has the instructions of `V`, and `y` is valid for `LANES` outputs.
    unsafe fn store<V: Vector>(a: V, y: *mut Self::Out);
}

struct Leaky;
impl Epilogue for Leaky {
    type Out = f32;
    #[inline(always)]
    unsafe fn store<V: Vector>(a: V, y: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe { a.max(a.mul(V::splat(0.2))).store(y) }
    }
}

struct Tanh;
impl Epilogue for Tanh {
    type Out = f32;
    #[inline(always)]
    unsafe fn store<V: Vector>(a: V, y: *mut f32) {
        // SAFETY: as the caller promises.
        unsafe { tanh_of(a).store(y) }
    }
}

struct Pixels;
impl Epilogue for Pixels {
    type Out = u8;
    #[inline(always)]
    unsafe fn store<V: Vector>(a: V, y: *mut u8) {
        // SAFETY: as the caller promises. The sum is in [2^23, 2^23 + 255], where the step between neighbours is 1, so the add
        // itself rounds to nearest even and leaves the pixel in the lowest byte.
        unsafe { tanh_of(a).mul(V::splat(127.5)).add(V::splat(127.5)).add(V::splat(8_388_608.0)).store_low_bytes(y) }
    }
}

/// tanh, within 4.5e-7 of the true value for every f32: `x·P(x²) / Q(x²)` with x first brought into [-8, 8].
///
/// P has degree 3 and Q degree 4, both by Horner's rule; coefficients from a minimax fit on [0, 8].
pub fn tanh(x: f32) -> f32 {
    // SAFETY: plain f32 needs no instruction set.
    unsafe { tanh_of(x) }
}

/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
unsafe fn tanh_of<V: Vector>(x: V) -> V {
    const P: [f32; 4] = [1.131_020_3e-5, 0.002_938_825_6, 0.129_136_4, 0.999_999_34];
    const Q: [f32; 5] = [2.423_835_2e-7, 2.370_281_9e-4, 0.023_763_819, 0.462_467_37, 1.0];
    // SAFETY: as the caller promises.
    unsafe {
        let x = x.max(V::splat(-8.0)).min(V::splat(8.0));
        let y = x.mul(x);
        let (mut p, mut q) = (V::splat(P[0]), V::splat(Q[0]));
        for &c in &P[1..] {
            p = p.mul(y).add(V::splat(c));
        }
        for &c in &Q[1..] {
            q = q.mul(y).add(V::splat(c));
        }
        x.mul(p).div(q)
    }
}

/// `LANES` numbers that are computed alike. Each operation rounds once, as IEEE 754 says.
///
/// # Safety of all methods
/// The CPU has the instructions that the type stands for; pointers are valid for `LANES` numbers, of any alignment.
trait Vector: Copy {
    const LANES: usize;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn splat(x: f32) -> Self;
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn div(self, b: Self) -> Self;
    unsafe fn min(self, b: Self) -> Self;
    unsafe fn max(self, b: Self) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// The lowest byte of each number's bits.
    unsafe fn store_low_bytes(self, p: *mut u8);

    /// [`sums`], where there is a better way.
    #[inline(always)]
    unsafe fn sums<const I: usize, const O: usize, const N: usize, const C: usize>(
        bias: *const f32,
        weight: *const f32,
        x: *const [f32; I],
    ) -> [[Self; N]; C] {
        // SAFETY: as the caller promises.
        unsafe { sums::<Self, I, O, N, C>(bias, weight, x) }
    }
}

/// The bias, and then the products of the I inputs in order, for C vectors of outputs and N images.
///
/// # Safety
/// The CPU has the instructions of `V`; `bias` is valid for `C·LANES` numbers, `weight` for I rows of as many, O apart, and `x`
/// for N rows.
#[inline(always)]
unsafe fn sums<V: Vector, const I: usize, const O: usize, const N: usize, const C: usize>(
    bias: *const f32,
    weight: *const f32,
    x: *const [f32; I],
) -> [[V; N]; C] {
    // SAFETY: as the caller promises; k < I, c < C, n < N.
    unsafe {
        let mut acc = [[V::splat(0.0); N]; C];
        for (c, acc) in acc.iter_mut().enumerate() {
            *acc = [V::load(bias.add(c * V::LANES)); N];
        }
        for k in 0..I {
            for (c, acc) in acc.iter_mut().enumerate() {
                let w = V::load(weight.add(k * O + c * V::LANES));
                for (n, acc) in acc.iter_mut().enumerate() {
                    *acc = acc.add(w.mul(V::splat(*x.add(n).cast::<f32>().add(k))));
                }
            }
        }
        acc
    }
}

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
macro_rules! vector {
    ($vector:ty, $lanes:literal, $load:path, $splat:path, $add:path, $mul:path, $div:path, $min:path, $max:path, $store:path,
     |$v:ident, $p:ident| $bytes:expr) => {
        impl Vector for $vector {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn load(p: *const f32) -> Self {
                // SAFETY: as the trait demands; so in all of these.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                // SAFETY: as above.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn add(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $add(self, b) }
            }
            #[inline(always)]
            unsafe fn mul(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $mul(self, b) }
            }
            #[inline(always)]
            unsafe fn div(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $div(self, b) }
            }
            #[inline(always)]
            unsafe fn min(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $min(self, b) }
            }
            #[inline(always)]
            unsafe fn max(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $max(self, b) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32) {
                // SAFETY: as above.
                unsafe { $store(p, self) }
            }
            #[inline(always)]
            unsafe fn store_low_bytes(self, $p: *mut u8) {
                let $v = self;
                // SAFETY: as above.
                unsafe { $bytes }
            }
        }
    };
}

impl Vector for f32 {
    const LANES: usize = 1;
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: valid for one number, as the trait demands.
        unsafe { p.read_unaligned() }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        x
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        self + b
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        self * b
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        self / b
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        if self < b { self } else { b }
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        if self > b { self } else { b }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: as above.
        unsafe { p.write_unaligned(self) }
    }
    #[inline(always)]
    unsafe fn store_low_bytes(self, p: *mut u8) {
        // SAFETY: as above.
        unsafe { p.write(self.to_bits() as u8) }
    }

    #[cfg(fpu)]
    #[inline(always)]
    unsafe fn sums<const I: usize, const O: usize, const N: usize, const C: usize>(
        bias: *const f32,
        weight: *const f32,
        x: *const [f32; I],
    ) -> [[f32; N]; C] {
        let mut acc = MaybeUninit::<[[f32; N]; C]>::uninit();
        // SAFETY: as the caller promises; `acc` has room for C numbers and is filled.
        unsafe {
            match (N, C) {
                (1, 14) => fpu::fourteen::<I, O>(bias, weight, x.cast(), acc.as_mut_ptr().cast()),
                (1, 16) => fpu::sixteen::<I, O>(bias, weight, x.cast(), acc.as_mut_ptr().cast()),
                _ => return sums::<f32, I, O, N, C>(bias, weight, x),
            }
            acc.assume_init()
        }
    }
}

/// [`sums`] for one image, on the 32 registers of a Cortex-M's floating-point unit: the sums from s0 on, then an input, then
/// the weights, as many as there is room for, loaded by one instruction.
///
/// (rustc lets no operand be one of these registers, since the unit lacks f64; it does let them be named as overwritten.)
#[cfg(fpu)]
mod fpu {
    use core::arch::asm;

    /// `sum += w · x` for each pair, from the first on.
    macro_rules! products {
        ($x:literal, $($sum:literal $w:literal)*) => {
            concat!($("vmul.f32 ", $w, ", ", $w, ", ", $x, "\n vadd.f32 ", $sum, ", ", $sum, ", ", $w, "\n",)*)
        };
    }

    macro_rules! fourteen_products {
        ($x:literal) => {
            products!($x, "s0" "s16" "s1" "s17" "s2" "s18" "s3" "s19" "s4" "s20" "s5" "s21" "s6" "s22" "s7" "s23"
                "s8" "s24" "s9" "s25" "s10" "s26" "s11" "s27" "s12" "s28" "s13" "s29")
        };
    }

    macro_rules! sums {
        ($(#[$doc:meta])* $name:ident, together $inputs:literal, $($line:expr,)*) => {
            $(#[$doc])*
            /// # Safety
            /// As for [`super::sums`], and `sums` is valid for as many numbers as there are outputs.
            #[inline(always)]
            pub unsafe fn $name<const I: usize, const O: usize>(
                bias: *const f32,
                weight: *const f32,
                x: *const f32,
                sums: *mut f32,
            ) {
                const { assert!(I > 0 && I.is_multiple_of($inputs)) };
                // SAFETY: reads the bias, I numbers from `x` on and of I rows of weights the first ones, writes the sums;
                // all registers that change are named.
                unsafe {
                    asm!(
                        $($line,)*
                        bias = in(reg) bias,
                        w = inout(reg) weight => _,
                        x = inout(reg) x => _,
                        end = in(reg) x.add(I),
                        row = in(reg) 4 * O,
                        sums = in(reg) sums,
                        out("s0") _, out("s1") _, out("s2") _, out("s3") _, out("s4") _, out("s5") _, out("s6") _, out("s7") _,
                        out("s8") _, out("s9") _, out("s10") _, out("s11") _, out("s12") _, out("s13") _, out("s14") _,
                        out("s15") _, out("s16") _, out("s17") _, out("s18") _, out("s19") _, out("s20") _, out("s21") _,
                        out("s22") _, out("s23") _, out("s24") _, out("s25") _, out("s26") _, out("s27") _, out("s28") _,
                        out("s29") _, out("s30") _, out("s31") _,
                        options(nostack),
                    )
                }
            }
        };
    }

    sums!(
        /// 14 outputs, two inputs a turn.
        fourteen, together 2,
        "vldmia {bias}, {{s0-s13}}",
        "2:",
        "vldmia {x}!, {{s30-s31}}",
        "vldmia {w}, {{s16-s29}}",
        "add {w}, {row}",
        fourteen_products!("s30"),
        "vldmia {w}, {{s16-s29}}",
        "add {w}, {row}",
        fourteen_products!("s31"),
        "cmp {x}, {end}",
        "bne 2b",
        "vstmia {sums}, {{s0-s13}}",
    );
    sums!(
        /// 16 outputs; of their weights 15 at once.
        sixteen, together 1,
        "vldmia {bias}, {{s0-s15}}",
        "2:",
        "vldmia {x}!, {{s16}}",
        "vldmia {w}, {{s17-s31}}",
        products!("s16", "s0" "s17" "s1" "s18" "s2" "s19" "s3" "s20" "s4" "s21" "s5" "s22" "s6" "s23" "s7" "s24" "s8" "s25"
            "s9" "s26" "s10" "s27" "s11" "s28" "s12" "s29" "s13" "s30" "s14" "s31"),
        "vldr s17, [{w}, #60]",
        "add {w}, {row}",
        products!("s16", "s15" "s17"),
        "cmp {x}, {end}",
        "bne 2b",
        "vstmia {sums}, {{s0-s15}}",
    );
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use core::arch::x86_64::*;

    vector!(
        __m128,
        4,
        _mm_loadu_ps,
        _mm_set1_ps,
        _mm_add_ps,
        _mm_mul_ps,
        _mm_div_ps,
        _mm_min_ps,
        _mm_max_ps,
        _mm_storeu_ps,
        |v, p| {
            let low = _mm_and_si128(_mm_castps_si128(v), _mm_set1_epi32(255));
            let bytes = _mm_packus_epi16(_mm_packs_epi32(low, low), low);
            p.cast::<i32>().write_unaligned(_mm_cvtsi128_si32(bytes))
        }
    );

    vector!(
        __m256,
        8,
        _mm256_loadu_ps,
        _mm256_set1_ps,
        _mm256_add_ps,
        _mm256_mul_ps,
        _mm256_div_ps,
        _mm256_min_ps,
        _mm256_max_ps,
        _mm256_storeu_ps,
        |v, p| {
            let low = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(255));
            let (a, b) = (_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
            _mm_storel_epi64(p.cast(), _mm_packus_epi16(_mm_packs_epi32(a, b), a))
        }
    );

    vector!(
        __m512,
        16,
        _mm512_loadu_ps,
        _mm512_set1_ps,
        _mm512_add_ps,
        _mm512_mul_ps,
        _mm512_div_ps,
        _mm512_min_ps,
        _mm512_max_ps,
        _mm512_storeu_ps,
        |v, p| _mm_storeu_si128(p.cast(), _mm512_cvtepi32_epi8(_mm512_castps_si512(v)))
    );
}

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod arm {
    use super::Vector;
    use core::arch::aarch64::*;

    vector!(
        float32x4_t,
        4,
        vld1q_f32,
        vdupq_n_f32,
        vaddq_f32,
        vmulq_f32,
        vdivq_f32,
        vminq_f32,
        vmaxq_f32,
        vst1q_f32,
        |v, p| {
            let low = vmovn_u32(vreinterpretq_u32_f32(v));
            let bytes = vmovn_u16(vcombine_u16(low, low));
            p.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)))
        }
    );
}

/// Images as what they are in memory: rows of bytes.
pub(crate) fn as_arrays(images: &mut [Image]) -> &mut [[u8; Image::PIXELS]] {
    // SAFETY: `Image` is repr(transparent) over `[u8; Image::PIXELS]`.
    unsafe { slice::from_raw_parts_mut(images.as_mut_ptr().cast(), images.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_its_matrix_times_the_input_plus_the_bias() {
        let weight = SMatrix::<f32, 32, 5>::from_fn(|j, k| (j as f32 - 9.0) * (k as f32 + 0.3));
        let layer = Dense { weight, bias: SVector::from_fn(|j, _| j as f32) };
        let x = [[0.5, -1.0, 0.25, 3.0, -0.125]; 21];
        let expected = weight * SVector::from(x[0]) + layer.bias;
        for kernel in Kernel::all() {
            let mut y = [[0.0; 32]; 21];
            layer.leaky(kernel, &x, &mut y);
            for y in y.as_flattened().chunks(32) {
                for (y, a) in y.iter().zip(&expected) {
                    assert!((y - a.max(0.2 * a)).abs() < 1e-4, "{}: {a} became {y}", kernel.name());
                }
            }
        }
    }

    #[test]
    fn tanh_is_as_near_to_the_truth_as_its_documentation_says() {
        // All f32 between 2⁻¹⁴ and 9; below, tanh x is x to within the bound, beyond ±8 it is constant.
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
        assert!(worst < 4.5e-7, "{worst:e}");
    }
}
