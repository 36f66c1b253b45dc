//! Drawing on several threads.

use std::io;
use std::num::NonZeroUsize;
use std::thread;

use crate::generate::Generate;
use crate::image::Image;
use crate::latent::Latent;

/// More threads than any machine has cores. A system may refuse to start tens of thousands.
pub const MAX_THREADS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// The number of threads for `count` images: `wanted`, or one per core; 1 for few images.
pub fn threads(wanted: Option<NonZeroUsize>, count: u64) -> usize {
    let all = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    // For fewer images, starting a thread takes longer than it saves.
    if count < 512 { 1 } else { wanted.unwrap_or_else(all).min(MAX_THREADS).get() }
}

/// Fills `images` with the images of `latent(0)`, `latent(1)`, … on this many threads, with the same bytes for any number.
///
/// # Errors
/// The system does not start as many threads. Some of the images are drawn.
pub fn draw_on_threads(
    generator: &dyn Generate,
    threads: usize,
    latent: &(dyn Fn(usize) -> Latent + Sync),
    images: &mut [Image],
) -> io::Result<()> {
    if threads == 1 {
        generator.draw_batch(&mut (0..).map(latent), images);
        return Ok(());
    }
    // Whole groups of 16, because the kernels draw 16 images per pass over the weights.
    let share = images.len().div_ceil(threads).next_multiple_of(16);
    thread::scope(|scope| {
        images.chunks_mut(share).enumerate().try_for_each(|(at, images)| {
            let draw = move || generator.draw_batch(&mut (at * share..).map(latent), images);
            thread::Builder::new().spawn_scoped(scope, draw).map(drop)
        })
    })
}
