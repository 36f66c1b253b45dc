//! D's convolutions: 4 × 4 pixels, stride 2, padding 1, so that each halves the height and the width.
//!
//! Shapes: B batch; H, W height and width of the input; I, O numbers of maps in and out. The maps are the last axis, so that a
//! convolution is one matrix product of all patches and the weights. Its bits do not depend on the number of threads, unlike those of
//! ONNX's `Conv`.

use crate::config::PATCH;
use crate::graph::{Graph, Var};

/// y (B, H/2, W/2, O) = x (B, H, W, I), zero-padded by 1 on each side, correlated with w (16 I, O) at every second pixel, plus c (O,).
/// The rows of w have the order of [`patches`].
pub(crate) fn convolution(g: &mut Graph, x: Var, w: Var, c: Var) -> Var {
    let x = patches(g, x);
    let [b, h, w_out, len] = *g.shape(x) else { unreachable!("patches have four axes") };
    let x = g.reshape(x, &[b * h * w_out, len]);
    let y = g.gemm(x, w, Some(c), false, false);
    let maps = g.shape(y)[1];
    g.reshape(y, &[b, h, w_out, maps])
}

/// The 4 × 4 patches (B, H/2, W/2, 16 I) of x (B, H, W, I), zero-padded by 1 on each side, at every second pixel. A patch has four
/// blocks of 2 × 2 pixels; its numbers have the axes block row, block column, row in the block, column in the block, map.
///
/// dx = [`sum_patches`] of dy
fn patches(g: &mut Graph, x: Var) -> Var {
    let y = g.fused(PATCHES_OPERATOR, &[("x", x)], |g, inputs| {
        let x = g.permute(inputs[0], [0, 3, 1, 2]);
        let x = g.pad_images(x, [1, 1, 1, 1]);
        let blocks = g.space_to_depth(x); // (B, 4 I, H/2 + 1, W/2 + 1)
        let shifted = CORNERS.map(|[a, b]| g.pad_images(blocks, [-a, -b, a - 1, b - 1]));
        let all = g.concat_columns(&shifted);
        vec![("y", g.permute(all, [0, 2, 3, 1]))]
    })[0];
    g.with_backward(y, sum_patches)
}

/// The inverse sum of [`patches`]: y (B, H, W, I), where each pixel is the sum of its numbers in all patches of x (B, H/2, W/2, 16 I).
///
/// dx = [`patches`] of dy
fn sum_patches(g: &mut Graph, x: Var) -> Var {
    let y = g.fused(SUM_PATCHES_OPERATOR, &[("x", x)], |g, inputs| {
        let x = g.permute(inputs[0], [0, 3, 1, 2]);
        let quarters = g.split_quarters(x);
        let [first, rest @ ..] = [0, 1, 2, 3].map(|i| {
            let [a, b] = CORNERS[i];
            g.pad_images(quarters[i], [a, b, 1 - a, 1 - b])
        });
        let sum = rest.into_iter().fold(first, |sum, x| g.add(sum, x));
        let y = g.depth_to_space(sum);
        let y = g.pad_images(y, [-1; 4]);
        vec![("y", g.permute(y, [0, 2, 3, 1]))]
    })[0];
    g.with_backward(y, patches)
}

/// Row and column of each block in a patch.
const CORNERS: [[i64; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

/// Name of the operator of [`patches`].
pub const PATCHES_OPERATOR: &str = "Patches";
/// Name of the operator of [`sum_patches`].
pub const SUM_PATCHES_OPERATOR: &str = "SumPatches";

/// Computes [`patches`] of one image: x (H, W, I) to y (H/2, W/2, 16 I).
pub fn write_patches(x: &[f32], [height, width, maps]: [usize; 3], y: &mut [f32]) {
    let pair = 2 * maps;
    for (at, patch) in y.chunks_exact_mut(PATCH * maps).enumerate() {
        let (i, j) = (at / (width / 2), at % (width / 2));
        for (part, run) in patch.chunks_exact_mut(pair).enumerate() {
            // Numbers of padded pixels: the run begins at row 2i + 2a + dy, column 2j + 2b.
            let (row, column) = (2 * i + part / 4 * 2 + part % 2, 2 * j + part / 2 % 2 * 2);
            if row == 0 || row > height {
                run.fill(0.0);
                continue;
            }
            let line = &x[(row - 1) * width * maps..][..width * maps];
            match column {
                0 => {
                    run[..maps].fill(0.0);
                    run[maps..].copy_from_slice(&line[..maps]);
                }
                _ if column == width => {
                    run[..maps].copy_from_slice(&line[(width - 1) * maps..]);
                    run[maps..].fill(0.0);
                }
                _ => run.copy_from_slice(&line[(column - 1) * maps..][..pair]),
            }
        }
    }
}

/// Computes [`sum_patches`] of one image: x (H/2, W/2, 16 I) to y (H, W, I).
pub fn write_sum_of_patches(x: &[f32], [height, width, maps]: [usize; 3], y: &mut [f32]) {
    let (pair, columns) = (2 * maps, width / 2);
    let mut run = vec![0.0; pair];
    for (row, line) in (1_usize..).zip(y.chunks_exact_mut(width * maps)) {
        for block in 0..=columns {
            // The same sums in the same order as the operator's function, zeros of absent patches included.
            run.fill(-0.0);
            for [a, b] in [[0, 0], [0, 1], [1, 0], [1, 1_usize]] {
                let (i, j) = ((row / 2).checked_sub(a), block.checked_sub(b));
                match (i.filter(|&i| i < height / 2), j.filter(|&j| j < columns)) {
                    (Some(i), Some(j)) => {
                        let part = &x[((i * columns + j) * 8 + a * 4 + b * 2 + row % 2) * pair..][..pair];
                        run.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
                    }
                    _ => run.iter_mut().for_each(|sum| *sum += 0.0),
                }
            }
            // The run has the padded columns 2 block and 2 block + 1; column 1 is the first of the image.
            let from = if block == 0 { maps } else { 0 };
            let to = if block == columns { maps } else { pair };
            line[(2 * block * maps + from - maps)..][..to - from].copy_from_slice(&run[from..to]);
        }
    }
}
