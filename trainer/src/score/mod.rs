//! Scores of a generator: how far its images are from real ones in the features of the [`Judge`].

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};
use prost::Message;
use serde::Serialize;

pub mod frechet;
pub mod judge;
pub mod kernel_distance;
pub mod neighbours;

use crate::config::CLASSES;
use crate::data::{self, Dataset};
use crate::graph::onnx;
use crate::ort::OnnxRuntime;
use crate::sample::{SAMPLES, draw};
use crate::score::frechet::Gaussian;
use crate::score::judge::Judge;
use crate::score::kernel_distance::kernel_distance;
use crate::score::neighbours::{COPIES, K, Overlap, nearest_distances};

/// The figures of `trainer score`: drawn images compared with the first 10,000 test images.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Number of drawn images.
    pub images: usize,
    /// See [`Gaussian::frechet_distance`]. Lower is better.
    pub frechet_distance: f64,
    /// See [`kernel_distance()`]. Lower is better.
    pub kernel_distance: f64,
    /// See [`Overlap::precision`].
    pub precision: f64,
    /// See [`Overlap::recall`].
    pub recall: f64,
    /// See [`Overlap::density`].
    pub density: f64,
    /// See [`Overlap::coverage`].
    pub coverage: f64,
    /// Mean probability of the most probable class, 0 to 1.
    pub confidence: f64,
    /// Fraction of drawn images in each class, as the judge classifies them.
    pub histogram: [f64; CLASSES],
    /// Fraction of drawn images that the judge classifies as the digit asked for; class-conditional generators only.
    pub digit_accuracy: Option<f64>,
    /// Number of drawn images that are equal, byte for byte, to an earlier one.
    pub duplicates: usize,
    /// Median distance of 1,000 drawn images to their nearest training image, divided by that of 1,000 test images.
    pub nearest: f64,
    /// Number of those 1,000 drawn images that are nearer to a training image than any test image is. A generator that
    /// copies training images has many.
    pub copies: usize,
}

impl Score {
    /// The score of drawn images (N, 784), and of the digits (N,) that were asked for.
    ///
    /// # Errors
    /// When there are five drawn images or test images or less, or ONNX Runtime fails.
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
        let predictions = judge.classify(drawn)?;
        let (features, real_features) = (predictions.features.view(), judge.classify(real)?.features);
        let real_features = real_features.view();
        let Overlap { precision, recall, density, coverage } = Overlap::of(real_features, features);

        let n = drawn.nrows();
        let fraction = |count: usize| count as f64 / n as f64;
        let mut histogram = [0; CLASSES];
        predictions.classes.iter().for_each(|&class| histogram[class as usize] += 1);
        let as_asked = |labels| predictions.classes.iter().zip(labels).filter(|(class, asked)| class == asked).count();
        let mut seen = HashSet::new();
        let [nearest, real_nearest] = [drawn, real].map(|images| nearest_distances(images, data.images.view()));
        let closest_test_image = real_nearest.iter().copied().fold(f64::INFINITY, f64::min);
        Ok(Self {
            images: n,
            frechet_distance: Gaussian::fit(features)?.frechet_distance(&Gaussian::fit(real_features)?),
            kernel_distance: kernel_distance(real_features, features),
            precision,
            recall,
            density,
            coverage,
            confidence: predictions.confidences.mapv(f64::from).sum() / n as f64,
            histogram: histogram.map(fraction),
            digit_accuracy: labels.map(as_asked).map(fraction),
            duplicates: drawn.outer_iter().filter(|image| !seen.insert(*image)).count(),
            copies: nearest.iter().filter(|&&distance| distance < closest_test_image).count(),
            nearest: median(nearest.to_vec()) / median(real_nearest.to_vec()),
        })
    }

    /// A table for people, one line for each figure.
    pub fn table(&self) -> String {
        let percent = |fraction: f64| format!("{:.2} %", 100.0 * fraction);
        let histogram: Vec<String> = self.histogram.iter().map(|fraction| format!("{:.1}", 100.0 * fraction)).collect();
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
        rows.extend(self.digit_accuracy.map(|fraction| ("digit as asked", percent(fraction))));
        rows.push(("duplicates", format!("{} of {}", self.duplicates, self.images)));
        rows.push(("nearest training image", format!("{:.2} times as far as a test image's", self.nearest)));
        rows.push(("copies", format!("{} of {}", self.copies, COPIES.min(self.images))));
        let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<24} {value}")).collect();
        lines.join("\n")
    }
}

/// Images (N, 784) to score and, if known, the digits (N,) that were asked for. An ONNX file draws them from z that
/// depend on `seed` alone; an IDX file holds them.
///
/// # Errors
/// When the file is neither a generator's ONNX file nor an IDX file of images.
pub fn images_of(runtime: &OnnxRuntime, path: &Path, seed: u64) -> Result<(Array2<u8>, Option<Array1<u8>>)> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("{name}: cannot be read"))?;
    let (idx, gzip) = ([0, 0, 8, 3], [0x1f, 0x8b]);
    if bytes.starts_with(&idx) || bytes.starts_with(&gzip) {
        return data::read_drawn(path);
    }
    let model = onnx::Model::decode(&bytes[..]).ok().filter(|model| model.graph.is_some());
    let model = model.with_context(|| format!("{name}: a generator's ONNX file or an IDX file of images expected"))?;
    let conditional = model.metadata_props.iter().any(|entry| entry.key == "conditional");
    draw(runtime, &bytes, conditional, seed)
        .with_context(|| format!("{name}: a generator z (N, 100) → image (N, 784) expected"))
}

/// Computes the Fréchet distance of one set of images after another to the same real images.
pub struct Scorer {
    judge: Judge,
    real: Gaussian,
}

impl Scorer {
    /// A scorer against real images (N, 784).
    ///
    /// # Errors
    /// When there are fewer than two images, or ONNX Runtime fails.
    pub fn new(mut judge: Judge, real: ArrayView2<u8>) -> Result<Self> {
        let real = Gaussian::fit(judge.classify(real)?.features.view())?;
        Ok(Self { judge, real })
    }

    /// The Fréchet distance of drawn images (N, 784) in the judge's features.
    ///
    /// # Errors
    /// When there are fewer than two images, or ONNX Runtime fails.
    pub fn frechet_distance(&mut self, drawn: ArrayView2<u8>) -> Result<f64> {
        Ok(Gaussian::fit(self.judge.classify(drawn)?.features.view())?.frechet_distance(&self.real))
    }
}

/// The median; of an even number of values, the greater of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}
