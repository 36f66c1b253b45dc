//! `runtime bench`: this machine's microseconds an image.

use std::hint::black_box;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use runtime::dense::Kernel;
use runtime::{GENERATOR, Image, Latent, int8, latent_of};
use serde_json::json;

#[derive(Args)]
pub struct Bench {
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// Images of a batch.
const BATCH: usize = 256;
/// Time spent on each figure.
const EACH: Duration = Duration::from_millis(300);

/// One thread, from z to pixels; medians.
pub fn run(args: &Bench) -> Result<()> {
    let read = microseconds(|| {
        black_box(read_weights());
    });
    let rows: Vec<Row> = Kernel::all().flat_map(|kernel| [Row::f32(kernel), Row::int8(kernel)]).collect();
    let seed = microseconds(|| {
        black_box(latent_of(black_box(42)));
    });
    let best = Kernel::best().name();
    let mut out = io::stdout().lock();
    if args.json {
        let rows = rows.iter().map(|row| {
            json!({ "kernel": row.kernel, "precision": row.precision, "single_us": row.single, "batch_us": row.batch })
        });
        let all = json!({
            "kernel": best, "batch": BATCH, "seed_to_z_us": seed, "read_weights_us": read, "images": rows.collect::<Vec<_>>(),
        });
        return Ok(writeln!(out, "{all:#}")?);
    }
    writeln!(
        out,
        "microseconds an image, z → u8, one thread (medians; batches of {BATCH}); this CPU's kernel is {best}"
    )?;
    writeln!(out, "kernel      precision   single    batch")?;
    for row in &rows {
        writeln!(out, "{:<11} {:<9} {:>8.2} {:>8.2}", row.kernel, row.precision, row.single, row.batch)?;
    }
    writeln!(out, "seed → z {seed:.2}; reading the f32 weights and nothing else {read:.2}")?;
    Ok(())
}

struct Row {
    kernel: &'static str,
    precision: &'static str,
    single: f64,
    batch: f64,
}

impl Row {
    fn f32(kernel: Kernel) -> Self {
        let single = |z: &Latent| GENERATOR.draw_with(kernel, z);
        let batch = |z: &[Latent], images: &mut [Image]| GENERATOR.draw_batch_with(kernel, z.iter().copied(), images);
        Self::new(kernel, "f32", single, batch)
    }

    fn int8(kernel: Kernel) -> Self {
        let single = |z: &Latent| int8::GENERATOR.draw_with(kernel, z);
        let batch =
            |z: &[Latent], images: &mut [Image]| int8::GENERATOR.draw_batch_with(kernel, z.iter().copied(), images);
        Self::new(kernel, "int8", single, batch)
    }

    fn new(
        kernel: Kernel,
        precision: &'static str,
        single: impl Fn(&Latent) -> Image,
        batch: impl Fn(&[Latent], &mut [Image]),
    ) -> Self {
        let z: Vec<Latent> = (0..BATCH as u64).map(latent_of).collect();
        let mut images = vec![Image::BLANK; BATCH];
        let single = microseconds(|| {
            black_box(single(black_box(&z[0])));
        });
        let batch = microseconds(|| batch(black_box(&z), black_box(&mut images))) / BATCH as f64;
        Self { kernel: kernel.name(), precision, single, batch }
    }
}

/// The median of many rounds, each long enough for the clock.
fn microseconds(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0u32;
    while start.elapsed() < EACH / 10 {
        work();
        calls += 1;
    }
    let a_round = (calls / 20).max(1);
    let mut rounds = vec![];
    let start = Instant::now();
    while start.elapsed() < EACH {
        let round = Instant::now();
        (0..a_round).for_each(|_| work());
        rounds.push(round.elapsed().as_secs_f64() * 1e6 / f64::from(a_round));
    }
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// What one image cannot be faster than: every weight once.
fn read_weights() -> u32 {
    let mut sums = [0; 16];
    for chunk in GENERATOR.as_bytes().as_chunks::<64>().0 {
        for (sum, bytes) in sums.iter_mut().zip(chunk.as_chunks::<4>().0) {
            *sum |= u32::from_le_bytes(*bytes);
        }
    }
    sums.iter().fold(0, |all, sum| all | sum)
}
