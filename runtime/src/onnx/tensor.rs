//! Stored tensors: their values, from the ONNX file or from data files beside it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::proto::{StringStringEntryProto, TensorProto, shown};

/// The most numbers that all constants of a file may have, those made of other constants included. A generator has 114,800.
const MAX_NUMBERS: usize = 1 << 22;
/// The most dimensions of a tensor.
pub const MAX_RANK: usize = 8;
/// The most data files.
const MAX_FILES: usize = 16;

/// A tensor whose values do not depend on z.
#[derive(Clone)]
pub struct Constant {
    /// Its name in the file, or that of the stored tensor that it was made from.
    pub name: Arc<str>,
    pub shape: Vec<usize>,
    pub values: Values,
}

/// The values of a [`Constant`], row-major.
#[derive(Clone)]
pub enum Values {
    F32(Arc<[f32]>),
    /// int64, int32 or bool.
    Integers(Arc<[i64]>),
    /// A type that no tensor of a generator has, by its number in onnx.proto.
    Other(i32),
}

impl Constant {
    /// The values as f32.
    pub fn f32(&self) -> Result<&Arc<[f32]>, String> {
        let found = match &self.values {
            Values::F32(values) => return Ok(values),
            Values::Integers(_) => "integers".into(),
            Values::Other(number) => type_name(*number),
        };
        Err(format!("{}: float32 expected, {found} found", shown(&self.name)))
    }

    /// Whether all values are the f32 `x`.
    pub fn is_all(&self, x: f32) -> Result<bool, String> {
        Ok(self.f32()?.iter().all(|&value| value == x))
    }

    /// The values as integers.
    pub fn integers(&self) -> Result<&Arc<[i64]>, String> {
        match &self.values {
            Values::Integers(values) => Ok(values),
            _ => Err(format!("{}: integers expected, another type found", shown(&self.name))),
        }
    }
}

// Element types by their numbers in onnx.proto.
pub const FLOAT32: i32 = 1;
pub const INT32: i32 = 6;
pub const INT64: i32 = 7;
pub const BOOL: i32 = 9;
pub const FLOAT64: i32 = 11;

/// The name of an element type of onnx.proto.
pub fn type_name(number: i32) -> String {
    let names =
        ["undefined", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16"];
    match usize::try_from(number).ok().and_then(|number| names.get(number)) {
        Some(name) => (*name).into(),
        None if number == FLOAT64 => "float64".into(),
        None if number == 16 => "bfloat16".into(),
        None => format!("data type {number}"),
    }
}

/// The number of values of a shape.
pub fn size(shape: &[usize]) -> Result<usize, String> {
    let size = shape.iter().try_fold(1usize, |size, &n| size.checked_mul(n));
    match size {
        Some(size) if size <= MAX_NUMBERS && shape.len() <= MAX_RANK => Ok(size),
        _ => Err(format!("at most {MAX_NUMBERS} numbers in {MAX_RANK} dimensions expected, more found")),
    }
}

/// Reads stored tensors and bounds the numbers in all of them.
pub struct Storage<'a> {
    /// Gives the bytes of a data file, by its path relative to the ONNX file.
    load: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    /// The data files by path.
    files: RefCell<BTreeMap<String, Vec<u8>>>,
    numbers_left: Cell<usize>,
}

impl<'a> Storage<'a> {
    pub fn new(load: &'a dyn Fn(&str) -> Result<Vec<u8>, String>) -> Self {
        Self { load, files: RefCell::default(), numbers_left: Cell::new(MAX_NUMBERS) }
    }

    /// The data files that have been read, by path.
    pub fn into_files(self) -> BTreeMap<String, Vec<u8>> {
        self.files.into_inner()
    }

    /// Takes this many numbers from the bound on all of them.
    pub fn charge(&self, numbers: usize) -> Result<(), String> {
        let left = self.numbers_left.get().checked_sub(numbers);
        self.numbers_left.set(left.ok_or_else(|| format!("at most {MAX_NUMBERS} numbers expected, more found"))?);
        Ok(())
    }

    /// The values of a stored tensor. `name` stands for it in errors.
    pub fn read(&self, tensor: &TensorProto, name: &str) -> Result<Constant, String> {
        self.values(tensor, name).map_err(|e| format!("{}: {e}", shown(name)))
    }

    fn values(&self, tensor: &TensorProto, name: &str) -> Result<Constant, String> {
        let shape: Result<Vec<usize>, _> = tensor.dims.iter().map(|&n| usize::try_from(n)).collect();
        let shape = shape
            .map_err(|_| format!("a shape expected, {:?} found", &tensor.dims[..tensor.dims.len().min(MAX_RANK)]))?;
        let count = size(&shape)?;
        self.charge(count)?;
        let external = match tensor.data_location {
            0 => None,
            _ => Some(self.external(&tensor.external_data)?),
        };
        let raw: &[u8] = external.as_deref().unwrap_or(&tensor.raw_data);
        let ints32 = tensor.int32_data.iter().map(|&x| x.into());
        let values = match tensor.data_type {
            FLOAT32 => Values::F32(numbers(count, raw, f32::from_le_bytes, tensor.float_data.iter().copied())?),
            INT32 => Values::Integers(numbers(count, raw, |x| i32::from_le_bytes(x).into(), ints32)?),
            INT64 => Values::Integers(numbers(count, raw, i64::from_le_bytes, tensor.int64_data.iter().copied())?),
            BOOL => Values::Integers(numbers(count, raw, |[x]| x.into(), ints32)?),
            other => Values::Other(other),
        };
        Ok(Constant { name: name.into(), shape, values })
    }

    /// The bytes of a tensor in another file.
    fn external(&self, entries: &[StringStringEntryProto]) -> Result<Vec<u8>, String> {
        let entry = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let number = |key: &str| match entry(key) {
            Some(text) => {
                text.parse().map(Some).map_err(|_| format!("{key}: a number expected, {} found", shown(text)))
            }
            None => Ok(None),
        };
        let location = entry("location").ok_or("values in a data file expected, no file is named")?;
        let (offset, length): (usize, Option<usize>) = (number("offset")?.unwrap_or(0), number("length")?);
        let mut files = self.files.borrow_mut();
        if !files.contains_key(location) {
            if files.len() == MAX_FILES {
                return Err(format!("at most {MAX_FILES} data files expected, more found"));
            }
            files.insert(location.into(), (self.load)(location)?);
        }
        let file = &files[location];
        let end = length.map_or(Some(file.len()), |length| offset.checked_add(length));
        let bytes = end.and_then(|end| file.get(offset..end));
        let found = || format!("{}: the values at byte {offset} expected, {} bytes found", shown(location), file.len());
        bytes.map(<[u8]>::to_vec).ok_or_else(found)
    }
}

/// The values of a tensor, from `raw` little-endian bytes or, if there are none, from the field of its type.
fn numbers<T, const N: usize>(
    count: usize,
    raw: &[u8],
    from_bytes: impl Fn([u8; N]) -> T,
    typed: impl ExactSizeIterator<Item = T>,
) -> Result<Arc<[T]>, String> {
    let (chunks, rest) = raw.as_chunks::<N>();
    match (chunks.len(), typed.len(), rest.len()) {
        (found, 0, 0) if found == count => Ok(chunks.iter().map(|&bytes| from_bytes(bytes)).collect()),
        (0, found, 0) if found == count => Ok(typed.collect()),
        (found, 0, 0) | (0, found, 0) => Err(format!("{count} values expected, {found} found")),
        (found, 0, rest) => Err(format!("{count} values expected, {found} and {rest} more bytes found")),
        _ => Err("values in one field expected, raw_data and another one found".into()),
    }
}
