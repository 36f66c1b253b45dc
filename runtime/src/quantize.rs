//! Turns f32 weights into the bytes of `generator_int8::Generator`. The build script and the command share this file.
//!
//! Weights are symmetric with one scale per output: `w = scale · q` with q in -127..=127. Activations are u8 with one scale and
//! one zero point per layer: `y = scale · (q − zero_point)`. Their ranges come from the f32 network's activations for the first
//! [`CALIBRATION_SEEDS`] seeds. The zero points and all scales are folded into i32 biases, shifts and i16 scales, so that drawing
//! needs integers alone. `arch/int8_ops.rs` has that side.

use super::latent::Latent;
use super::onnx::{Layer, Model};

/// Seeds 0, 1, … for calibration.
const CALIBRATION_SEEDS: u64 = 1024;
/// Steps of a requantised hidden sum per step of the activation.
const HIDDEN_STEPS: f64 = 16.0;
/// Steps of a requantised output sum per 1.0 before tanh, times 2^pixel_shift: ±3.25 is ±65536 / 2^pixel_shift.
const PIXEL_STEPS: f64 = 65536.0 / 3.25;

/// The u8 range of a layer's activations: `y = scale · (q − zero_point)`.
#[derive(Clone, Copy)]
struct Range {
    scale: f64,
    zero_point: f64,
}

/// The bytes of `generator_int8::Generator`, little-endian. For each layer: the weight as `[[[i8; 4]; O]; I/4]`, the bias (O) as
/// i32, the shifts (O) and the scales (O) as i16. Then as i16: the zero points of the three hidden layers, the pixel shift, and
/// the length of z's one-hot. Zeros fill up to a multiple of 64 bytes.
pub fn int8_bytes(model: &Model) -> Vec<u8> {
    let classes = model.classes.len();
    let mut ranges: Vec<Range> = calibrate(model).iter().map(|values| best_range(values)).collect();
    let pixel_shift = widen(model, &mut ranges);
    let mut bytes = vec![];
    for (i, layer) in model.layers.iter().enumerate() {
        let (inputs, outputs) = (layer.weight.len() / layer.bias.len(), layer.bias.len());
        let (input_scale, zero_point): (f64, &dyn Fn(usize) -> f64) = match i {
            // z in units of 1/128. Noise is truncated to q, so (q + 0.5 − 128) / 128 is its mean; the one-hot is exact, 0 or 128.
            0 => (1.0 / 128.0, &|k| if k < classes { 0.0 } else { 127.5 }),
            _ => (ranges[i - 1].scale, &|_| ranges[i - 1].zero_point),
        };
        let weight_scales: Vec<f64> = (0..outputs).map(|j| weight_scale(layer, j, input_scale)).collect();
        let q =
            |k: usize, j: usize| (layer.weight[k * outputs + j] as f64 / weight_scales[j]).round().clamp(-127.0, 127.0);
        for group in 0..inputs / 4 {
            for j in 0..outputs {
                bytes.extend((0..4).map(|k| q(4 * group + k, j) as i8 as u8));
            }
        }
        for (j, &bias) in layer.bias.iter().enumerate() {
            let offset: f64 = (0..inputs).map(|k| q(k, j) * zero_point(k)).sum();
            // The cast saturates.
            bytes.extend(((bias as f64 / (weight_scales[j] * input_scale) - offset).round() as i32).to_le_bytes());
        }
        let output_steps = if i < 3 { HIDDEN_STEPS / ranges[i].scale } else { PIXEL_STEPS / (1 << pixel_shift) as f64 };
        let (shifts, scales): (Vec<i16>, Vec<i16>) =
            weight_scales.iter().map(|weight_scale| shift_and_scale(weight_scale * input_scale * output_steps)).unzip();
        bytes.extend(shifts.iter().chain(&scales).flat_map(|x| x.to_le_bytes()));
    }
    let tail = ranges.iter().map(|range| range.zero_point as i16).chain([pixel_shift, classes as i16]);
    bytes.extend(tail.flat_map(|x| x.to_le_bytes()));
    bytes.resize(bytes.len().next_multiple_of(64), 0);
    bytes
}

/// A factor below 1 as `scale / 2¹⁵ / 2^shift`, with the largest shift for which `scale` still fits an i16.
fn shift_and_scale(x: f64) -> (i16, i16) {
    let shift = (0..31).take_while(|&n| x * (1u64 << (n + 1)) as f64 <= 32767.0 / 32768.0).count();
    (shift as i16, (x * (1u64 << (shift + 15)) as f64).round().min(32767.0) as i16)
}

/// The scale of output `j`'s weights: it maps the largest to ±127. If all weights are tiny or 0, it is the scale that makes the
/// bias 2²⁴ units of the sum, which keeps the bias exact and the sum within i32.
fn weight_scale(layer: &Layer, j: usize, input_scale: f64) -> f64 {
    let largest = layer.weight.iter().skip(j).step_by(layer.bias.len()).fold(0f32, |max, w| max.max(w.abs()));
    let for_bias = layer.bias[j].abs() as f64 / (input_scale * (1 << 24) as f64);
    (largest as f64 / 127.0).max(for_bias).max(1e-30)
}

/// The largest [`weight_scale`] of a layer.
fn largest_scale(layer: &Layer, input_scale: f64) -> f64 {
    (0..layer.bias.len()).map(|j| weight_scale(layer, j, input_scale)).fold(0.0, f64::max)
}

/// Makes every factor from a sum's unit to its output's unit smaller than 1, as [`shift_and_scale`] wants it: widens the
/// ranges of hidden layers and returns the pixel shift of the output. A sum with such coarse steps has no resolution to lose.
fn widen(model: &Model, ranges: &mut [Range]) -> i16 {
    let mut step = 1.0 / 128.0;
    for (layer, range) in model.layers.iter().zip(ranges) {
        let least = largest_scale(layer, step) * step * HIDDEN_STEPS * 1.001;
        if range.scale < least {
            range.zero_point = (range.zero_point * range.scale / least).round();
            range.scale = least;
        }
        step = range.scale;
    }
    let largest = largest_scale(&model.layers[3], step);
    (2..15).find(|shift| largest * step * PIXEL_STEPS / ((1 << shift) as f64) < 0.999).unwrap_or(15)
}

/// The activations of the three hidden layers for the calibration seeds, computed as the f32 network does.
fn calibrate(model: &Model) -> [Vec<f32>; 3] {
    let mut activations = [vec![], vec![], vec![]];
    for seed in 0..CALIBRATION_SEEDS {
        let mut x = Latent::of_seed(seed, model.classes.len()).numbers().to_vec();
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

/// The range with the least mean squared quantisation error: that of the extremes, or a part of it.
fn best_range(values: &[f32]) -> Range {
    let (low, high) = values.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
    let candidates = (0..16).map(|i| {
        let part = 1.0 - i as f64 / 32.0;
        let (low, high) = (low as f64 * part, high as f64 * part);
        let scale = ((high - low) / 255.0).max(f64::MIN_POSITIVE.sqrt());
        Range { scale, zero_point: (-low / scale).round() }
    });
    let error = |range: &Range| -> f64 {
        let Range { scale, zero_point } = *range;
        let error = |x: f64| (((x / scale).round() + zero_point).clamp(0.0, 255.0) - zero_point) * scale - x;
        values.iter().step_by(7).map(|&x| error(x as f64).powi(2)).sum()
    };
    candidates.min_by(|a, b| error(a).total_cmp(&error(b))).expect("there are candidates")
}
