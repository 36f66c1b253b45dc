//! `training burn|candle STEPS`: the median milliseconds of a training step of the seed recipe, on data of noise.
mod burn;
mod candle;

use std::time::Instant;

use anyhow::{Result, bail};

const BATCH: usize = 64;
const IMAGES: usize = 6000;
const WARM_UP: usize = 20;
const D: [usize; 5] = [784, 128, 64, 32, 1];
const G: [usize; 5] = [100, 32, 64, 128, 784];

/// Trains on the images of these numbers; the generator's loss.
type Step = Box<dyn FnMut(&[u32]) -> Result<f32>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [peer, steps] = &arguments[..] else { bail!("training burn|candle STEPS") };
    let mut train = match peer.as_str() {
        "burn" => burn::step(),
        "candle" => candle::step()?,
        _ => bail!("no peer {peer}"),
    };
    let mut times = vec![];
    for step in 0..steps.parse::<usize>()? + WARM_UP {
        let start = Instant::now();
        let pick: Vec<u32> = (0..BATCH).map(|i| ((i + step * BATCH) * 37 % IMAGES) as u32).collect();
        assert!(train(&pick)?.is_finite());
        times.push(start.elapsed().as_secs_f64());
    }
    let times = &mut times[WARM_UP..];
    times.sort_by(f64::total_cmp);
    println!("ms_per_step {}", 1e3 * times[times.len() / 2]);
    Ok(())
}
