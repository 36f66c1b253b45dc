//! How good a generator is, in the eyes of the [`Judge`].

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nalgebra::{DMatrix, DVector};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use prost::Message;
use serde::Serialize;

pub mod judge;

use crate::config::{CLASSES, PIXELS};
use crate::data::{self, Dataset};
use crate::graph::onnx;
use crate::ort::OnnxRuntime;
use crate::sample::{SAMPLES, draw};
use crate::score::judge::{FEATURES, Judge};

/// The nearest neighbour whose distance is the radius of an image's neighbourhood.
const K: usize = 5;
/// How many images look for their nearest training image.
const COPIES: usize = 1000;

/// What `trainer score` says of drawn images, beside as many real ones.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    pub images: usize,
    /// See [`Gaussian::frechet_distance`]; lower is better.
    pub frechet_distance: f64,
    /// The squared maximum mean discrepancy under the kernel (x · y / 32 + 1)³, unbiased; lower is better. Source:
    /// Bińkowski et al. 2018, "Demystifying MMD GANs".
    pub kernel_distance: f64,
    /// The share of drawn images within the neighbourhood of a real one, 0 to 1. Source: Kynkäänniemi et al. 2019.
    pub precision: f64,
    /// The share of real images within the neighbourhood of a drawn one, 0 to 1. Source: the same.
    pub recall: f64,
    /// How many real neighbourhoods hold a drawn image, over k. Source: Naeem et al. 2020, "Reliable fidelity and
    /// diversity metrics".
    pub density: f64,
    /// The share of real images with a drawn one in their neighbourhood, 0 to 1. Source: the same.
    pub coverage: f64,
    /// The judge's mean probability of the digit that it sees.
    pub confidence: f64,
    /// The share of each digit, as the judge reads them.
    pub histogram: [f64; CLASSES],
    /// How often the judge reads the digit that was asked for; for class-conditional generators.
    pub digit_accuracy: Option<f64>,
    /// Drawn images that are equal, byte for byte, to one drawn before.
    pub duplicates: usize,
    /// The median distance of 1,000 drawn images to the nearest training image, over that of 1,000 test images.
    pub nearest: f64,
    /// Of those 1,000, how many are nearer to a training image than any of the test images is: a generator that copies
    /// has many.
    pub copies: usize,
}

impl Score {
    /// Measures drawn images (n, 784), with the digits that were asked for where there are such.
    ///
    /// # Errors
    /// More than five images are needed, drawn and real.
    pub fn measure(
        judge: &mut Judge,
        data: &Dataset,
        drawn: ArrayView2<u8>,
        labels: Option<ArrayView1<u8>>,
    ) -> Result<Self> {
        let real = data.test_images.slice(s![..data.test_images.nrows().min(SAMPLES), ..]);
        for (what, images) in [("test", real), ("drawn", drawn)] {
            let found = images.nrows();
            ensure!(found > K, "more than {K} {what} images expected for a score, {found} found");
        }
        let (real_seen, seen) = (judge.look(real)?, judge.look(drawn)?);
        let n = seen.class.len();
        let share = |count: usize| count as f64 / n as f64;
        let (x, y) = (matrix(&real_seen.features, FEATURES), matrix(&seen.features, FEATURES));
        let neighbours = Neighbours::new(&x, &y);
        let mut histogram = [0; CLASSES];
        seen.class.iter().for_each(|&class| histogram[class as usize] += 1);
        let told = labels.map(|labels| seen.class.iter().zip(labels).filter(|(seen, asked)| seen == asked).count());
        let mut met = HashSet::new();
        let duplicates = drawn.outer_iter().filter(|image| !met.insert(*image)).count();
        let [mut ours, mut theirs] = [drawn, real].map(|images| nearest(images, data.images.view()));
        let closest = theirs.iter().copied().fold(f32::INFINITY, f32::min);
        let copies = ours.iter().filter(|&&distance| distance < closest).count();
        Ok(Self {
            images: n,
            frechet_distance: Gaussian::of(&seen.features)?.frechet_distance(&Gaussian::of(&real_seen.features)?),
            kernel_distance: kernel_distance(&x, &y),
            precision: neighbours.precision,
            recall: neighbours.recall,
            density: neighbours.density,
            coverage: neighbours.coverage,
            confidence: seen.confidence.iter().map(|&c| f64::from(c)).sum::<f64>() / n as f64,
            histogram: histogram.map(share),
            digit_accuracy: told.map(share),
            duplicates,
            nearest: f64::from(median(&mut ours) / median(&mut theirs)),
            copies,
        })
    }

    /// A line for each figure.
    pub fn table(&self) -> String {
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        let histogram: Vec<String> = self.histogram.iter().map(|share| format!("{:.1}", 100.0 * share)).collect();
        let mut rows = vec![
            ("Fréchet distance", format!("{:.3}", self.frechet_distance)),
            ("kernel distance", format!("{:.4}", self.kernel_distance)),
            ("precision", percent(self.precision)),
            ("recall", percent(self.recall)),
            ("density", format!("{:.3}", self.density)),
            ("coverage", percent(self.coverage)),
            ("confidence", percent(self.confidence)),
            ("digits 0 to 9, %", histogram.join(" ")),
        ];
        rows.extend(self.digit_accuracy.map(|share| ("digit as asked", percent(share))));
        rows.push(("duplicates", format!("{} of {}", self.duplicates, self.images)));
        rows.push(("nearest training image", format!("{:.2} times as far as a test image's", self.nearest)));
        rows.push(("copies", format!("{} of {}", self.copies, COPIES.min(self.images))));
        let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<24} {value}")).collect();
        lines.join("\n")
    }
}

/// Images to score and the digits that were asked for: drawn with a generator's ONNX file, or read from an IDX file.
///
/// # Errors
/// When the file is neither.
pub fn images_of(runtime: &OnnxRuntime, path: &Path, seed: u64) -> Result<(Array2<u8>, Option<Array1<u8>>)> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("{name}: cannot be read"))?;
    if bytes.starts_with(&[0, 0, 8, 3]) || bytes.starts_with(&[0x1f, 0x8b]) {
        return data::read_drawn(path);
    }
    let model = onnx::Model::decode(&bytes[..]).ok().filter(|model| model.graph.is_some());
    let model = model.with_context(|| format!("{name}: a generator's ONNX file or an IDX file of images expected"))?;
    let conditional = model.metadata_props.iter().any(|entry| entry.key == "conditional");
    draw(runtime, &bytes, conditional, seed)
        .with_context(|| format!("{name}: a generator z (N, 100) → image (N, 784) expected"))
}

/// The Gaussian that features (n, 32) would have come from: their mean and covariance.
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

/// Precision, recall, density and coverage.
struct Neighbours {
    precision: f64,
    recall: f64,
    density: f64,
    coverage: f64,
}

impl Neighbours {
    /// Of real features x and drawn features y, both (features, n).
    fn new(x: &DMatrix<f32>, y: &DMatrix<f32>) -> Self {
        let (x_radius, y_radius) = (radii(x), radii(y));
        let mut within_real = vec![0usize; y.ncols()];
        let (mut recalled, mut covered) = (0usize, 0usize);
        distances(x, y, &mut |i, to_drawn| {
            let hits = to_drawn.iter().zip(&mut within_real).filter(|(d, _)| **d < x_radius[i]);
            covered += usize::from(hits.map(|(_, count)| *count += 1).count() > 0);
            recalled += usize::from(to_drawn.iter().zip(&y_radius).any(|(d, radius)| d < radius));
        });
        let (real, drawn) = (x.ncols() as f64, y.ncols() as f64);
        Self {
            precision: within_real.iter().filter(|&&count| count > 0).count() as f64 / drawn,
            recall: recalled as f64 / real,
            density: within_real.iter().sum::<usize>() as f64 / (K as f64 * drawn),
            coverage: covered as f64 / real,
        }
    }
}

/// The squared distance of each column to its k-th nearest neighbour.
fn radii(x: &DMatrix<f32>) -> Vec<f32> {
    let mut all = Vec::with_capacity(x.ncols());
    distances(x, x, &mut |i, row| {
        row[i] = -1.0; // itself comes first
        all.push(*row.select_nth_unstable_by(K, f32::total_cmp).1);
    });
    all
}

/// Calls `row` with each column of x, by number, and its squared distances to the columns of y.
fn distances(x: &DMatrix<f32>, y: &DMatrix<f32>, row: &mut dyn FnMut(usize, &mut [f32])) {
    const AT_ONCE: usize = 250;
    let square = |m: &DMatrix<f32>| -> Vec<f32> { m.column_iter().map(|c| c.norm_squared()).collect() };
    let (x2, y2) = (square(x), square(y));
    for from in (0..x.ncols()).step_by(AT_ONCE) {
        let part = x.columns(from, AT_ONCE.min(x.ncols() - from));
        let mut products = y.tr_mul(&part); // (y, part)
        for (i, mut column) in products.column_iter_mut().enumerate() {
            column.iter_mut().zip(&y2).for_each(|(d, y2)| *d = (x2[from + i] + y2 - 2.0 * *d).max(0.0));
            row(from + i, column.as_mut_slice());
        }
    }
}

/// The distance of each of the first 1,000 images (n, 784) to the nearest training image, in grey levels.
fn nearest(images: ArrayView2<u8>, train: ArrayView2<u8>) -> Vec<f32> {
    let grey = |images: ArrayView2<u8>| matrix(&images.iter().map(|&x| f32::from(x)).collect::<Vec<_>>(), PIXELS);
    let images = grey(images.slice(s![..images.nrows().min(COPIES), ..]));
    let mut best = vec![f32::INFINITY; images.ncols()];
    for part in train.axis_chunks_iter(Axis(0), 5000) {
        distances(&grey(part), &images, &mut |_, row| {
            best.iter_mut().zip(row).for_each(|(best, d)| *best = best.min(*d));
        });
    }
    best.into_iter().map(f32::sqrt).collect()
}

/// See [`Score::kernel_distance`].
fn kernel_distance(x: &DMatrix<f32>, y: &DMatrix<f32>) -> f64 {
    let kernel = |dot: f64| (dot / FEATURES as f64 + 1.0).powi(3);
    let sum = |a: &DMatrix<f32>, b: &DMatrix<f32>| -> f64 {
        (0..b.ncols())
            .step_by(250)
            .map(|from| {
                let products = a.tr_mul(&b.columns(from, 250.min(b.ncols() - from)));
                products.iter().map(|&dot| kernel(f64::from(dot))).sum::<f64>()
            })
            .sum()
    };
    let within = |m: &DMatrix<f32>| {
        let own: f64 = m.column_iter().map(|c| kernel(f64::from(c.norm_squared()))).sum();
        (sum(m, m) - own) / (m.ncols() * (m.ncols() - 1)) as f64
    };
    within(x) + within(y) - 2.0 * sum(x, y) / (x.ncols() * y.ncols()) as f64
}

/// Rows of `of` numbers, as columns.
fn matrix(rows: &[f32], of: usize) -> DMatrix<f32> {
    DMatrix::from_column_slice(of, rows.len() / of, rows)
}

fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// Scores generators against one set of real images.
pub struct Scorer {
    judge: Judge,
    real: Gaussian,
}

impl Scorer {
    /// Against real images (n, 784).
    pub fn new(mut judge: Judge, real: ArrayView2<u8>) -> Result<Self> {
        let real = Gaussian::of(&judge.look(real)?.features)?;
        Ok(Self { judge, real })
    }

    /// The Fréchet distance of drawn images (n, 784) in the judge's features.
    pub fn frechet_distance(&mut self, drawn: ArrayView2<u8>) -> Result<f64> {
        Ok(Gaussian::of(&self.judge.look(drawn)?.features)?.frechet_distance(&self.real))
    }
}
