//! Binds tensors, and parts of tensors, to a session's inputs and outputs by name. Holds the crate's only `unsafe`
//! block.

use std::collections::HashSet;
use std::ptr::{self, NonNull};

use anyhow::{Context, Result};
use ort::AsPointer;
use ort::memory::Allocator;
use ort::session::{IoBinding, Session};
use ort::value::{DefiniteTensorValueTypeMarker, DynTensor, TensorElementType, Value};

use crate::graph::onnx::Type;
use crate::state::Spec;

/// The names of a session's inputs. Binding skips a tensor that is not an input of the session.
pub(super) struct InputNames(HashSet<String>);

impl InputNames {
    pub fn of(session: &Session) -> Self {
        Self(session.inputs().iter().map(|input| input.name().to_string()).collect())
    }

    /// Binds the tensors of `specs`, which lie one after the other in `whole`, the first at byte `at`. The input of a
    /// tensor has its name without `prefix`; tensors without that prefix are skipped.
    ///
    /// `whole` must outlive the binding, see [`part_of`].
    pub fn bind_parts<T: DefiniteTensorValueTypeMarker + ?Sized>(
        &self,
        binding: &mut IoBinding,
        whole: &Value<T>,
        mut at: usize,
        specs: &[Spec],
        prefix: &str,
    ) -> Result<()> {
        for spec in specs {
            if let Some(name) = spec.name.strip_prefix(prefix).filter(|&name| self.0.contains(name)) {
                binding.bind_input(name, &part_of(whole, at, spec)?)?;
            }
            at += spec.bytes();
        }
        Ok(())
    }
}

/// A tensor with type and shape of `spec` in the memory of `whole`, starting at byte `at`. Nothing is copied.
///
/// The part does not keep `whole` alive: whoever binds it must keep `whole` until the binding is dropped. The steppers
/// do so by declaring their bindings before their tensors, since Rust drops fields in order of declaration.
#[allow(unsafe_code)] // ort has no safe call for a part of a tensor that a binding does not copy
pub(super) fn part_of<T: DefiniteTensorValueTypeMarker + ?Sized>(
    whole: &Value<T>,
    at: usize,
    spec: &Spec,
) -> Result<DynTensor> {
    let elem = match spec.elem {
        Type::F32 => TensorElementType::Float32,
        Type::I64 => TensorElementType::Int64,
        Type::U8 => TensorElementType::Uint8,
        Type::Bool => TensorElementType::Bool,
    };
    let len = whole.data_type().byte_size(whole.shape().num_elements()).expect("a tensor of numbers");
    assert!(at + spec.bytes() <= len && at.is_multiple_of(spec.elem.size()), "{}: {at} of {len} bytes", spec.name);
    let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
    let memory = whole.data_ptr().cast_mut().wrapping_byte_add(at);
    let mut part = ptr::null_mut();
    // SAFETY: `memory` points into `whole`, on the device of its memory info; the assertion checks length and
    // alignment. The caller keeps `whole` as long as the part, which does not free the memory. Bytes read as bool are 0
    // or 1: dropout masks.
    unsafe {
        let make = ort::api().CreateTensorWithDataAsOrtValue;
        let (info, len) = (whole.memory_info().ptr(), spec.bytes());
        let status = make(info, memory, len, shape.as_ptr(), shape.len(), elem.into(), &mut part);
        ort::Error::<()>::result_from_status(status)?;
        Ok(DynTensor::from_ptr(NonNull::new(part).context("a tensor")?, Some(&Allocator::default())))
    }
}
