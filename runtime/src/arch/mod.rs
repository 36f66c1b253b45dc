//! How a kernel is chosen. A kernel is one instruction set's code for the dense layers of both precisions.
//!
//! - `tiling.rs`: the one loop of every kernel
//! - `f32_ops.rs`, `int8_ops.rs`: the arithmetic between the layers, for any vector width
//! - `scalar.rs`, `sse2.rs`, `avx2.rs`, `avx_vnni.rs`, `avx512.rs`, `vnni.rs`, `neon.rs`, `dotprod.rs`, `simd128.rs`: a kernel each
//! - `armv7em.rs`: assembly of the scalar kernel on Cortex-M4 and M7
//!
//! To add a kernel: write its file beside these, and add a line to the table `kernels!` below. The tests in tests/same.rs and
//! dense.rs then compare it with the others on every CPU that has it.

#[cfg(any(fpu, dsp))]
mod armv7em;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod dotprod;
mod f32_ops;
mod int8_ops;
#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
mod neon;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
#[cfg(target_arch = "x86_64")]
mod sse2;
mod tiling;
#[cfg(target_arch = "x86_64")]
mod vnni;

use crate::image::Image;
pub use f32_ops::tanh;
pub(crate) use f32_ops::{Activate, F32, F32Activation, Leaky, Pixel, Tanh};
pub use int8_ops::tanh_pixel;
pub(crate) use int8_ops::{I16Activation, Int8, LeakyI16, PixelI16, Requantize};
pub(crate) use tiling::Layer;

/// A kernel that this CPU can run. All kernels give the same bytes; they differ in speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Isa);

/// Defines the instruction sets, the slowest first, and [`Kernel::best`], which takes the last one that the CPU has. A line is:
/// `Isa` "name" in file if the CPU has it.
macro_rules! kernels {
    ($($(#[$cfg:meta])? $isa:ident $name:literal in $file:ident if $available:expr;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum Isa {
            $($(#[$cfg])? $isa,)*
        }

        impl Kernel {
            /// The fastest kernel of this CPU.
            pub fn best() -> Kernel {
                let mut best = Kernel::SCALAR;
                $($(#[$cfg])? { if $available { best = Kernel(Isa::$isa) } })*
                best
            }

            /// All kernels that this CPU can run, the slowest first.
            pub fn all() -> impl Iterator<Item = Kernel> {
                [$($(#[$cfg])? ($available).then_some(Kernel(Isa::$isa)),)*].into_iter().flatten()
            }

            /// The kernel's name, as in the table below.
            pub fn name(self) -> &'static str {
                match self.0 { $($(#[$cfg])? Isa::$isa => $name,)* }
            }

            /// Computes an f32 layer, (B, I) → (B, O), for as many images as both `x` and `y` hold.
            pub(crate) fn f32_layer<A: F32Activation, const I: usize, const O: usize>(
                self,
                layer: &Layer<F32, Activate<A>, I, O>,
                x: &[[f32; I]],
                y: &mut [[A::Output; O]],
            ) {
                // SAFETY: `best` and `all` make a `Kernel` only if the CPU has its instructions.
                unsafe { match self.0 { $($(#[$cfg])? Isa::$isa => $file::f32_layer(layer, x, y),)* } }
            }

            /// Computes an int8 layer with G groups of 4 inputs, (B, G, 4) → (B, O), for as many images as both
            /// `x` and `y` hold.
            pub(crate) fn int8_layer<A: I16Activation, const G: usize, const O: usize>(
                self,
                layer: &Layer<Int8, Requantize<A, O>, G, O>,
                x: &[[[u8; 4]; G]],
                y: &mut [[u8; O]],
            ) {
                // SAFETY: `best` and `all` make a `Kernel` only if the CPU has its instructions.
                unsafe { match self.0 { $($(#[$cfg])? Isa::$isa => $file::int8_layer(layer, x, y),)* } }
            }
        }
    };
}

/// Whether the CPU has all these features. With `std` the program asks the CPU; without, the compiler's target decides.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! has {
    ($($feature:tt)*) => {{
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        let has = true $(&& std::arch::is_x86_feature_detected!($feature))*;
        #[cfg(all(feature = "std", target_arch = "aarch64"))]
        let has = true $(&& std::arch::is_aarch64_feature_detected!($feature))*;
        #[cfg(not(feature = "std"))]
        let has = cfg!(all($(target_feature = $feature),*));
        has
    }};
}

kernels! {
    Scalar "scalar" in scalar if true;
    #[cfg(target_arch = "x86_64")]
    Sse2 "sse2" in sse2 if true; // part of every x86-64
    #[cfg(target_arch = "x86_64")]
    Avx2 "avx2" in avx2 if has!("avx2");
    #[cfg(target_arch = "x86_64")]
    AvxVnni "avxvnni" in avx_vnni if has!("avx2" "avxvnni");
    #[cfg(target_arch = "x86_64")]
    Avx512 "avx512" in avx512 if has!("avx512f");
    #[cfg(target_arch = "x86_64")]
    Vnni "avx512vnni" in vnni if has!("avx512f" "avx512bw" "avx512vl" "avx512vnni");
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon "neon" in neon if true;
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Dotprod "dotprod" in dotprod if has!("dotprod");
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128 "simd128" in simd128 if true;
}

impl Kernel {
    /// Plain Rust. Every CPU has it, and small devices have no other.
    pub const SCALAR: Kernel = Kernel(Isa::Scalar);
}

/// Computes R outputs of one image from output `j` of a layer on, by the scalar kernel; 0 beyond the layer's last output.
pub(crate) fn f32_outputs_from<A: F32Activation<Output = u8>, const I: usize, const O: usize, const R: usize>(
    layer: &Layer<F32, Activate<A>, I, O>,
    x: &[f32; I],
    j: usize,
) -> [u8; R] {
    // SAFETY: f32 needs no instruction set.
    unsafe { layer.outputs_from::<f32, { scalar::ROW_OUTPUTS_PER_PASS }, R>(x, j) }
}

/// [`f32_outputs_from`] in int8, with G groups of 4 inputs.
pub(crate) fn int8_outputs_from<A: I16Activation, const G: usize, const O: usize, const R: usize>(
    layer: &Layer<Int8, Requantize<A, O>, G, O>,
    x: &[[u8; 4]; G],
    j: usize,
) -> [u8; R] {
    // SAFETY: integers need no instruction set.
    unsafe { layer.outputs_from::<i32, { scalar::INT8_ROW_OUTPUTS_PER_PASS }, R>(x, j) }
}

/// The pixels of images, one image after another.
#[cfg(feature = "cli")]
pub(crate) fn bytes_of(images: &[Image]) -> &[u8] {
    // SAFETY: `Image` is repr(transparent) over `[u8; Image::PIXELS]`.
    unsafe { core::slice::from_raw_parts(images.as_ptr().cast(), size_of_val(images)) }
}

/// The pixels of images, (B, 784).
pub(crate) fn pixels_of(images: &mut [Image]) -> &mut [[u8; Image::PIXELS]] {
    // SAFETY: `Image` is repr(transparent) over `[u8; Image::PIXELS]`.
    unsafe { core::slice::from_raw_parts_mut(images.as_mut_ptr().cast(), images.len()) }
}
