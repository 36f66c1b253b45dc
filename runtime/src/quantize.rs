//! From f32 weights to the bytes of `int8::Generator`. The build script and the program share this file; the library has no
//! part in it.
//!
//! Weights: symmetric, one scale per output, `w = scale · q`, q in ±127. Activations: asymmetric, one scale and zero point per
//! layer, u8, from the ranges that the f32 network shows for [`CALIBRATION`] seeds. Everything between is folded into the i32
//! biases and the fixed-point multipliers that int8.rs describes, so that the arithmetic there is integer alone.

use super::latent::{CLASSES, Latent};
use super::onnx::{Layer, Model};

/// Seeds 0, 1, … whose activations set the ranges.
const CALIBRATION: u64 = 1024;
/// Hidden sums are brought to sixteenths of an activation's step.
const HIDDEN: f64 = 16.0;
/// Output sums are brought to `PIXEL / 2^up` steps a unit before tanh: ±3.25 is ±65536 / 2^up.
const PIXEL: f64 = 65536.0 / 3.25;

/// How u8 activations stand for numbers: `number = scale · (q − zero)`.
#[derive(Clone, Copy)]
struct Range {
    scale: f64,
    zero: f64,
}

/// Per layer the weight as `[[[i8; 4]; O]; I/4]`, the bias (O) as i32, shifts (O) and multipliers (O) as i16; then the three
/// hidden layers' zero points, the output's unit and the number of one-hot inputs as i16; filled with zeros to a multiple of 64
/// bytes; all little-endian.
pub fn int8_bytes(model: &Model) -> Vec<u8> {
    let classes = if model.conditional() { CLASSES } else { 0 };
    let activations = calibrate(model);
    let mut ranges: Vec<Range> = activations.iter().map(|values| range(values)).collect();
    let up = widen(model, &mut ranges);
    let mut bytes = vec![];
    for (i, layer) in model.layers.iter().enumerate() {
        let (inputs, outputs) = (layer.weight.len() / layer.bias.len(), layer.bias.len());
        let scales: Vec<f64> = (0..outputs).map(|j| weight_scale(layer, j)).collect();
        let q = |k: usize, j: usize| (layer.weight[k * outputs + j] as f64 / scales[j]).round().clamp(-127.0, 127.0);
        for group in 0..inputs / 4 {
            for j in 0..outputs {
                bytes.extend((0..4).map(|k| q(4 * group + k, j) as i8 as u8));
            }
        }
        // z is in steps of 1/128: noise as the middle of [q, q + 1) − 128, the one-hot as 0 or 128.
        let zero = |k: usize| {
            if i > 0 {
                ranges[i - 1].zero
            } else if k < classes {
                0.0
            } else {
                127.5
            }
        };
        let step = if i > 0 { ranges[i - 1].scale } else { 1.0 / 128.0 };
        for (j, &bias) in layer.bias.iter().enumerate() {
            let shift: f64 = (0..inputs).map(|k| q(k, j) * zero(k)).sum();
            bytes.extend(integer(bias as f64 / (scales[j] * step) - shift).to_le_bytes());
        }
        let unit = if i < 3 { HIDDEN / ranges[i].scale } else { PIXEL / (1 << up) as f64 };
        let (shifts, multipliers): (Vec<i16>, Vec<i16>) =
            scales.iter().map(|scale| fraction(scale * step * unit)).unzip();
        bytes.extend(shifts.iter().chain(&multipliers).flat_map(|x| x.to_le_bytes()));
    }
    let tail = ranges.iter().map(|range| range.zero as i16).chain([up, classes as i16]);
    bytes.extend(tail.flat_map(|x| x.to_le_bytes()));
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes
}

fn integer(x: f64) -> i32 {
    x.round() as i32 // saturates
}

/// A factor below 1 as `multiplier / 2^15 / 2^shift` with as many bits as there are.
fn fraction(x: f64) -> (i16, i16) {
    let shift = (0..31).take_while(|&n| x * (1u64 << (n + 1)) as f64 <= 32767.0 / 32768.0).count();
    (shift as i16, (x * (1u64 << (shift + 15)) as f64).round().min(32767.0) as i16)
}

fn weight_scale(layer: &Layer, j: usize) -> f64 {
    let largest = layer.weight.iter().skip(j).step_by(layer.bias.len()).fold(0f32, |max, w| max.max(w.abs()));
    if largest == 0.0 { 1.0 } else { largest as f64 / 127.0 }
}

/// Every factor from a sum to its next unit must be below 1. Where one is not, its layer's range gets wider (which costs
/// resolution that a sum of such coarse steps does not have); the result is the same for the output.
fn widen(model: &Model, ranges: &mut [Range]) -> i16 {
    let mut step = 1.0 / 128.0;
    for (layer, range) in model.layers.iter().zip(ranges) {
        let largest = (0..layer.bias.len()).map(|j| weight_scale(layer, j)).fold(0.0, f64::max);
        let least = largest * step * HIDDEN * 1.001;
        if range.scale < least {
            range.zero = (range.zero * range.scale / least).round();
            range.scale = least;
        }
        step = range.scale;
    }
    let last = &model.layers[3];
    let largest = (0..last.bias.len()).map(|j| weight_scale(last, j)).fold(0.0, f64::max);
    (2..15).find(|up| largest * step * PIXEL / ((1 << up) as f64) < 0.999).unwrap_or(15)
}

/// The hidden layers' activations for the calibration seeds, in the f32 network's own arithmetic.
fn calibrate(model: &Model) -> [Vec<f32>; 3] {
    let mut activations = [vec![], vec![], vec![]];
    for seed in 0..CALIBRATION {
        let mut x = Latent::of_seed(seed, model.conditional()).numbers().to_vec();
        for (layer, seen) in model.layers.iter().zip(&mut activations) {
            let mut sums = layer.bias.clone();
            for (row, x) in layer.weight.chunks_exact(sums.len()).zip(&x) {
                sums.iter_mut().zip(row).for_each(|(sum, w)| *sum += w * x);
            }
            x = sums.into_iter().map(|a| a.max(0.2 * a)).collect();
            seen.extend(&x);
        }
    }
    activations
}

/// The range whose quantisation errs least in the mean square: the extremes, drawn in by as much as pays.
fn range(values: &[f32]) -> Range {
    let (low, high) = values.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
    let candidates = (0..16).map(|i| {
        let keep = 1.0 - i as f64 / 32.0;
        let (low, high) = (low as f64 * keep, high as f64 * keep);
        let scale = ((high - low) / 255.0).max(f64::MIN_POSITIVE.sqrt());
        Range { scale, zero: (-low / scale).round() }
    });
    let error = |range: &Range| -> f64 {
        let of = |x: f64| (((x / range.scale).round() + range.zero).clamp(0.0, 255.0) - range.zero) * range.scale - x;
        values.iter().step_by(7).map(|&x| of(x as f64).powi(2)).sum()
    };
    candidates.min_by(|a, b| error(a).total_cmp(&error(b))).expect("there are candidates")
}
