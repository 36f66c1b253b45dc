//! Images drawn with a generator's file.

use anyhow::{Context, Result};
use ndarray::{Array1, Array2};
use sha2::{Digest, Sha256};

use crate::config::{LATENT, PIXELS};
use crate::data::Dataset;
use crate::files::hex;
use crate::noise::{self, name_digits, stream};
use crate::ort::OnnxRuntime;
use crate::pixel::pixel;

/// How many images a score is made of.
pub const SAMPLES: usize = 10_000;

/// No MNIST, but 60,000 digits (and 10,000 for tests) drawn by the shipped generator, to try things out on.
pub fn demo(runtime: &OnnxRuntime) -> Result<Dataset> {
    let mut generator = runtime.load(include_bytes!("../../models/g.onnx"))?;
    const AT_ONCE: usize = 5000;
    let (mut z, mut images, mut labels) = (vec![0.0; AT_ONCE * LATENT], vec![], vec![]);
    for part in 0..14 {
        noise::uniform_into(&mut z, 0, part, stream::DEMO);
        labels.extend(name_digits(&mut z));
        let drawn = generator.run(&[("z", &[AT_ONCE, LATENT], &z)])?;
        images.extend(drawn[0].iter().map(|&x| pixel(x)));
    }
    let (test_images, test_labels) = (images.split_off(60_000 * PIXELS), labels.split_off(60_000));
    let sha256 = hex(&Sha256::digest(&images));
    let array = |images: Vec<u8>| Array2::from_shape_vec((images.len() / PIXELS, PIXELS), images);
    let (images, test_images) = (array(images)?, array(test_images)?);
    let (labels, test_labels) = (labels.into(), test_labels.into());
    Ok(Dataset { name: "demo (no MNIST)".into(), sha256, images, labels, test_images, test_labels })
}

/// [`SAMPLES`] images (n, 784) of grey levels, drawn by a generator's file from z that are functions of the seed, and the
/// digits that these name where the generator is class-conditional.
pub fn draw(
    runtime: &OnnxRuntime,
    generator: &[u8],
    conditional: bool,
    seed: u64,
) -> Result<(Array2<u8>, Option<Array1<u8>>)> {
    const AT_ONCE: usize = 1000;
    let mut generator = runtime.load(generator)?;
    let (mut z, mut images, mut digits) = (vec![0.0; AT_ONCE * LATENT], vec![], vec![]);
    for part in 0..SAMPLES / AT_ONCE {
        noise::uniform_into(&mut z, seed, part as u64, stream::SCORE);
        if conditional {
            digits.extend(name_digits(&mut z));
        }
        let drawn = generator.run(&[("z", &[AT_ONCE, LATENT], &z)])?;
        let drawn = drawn.first().filter(|image| image.len() == AT_ONCE * PIXELS);
        let drawn = drawn.with_context(|| format!("{AT_ONCE} images of {PIXELS} pixels expected"))?;
        images.extend(drawn.iter().map(|&x| pixel(x)));
    }
    Ok((Array2::from_shape_vec((SAMPLES, PIXELS), images)?, conditional.then(|| digits.into())))
}
