//! The operators that a generator's file may use, and what each makes of its inputs.

use std::sync::Arc;

use super::call::Call;
use super::call::Kind::{self, Float, Floats, Int, Ints, String as Text, Tensor};
use super::proto::shown;
use super::shapes;
use super::tensor::{Constant, FLOAT32, INT32, INT64, type_name};
use super::value::{Data, Dense, SIZES, Stage, Value};

/// The slope of LeakyReLU below 0.
const SLOPE: f32 = 0.2;

type Operator = (&'static str, &'static [(&'static str, Kind)], fn(&Call) -> Result<Value, String>);

/// Each operator with its attributes.
#[rustfmt::skip]
const OPERATORS: [Operator; 29] = [
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
    ("Flatten", &[("axis", Int)], shapes::flatten),
    ("Reshape", &[("allowzero", Int)], shapes::reshape),
    ("Squeeze", &[("axes", Ints)], shapes::squeeze),
    ("Transpose", &[("perm", Ints)], shapes::transpose),
    ("Unsqueeze", &[("axes", Ints)], shapes::unsqueeze),
    // Constants, and the arithmetic of shapes.
    ("Constant", &[("value", Tensor), ("value_float", Float), ("value_floats", Floats), ("value_int", Int), ("value_ints", Ints)], shapes::constant),
    ("Concat", &[("axis", Int)], shapes::concat),
    ("Gather", &[("axis", Int)], shapes::gather),
    ("Shape", &[("start", Int), ("end", Int)], shapes::shape),
    ("Slice", &[("starts", Ints), ("ends", Ints), ("axes", Ints)], shapes::slice),
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
        Some(b"Tanh") => image(call, &sums),
        _ => Err(format!("activation {} expected, another one found", sums.expected())),
    }
}

fn mat_mul(call: &Call) -> Result<Value, String> {
    dense(call, false, 1.0, None, 1.0)
}

fn dense(call: &Call, transposed: bool, alpha: f32, bias: Option<Constant>, beta: f32) -> Result<Value, String> {
    let data = call.data(0)?;
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
    match constant.is_all(0.0)? {
        true => Ok(Value::Data(data.broadcast(constant)?)),
        false => Err(call.unexpected()),
    }
}

/// The sums of a layer plus `beta` times its bias.
fn with_bias(sums: &Data, bias: &Constant, beta: f32) -> Result<Value, String> {
    let mut sums = sums.broadcast(bias)?;
    let zero = bias.is_all(0.0)?;
    if let Some(last) = sums.layers.last_mut() {
        match &last.bias {
            Some(_) if zero => {}
            Some(first) if !first.is_all(0.0)? => {
                return Err(format!("one bias expected, {} and {} found", shown(&first.name), shown(&bias.name)));
            }
            _ => *last = Arc::new(Dense { bias: Some(bias.clone()), beta, ..Dense::clone(last) }),
        }
    }
    Ok(Value::Data(sums))
}

fn leaky_relu(call: &Call) -> Result<Value, String> {
    leaky(call, call.data(0)?, call.float("alpha", 0.01))
}

fn leaky(call: &Call, sums: &Data, alpha: f32) -> Result<Value, String> {
    match sums.is_hidden_sums() {
        true if alpha == SLOPE => Ok(sums.at(Stage::Activations)),
        true => Err(format!("alpha {SLOPE} expected, {alpha} found")),
        false => Err(call.unexpected()),
    }
}

fn p_relu(call: &Call) -> Result<Value, String> {
    let (sums, slope, swapped) = call.data_and_constant()?;
    if !sums.is_hidden_sums() || swapped {
        return Err(call.unexpected());
    }
    check_slope(slope)?;
    Ok(sums.broadcast(slope)?.at(Stage::Activations))
}

fn mul(call: &Call) -> Result<Value, String> {
    let (data, factor, _) = call.data_and_constant()?;
    if factor.is_all(1.0)? {
        return data.broadcast(factor).map(Value::Data);
    }
    if !data.is_hidden_sums() {
        return Err(call.unexpected());
    }
    check_slope(factor)?;
    Ok(data.broadcast(factor)?.at(Stage::ScaledSums))
}

fn check_slope(slope: &Constant) -> Result<(), String> {
    match slope.f32()?.iter().find(|&&x| x != SLOPE) {
        None => Ok(()),
        Some(found) => Err(format!("{}: slope {SLOPE} expected, {found} found", shown(&slope.name))),
    }
}

/// A comparison of sums with 0. `greater` if it asks whether the first input is the greater one.
fn sign(call: &Call, greater: bool) -> Result<Value, String> {
    let (data, zero, swapped) = call.data_and_constant()?;
    match data.is_hidden_sums() && zero.is_all(0.0)? {
        true => Ok(data.broadcast(zero)?.at(Stage::Sign { positive: greater != swapped })),
        false => Err(call.unexpected()),
    }
}

fn max(call: &Call) -> Result<Value, String> {
    let (a, b) = (call.data(0)?, call.data(1)?);
    match (a.stage, b.stage) {
        (Stage::Sums, Stage::ScaledSums) | (Stage::ScaledSums, Stage::Sums)
            if a.is_beside(b) && call.inputs.len() == 2 =>
        {
            Ok(a.at(Stage::Activations))
        }
        _ => Err(call.unexpected()),
    }
}

fn choose(call: &Call) -> Result<Value, String> {
    let (condition, a, b) = (call.data(0)?, call.data(1)?, call.data(2)?);
    match (condition.stage, a.stage, b.stage) {
        (Stage::Sign { positive: true }, Stage::Sums, Stage::ScaledSums)
        | (Stage::Sign { positive: false }, Stage::ScaledSums, Stage::Sums)
            if condition.is_beside(a) && a.is_beside(b) =>
        {
            Ok(a.at(Stage::Activations))
        }
        _ => Err(call.unexpected()),
    }
}

fn tanh(call: &Call) -> Result<Value, String> {
    image(call, call.data(0)?)
}

fn image(call: &Call, sums: &Data) -> Result<Value, String> {
    match sums.stage == Stage::Sums && !sums.is_hidden_sums() {
        true => Ok(sums.at(Stage::Image)),
        false => Err(call.unexpected()),
    }
}

fn cast(call: &Call) -> Result<Value, String> {
    let to = i32::try_from(call.int("to", 0)).unwrap_or_default();
    if ![FLOAT32, INT32, INT64].contains(&to) {
        return Err(format!("to float32 expected, to {} found", type_name(to)));
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
    let data = call.data(0)?;
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
    let training = call.integers(2, "training_mode")?.is_some_and(|flags| flags.iter().any(|&flag| flag != 0));
    match training {
        false => call.input(0).cloned(),
        true => Err("training_mode false expected, true found".into()),
    }
}
