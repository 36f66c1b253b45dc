//! How good a generator is, in the eyes of the [`Judge`].

use anyhow::{Result, ensure};
use nalgebra::{DMatrix, DVector};
use prost::Message;

use crate::gan::LATENT;
use crate::judge::{FEATURES, Judge};
use crate::onnx;
use crate::random::{self, stream};
use crate::session::OnnxRuntime;
use crate::train::{Plan, name_digits};

/// How many images a score is made of.
pub const SAMPLES: usize = 10_000;

/// [`SAMPLES`] images (n, 784) of grey levels, drawn by a plan's generator from z that are functions of its seed.
pub fn draw(runtime: &OnnxRuntime, generator: &onnx::Model, plan: &Plan) -> Result<Vec<u8>> {
    const AT_ONCE: usize = 1000;
    let mut generator = runtime.load(&generator.encode_to_vec())?;
    let (mut z, mut images) = (vec![0.0; AT_ONCE * LATENT], vec![]);
    for part in 0..SAMPLES / AT_ONCE {
        random::uniform_into(&mut z, plan.seed, part as u64, stream::SCORE);
        name_digits(&plan.recipe, &mut z);
        let drawn = generator.run(&[("z", &[AT_ONCE, LATENT], &z)])?;
        images.extend(drawn[0].iter().map(|x| (x * 127.5 + 127.5).round_ties_even() as u8));
    }
    Ok(images)
}

/// The Gaussian that features (n, 128) would have come from: their mean and covariance.
pub struct Gaussian {
    mean: DVector<f64>,
    covariance: DMatrix<f64>,
}

impl Gaussian {
    /// # Errors
    /// Two images at least are needed.
    pub fn of(features: &[f32]) -> Result<Self> {
        let n = features.len() / FEATURES;
        ensure!(n >= 2, "at least 2 images expected, {n} found");
        let rows = DMatrix::from_fn(FEATURES, n, |i, row| f64::from(features[row * FEATURES + i]));
        let mean = rows.column_mean();
        let centred = DMatrix::from_fn(FEATURES, n, |i, row| rows[(i, row)] - mean[i]);
        let covariance = &centred * centred.transpose() / (n - 1) as f64;
        Ok(Self { mean, covariance })
    }

    /// The Fréchet distance between two Gaussians, squared: |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁½ Σ₂ Σ₁½)½).
    ///
    /// Source: Dowson & Landau 1982; Heusel et al. 2017, "GANs trained by a two time-scale update rule…".
    pub fn frechet_distance(&self, other: &Self) -> f64 {
        let root = |m: &DMatrix<f64>| {
            let eigen = m.clone().symmetric_eigen();
            let values = eigen.eigenvalues.map(|value| value.max(0.0).sqrt());
            &eigen.eigenvectors * DMatrix::from_diagonal(&values) * eigen.eigenvectors.transpose()
        };
        let half = root(&self.covariance);
        let middle = &half * &other.covariance * &half;
        let middle = (&middle + middle.transpose()) / 2.0; // symmetric but for rounding
        let roots = middle.symmetric_eigenvalues().map(|value| value.max(0.0).sqrt()).sum();
        let apart = (&self.mean - &other.mean).norm_squared();
        apart + self.covariance.trace() + other.covariance.trace() - 2.0 * roots
    }
}

/// Scores generators against one set of real images.
pub struct Scorer {
    judge: Judge,
    real: Gaussian,
}

impl Scorer {
    /// Against real images (n, 784).
    pub fn new(mut judge: Judge, real: &[u8]) -> Result<Self> {
        let real = Gaussian::of(&judge.look(real)?.features)?;
        Ok(Self { judge, real })
    }

    /// The Fréchet distance of drawn images (n, 784) in the judge's features.
    pub fn frechet_distance(&mut self, drawn: &[u8]) -> Result<f64> {
        Ok(Gaussian::of(&self.judge.look(drawn)?.features)?.frechet_distance(&self.real))
    }
}
