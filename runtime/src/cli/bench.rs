//! `runtime bench`: microseconds per image on this machine.

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::output::print;
use crate::arch::Kernel;
use crate::generate::Generate;
use crate::image::Image;
use crate::latent::Latent;
use crate::weights::{CLASSES, GENERATOR, INT8};

#[derive(Args)]
pub struct Bench {
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

/// Images per batch.
const BATCH: usize = 256;
/// Time that each measurement takes.
const EACH: Duration = Duration::from_millis(300);

/// Prints the medians of one thread that draws from z to grey levels, by each kernel in each precision.
pub fn run(args: &Bench) -> Result<()> {
    let weights = GENERATOR.as_bytes().as_slice();
    let as_many_as_int8 = weights.get(..size_of_val(&INT8)).unwrap_or_default();
    let [read_f32, read_int8] = [weights, as_many_as_int8].map(|bytes| {
        microseconds(|| {
            black_box(read(black_box(bytes)));
        })
    });
    let precisions: [(_, &dyn Generate); 2] = [("f32", &GENERATOR), ("int8", &INT8)];
    let rows: Vec<Row> = Kernel::all()
        .flat_map(|kernel| precisions.map(|(name, generator)| Row::measure(kernel, name, generator)))
        .collect();
    let seed = microseconds(|| {
        black_box(Latent::of_seed(black_box(42), CLASSES.len()));
    });
    let best = Kernel::best().name();
    if args.json {
        let rows = rows.iter().map(|row| {
            json!({ "kernel": row.kernel, "precision": row.precision, "single_us": row.single, "batch_us": row.batch })
        });
        let all = json!({
            "kernel": best, "batch": BATCH, "seed_to_z_us": seed, "read_weights_us": read_f32,
            "read_int8_weights_us": read_int8, "images": rows.collect::<Vec<_>>(),
        });
        return print(format!("{all:#}\n"));
    }
    let mut out = String::new();
    writeln!(
        out,
        "microseconds per image, z → u8, one thread (medians; batches of {BATCH}); the fastest kernel of this CPU is {best}"
    )?;
    writeln!(out, "kernel      precision   single    batch")?;
    for row in &rows {
        writeln!(out, "{:<11} {:<9} {:>8.2} {:>8.2}", row.kernel, row.precision, row.single, row.batch)?;
    }
    writeln!(out, "seed → z {seed:.2}; reading the weights once: f32 {read_f32:.2}, int8 {read_int8:.2}")?;
    print(out)
}

struct Row {
    kernel: &'static str,
    precision: &'static str,
    single: f64,
    batch: f64,
}

impl Row {
    fn measure(kernel: Kernel, precision: &'static str, generator: &dyn Generate) -> Self {
        let z: Vec<Latent> = (0..BATCH as u64).map(|seed| Latent::of_seed(seed, CLASSES.len())).collect();
        let mut images = vec![Image::BLANK; BATCH];
        let single = microseconds(|| {
            black_box(generator.draw_with(kernel, black_box(&z[0])));
        });
        let batch = microseconds(|| {
            generator.draw_batch_with(kernel, &mut black_box(&z).iter().copied(), black_box(&mut images));
        });
        Self { kernel: kernel.name(), precision, single, batch: batch / BATCH as f64 }
    }
}

/// The median time of `work`, over many rounds that are each long enough for the clock.
fn microseconds(mut work: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut calls = 0u32;
    while start.elapsed() < EACH / 10 {
        work();
        calls += 1;
    }
    let calls_per_round = (calls / 20).max(1);
    let mut rounds = vec![];
    let start = Instant::now();
    while start.elapsed() < EACH {
        let round = Instant::now();
        (0..calls_per_round).for_each(|_| work());
        rounds.push(round.elapsed().as_secs_f64() * 1e6 / f64::from(calls_per_round));
    }
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

/// Reads every byte once. Drawing one image cannot be faster than reading its weights.
fn read(bytes: &[u8]) -> u64 {
    let mut sums = [0u64; 8];
    for chunk in bytes.as_chunks::<64>().0 {
        // Indices, because LLVM does not vectorise a `zip` if a crate has several codegen units.
        for (i, sum) in sums.iter_mut().enumerate() {
            let c = &chunk[8 * i..];
            *sum |= u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]);
        }
    }
    sums.iter().fold(0, |all, sum| all | sum)
}
