//! The weights, in read-only memory.
//!
//! `unsafe` here turns the bytes that build.rs made into the static that the linker places.

use crate::{Generator, int8};

/// The generator of models/g.onnx, or of the file that `GENERATOR_ONNX` named when this library was built.
// SAFETY: Generator is repr(C) and holds nothing but f32 arrays without padding, and of these any bits are a value.
// build.rs wrote exactly its bytes, or the sizes would differ and this would not compile.
pub static GENERATOR: Generator =
    unsafe { core::mem::transmute(*include_bytes!(concat!(env!("OUT_DIR"), "/weights.bin"))) };

/// The same generator in integers.
// SAFETY: as above; int8::Generator holds nothing but i8 and i32 arrays, and its padding at the end is in the file too.
pub static INT8: int8::Generator =
    unsafe { core::mem::transmute(*include_bytes!(concat!(env!("OUT_DIR"), "/int8.bin"))) };

/// Whether z[0..10] of [`GENERATOR`] is the class as one-hot.
pub const CONDITIONAL: bool = include!(concat!(env!("OUT_DIR"), "/conditional.rs"));

#[cfg(target_endian = "big")]
compile_error!("the weights are stored little-endian");

impl Generator {
    /// From the layers' weights (I, O) and biases in turn, as little-endian f32.
    ///
    /// Whoever calls this checks the numbers: a NaN among them gives some image, not an error.
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        // SAFETY: as for the static; the copy leaves no question of alignment.
        unsafe { core::mem::transmute_copy(bytes) }
    }

    /// What [`Self::from_bytes`] takes.
    pub fn as_bytes(&self) -> &[u8; size_of::<Self>()] {
        // SAFETY: as for the static: there is no padding, and any bytes may be looked at.
        unsafe { core::mem::transmute(self) }
    }
}

impl int8::Generator {
    /// From what the build script's quantiser writes.
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        // SAFETY: as for the static.
        unsafe { core::mem::transmute_copy(bytes) }
    }
}
