//! The weights, in read-only memory.
//!
//! build.rs writes the files that are included here. `unsafe` turns their bytes into the types of the generators.

use crate::{generator, generator_int8};

/// The built-in f32 generator: models/g.onnx, or the file that `GENERATOR_ONNX` named when this library was built.
// SAFETY: the type is repr(C) and holds nothing but f32 arrays without padding, for which all bits are valid. A file of another
// size does not compile.
pub static GENERATOR: generator::Generator =
    unsafe { core::mem::transmute(*include_bytes!(concat!(env!("OUT_DIR"), "/weights.bin"))) };

/// The built-in int8 generator: the same network as [`crate::GENERATOR`], quantised.
// SAFETY: the type is repr(C) and holds nothing but i8, i16 and i32 arrays and numbers, for which all bits are valid; each lies at
// a multiple of its size without padding between them. The file has the padding at the end too. Another size does not compile.
pub static INT8: generator_int8::Generator =
    unsafe { core::mem::transmute(*include_bytes!(concat!(env!("OUT_DIR"), "/int8.bin"))) };

const _: () =
    assert!(size_of::<generator::Generator>() == 459_200 && size_of::<generator_int8::Generator>() == 121_920);

/// The names of the built-in generator's classes, in the order of their numbers; empty if it is unconditional. z begins with the
/// class as one-hot, one number per class, and [`crate::generate_class`] draws a chosen class.
pub const CLASSES: &[&str] = include!(concat!(env!("OUT_DIR"), "/classes.rs"));

/// [`CLASSES`] for C.
#[cfg(feature = "capi")]
pub(crate) const C_CLASSES: &[&core::ffi::CStr] = include!(concat!(env!("OUT_DIR"), "/c_classes.rs"));

/// The SHA-256 of the built-in generator's f32 weights, layer by layer, in hexadecimal. It names the generator: a seed's image is
/// the same wherever this is, in either precision.
pub const WEIGHTS_SHA256: &str = include_str!(concat!(env!("OUT_DIR"), "/weights.sha256"));

/// What the file of the built-in generator says about itself: names and values, in the file's order.
pub const METADATA: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/metadata.rs"));

#[cfg(target_endian = "big")]
compile_error!("the weights are stored little-endian");

impl generator::Generator {
    /// The generator with these weights: for each layer its weight (I, O), row-major, and its bias (O), as little-endian f32.
    ///
    /// The numbers must be finite. With NaN or infinity among them the images are meaningless, without an error.
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        // SAFETY: as for `GENERATOR`. A copy has no alignment to keep.
        unsafe { core::mem::transmute_copy(bytes) }
    }

    /// The weights as [`Self::from_bytes`] takes them.
    pub fn as_bytes(&self) -> &[u8; size_of::<Self>()] {
        // SAFETY: there is no padding, and bytes have no alignment.
        unsafe { core::mem::transmute(self) }
    }
}

impl generator_int8::Generator {
    /// The generator with these weights, in the layout that src/quantize.rs writes.
    pub fn from_bytes(bytes: &[u8; size_of::<Self>()]) -> Self {
        // SAFETY: as for `INT8`. A copy has no alignment to keep.
        unsafe { core::mem::transmute_copy(bytes) }
    }
}
