//! A generator's image of a seed never changes: every kernel and every build gives the same bytes, alone and in a batch.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use runtime::{GENERATOR, Generate, Image, Kernel, Latent, int8, latent_of};
use sha2::{Digest, Sha256};

/// Seeds per kernel, and seeds of the golden run. Unoptimised code draws fewer.
const SEEDS: u64 = if cfg!(debug_assertions) { 100 } else { 100_000 };
const GOLDEN: u64 = if cfg!(debug_assertions) { 10_000 } else { 100_000 };
const BLOCK: u64 = 1000;

#[test]
fn every_kernel_draws_the_same_alone_and_in_batches_in_f32() {
    every_kernel_draws_the_same(
        |kernel, z| GENERATOR.draw_with(kernel, z),
        |kernel, z, images| GENERATOR.draw_batch_with(kernel, &mut z.iter().copied(), images),
    );
}

#[test]
fn every_kernel_draws_the_same_alone_and_in_batches_in_int8() {
    println!("kernels: {}", Kernel::all().map(Kernel::name).collect::<Vec<_>>().join(", "));
    every_kernel_draws_the_same(
        |kernel, z| int8::GENERATOR.draw_with(kernel, z),
        |kernel, z, images| int8::GENERATOR.draw_batch_with(kernel, &mut z.iter().copied(), images),
    );
}

fn every_kernel_draws_the_same(
    alone: impl Fn(Kernel, &Latent) -> Image,
    batch: impl Fn(Kernel, &[Latent], &mut [Image]),
) {
    for first in (0..SEEDS).step_by(BLOCK as usize) {
        let z: Vec<Latent> = (first..SEEDS.min(first + BLOCK)).map(latent_of).collect();
        let expected: Vec<Image> = z.iter().map(|z| alone(Kernel::best(), z)).collect();
        for kernel in Kernel::all() {
            assert!(z.iter().map(|z| alone(kernel, z)).eq(expected.iter().copied()), "{}, {first}", kernel.name());
            // Batches of 37 and 963 images, which no tile size divides.
            let mut images = vec![Image::BLANK; z.len()];
            let (a, b) = images.split_at_mut(37);
            batch(kernel, &z[..37], a);
            batch(kernel, &z[37..], b);
            assert!(images == expected, "{} in batches, {first}", kernel.name());
        }
    }
}

#[test]
fn rows_are_those_of_the_image() {
    fn rows(draw: impl FnOnce(&mut dyn FnMut(&[u8; Image::SIDE]))) -> Image {
        let mut pixels: Vec<u8> = vec![];
        draw(&mut |row| pixels.extend(row));
        Image(pixels.try_into().expect("28 rows"))
    }
    for seed in 0..SEEDS / 100 {
        let z = latent_of(seed);
        assert_eq!(rows(|row| runtime::generate_rows(seed, row)), runtime::generate(seed), "{seed}");
        assert_eq!(rows(|row| GENERATOR.draw_rows(&z, row)), GENERATOR.draw(&z), "{seed}");
        assert_eq!(rows(|row| int8::generate_rows(seed, row)), int8::generate(seed), "{seed} in int8");
        assert_eq!(rows(|row| int8::GENERATOR.draw_rows(&z, row)), int8::GENERATOR.draw(&z), "{seed} in int8");
    }
}

#[test]
fn a_batch_stops_where_either_side_ends() {
    let mut images = [Image::BLANK; 40];
    runtime::generate_batch(&[7; 33], &mut images);
    assert!(images[..33].iter().all(|image| *image == runtime::generate(7)));
    assert!(images[33..].iter().all(|image| *image == Image::BLANK));
    int8::generate_batch(&[8; 50], &mut images);
    assert!(images.iter().all(|image| *image == int8::generate(8)));
}

#[test]
fn the_images_are_those_of_the_golden_run() {
    if option_env!("GENERATOR_ONNX").is_some() {
        return eprintln!("skipped: GENERATOR_ONNX names a generator that the golden run does not have");
    }
    let mut found = String::from(
        "# SHA-256 of the weights, and of the images of the first seeds from 0 on. Written by\n\
         # UPDATE_GOLDEN=1 cargo test --release -p runtime --test same\n",
    );
    let weights = hex(Sha256::digest(GENERATOR.as_bytes()));
    assert_eq!(runtime::WEIGHTS_SHA256, weights);
    let _ = writeln!(found, "weights {weights}");
    let mut images = vec![Image::BLANK; BLOCK as usize];
    let mut run = |name: &str, draw: fn(&[u64], &mut [Image])| {
        let mut hash = Sha256::new();
        for first in (0..GOLDEN).step_by(BLOCK as usize) {
            draw(&(first..first + BLOCK).collect::<Vec<_>>(), &mut images);
            images.iter().for_each(|image| hash.update(image.0));
            if [1_000, 10_000, 100_000].contains(&(first + BLOCK)) {
                let _ = writeln!(found, "{name} {} {}", first + BLOCK, hex(hash.clone().finalize()));
            }
        }
    };
    run("f32", runtime::generate_batch);
    run("int8", int8::generate_batch);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden.txt");
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &found).unwrap();
    }
    let golden = fs::read_to_string(&file).unwrap();
    for line in found.lines() {
        assert!(
            golden.lines().any(|expected| expected == line),
            "{line:?} is not in {golden}if models/g.onnx changed: UPDATE_GOLDEN=1 cargo test --release -p runtime --test same"
        );
    }
}

fn hex(hash: impl AsRef<[u8]>) -> String {
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
