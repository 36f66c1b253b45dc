//! The weights, in read-only memory.
//!
//! `unsafe` here turns the bytes that build.rs made into the static that the linker places.

use crate::Generator;

/// The generator of models/g.onnx, or of the file that `GENERATOR_ONNX` named when this library was built.
// SAFETY: Generator is repr(C) and holds nothing but f32 arrays without padding, and of these any bits are a value.
// build.rs wrote exactly its bytes, or the sizes would differ and this would not compile.
pub static GENERATOR: Generator =
    unsafe { core::mem::transmute(*include_bytes!(concat!(env!("OUT_DIR"), "/weights.bin"))) };

/// Whether z[0..10] of [`GENERATOR`] is the class as one-hot.
pub const CONDITIONAL: bool = include!(concat!(env!("OUT_DIR"), "/conditional.rs"));

#[cfg(target_endian = "big")]
compile_error!("the weights are stored little-endian");
