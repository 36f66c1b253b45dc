//! Grey images of any size at 28 × 28 pixels, byte for byte as Pillow's `Image.resize((28, 28), Image.BILINEAR)`.
//!
//! No crate gives Pillow's bytes: Pillow-SIMD and its descendants round the filter's weights to 16 bits.
//!
//! Source: Pillow 13, `src/libImaging/Resample.c`.

use crate::config::SIDE;

/// The image (height, width), row by row, at 28 × 28 pixels. The aspect ratio changes if the image is no square. An image that
/// becomes smaller is averaged, so that no detail aliases.
pub fn resize(grey: Vec<u8>, width: usize, height: usize) -> Vec<u8> {
    // Pillow 13 begins with the height if it shrinks by more than twice as many pixels as the width.
    let [shrink_x, shrink_y] = [width, height].map(|length| length as i64 - SIDE as i64);
    if shrink_y > 0 && shrink_y > 2 * shrink_x {
        resize_width(resize_height(grey, width, height), width, SIDE)
    } else {
        resize_height(resize_width(grey, width, height), SIDE, height)
    }
}

/// The image (height, 28).
fn resize_width(image: Vec<u8>, width: usize, height: usize) -> Vec<u8> {
    if width == SIDE {
        return image;
    }
    let weights = weights(width);
    (0..height * SIDE).map(|at| weights[at % SIDE].sum(&image[at / SIDE * width..], 1)).collect()
}

/// The image (28, width).
fn resize_height(image: Vec<u8>, width: usize, height: usize) -> Vec<u8> {
    if height == SIDE {
        return image;
    }
    let weights = weights(height);
    (0..SIDE * width).map(|at| weights[at / width].sum(&image[at % width..], width)).collect()
}

/// The input pixels of an output pixel on one axis.
struct Weights {
    /// Index of the first input pixel.
    first: usize,
    /// Weight of each input pixel, times 2²².
    weights: Vec<i32>,
}

const PRECISION_BITS: i32 = 22;

impl Weights {
    /// The weighted sum of pixels that are `stride` apart.
    fn sum(&self, pixels: &[u8], stride: usize) -> u8 {
        let pixels = pixels[self.first * stride..].iter().step_by(stride);
        let half = 1 << (PRECISION_BITS - 1);
        let sum: i32 = self.weights.iter().zip(pixels).map(|(weight, &pixel)| weight * i32::from(pixel)).sum();
        ((sum + half) >> PRECISION_BITS).clamp(0, 255) as u8
    }
}

/// The weights of all 28 output pixels on an axis of `length` input pixels: a triangle filter that is as wide as two output pixels.
fn weights(length: usize) -> Vec<Weights> {
    let scale = length as f64 / SIDE as f64;
    let support = scale.max(1.0);
    let output = |i: usize| {
        let center = (i as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(length);
        let triangle = |x: f64| (1.0 - x.abs()).max(0.0);
        let inverse = 1.0 / support;
        let raw: Vec<f64> = (first..end).map(|x| triangle((x as f64 - center + 0.5) * inverse)).collect();
        let total: f64 = raw.iter().sum();
        let fixed = |weight: f64| (0.5 + weight / total * f64::from(1 << PRECISION_BITS)) as i32;
        Weights { first, weights: raw.into_iter().map(fixed).collect() }
    };
    (0..SIDE).map(output).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PIXELS;

    #[test]
    fn an_even_image_stays_even_at_every_size() {
        for (width, height) in [(1, 1), (27, 28), (28, 28), (28, 3), (29, 500), (1000, 28)] {
            assert_eq!(resize(vec![77; width * height], width, height), vec![77; PIXELS], "{width} × {height}");
        }
    }

    #[test]
    fn an_image_of_28_pixels_is_not_touched_and_one_of_56_is_averaged() {
        let image: Vec<u8> = (0..PIXELS).map(|i| i as u8).collect();
        assert_eq!(resize(image.clone(), 28, 28), image);
        // Columns of black and white become grey: no stripe survives.
        let stripes: Vec<u8> = (0..56 * 28).map(|i| if i % 2 == 0 { 255 } else { 0 }).collect();
        assert!(resize(stripes, 56, 28).iter().all(|&level| (96..160).contains(&level)));
    }
}
