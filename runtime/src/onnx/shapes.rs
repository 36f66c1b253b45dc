//! Operators that keep the values and change the shape, constants, and the arithmetic of shapes.

use std::ops::Range;

use super::call::Call;
use super::proto::shown;
use super::tensor::{Constant, MAX_RANK, Values, size};
use super::value::{Data, Value};

/// The first input in another shape of as many values.
fn in_shape(call: &Call, shape: Vec<usize>) -> Result<Value, String> {
    let old = call.input(0)?.shape();
    if size(&shape)? != size(old)? {
        return Err(format!("a shape of as many values as {old:?} expected, {shape:?} found"));
    }
    Ok(match call.input(0)?.clone() {
        Value::Constant(constant) => Value::Constant(Constant { shape, ..constant }),
        Value::Data(data) => Value::Data(Data { shape, ..data }),
    })
}

/// An axis or index, which counts from the end if it is negative; at most `len`.
fn index(i: i64, len: usize) -> Result<usize, String> {
    let from_start = if i < 0 { i + len as i64 } else { i };
    let found = usize::try_from(from_start).ok().filter(|&i| i <= len);
    found.ok_or_else(|| format!("an axis or index of at most {len} expected, {i} found"))
}

pub fn reshape(call: &Call) -> Result<Value, String> {
    let old = call.input(0)?.shape();
    let target = shape_input(call, 1)?;
    let keeps_zero = call.int("allowzero", 0) != 0;
    let wrong = || format!("a shape of as many values as {old:?} expected, {target:?} found");
    let known = |(i, &n): (usize, &i64)| match n {
        -1 => Some(1),
        0 if !keeps_zero => old.get(i).copied(),
        n => usize::try_from(n).ok(),
    };
    let mut shape = target.iter().enumerate().map(known).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
    if let Some(rest) = target.iter().position(|&n| n == -1) {
        shape[rest] = size(old)?.checked_div(size(&shape)?).ok_or_else(wrong)?;
    }
    in_shape(call, shape)
}

pub fn flatten(call: &Call) -> Result<Value, String> {
    let old = call.input(0)?.shape();
    let (before, after) = old.split_at(index(call.int("axis", 1), old.len())?);
    in_shape(call, vec![size(before)?, size(after)?])
}

pub fn squeeze(call: &Call) -> Result<Value, String> {
    let old = call.input(0)?.shape();
    let axes = call.integers(1, "axes")?;
    let goes = |i: usize| match axes {
        Some(axes) => axes.contains(&(i as i64)) || axes.contains(&(i as i64 - old.len() as i64)),
        None => old[i] == 1,
    };
    in_shape(call, (0..old.len()).filter(|&i| !goes(i)).map(|i| old[i]).collect())
}

pub fn unsqueeze(call: &Call) -> Result<Value, String> {
    let mut shape = call.input(0)?.shape().to_vec();
    let axes = call.integers(1, "axes")?.unwrap_or_default();
    let rank = shape.len() + axes.len();
    let axes: Result<Vec<usize>, _> = axes.iter().map(|&i| index(i, rank)).collect();
    let mut axes = axes?;
    axes.sort_unstable();
    for i in axes {
        shape.insert(i.min(shape.len()), 1);
    }
    in_shape(call, shape)
}

/// Transpose moves values only if the axes longer than 1 change their order. That is allowed for matrices of constants.
pub fn transpose(call: &Call) -> Result<Value, String> {
    let old = call.input(0)?.shape();
    let perm: Vec<usize> = match call.attribute("perm") {
        Some(perm) => perm.ints.iter().take(MAX_RANK + 1).map(|&i| index(i, old.len())).collect::<Result<_, _>>()?,
        None => (0..old.len()).rev().collect(),
    };
    if (0..old.len()).any(|i| !perm.contains(&i)) || perm.len() != old.len() {
        return Err(format!("a permutation of {} axes expected, {perm:?} found", old.len()));
    }
    let shape = perm.iter().map(|&i| old[i]).collect();
    if perm.iter().filter(|&&i| old[i] > 1).is_sorted() {
        return in_shape(call, shape);
    }
    match (call.input(0)?, old) {
        (Value::Constant(constant), &[rows, columns]) => {
            let values = constant.f32()?;
            call.storage.charge(values.len())?;
            let values = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
            Ok(Value::Constant(Constant { shape, values: Values::F32(values), ..constant.clone() }))
        }
        _ => Err(call.unexpected()),
    }
}

fn integers(shape: Vec<usize>, values: Vec<i64>) -> Value {
    Value::Constant(Constant { name: "".into(), shape, values: Values::Integers(values.into()) })
}

pub fn constant(call: &Call) -> Result<Value, String> {
    let name = call.node.output.first().map_or("", |name| name);
    let floats = |shape, values: &[f32]| {
        call.storage.charge(values.len())?;
        let values = Values::F32(values.into());
        Ok(Value::Constant(Constant { name: name.into(), shape, values }))
    };
    match call.attributes[..] {
        [("value", attribute)] => {
            let tensor = attribute.t.as_ref().ok_or("a tensor as value expected, none found")?;
            call.storage.read(tensor, name).map(Value::Constant)
        }
        [("value_float", attribute)] => floats(vec![], &[attribute.f]),
        [("value_floats", attribute)] => floats(vec![attribute.floats.len()], &attribute.floats),
        [("value_int", attribute)] => Ok(integers(vec![], vec![attribute.i])),
        [("value_ints", attribute)] => {
            call.storage.charge(attribute.ints.len())?;
            Ok(integers(vec![attribute.ints.len()], attribute.ints.clone()))
        }
        _ => Err(format!("one value expected, {} found", call.attributes.len())),
    }
}

pub fn shape(call: &Call) -> Result<Value, String> {
    let shape = call.input(0)?.shape();
    let part = range(call.int("start", 0), call.int("end", i64::MAX), shape.len());
    let part: Vec<i64> = shape[part].iter().map(|&n| n as i64).collect();
    Ok(integers(vec![part.len()], part))
}

/// From `start` to `end`, each counted from the end if it is negative, and clamped to `len`.
fn range(start: i64, end: i64, len: usize) -> Range<usize> {
    let at = |i: i64| (if i < 0 { i + len as i64 } else { i }).clamp(0, len as i64) as usize;
    at(start)..at(end).max(at(start))
}

/// An input that is a shape or a part of one: a few integers.
fn shape_input<'a>(call: &'a Call, i: usize) -> Result<&'a [i64], String> {
    let constant = call.constant(i)?;
    match &constant.integers()?[..] {
        values if constant.shape.len() <= 1 && values.len() <= MAX_RANK => Ok(values),
        _ => Err(format!(
            "{}: at most {MAX_RANK} integers expected, shape {:?} found",
            shown(&constant.name),
            constant.shape
        )),
    }
}

pub fn gather(call: &Call) -> Result<Value, String> {
    let (from, indices) = (shape_input(call, 0)?, shape_input(call, 1)?);
    let pick = |&i: &i64| from.get(index(i, from.len())?).copied().ok_or_else(|| call.unexpected());
    let picked = indices.iter().map(pick).collect::<Result<_, _>>()?;
    Ok(integers(call.input(1)?.shape().to_vec(), picked))
}

pub fn slice(call: &Call) -> Result<Value, String> {
    let from = shape_input(call, 0)?;
    let (starts, ends) = (call.integers(1, "starts")?, call.integers(2, "ends")?);
    let (axes, steps) = (call.integers(3, "axes")?, call.integers(4, "steps")?);
    match (starts, ends, axes, steps) {
        (Some(&[start]), Some(&[end]), None | Some(&[0 | -1]), None | Some(&[1])) => {
            let part = &from[range(start, end, from.len())];
            Ok(integers(vec![part.len()], part.to_vec()))
        }
        _ => Err("one start, end and axis, and step 1, expected".into()),
    }
}

pub fn concat(call: &Call) -> Result<Value, String> {
    let parts = (0..call.inputs.len()).map(|i| shape_input(call, i)).collect::<Result<Vec<_>, _>>()?;
    let all = parts.concat();
    Ok(integers(vec![all.len()], all))
}
