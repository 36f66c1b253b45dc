//! The messages and fields of onnx.proto that a generator's file can need.

use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The most fields that a model, its graph and functions, and their nodes may have in all. A generator has about a hundred.
const MAX_FIELDS: usize = 20_000;

/// Decodes a file. Counts its fields first, because an empty node takes 2 bytes in the file and 200 in memory.
///
/// # Errors
/// The bytes are no ONNX file, are cut off, or have too many fields.
pub fn decode(bytes: &[u8]) -> Result<ModelProto, String> {
    if bytes.is_empty() {
        return Err("an ONNX file expected, an empty file found".into());
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Err("an ONNX file expected, a pointer of Git LFS found; `git lfs pull` fetches the file".into());
    }
    count(bytes, Counted::Model, &mut 0)?;
    ModelProto::decode(bytes).map_err(|_| NOT_ONNX.into())
}

const NOT_ONNX: &str = "an ONNX file expected, something else found";

/// The messages whose fields are counted.
#[derive(Clone, Copy)]
enum Counted {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
}

/// Adds the fields of a message, and of the messages in it, to `fields`.
fn count(mut bytes: &[u8], message: Counted, fields: &mut usize) -> Result<(), String> {
    while bytes.has_remaining() {
        let (tag, wire_type) = decode_key(&mut bytes).map_err(|_| NOT_ONNX)?;
        *fields += 1;
        if *fields > MAX_FIELDS {
            return Err(format!("at most {MAX_FIELDS} fields, about {} nodes, expected, more found", MAX_FIELDS / 5));
        }
        if wire_type != WireType::LengthDelimited {
            skip_field(wire_type, tag, &mut bytes, DecodeContext::default()).map_err(|_| NOT_ONNX)?;
            continue;
        }
        let len = decode_varint(&mut bytes).map_err(|_| NOT_ONNX)?;
        let Some((field, rest)) = usize::try_from(len).ok().and_then(|len| bytes.split_at_checked(len)) else {
            return Err(format!("an ONNX file expected, one that lacks {} bytes found", len - bytes.len() as u64));
        };
        match (message, tag) {
            (Counted::Model, 7) => count(field, Counted::Graph, fields)?,
            (Counted::Model, 25) => count(field, Counted::Function, fields)?,
            (Counted::Graph, 1) | (Counted::Function, 7) => count(field, Counted::Node, fields)?,
            (Counted::Node, 5) | (Counted::Function, 11) => count(field, Counted::Attribute, fields)?,
            _ => {}
        }
        bytes = rest;
    }
    Ok(())
}

/// Whether a domain is that of ONNX's standard operators.
pub fn is_standard(domain: &str) -> bool {
    ["", "ai.onnx"].contains(&domain)
}

/// A name or text of the file, for people: control characters are escaped, and what is longer than 100 characters is cut.
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    let cut = if text.chars().nth(LONGEST).is_some() { "…" } else { "" };
    text.chars().take(LONGEST).flat_map(char::escape_debug).chain(cut.chars()).collect()
}

#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<StringStringEntryProto>,
    #[prost(message, repeated, tag = "25")]
    pub functions: Vec<FunctionProto>,
}

#[derive(Clone, PartialEq, Message)]
pub struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
}

/// An operator that the file defines by other operators.
#[derive(Clone, PartialEq, Message)]
pub struct FunctionProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, repeated, tag = "4")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub output: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    pub node: Vec<NodeProto>,
    #[prost(string, tag = "10")]
    pub domain: String,
    /// Attributes with a default value.
    #[prost(message, repeated, tag = "11")]
    pub attribute_proto: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct AttributeProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, tag = "2")]
    pub f: f32,
    #[prost(int64, tag = "3")]
    pub i: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<TensorProto>,
    #[prost(float, repeated, tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
    /// In a function: the attribute of the function's call that gives the value.
    #[prost(string, tag = "21")]
    pub ref_attr_name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    /// `location`, `offset` and `length` of values in another file.
    #[prost(message, repeated, tag = "13")]
    pub external_data: Vec<StringStringEntryProto>,
    /// 1 for values in another file.
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

#[derive(Clone, PartialEq, Message)]
pub struct ValueInfoProto {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub r#type: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TypeProto {
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
pub struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, Message)]
pub struct DimensionProto {
    /// None for a size that the file leaves open, such as the batch's.
    #[prost(int64, optional, tag = "1")]
    pub dim_value: Option<i64>,
}
