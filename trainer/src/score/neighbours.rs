//! Scores from nearest neighbours: precision, recall, density, coverage, and copies of training images.
//!
//! Distances are computed in f64, in which a squared distance between two images of grey levels is exact.

use ndarray::{Array1, ArrayView1, ArrayView2, ArrayViewMut1, Axis, s};

/// The neighbourhood of an image is the ball around it that reaches to its K-th nearest neighbour.
pub const K: usize = 5;
/// Number of drawn images for which the nearest training image is searched.
pub const COPIES: usize = 1000;

/// How far the neighbourhoods of real and drawn images overlap.
pub struct Overlap {
    /// Fraction of drawn images inside a real image's neighbourhood, 0 to 1. Source: Kynkäänniemi et al. 2019.
    pub precision: f64,
    /// Fraction of real images inside a drawn image's neighbourhood, 0 to 1. Source: Kynkäänniemi et al. 2019.
    pub recall: f64,
    /// Mean number of real neighbourhoods that a drawn image is in, divided by K. Source: Naeem et al. 2020, "Reliable
    /// fidelity and diversity metrics".
    pub density: f64,
    /// Fraction of real images with a drawn image in their neighbourhood, 0 to 1. Source: Naeem et al. 2020.
    pub coverage: f64,
}

impl Overlap {
    /// The overlap of features of real images (N, F) and of drawn images (M, F), each more than K.
    pub fn of(real: ArrayView2<f64>, drawn: ArrayView2<f64>) -> Self {
        let (real_radius, drawn_radius) = (squared_radii(real), squared_radii(drawn));
        let mut real_neighbourhoods = vec![0usize; drawn.nrows()];
        let (mut recalled, mut covered) = (0usize, 0usize);
        for_each_row(real, drawn, |i, to_drawn| {
            let inside = to_drawn.iter().zip(&mut real_neighbourhoods).filter(|(d, _)| **d < real_radius[i]);
            covered += usize::from(inside.map(|(_, count)| *count += 1).count() > 0);
            recalled += usize::from(to_drawn.iter().zip(&drawn_radius).any(|(d, radius)| d < radius));
        });
        let (n, m) = (real.nrows() as f64, drawn.nrows() as f64);
        Self {
            precision: real_neighbourhoods.iter().filter(|&&count| count > 0).count() as f64 / m,
            recall: recalled as f64 / n,
            density: real_neighbourhoods.iter().sum::<usize>() as f64 / (K as f64 * m),
            coverage: covered as f64 / n,
        }
    }
}

/// Distances (n,) from the first [`COPIES`] images (N, 784) to their nearest training image (M, 784), in grey levels.
pub fn nearest_distances(images: ArrayView2<u8>, train: ArrayView2<u8>) -> Array1<f64> {
    let images = images.slice(s![..images.nrows().min(COPIES), ..]).mapv(f64::from);
    let mut nearest = Array1::from_elem(images.nrows(), f64::INFINITY);
    for part in train.axis_chunks_iter(Axis(0), 5000) {
        for_each_row(part.mapv(f64::from).view(), images.view(), |_, to_images| {
            nearest.zip_mut_with(&to_images, |nearest, &d| *nearest = nearest.min(d));
        });
    }
    nearest.mapv_into(f64::sqrt)
}

/// The squared distance of each row to its K-th nearest other row.
fn squared_radii(x: ArrayView2<f64>) -> Vec<f64> {
    let mut radii = Vec::with_capacity(x.nrows());
    for_each_row(x, x, |i, mut to_others| {
        to_others[i] = -1.0; // sorts before all others
        let mut sorted = to_others.to_vec();
        radii.push(*sorted.select_nth_unstable_by(K, f64::total_cmp).1);
    });
    radii
}

/// Calls `visit` with the index of each row of x (N, F) and its squared distances (M,) to the rows of y (M, F).
fn for_each_row(x: ArrayView2<f64>, y: ArrayView2<f64>, mut visit: impl FnMut(usize, ArrayViewMut1<f64>)) {
    // 250 rows at a time, so that the (N, M) distances never take memory all at once.
    const ROWS: usize = 250;
    let squared_norm = |row: ArrayView1<f64>| row.dot(&row);
    let y2 = y.map_axis(Axis(1), squared_norm);
    for (part, first) in x.axis_chunks_iter(Axis(0), ROWS).zip((0..).step_by(ROWS)) {
        let mut products = part.dot(&y.t());
        for (i, (x, mut row)) in part.rows().into_iter().zip(products.rows_mut()).enumerate() {
            let x2 = squared_norm(x);
            row.zip_mut_with(&y2, |d, y2| *d = (x2 + y2 - 2.0 * *d).max(0.0));
            visit(first + i, row);
        }
    }
}
