//! The Fréchet distance between two sets of features.

use anyhow::{Result, ensure};
use nalgebra::DMatrix;
use ndarray::{Array1, Array2, ArrayView2, Axis};

/// The normal distribution fitted to a set of features.
pub struct Gaussian {
    /// (F,)
    mean: Array1<f64>,
    /// (F, F)
    covariance: Array2<f64>,
}

impl Gaussian {
    /// Mean and unbiased covariance of features (N, F).
    ///
    /// # Errors
    /// When N is less than 2.
    pub fn fit(features: ArrayView2<f64>) -> Result<Self> {
        let n = features.nrows();
        ensure!(n >= 2, "at least 2 images expected, {n} found");
        let mean = features.sum_axis(Axis(0)) / n as f64;
        let centred = &features - &mean;
        let covariance = centred.t().dot(&centred) / (n - 1) as f64;
        Ok(Self { mean, covariance })
    }

    /// The squared Fréchet distance |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁½ Σ₂ Σ₁½)½); 0 for equal distributions.
    ///
    /// Source: Dowson & Landau 1982; Heusel et al. 2017, "GANs trained by a two time-scale update rule…", where it is
    /// called FID.
    pub fn frechet_distance(&self, other: &Self) -> f64 {
        let (values, vectors) = eigen(&self.covariance);
        let half = (&vectors * &values.mapv(root)).dot(&vectors.t()); // Σ₁½
        let product = half.dot(&other.covariance).dot(&half);
        let symmetric = (&product + &product.t()) / 2.0; // rounding errors made it slightly asymmetric
        let (values, _) = eigen(&symmetric);
        let apart = (&self.mean - &other.mean).mapv(|x| x * x).sum();
        apart + self.covariance.diag().sum() + other.covariance.diag().sum() - 2.0 * values.mapv(root).sum()
    }
}

/// The square root of an eigenvalue that rounding errors may have made slightly negative.
fn root(eigenvalue: f64) -> f64 {
    eigenvalue.max(0.0).sqrt()
}

/// Eigenvalues (F,) and, in columns, eigenvectors (F, F) of a symmetric matrix (F, F).
fn eigen(matrix: &Array2<f64>) -> (Array1<f64>, Array2<f64>) {
    let eigen = DMatrix::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[[i, j]]).symmetric_eigen();
    let vectors = Array2::from_shape_fn(matrix.dim(), |at| eigen.eigenvectors[at]);
    (eigen.eigenvalues.iter().copied().collect(), vectors)
}
