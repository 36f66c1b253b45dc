//! The kernel distance between two sets of features.

use ndarray::{ArrayView2, Axis};

/// The squared maximum mean discrepancy between features x (N, F) and y (M, F) under the kernel (x · y / F + 1)³, unbiased.
/// It is near 0 for equal distributions and may be negative.
///
/// Source: Bińkowski et al. 2018, "Demystifying MMD GANs", where it is called KID.
pub fn kernel_distance(x: ArrayView2<f64>, y: ArrayView2<f64>) -> f64 {
    let kernel = |dot: f64| (dot / x.ncols() as f64 + 1.0).powi(3);
    // 250 rows at a time, so that the (N, M) products never take memory all at once.
    let sum = |a: ArrayView2<f64>, b: ArrayView2<f64>| -> f64 {
        a.axis_chunks_iter(Axis(0), 250).map(|rows| rows.dot(&b.t()).mapv(kernel).sum()).sum()
    };
    let mean_within = |a: ArrayView2<f64>| {
        let diagonal: f64 = a.rows().into_iter().map(|row| kernel(row.dot(&row))).sum();
        (sum(a, a) - diagonal) / (a.nrows() * (a.nrows() - 1)) as f64
    };
    mean_within(x) + mean_within(y) - 2.0 * sum(x, y) / (x.nrows() * y.nrows()) as f64
}
