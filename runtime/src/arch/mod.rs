//! How a kernel is chosen. A kernel is one instruction set's code for the dense layers of both precisions.
//!
//! - `tiling.rs`: the one loop of every kernel
//! - `f32_ops.rs`, `int8_ops.rs`: the arithmetic between the layers, for any vector width
//! - `scalar.rs`, `sse2.rs`, `avx2.rs`, `avx512.rs`, `vnni.rs`, `neon.rs`: a kernel each
//! - `armv7em.rs`: assembly of the scalar kernel on Cortex-M4 and M7
//!
//! To add a kernel: write its file beside these, add a variant to `Isa` and a line to each `match` below. The tests in
//! tests/same.rs and dense.rs then compare it with the others on every CPU that has it.

#[cfg(any(fpu, dsp))]
mod armv7em;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod f32_ops;
mod int8_ops;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod sse2;
mod tiling;
#[cfg(target_arch = "x86_64")]
mod vnni;

use crate::image::Image;
pub use f32_ops::tanh;
pub(crate) use f32_ops::{F32Activation, Leaky, Pixel, Tanh};
pub use int8_ops::tanh_pixel;
pub(crate) use int8_ops::{I16Activation, LeakyI16, PixelI16, Requantize};
pub(crate) use scalar::{f32_outputs_from, int8_outputs_from};

/// A kernel that this CPU can run. All kernels give the same bytes; they differ in speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Isa);

/// The instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Isa {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Sse2,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Vnni,
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon,
}

/// Whether the CPU has a feature. With `std` the program asks the CPU; without, the compiler's target decides.
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

/// Calls a function of the kernel's file.
macro_rules! dispatch {
    ($kernel:expr, $layer:ident($($argument:expr),*)) => {
        match $kernel.0 {
            Isa::Scalar => scalar::$layer($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Isa::Sse2 => sse2::$layer($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::$layer($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::$layer($($argument),*),
            #[cfg(target_arch = "x86_64")]
            Isa::Vnni => vnni::$layer($($argument),*),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Isa::Neon => neon::$layer($($argument),*),
        }
    };
}

impl Kernel {
    /// Plain Rust. Every CPU has it, and small devices have no other.
    pub const SCALAR: Kernel = Kernel(Isa::Scalar);

    /// The fastest kernel of this CPU.
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

    /// All kernels that this CPU can run, the slowest first.
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

    /// Computes an f32 layer, (B, I) → (B, O), for as many images as both `x` and `y` hold.
    pub(crate) fn f32_layer<const I: usize, const O: usize, A: F32Activation>(
        self,
        weight: &[[f32; O]; I],
        bias: &[f32; O],
        x: &[[f32; I]],
        y: &mut [[A::Output; O]],
        activation: A,
    ) {
        let epilogue = f32_ops::Activate(activation);
        // SAFETY: `best` and `all` make a `Kernel` only if the CPU has its instructions. SSE2 is part of every x86-64, and NEON of
        // every aarch64 for which neon.rs is compiled.
        unsafe { dispatch!(self, f32_layer(weight, bias, x, y, epilogue)) }
    }

    /// Computes an int8 layer with G groups of 4 inputs, (B, G, 4) → (B, O), for as many images as both `x` and `y` hold.
    pub(crate) fn int8_layer<const G: usize, const O: usize>(
        self,
        weight: &[[[i8; 4]; O]; G],
        x: &[[[u8; 4]; G]],
        y: &mut [[u8; O]],
        requantize: Requantize<'_, impl I16Activation, O>,
    ) {
        // SAFETY: as above.
        unsafe { dispatch!(self, int8_layer(weight, requantize.bias, x, y, requantize)) }
    }
}

/// The pixels of images, (B, 784).
pub(crate) fn pixels_of(images: &mut [Image]) -> &mut [[u8; Image::PIXELS]] {
    // SAFETY: `Image` is repr(transparent) over `[u8; Image::PIXELS]`.
    unsafe { core::slice::from_raw_parts_mut(images.as_mut_ptr().cast(), images.len()) }
}
