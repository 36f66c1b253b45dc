//! D's convolutions: 4 × 4 pixels, stride 2, padding 1, so that each halves the height and the width.
//!
//! Shapes: B batch; H, W height and width of the input, even numbers; I, O numbers of maps in and out. The maps are the last axis, so
//! that a convolution is one matrix product of all patches and the weights (im2col). Its bits do not depend on the number of threads,
//! unlike those of ONNX's `Conv`.

use crate::config::PATCH_PIXELS;
use crate::graph::{Graph, Var};

/// y (B, H/2, W/2, O) = x (B, H, W, I), zero-padded by 1 on each side, correlated with w (16 I, O) at every second pixel, plus c (O,).
/// The rows of w have the order of [`patches`].
pub(crate) fn convolution(g: &mut Graph, x: Var, w: Var, c: Var) -> Var {
    let x = patches(g, x);
    let [b, h_out, w_out, len] = *g.shape(x) else { unreachable!("patches have four axes") };
    let x = g.reshape(x, &[b * h_out * w_out, len]);
    let y = g.gemm(x, w, Some(c), false, false);
    let maps = g.shape(y)[1];
    g.reshape(y, &[b, h_out, w_out, maps])
}

/// im2col: the 4 × 4 patches (B, H/2, W/2, 16 I) of x (B, H, W, I), zero-padded by 1 on each side, at every second pixel. A patch has
/// four cells of 2 × 2 pixels; its numbers have the axes cell row, cell column, row in the cell, column in the cell, map.
///
/// dx = [`sum_patches`] of dy
fn patches(g: &mut Graph, x: Var) -> Var {
    let y = g.fused(PATCHES_OPERATOR, &[("x", x)], |g, inputs| {
        let x = g.permute(inputs[0], [0, 3, 1, 2]);
        let x = g.pad_images(x, [1; 4]);
        let cells = g.space_to_depth(x); // (B, 4 I, H/2 + 1, W/2 + 1)
        let shifted = CELLS.map(|[row, column]| g.pad_images(cells, [-row, -column, row - 1, column - 1]));
        let all = g.concat_axis1(&shifted);
        vec![("y", g.permute(all, [0, 2, 3, 1]))]
    })[0];
    g.with_backward(y, sum_patches)
}

/// col2im, the adjoint of [`patches`]: each pixel of y (B, H, W, I) is the sum of its numbers in all patches of x (B, H/2, W/2, 16 I).
///
/// dx = [`patches`] of dy
fn sum_patches(g: &mut Graph, x: Var) -> Var {
    let y = g.fused(SUM_PATCHES_OPERATOR, &[("x", x)], |g, inputs| {
        let x = g.permute(inputs[0], [0, 3, 1, 2]);
        let quarters = g.split_quarters(x).into_iter().zip(CELLS);
        let padded: Vec<Var> =
            quarters.map(|(x, [row, column])| g.pad_images(x, [row, column, 1 - row, 1 - column])).collect();
        let sum = padded.into_iter().reduce(|sum, x| g.add(sum, x)).expect("four quarters");
        let y = g.depth_to_space(sum);
        let y = g.pad_images(y, [-1; 4]);
        vec![("y", g.permute(y, [0, 2, 3, 1]))]
    })[0];
    g.with_backward(y, patches)
}

/// Row and column of each cell in a patch.
const CELLS: [[i64; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

/// Name of the operator of [`patches`].
pub const PATCHES_OPERATOR: &str = "Patches";
/// Name of the operator of [`sum_patches`].
pub const SUM_PATCHES_OPERATOR: &str = "SumPatches";

/// Computes [`patches`] of one image: x (H, W, I) to y (H/2, W/2, 16 I).
pub fn write_patches(x: &[f32], [height, width, maps]: [usize; 3], y: &mut [f32]) {
    for (patch_index, patch) in y.chunks_exact_mut(PATCH_PIXELS * maps).enumerate() {
        let (i, j) = (patch_index / (width / 2), patch_index % (width / 2));
        // A pair of pixels lies side by side in a row of a cell. The padded image has the pair at this row and column.
        for (pair_index, pair) in patch.chunks_exact_mut(2 * maps).enumerate() {
            let (cell_row, cell_column, row_in_cell) = (pair_index / 4, pair_index / 2 % 2, pair_index % 2);
            let (row, column) = (2 * (i + cell_row) + row_in_cell, 2 * (j + cell_column));
            if row == 0 || row > height {
                pair.fill(0.0);
                continue;
            }
            let line = &x[(row - 1) * width * maps..][..width * maps];
            let (left, right) = pair.split_at_mut(maps);
            match column.checked_sub(1) {
                Some(left_column) => left.copy_from_slice(&line[left_column * maps..][..maps]),
                None => left.fill(0.0),
            }
            match line.get(column * maps..(column + 1) * maps) {
                Some(pixel) => right.copy_from_slice(pixel),
                None => right.fill(0.0),
            }
        }
    }
}

/// Computes [`sum_patches`] of one image: x (H/2, W/2, 16 I) to y (H, W, I).
pub fn write_sum_of_patches(x: &[f32], [height, width, maps]: [usize; 3], y: &mut [f32]) {
    let (rows, columns) = (height / 2, width / 2);
    let mut pair = vec![0.0; 2 * maps];
    for (row, line) in (1_usize..).zip(y.chunks_exact_mut(width * maps)) {
        for column in 0..=columns {
            // The sums of the operator's function, in its order. Adding 0 for an absent patch makes 0 of -0, as there.
            pair.fill(-0.0);
            for [cell_row, cell_column] in CELLS.map(|cell| cell.map(|n| n as usize)) {
                let i = (row / 2).checked_sub(cell_row).filter(|&i| i < rows);
                let j = column.checked_sub(cell_column).filter(|&j| j < columns);
                if let Some((i, j)) = i.zip(j) {
                    let pair_index = (i * columns + j) * 8 + cell_row * 4 + cell_column * 2 + row % 2;
                    let part = &x[pair_index * 2 * maps..][..2 * maps];
                    pair.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
                } else {
                    pair.iter_mut().for_each(|sum| *sum += 0.0);
                }
            }
            // The first column of the padded image is 0, so the pair has the image's columns 2 column - 1 and 2 column.
            let (left, right) = pair.split_at(maps);
            if column > 0 {
                line[(2 * column - 1) * maps..][..maps].copy_from_slice(left);
            }
            if column < columns {
                line[2 * column * maps..][..maps].copy_from_slice(right);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise in [-1, 1).
    fn noise(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i + seed) * 7919 % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    #[test]
    fn the_sum_of_patches_is_the_adjoint_of_patches() {
        for image in [[2, 2, 1], [4, 6, 3], [10, 2, 5], [28, 28, 2]] {
            let n = image.iter().product::<usize>();
            let (x, y) = (noise(n, 1), noise(4 * n, 2));
            let (mut patches, mut sums) = (vec![f32::NAN; 4 * n], vec![f32::NAN; n]);
            write_patches(&x, image, &mut patches);
            write_sum_of_patches(&y, image, &mut sums);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
            let (left, right) = (dot(&patches, &y), dot(&x, &sums));
            assert!((left - right).abs() < 1e-4 * (n as f64).sqrt(), "{image:?}: {left} and {right}");
            let padding = patches.iter().filter(|x| **x == 0.0).count();
            assert_eq!(padding, 4 * (image[0] + image[1] - 1) * image[2], "{image:?}: the noise has no 0");
        }
    }
}
