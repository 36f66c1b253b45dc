//! No kernel collapses silently: each must be a multiple faster than a plain sum that the same run measures. This only notices
//! code that the compiler no longer vectorises. `runtime bench` has the figures.

use std::hint::black_box;
use std::time::{Duration, Instant};

use runtime::{GENERATOR, Generate, Image, Kernel, Latent, int8, latent_of};

/// The least speed relative to [`plain_sum`]: one image and a batch in f32, one image and a batch in int8. About a quarter of
/// what a Zen 4 reaches: an older CPU reaches half, and a second busy thread on the same core halves the speed of a kernel but
/// not that of the plain sum.
const LEAST: [(&str, [f64; 4]); 8] = [
    ("scalar", [2.0, 2.0, 0.5, 0.5]),
    ("sse2", [2.5, 3.0, 2.0, 2.0]),
    ("avx2", [4.0, 6.0, 7.0, 7.5]),
    ("avxvnni", [4.0, 6.0, 7.0, 7.5]),
    ("avx512", [4.0, 8.5, 7.0, 7.5]),
    ("avx512vnni", [4.0, 8.5, 13.5, 25.0]),
    ("neon", [2.0, 2.0, 0.5, 0.5]),
    ("dotprod", [2.0, 2.0, 1.0, 1.0]),
];

#[test]
fn no_kernel_collapses() {
    if cfg!(debug_assertions) {
        return eprintln!("skipped: unoptimised code");
    }
    let z: Vec<Latent> = (0..64).map(latent_of).collect();
    let mut images = [Image::BLANK; 64];
    let weights: Vec<f32> = GENERATOR.as_bytes().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    for kernel in Kernel::all() {
        let (_, least) = LEAST.iter().find(|(name, _)| *name == kernel.name()).expect("every kernel is in the table");
        let batch = |draw: &mut dyn FnMut(&mut [Image])| 64.0 / fastest(|| draw(black_box(&mut images))).as_secs_f64();
        let plain = 1.0
            / fastest(|| {
                black_box(plain_sum(black_box(&weights)));
            })
            .as_secs_f64();
        let one = |draw: &dyn Fn() -> Image| {
            1.0 / fastest(|| {
                black_box(draw());
            })
            .as_secs_f64()
        };
        let mut batch = batch;
        let found = [
            one(&|| GENERATOR.draw_with(kernel, black_box(&z[0]))),
            batch(&mut |images| GENERATOR.draw_batch_with(kernel, &mut z.iter().copied(), images)),
            one(&|| int8::GENERATOR.draw_with(kernel, black_box(&z[0]))),
            batch(&mut |images| int8::GENERATOR.draw_batch_with(kernel, &mut z.iter().copied(), images)),
        ]
        .map(|images_a_second| images_a_second / plain);
        println!("{}: {found:.1?} times plain sums", kernel.name());
        for (found, least) in found.into_iter().zip(least) {
            assert!(
                found >= *least,
                "{}: {least} times as fast as plain sums expected, {found:.1} found",
                kernel.name()
            );
        }
    }
}

/// One multiply-add per weight, in one chain of dependent sums, which no compiler may reorder.
fn plain_sum(weights: &[f32]) -> f32 {
    weights.iter().fold(0.0, |sum, w| sum + w * 0.5)
}

/// The shortest of many rounds, because other work on the machine only adds time.
fn fastest(mut work: impl FnMut()) -> Duration {
    (0..200)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed()
        })
        .min()
        .expect("there are rounds")
}
