//! Scores of a generator: how far its images are from real ones in the features of the [`Judge`].

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};
use serde::Serialize;

pub mod classifier;
pub mod frechet;
pub mod full;
pub mod judge;
pub mod judges;
pub mod kernel_distance;
pub mod neighbours;

use crate::config::are_numbers;
use crate::data::{self, Dataset};
use crate::files;
use crate::graph::foreign::ForeignModel;
use crate::ort::OnnxRuntime;
use crate::print::printable;
use crate::sample::{SAMPLES, classes_of, draw_foreign};
use crate::score::frechet::Gaussian;
use crate::score::full::Full;
use crate::score::judge::Judge;
use crate::score::kernel_distance::kernel_distance;
use crate::score::neighbours::{COPIES, K, Overlap, nearest_distances};

/// The figures of `trainer score`: drawn images compared with as many test images, up to 10,000 of each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Number of images compared on each side: the first of the drawn ones and the first of the test images.
    pub images: usize,
    /// Number of drawn images, compared or not.
    pub drawn_images: usize,
    /// Number of test images, compared or not.
    pub test_images: usize,
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
    /// Names of the judge's classes.
    pub classes: Vec<String>,
    /// Fraction of drawn images in each class, as the judge classifies them.
    pub histogram: Vec<f64>,
    /// Fraction of drawn images that the judge classifies as the class asked for; class-conditional generators only.
    pub class_accuracy: Option<f64>,
    /// Number of drawn images that are equal, byte for byte, to an earlier one.
    pub duplicates: usize,
    /// Median distance of 1,000 drawn images to their nearest training image, divided by that of 1,000 test images.
    pub nearest: f64,
    /// Number of those 1,000 drawn images that are nearer to a training image than any test image is. A generator that
    /// copies training images has many.
    pub copies: usize,
    /// The figures of `--full`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub full: Option<Full>,
}

impl Score {
    /// The score of drawn images (N, 784), and of the classes (N,) that were asked for.
    ///
    /// # Errors
    /// When there are five drawn images or test images or less, no training images, most test images are training images, or
    /// ONNX Runtime fails.
    pub fn measure(
        judge: &mut Judge,
        data: &Dataset,
        drawn: ArrayView2<u8>,
        labels: Option<ArrayView1<u8>>,
    ) -> Result<Self> {
        let (drawn_images, test_images) = (drawn.nrows(), data.test_images.nrows());
        for (what, found) in [("test", test_images), ("drawn", drawn_images)] {
            ensure!(found > K, "more than {K} {what} images expected for a score, {found} found");
        }
        ensure!(data.n() > 0, "training images expected for a score, none found");
        // A Fréchet distance depends on the number of images, so both sides have the same.
        let n = drawn_images.min(test_images).min(SAMPLES);
        let (drawn, real) = (drawn.slice(s![..n, ..]), data.test_images.slice(s![..n, ..]));
        let predictions = judge.classify(drawn)?;
        let (features, real_features) = (predictions.features.view(), judge.classify(real)?.features);
        let real_features = real_features.view();
        let Overlap { precision, recall, density, coverage } = Overlap::of(real_features, features);

        let fraction = |count: usize| count as f64 / n as f64;
        let mut histogram = vec![0; judge.classes()];
        predictions.classes.iter().for_each(|&class| histogram[class as usize] += 1);
        let is_named = data.classes.len() == judge.classes();
        let classes =
            if is_named { data.classes.clone() } else { (0..judge.classes()).map(|class| class.to_string()).collect() };
        let as_asked = |labels| predictions.classes.iter().zip(labels).filter(|(class, asked)| class == asked).count();
        let mut seen = HashSet::new();
        let [nearest, real_nearest] = [drawn, real].map(|images| nearest_distances(images, data.images.view()));
        let real_median = median(real_nearest.to_vec());
        ensure!(real_median > 0.0, "test images other than the training images expected, most are equal to one");
        let closest_test_image = real_nearest.iter().copied().fold(f64::INFINITY, f64::min);
        Ok(Self {
            images: n,
            drawn_images,
            test_images,
            frechet_distance: Gaussian::fit(features)?.frechet_distance(&Gaussian::fit(real_features)?),
            kernel_distance: kernel_distance(real_features, features),
            precision,
            recall,
            density,
            coverage,
            confidence: predictions.confidences.mapv(f64::from).sum() / n as f64,
            classes,
            histogram: histogram.into_iter().map(fraction).collect(),
            class_accuracy: labels.map(as_asked).map(fraction),
            duplicates: drawn.outer_iter().filter(|image| !seen.insert(*image)).count(),
            copies: nearest.iter().filter(|&&distance| distance < closest_test_image).count(),
            nearest: median(nearest.to_vec()) / real_median,
            full: None,
        })
    }

    /// A table for people, one line for each figure.
    pub fn table(&self) -> String {
        let percent = |fraction: f64| format!("{:.2} %", 100.0 * fraction);
        let images =
            format!("{0} of {1} drawn, {0} of {2} test images", self.images, self.drawn_images, self.test_images);
        let mut rows: Vec<(String, String)> = vec![
            ("images".into(), images),
            ("Fréchet distance".into(), format!("{:.3}", self.frechet_distance)),
            ("kernel distance".into(), format!("{:.4}", self.kernel_distance)),
            ("precision".into(), percent(self.precision)),
            ("recall".into(), percent(self.recall)),
            ("density".into(), format!("{:.3}", self.density)),
            ("coverage".into(), percent(self.coverage)),
            ("confidence".into(), percent(self.confidence)),
        ];
        if are_numbers(&self.classes) {
            let shares: Vec<String> = self.histogram.iter().map(|share| format!("{:.1}", 100.0 * share)).collect();
            rows.push((format!("classes 0 to {}, %", self.classes.len() - 1), shares.join(" ")));
        } else {
            let classes = self.classes.iter().map(|name| format!("class {}", printable(name, 16)));
            rows.extend(classes.zip(self.histogram.iter().map(|&share| percent(share))));
        }
        rows.extend(self.class_accuracy.map(|fraction| ("class accuracy".into(), percent(fraction))));
        rows.extend([
            ("duplicates".into(), format!("{} of {}", self.duplicates, self.images)),
            ("nearest training image".into(), format!("{:.2} times as far as a test image's", self.nearest)),
            ("copies".into(), format!("{} of {}", self.copies, COPIES.min(self.images))),
        ]);
        rows.extend(self.full.iter().flat_map(Full::rows));
        let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<24} {value}")).collect();
        lines.join("\n")
    }
}

/// Images (N, 784) to score and, if known, the classes (N,) that were asked for. An ONNX file draws `count` of them, on the CPU,
/// from z that depend on `seed` alone; an IDX file holds them.
///
/// # Errors
/// When the file is neither a generator's ONNX file nor an IDX file of images, or a class-conditional generator has another number
/// of classes or takes longer than five minutes for 10,000 images.
pub fn images_of(
    runtime: &OnnxRuntime,
    path: &Path,
    classes: usize,
    count: usize,
    seed: u64,
) -> Result<(Array2<u8>, Option<Array1<u8>>)> {
    let name = path.display();
    let mut start = vec![];
    let file = File::open(path).with_context(|| format!("{name}: cannot be read"))?;
    file.take(4).read_to_end(&mut start).with_context(|| format!("{name}: cannot be read"))?;
    if start.starts_with(&[0, 0, 8, 3]) || start.starts_with(&files::GZIP) {
        return data::read_drawn(path);
    }
    let model = ForeignModel::read(path)
        .with_context(|| format!("{name}: a generator's ONNX file or an IDX file of images expected"))?;
    if let Some(found) = classes_of(&model) {
        ensure!(
            found == classes,
            "{name}: a generator of {classes} classes expected, as the judge has, one of {found} found; name its data with --data"
        );
    }
    let limit = TIME_LIMIT * count.div_ceil(SAMPLES) as u32;
    draw_foreign(runtime, model, count, seed, limit)
        .with_context(|| format!("{name}: a generator z (N, 100) → image (N, 784) expected"))
}

/// How long a model of unknown origin may take to load and to draw 10,000 images.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// A warning for scores of fewer than 10,000 images on each side.
pub fn warning(images: usize) -> Option<String> {
    (images < SAMPLES).then(|| {
        format!(
            "warning: scores compare {images} drawn images with {images} test images; distances depend on that number, so \
             compare them only with distances of {images} images, better of {SAMPLES}"
        )
    })
}

/// Computes the Fréchet distance of one set of images after another to the same real images.
pub struct Scorer {
    judge: Judge,
    /// Number of images on each side.
    n: usize,
    real: Gaussian,
}

impl Scorer {
    /// A scorer against the first of the real images (N, 784), up to 10,000.
    ///
    /// # Errors
    /// When there are fewer than two images, or ONNX Runtime fails.
    pub fn new(mut judge: Judge, real: ArrayView2<u8>) -> Result<Self> {
        let n = real.nrows().min(SAMPLES);
        let real = Gaussian::fit(judge.classify(real.slice(s![..n, ..]))?.features.view())?;
        Ok(Self { judge, n, real })
    }

    /// The Fréchet distance of the first of the drawn images (N, 784), as many as there are real ones, in the judge's features.
    ///
    /// # Errors
    /// When there are fewer drawn images than real ones, or ONNX Runtime fails.
    pub fn frechet_distance(&mut self, drawn: ArrayView2<u8>) -> Result<f64> {
        let (n, found) = (self.n, drawn.nrows());
        ensure!(found >= n, "at least {n} drawn images expected, as many as real ones, {found} found");
        let drawn = drawn.slice(s![..n, ..]);
        Ok(Gaussian::fit(self.judge.classify(drawn)?.features.view())?.frechet_distance(&self.real))
    }
}

/// The median; of an even number of values, the greater of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_named_class_and_one_for_all_numbers() {
        let score = |classes: &[&str]| Score {
            images: 1,
            drawn_images: 1,
            test_images: 1,
            frechet_distance: 0.0,
            kernel_distance: 0.0,
            precision: 0.0,
            recall: 0.0,
            density: 0.0,
            coverage: 0.0,
            confidence: 0.0,
            classes: classes.iter().map(|name| name.to_string()).collect(),
            histogram: vec![0.25, 0.75],
            class_accuracy: Some(0.5),
            duplicates: 0,
            nearest: 0.0,
            copies: 0,
            full: None,
        };
        let has = |classes: &[&str], line: &str| {
            let table = score(classes).table();
            assert!(table.lines().any(|found| found == line), "{line:?} is missing from {table}");
        };
        has(&["0", "1"], "classes 0 to 1, %        25.0 75.0");
        has(&["cat", "dog"], "class dog                75.00 %");
        has(&["cat", "\x1b[2J"], r"class \u{1b}[2J          75.00 %");
        has(&["cat", "dog"], "class accuracy           50.00 %");
    }
}
