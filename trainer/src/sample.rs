//! Images drawn with a generator's ONNX file.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, s};
use sha2::{Digest, Sha256};

use crate::config::{DEMO, LATENT, MAX_CLASSES, PIXELS};
use crate::data::Dataset;
use crate::files::hex;
use crate::graph::foreign::ForeignModel;
use crate::noise::{self, stream, write_one_hot};
use crate::ort::{Loaded, OnnxRuntime};
use crate::pixel::pixel;

/// Number of images that a score is computed from.
pub const SAMPLES: usize = 10_000;

/// [`SAMPLES`] images (n, 784) of grey levels, drawn by a generator's file from z that depend on `seed` alone. `classes` is
/// the number of classes of a class-conditional generator. Then the classes (n,) that the images should show come with them.
///
/// # Errors
/// When the file is not a generator z (N, 100) → image (N, 784), or a pixel is not finite.
pub fn draw(
    runtime: &OnnxRuntime,
    generator: &[u8],
    classes: Option<usize>,
    seed: u64,
) -> Result<(Array2<u8>, Option<Array1<u8>>)> {
    draw_samples(&mut runtime.load(generator)?, classes, SAMPLES, seed)
}

/// Ten images of each class (10 · classes, 784), class by class, drawn by a class-conditional generator's file from z that depend on
/// `seed` alone.
///
/// # Errors
/// As [`draw`].
pub fn draw_classes(runtime: &OnnxRuntime, generator: &[u8], classes: usize, seed: u64) -> Result<Array2<u8>> {
    let mut z = Array2::zeros((10 * classes, LATENT));
    noise::write_uniform(z.as_slice_mut().expect("row-major"), seed, 0, stream::SCORE);
    for (i, mut z) in z.rows_mut().into_iter().enumerate() {
        z.slice_mut(s![..classes]).fill(0.0);
        z[i / 10] = 1.0;
    }
    draw_part(&mut runtime.load(generator)?, z.view(), 0)
}

/// `count` images that a model of unknown origin draws, and the classes that were asked for if it is class-conditional by
/// [`classes_of`]. A smaller `count` gives the first of the same images.
///
/// # Errors
/// As [`draw`], and when the model takes longer than `limit`.
pub fn draw_foreign(
    runtime: &OnnxRuntime,
    model: ForeignModel,
    count: usize,
    seed: u64,
    limit: Duration,
) -> Result<(Array2<u8>, Option<Array1<u8>>)> {
    let classes = classes_of(&model);
    runtime.run_foreign(model, limit, move |model| draw_samples(model, classes, count, seed))
}

/// The number of classes of a generator that is class-conditional by its metadata, 2 to 64.
pub fn classes_of(model: &ForeignModel) -> Option<usize> {
    let entry = model.metadata.iter().find(|entry| entry.key == "conditional")?;
    entry.value.strip_prefix("one-hot:")?.parse().ok().filter(|classes| (2..=MAX_CLASSES).contains(classes))
}

fn draw_samples(
    model: &mut Loaded,
    classes: Option<usize>,
    count: usize,
    seed: u64,
) -> Result<(Array2<u8>, Option<Array1<u8>>)> {
    let (images, labels) = draw_from(model, classes, count, 1000, seed, stream::SCORE)?;
    Ok((images, classes.map(|_| labels)))
}

/// A data set of 60,000 digits for training and 10,000 for tests, drawn by the shipped generator. It is not MNIST, but
/// lets everything be tried without a download. It is drawn on the CPU, so that it does not depend on the device.
///
/// # Errors
/// When ONNX Runtime fails.
pub fn demo(runtime: &OnnxRuntime) -> Result<Dataset> {
    let generator = include_bytes!("../../models/g.onnx");
    let generator = &mut runtime.on_cpu().load(generator)?;
    let (images, labels) = draw_from(generator, Some(DIGITS), 70_000, 5000, 0, stream::DEMO)?;
    let part =
        |from: usize, to: usize| (images.slice(s![from..to, ..]).to_owned(), labels.slice(s![from..to]).to_owned());
    let ((images, labels), (test_images, test_labels)) = (part(0, 60_000), part(60_000, 70_000));
    let sha256 = hex(&Sha256::digest(images.as_slice().expect("row-major")));
    let classes = (0..DIGITS).map(|digit| digit.to_string()).collect();
    Ok(Dataset { name: DEMO.into(), sha256, classes, images, labels, test_images, test_labels })
}

/// Number of classes of the shipped generator.
const DIGITS: usize = 10;

/// `n` images (n, 784) in parts of `part`, each from the z of (seed, number of the part, stream), and the classes (n,) that they
/// should show, which are 0 without `classes`.
fn draw_from(
    generator: &mut Loaded,
    classes: Option<usize>,
    n: usize,
    part: usize,
    seed: u64,
    stream: u64,
) -> Result<(Array2<u8>, Array1<u8>)> {
    let (mut images, mut labels) = (Array2::zeros((n, PIXELS)), Array1::zeros(n));
    let mut z = Array2::zeros((part, LATENT));
    let parts = images.axis_chunks_iter_mut(Axis(0), part).zip(labels.axis_chunks_iter_mut(Axis(0), part));
    for ((mut images, mut labels), i) in parts.zip(0..) {
        noise::write_uniform(z.as_slice_mut().expect("row-major"), seed, i, stream);
        let mut z = z.slice_mut(s![..images.nrows(), ..]); // the last part may be smaller
        if let Some(classes) = classes {
            labels.assign(&write_one_hot(z.view_mut(), classes));
        }
        images.assign(&draw_part(generator, z.view(), i as usize * part)?);
    }
    Ok((images, labels))
}

/// The images (N, 784) of z (N, 100). The first of them has the number `first` in errors.
fn draw_part(generator: &mut Loaded, z: ArrayView2<f32>, first: usize) -> Result<Array2<u8>> {
    let n = z.nrows();
    let drawn = generator.run(&[("z", z.into_dyn())])?;
    let drawn = drawn.first().filter(|drawn| drawn.shape() == [n, PIXELS]);
    let drawn = drawn.with_context(|| format!("{n} images of {PIXELS} pixels expected"))?;
    let odd = drawn.rows().into_iter().position(|image| image.iter().any(|x| !x.is_finite()));
    ensure!(odd.is_none(), "finite pixels expected, NaN or infinity found in image {}", first + odd.unwrap_or(0));
    let levels = drawn.iter().map(|&x| pixel(x)).collect();
    Ok(Array2::from_shape_vec((n, PIXELS), levels)?)
}

/// The mean over pixels of the standard deviation between images (n, 784); 0 if all images are equal.
pub(crate) fn variety(images: ArrayView2<f32>) -> f32 {
    let n = images.nrows() as f32;
    let deviation = |pixel: ArrayView1<f32>| {
        let mean = pixel.iter().sum::<f32>() / n;
        (pixel.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / n).sqrt()
    };
    images.columns().into_iter().map(deviation).sum::<f32>() / images.ncols() as f32
}
