//! Drawing on several threads.

use std::num::NonZeroUsize;
use std::thread;

use crate::generate::Generate;
use crate::image::Image;
use crate::latent::Latent;

/// More threads than any machine has cores. A system may refuse to start tens of thousands.
const MAX_THREADS: usize = 1024;

/// The number of threads for `count` images: `wanted`, or one per core; 1 for few images.
pub fn threads(wanted: Option<NonZeroUsize>, count: u64) -> usize {
    let all = || thread::available_parallelism().map_or(1, NonZeroUsize::get);
    // For fewer images, starting a thread takes longer than it saves.
    if count < 512 { 1 } else { wanted.map_or_else(all, NonZeroUsize::get).min(MAX_THREADS) }
}

/// Fills `images` with the images of `latent(0)`, `latent(1)`, … on this many threads, with the same bytes for any number.
pub fn draw_on_threads(
    generator: &dyn Generate,
    threads: usize,
    latent: &(dyn Fn(usize) -> Latent + Sync),
    images: &mut [Image],
) {
    if threads == 1 {
        return generator.draw_batch(&mut (0..).map(latent), images);
    }
    // Whole groups of 16, because the kernels draw 16 images per pass over the weights.
    let share = images.len().div_ceil(threads).next_multiple_of(16);
    thread::scope(|scope| {
        for (at, images) in images.chunks_mut(share).enumerate() {
            scope.spawn(move || generator.draw_batch(&mut (at * share..).map(latent), images));
        }
    });
}
