//! The operators that a generator's file may use, and what each makes of its inputs.

use std::ops::Range;
use std::sync::Arc;

use super::call::Call;
use super::call::Kind::{self, Float, Floats, Int, Ints, String as Text, Tensor};
use super::proto::shown;
use super::tensor::{Constant, MAX_RANK, Values, size, type_name};
use super::value::{Data, Dense, SIZES, Stage, Value};

/// The slope of LeakyReLU below 0.
const SLOPE: f32 = 0.2;
/// Element types by their numbers in onnx.proto.
const FLOAT32: i64 = 1;
const INT32: i64 = 6;
const INT64: i64 = 7;

type Operator = (&'static str, &'static [(&'static str, Kind)], fn(&Call) -> Result<Value, String>);

/// Each operator with its attributes.
#[rustfmt::skip]
const OPERATORS: [Operator; 30] = [
    // Steps of the network.
    ("Gemm", &[("alpha", Float), ("beta", Float), ("transA", Int), ("transB", Int)], gemm),
    ("com.microsoft.FusedGemm", &[("alpha", Float), ("beta", Float), ("transA", Int), ("transB", Int), ("activation", Text), ("activation_alpha", Float)], fused_gemm),
    ("MatMul", &[], mat_mul),
    ("Add", &[], add),
    ("Sub", &[], sub),
    ("LeakyRelu", &[("alpha", Float)], leaky_relu),
    ("PRelu", &[], p_relu),
    ("Mul", &[], mul),
    ("Max", &[], max),
    ("Where", &[], choose),
    ("Greater", &[], |call| sign(call, true)),
    ("GreaterOrEqual", &[], |call| sign(call, true)),
    ("Less", &[], |call| sign(call, false)),
    ("LessOrEqual", &[], |call| sign(call, false)),
    ("Tanh", &[], tanh),
    // Operators that keep the values.
    ("Identity", &[], |call| call.input(0).cloned()),
    ("Cast", &[("to", Int), ("saturate", Int), ("round_mode", Text)], cast),
    ("Clip", &[("min", Float), ("max", Float)], clip),
    ("Dropout", &[("ratio", Float), ("seed", Int)], dropout),
    ("Flatten", &[("axis", Int)], flatten),
    ("Reshape", &[("allowzero", Int)], reshape),
    ("Squeeze", &[("axes", Ints)], squeeze),
    ("Transpose", &[("perm", Ints)], transpose),
    ("Unsqueeze", &[("axes", Ints)], unsqueeze),
    // Constants, and the arithmetic of shapes.
    ("Constant", &[("value", Tensor), ("value_float", Float), ("value_floats", Floats), ("value_int", Int), ("value_ints", Ints)], constant),
    ("Concat", &[("axis", Int)], concat),
    ("Gather", &[("axis", Int)], gather),
    ("Shape", &[("start", Int), ("end", Int)], shape),
    ("Slice", &[("starts", Ints), ("ends", Ints), ("axes", Ints)], slice),
    ("Size", &[], |call| Ok(integers(vec![], vec![size(shape_of(call.input(0)?))? as i64]))),
];

/// The first output of a node.
///
/// # Errors
/// The operator is not listed, or is not the network's next step.
pub fn output(call: &Call) -> Result<Value, String> {
    let operator = OPERATORS.iter().find(|(name, ..)| *name == call.operator());
    let (_, attributes, output) = operator.ok_or_else(|| call.unexpected())?;
    call.check_attributes(attributes)?;
    output(call)
}

fn gemm(call: &Call) -> Result<Value, String> {
    let flag = |name| call.int(name, 0) != 0;
    if flag("transA") {
        return Err("transA 0 expected, 1 found".into());
    }
    let beta = call.float("beta", 1.0);
    let bias = if beta != 0.0 && call.optional(2).is_some() { Some(call.constant(2)?.clone()) } else { None };
    dense(call, flag("transB"), call.float("alpha", 1.0), bias, beta)
}

/// What ONNX Runtime's optimizer makes of a Gemm and its activation.
fn fused_gemm(call: &Call) -> Result<Value, String> {
    let Value::Data(sums) = gemm(call)? else { return Err(call.unexpected()) };
    match call.attribute("activation").map(|activation| &activation.s[..]) {
        Some(b"LeakyRelu") => leaky(call, &sums, call.float("activation_alpha", 0.01)),
        Some(b"Tanh") => tanh_of(call, &sums),
        _ => Err(format!("activation {} expected, another one found", sums.expected())),
    }
}

fn mat_mul(call: &Call) -> Result<Value, String> {
    dense(call, false, 1.0, None, 1.0)
}

fn dense(call: &Call, transposed: bool, alpha: f32, bias: Option<Constant>, beta: f32) -> Result<Value, String> {
    let Value::Data(data) = call.input(0)? else { return Err(call.unexpected()) };
    if data.stage != Stage::Activations {
        return Err(call.unexpected());
    }
    let (weight, n) = (call.constant(1)?.clone(), data.layers.len());
    let (inputs, outputs) = (SIZES[n], SIZES[n + 1]);
    let mut expected = [inputs, outputs];
    if transposed {
        expected.reverse();
    }
    if weight.shape != expected {
        return Err(format!("{}: shape {expected:?} expected, {:?} found", shown(&weight.name), weight.shape));
    }
    let mut shape = data.shape.clone();
    match shape.last_mut() {
        Some(last) if *last == inputs => *last = outputs,
        _ => return Err(format!("an input of shape [N, {inputs}] expected, {shape:?} found")),
    }
    let mut layers = data.layers.clone();
    layers.push(Arc::new(Dense { weight, transposed, alpha, bias: None, beta }));
    let sums = Data { shape, layers, stage: Stage::Sums };
    match bias {
        Some(bias) => with_bias(&sums, &bias, beta),
        None => Ok(Value::Data(sums)),
    }
}

fn add(call: &Call) -> Result<Value, String> {
    let (data, bias, _) = call.data_and_constant()?;
    add_constant(call, data, bias, 1.0)
}

fn sub(call: &Call) -> Result<Value, String> {
    match call.data_and_constant()? {
        (data, bias, false) => add_constant(call, data, bias, -1.0),
        (_, _, true) => Err(call.unexpected()),
    }
}

fn add_constant(call: &Call, data: &Data, constant: &Constant, beta: f32) -> Result<Value, String> {
    if data.stage == Stage::Sums {
        return with_bias(data, constant, beta);
    }
    match constant.f32()?.iter().all(|&x| x == 0.0) {
        true => Ok(Value::Data(data.broadcast(constant)?)),
        false => Err(call.unexpected()),
    }
}

/// The sums of a layer plus `beta` times its bias.
fn with_bias(sums: &Data, bias: &Constant, beta: f32) -> Result<Value, String> {
    let is_zero = |bias: &Constant| bias.f32().map(|bias| bias.iter().all(|&x| x == 0.0));
    let mut sums = sums.broadcast(bias)?;
    let zero = is_zero(bias)?;
    if let Some(last) = sums.layers.last_mut() {
        match &last.bias {
            Some(_) if zero => {}
            Some(first) if !is_zero(first)? => {
                return Err(format!("one bias expected, {} and {} found", shown(&first.name), shown(&bias.name)));
            }
            _ => *last = Arc::new(Dense { bias: Some(bias.clone()), beta, ..Dense::clone(last) }),
        }
    }
    Ok(Value::Data(sums))
}

fn leaky_relu(call: &Call) -> Result<Value, String> {
    match call.input(0)? {
        Value::Data(data) => leaky(call, data, call.float("alpha", 0.01)),
        Value::Constant(_) => Err(call.unexpected()),
    }
}

fn leaky(call: &Call, data: &Data, alpha: f32) -> Result<Value, String> {
    match data.stage == Stage::Sums && data.is_hidden() {
        true if alpha == SLOPE => Ok(data.at(Stage::Activations)),
        true => Err(format!("alpha {SLOPE} expected, {alpha} found")),
        false => Err(call.unexpected()),
    }
}

fn p_relu(call: &Call) -> Result<Value, String> {
    match call.data_and_constant()? {
        (data, slope, false) if data.stage == Stage::Sums && data.is_hidden() => {
            let data = data.broadcast(slope)?;
            match slope.f32()?.iter().find(|&&x| x != SLOPE) {
                None => Ok(data.at(Stage::Activations)),
                Some(found) => Err(format!("{}: slope {SLOPE} expected, {found} found", shown(&slope.name))),
            }
        }
        _ => Err(call.unexpected()),
    }
}

fn mul(call: &Call) -> Result<Value, String> {
    let (data, factor, _) = call.data_and_constant()?;
    let scaled = data.broadcast(factor)?;
    let other_than = |expected: f32| factor.f32().map(|factor| factor.iter().find(|&&x| x != expected));
    if other_than(1.0)?.is_none() {
        return Ok(Value::Data(scaled));
    }
    match other_than(SLOPE)? {
        _ if data.stage != Stage::Sums || !data.is_hidden() => Err(call.unexpected()),
        None => Ok(scaled.at(Stage::ScaledSums)),
        Some(found) => Err(format!("{}: slope {SLOPE} expected, {found} found", shown(&factor.name))),
    }
}

/// A comparison of sums with 0. `greater` if it asks whether the first input is the greater one.
fn sign(call: &Call, greater: bool) -> Result<Value, String> {
    let (data, zero, swapped) = call.data_and_constant()?;
    match data.stage == Stage::Sums && data.is_hidden() && zero.f32()?.iter().all(|&x| x == 0.0) {
        true => Ok(data.broadcast(zero)?.at(Stage::Sign { positive: greater != swapped })),
        false => Err(call.unexpected()),
    }
}

fn max(call: &Call) -> Result<Value, String> {
    match (call.input(0)?, call.input(1)?) {
        (Value::Data(a), Value::Data(b)) if call.inputs.len() == 2 && a.is_beside(b) => match (a.stage, b.stage) {
            (Stage::Sums, Stage::ScaledSums) | (Stage::ScaledSums, Stage::Sums) => Ok(a.at(Stage::Activations)),
            _ => Err(call.unexpected()),
        },
        _ => Err(call.unexpected()),
    }
}

fn choose(call: &Call) -> Result<Value, String> {
    match (call.input(0)?, call.input(1)?, call.input(2)?) {
        (Value::Data(condition), Value::Data(a), Value::Data(b)) if condition.is_beside(a) && a.is_beside(b) => {
            match (condition.stage, a.stage, b.stage) {
                (Stage::Sign { positive: true }, Stage::Sums, Stage::ScaledSums)
                | (Stage::Sign { positive: false }, Stage::ScaledSums, Stage::Sums) => Ok(a.at(Stage::Activations)),
                _ => Err(call.unexpected()),
            }
        }
        _ => Err(call.unexpected()),
    }
}

fn tanh(call: &Call) -> Result<Value, String> {
    match call.input(0)? {
        Value::Data(data) => tanh_of(call, data),
        Value::Constant(_) => Err(call.unexpected()),
    }
}

fn tanh_of(call: &Call, data: &Data) -> Result<Value, String> {
    match data.stage == Stage::Sums && !data.is_hidden() {
        true => Ok(data.at(Stage::Image)),
        false => Err(call.unexpected()),
    }
}

fn cast(call: &Call) -> Result<Value, String> {
    let to = call.int("to", 0);
    if ![FLOAT32, INT32, INT64].contains(&to) {
        return Err(format!("to float32 expected, to {} found", type_name(to as i32)));
    }
    match call.input(0)? {
        Value::Constant(constant) if to == FLOAT32 => constant.f32().map(|_| ())?,
        Value::Constant(constant) => constant.integers().map(|_| ())?,
        Value::Data(Data { stage: Stage::Sign { .. }, .. }) => return Err(call.unexpected()),
        Value::Data(_) if to != FLOAT32 => return Err(call.unexpected()),
        Value::Data(data) if data.stage == Stage::DoubleZ => return Ok(data.at(Stage::Activations)),
        Value::Data(_) => {}
    }
    call.input(0).cloned()
}

/// Clip keeps an image, whose values are in [-1, 1], if its bounds are not nearer.
fn clip(call: &Call) -> Result<Value, String> {
    let Value::Data(data) = call.input(0)? else { return Err(call.unexpected()) };
    if data.stage != Stage::Image {
        return Err(call.unexpected());
    }
    let bound = |i: usize, name: &str, default: f32| match call.optional(i) {
        Some(_) => call.constant(i)?.f32().map(|bound| bound.first().copied().unwrap_or(default)),
        None => Ok(call.float(name, default)),
    };
    let (min, max) = (bound(1, "min", f32::MIN)?, bound(2, "max", f32::MAX)?);
    match min <= -1.0 && max >= 1.0 {
        true => Ok(Value::Data(data.clone())),
        false => Err(format!("bounds of at most -1 and at least 1 expected, {min} and {max} found")),
    }
}

fn dropout(call: &Call) -> Result<Value, String> {
    let training = call.optional(2).is_some() && call.constant(2)?.integers()?.iter().any(|&flag| flag != 0);
    match training {
        false => call.input(0).cloned(),
        true => Err("training_mode false expected, true found".into()),
    }
}

fn shape_of(value: &Value) -> &[usize] {
    match value {
        Value::Constant(constant) => &constant.shape,
        Value::Data(data) => &data.shape,
    }
}

/// The first input in another shape of as many values.
fn in_shape(call: &Call, shape: Vec<usize>) -> Result<Value, String> {
    let old = shape_of(call.input(0)?);
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

fn reshape(call: &Call) -> Result<Value, String> {
    let old = shape_of(call.input(0)?);
    let target = call.constant(1)?.integers()?;
    let keeps_zero = call.int("allowzero", 0) != 0;
    let wrong =
        || format!("a shape of as many values as {old:?} expected, {:?} found", &target[..target.len().min(MAX_RANK)]);
    let known = |(i, &n): (usize, &i64)| match n {
        -1 => Some(1),
        0 if !keeps_zero => old.get(i).copied(),
        n => usize::try_from(n).ok(),
    };
    let mut shape =
        target.iter().enumerate().take(MAX_RANK + 1).map(known).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
    if let Some(rest) = target.iter().position(|&n| n == -1) {
        shape[rest] = size(old)?.checked_div(size(&shape)?).ok_or_else(wrong)?;
    }
    in_shape(call, shape)
}

fn flatten(call: &Call) -> Result<Value, String> {
    let old = shape_of(call.input(0)?);
    let (before, after) = old.split_at(index(call.int("axis", 1), old.len())?);
    in_shape(call, vec![size(before)?, size(after)?])
}

fn squeeze(call: &Call) -> Result<Value, String> {
    let old = shape_of(call.input(0)?);
    let axes = call.integers(1, "axes")?;
    let goes = |i: usize| match &axes {
        Some(axes) => axes.contains(&(i as i64)) || axes.contains(&(i as i64 - old.len() as i64)),
        None => old[i] == 1,
    };
    in_shape(call, (0..old.len()).filter(|&i| !goes(i)).map(|i| old[i]).collect())
}

fn unsqueeze(call: &Call) -> Result<Value, String> {
    let mut shape = shape_of(call.input(0)?).to_vec();
    let axes = call.integers(1, "axes")?.unwrap_or_default();
    let rank = shape.len() + axes.len();
    let axes: Result<Vec<usize>, _> = axes.iter().take(MAX_RANK).map(|&i| index(i, rank)).collect();
    let mut axes = axes?;
    axes.sort_unstable();
    for i in axes {
        shape.insert(i.min(shape.len()), 1);
    }
    in_shape(call, shape)
}

/// Transpose moves values only if the axes longer than 1 change their order. That is allowed for matrices of constants.
fn transpose(call: &Call) -> Result<Value, String> {
    let old = shape_of(call.input(0)?);
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

fn constant(call: &Call) -> Result<Value, String> {
    let name = call.node.output.first().map_or("", |name| name);
    let floats = |shape, values: &[f32]| {
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
        [("value_ints", attribute)] => Ok(integers(vec![attribute.ints.len()], attribute.ints.clone())),
        _ => Err(format!("one value expected, {} found", call.attributes.len())),
    }
}

fn shape(call: &Call) -> Result<Value, String> {
    let shape = shape_of(call.input(0)?);
    let part = range(call.int("start", 0), call.int("end", i64::MAX), shape.len());
    let part: Vec<i64> = shape[part].iter().map(|&n| n as i64).collect();
    Ok(integers(vec![part.len()], part))
}

/// From `start` to `end`, each counted from the end if it is negative, and clamped to `len`.
fn range(start: i64, end: i64, len: usize) -> Range<usize> {
    let at = |i: i64| (if i < 0 { i + len as i64 } else { i }).clamp(0, len as i64) as usize;
    at(start)..at(end).max(at(start))
}

/// The first input of an operator on shapes: a few integers.
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

fn gather(call: &Call) -> Result<Value, String> {
    let (from, indices) = (shape_input(call, 0)?, shape_input(call, 1)?);
    let pick = |&i: &i64| from.get(index(i, from.len())?).copied().ok_or_else(|| call.unexpected());
    let picked = indices.iter().map(pick).collect::<Result<_, _>>()?;
    Ok(integers(shape_of(call.input(1)?).to_vec(), picked))
}

fn slice(call: &Call) -> Result<Value, String> {
    let from = shape_input(call, 0)?;
    let (starts, ends) = (call.integers(1, "starts")?, call.integers(2, "ends")?);
    let (axes, steps) = (call.integers(3, "axes")?, call.integers(4, "steps")?);
    match (starts.as_deref(), ends.as_deref(), axes.as_deref(), steps.as_deref()) {
        (Some(&[start]), Some(&[end]), None | Some(&[0 | -1]), None | Some(&[1])) => {
            let part = &from[range(start, end, from.len())];
            Ok(integers(vec![part.len()], part.to_vec()))
        }
        _ => Err("one start, end and axis, and step 1, expected".into()),
    }
}

fn concat(call: &Call) -> Result<Value, String> {
    let parts = (0..call.inputs.len()).map(|i| shape_input(call, i)).collect::<Result<Vec<_>, _>>()?;
    let all = parts.concat();
    Ok(integers(vec![all.len()], all))
}
