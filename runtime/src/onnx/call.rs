//! A node with the values of its inputs and attributes.

use super::proto::{AttributeProto, NodeProto, is_standard, shown};
use super::tensor::{Constant, MAX_RANK, Storage};
use super::value::{Data, Value};

/// The type of an attribute, by its number in onnx.proto.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Float = 1,
    Int = 2,
    String = 3,
    Tensor = 4,
    Floats = 6,
    Ints = 7,
}

/// A node with the values of its inputs and attributes.
pub struct Call<'a> {
    pub node: &'a NodeProto,
    /// None for an optional input that is left out.
    pub inputs: Vec<Option<Value>>,
    pub attributes: Vec<(&'a str, &'a AttributeProto)>,
    pub storage: &'a Storage<'a>,
}

impl Call<'_> {
    /// The operator's name, with its domain unless that is ONNX's own.
    pub fn operator(&self) -> String {
        match is_standard(&self.node.domain) {
            true => self.node.op_type.clone(),
            false => format!("{}.{}", self.node.domain, self.node.op_type),
        }
    }

    /// Refuses attributes that the operator does not have, and those of another type.
    pub fn check_attributes(&self, known: &[(&str, Kind)]) -> Result<(), String> {
        for (name, attribute) in &self.attributes {
            match known.iter().find(|(known, _)| known == name) {
                // Old files leave out the type.
                Some((_, kind)) if [0, *kind as i32].contains(&attribute.kind) => {}
                Some(_) => return Err(format!("{name}: another type of attribute expected")),
                None => return Err(format!("no attribute {} expected, one found", shown(name))),
            }
        }
        Ok(())
    }

    /// An attribute; None if the node does not have it.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, attribute)| *attribute)
    }

    /// A float attribute.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |attribute| attribute.f)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |attribute| attribute.i)
    }

    /// An optional input.
    pub fn optional(&self, i: usize) -> Option<&Value> {
        self.inputs.get(i)?.as_ref()
    }

    /// A required input.
    pub fn input(&self, i: usize) -> Result<&Value, String> {
        self.optional(i).ok_or_else(|| format!("input {} expected, none found", i + 1))
    }

    /// A required input that is a constant.
    pub fn constant(&self, i: usize) -> Result<&Constant, String> {
        match self.input(i)? {
            Value::Constant(constant) => Ok(constant),
            Value::Data(_) => Err(format!("constants as input {} expected, a tensor that depends on z found", i + 1)),
        }
    }

    /// A required input that depends on z.
    pub fn data(&self, i: usize) -> Result<&Data, String> {
        match self.input(i)? {
            Value::Data(data) => Ok(data),
            Value::Constant(_) => Err(self.unexpected()),
        }
    }

    /// Integers that newer versions of the operator take as input `i` and older ones as an attribute; None without both.
    ///
    /// # Errors
    /// There are more of them than a tensor has dimensions, or they are no constant.
    pub fn integers(&self, i: usize, name: &str) -> Result<Option<&[i64]>, String> {
        let values: &[i64] = match self.attribute(name) {
            Some(attribute) => &attribute.ints,
            None if self.optional(i).is_some() => self.constant(i)?.integers()?,
            None => return Ok(None),
        };
        match values.len() {
            0..=MAX_RANK => Ok(Some(values)),
            found => Err(format!("{name}: at most {MAX_RANK} integers expected, {found} found")),
        }
    }

    /// The input that depends on z and the constant one of an elementwise operator, and whether the constant is the first.
    pub fn data_and_constant(&self) -> Result<(&Data, &Constant, bool), String> {
        match (self.input(0)?, self.input(1)?) {
            (Value::Data(data), Value::Constant(constant)) => Ok((data, constant, false)),
            (Value::Constant(constant), Value::Data(data)) => Ok((data, constant, true)),
            _ => Err(self.unexpected()),
        }
    }

    /// The error of an operator that is not the network's next step.
    pub fn unexpected(&self) -> String {
        let data = self.inputs.iter().flatten().find_map(|input| match input {
            Value::Data(data) => Some(data.expected()),
            Value::Constant(_) => None,
        });
        format!("{} expected, {} found", data.unwrap_or("stored float32 values"), shown(&self.operator()))
    }
}
