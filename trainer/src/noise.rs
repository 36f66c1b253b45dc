//! Random numbers as functions of (seed, step, stream).
//!
//! No generator state is saved: any step can be repeated alone, and a resumed run draws the same numbers.

use ndarray::{Array1, Array2, ArrayViewMut1, ArrayViewMut2, s};
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rand_xoshiro::{SplitMix64, Xoshiro256PlusPlus};

use crate::config::{LATENT, Plan};

/// The streams: one number for each use of random numbers.
pub mod stream {
    /// A step's z.
    pub const Z: u64 = 0;
    /// A step's dropout masks.
    pub const DROPOUT: u64 = 1;
    /// The z of the samples after every epoch, see [`sample_latents`](super::sample_latents).
    pub const SAMPLES: u64 = 2;
    /// The z of the images that are scored.
    pub const SCORE: u64 = 3;
    /// The z of the demo data set.
    pub const DEMO: u64 = 4;
    /// The initial parameters: tensor i has stream `INIT` + i.
    pub const INIT: u64 = 100;
    /// The order of the data set in an epoch.
    pub const ORDER: u64 = u64::MAX;
    /// A classifier's initial parameters: tensor i has stream `CLASSIFIER_INIT` + i. It is trained outside of a run, so its
    /// streams may overlap with those of the run.
    pub const CLASSIFIER_INIT: u64 = 0;
    /// The shifts of a classifier's training images in an epoch.
    pub const CLASSIFIER_SHIFTS: u64 = 1000;
}

/// Fills `out` with the order of the data set in an epoch: a permutation of 0 ≤ i < len.
pub fn write_order(out: &mut [i64], seed: u64, epoch: u64) {
    let rng = &mut generator(seed, epoch, stream::ORDER);
    out.iter_mut().zip(0..).for_each(|(x, i)| *x = i);
    for i in (1..out.len()).rev() {
        out.swap(i, below(rng, i as u64 + 1) as usize);
    }
}

/// Fills `out` with numbers from U(−1, 1), multiples of 2⁻²³.
pub fn write_uniform(out: &mut [f32], seed: u64, step: u64, stream: u64) {
    let rng = &mut generator(seed, step, stream);
    // Blocks of 256: draw the bits first, then scale them, which the compiler vectorises.
    let mut bits = [0u32; 256];
    for out in out.chunks_mut(bits.len()) {
        for two in bits[..out.len().next_multiple_of(2)].chunks_exact_mut(2) {
            let word = rng.next_u64();
            two.copy_from_slice(&[word as u32, (word >> 32) as u32]);
        }
        // 24 bits fit into i32, and AVX2 converts only i32 to f32, not u32.
        out.iter_mut().zip(&bits).for_each(|(x, bits)| *x = (bits >> 8) as i32 as f32 * (1.0 / (1 << 23) as f32) - 1.0);
    }
}

/// Fills `out` with a dropout mask: 0 with probability `p_drop`, rounded to a multiple of 2⁻¹⁶, else 1.
pub fn write_dropout_mask(out: &mut [u8], seed: u64, step: u64, stream: u64, p_drop: f64) {
    let rng = &mut generator(seed, step, stream);
    let threshold = (p_drop * 65536.0).round() as u32;
    // Blocks of 256: draw the bits first, then compare them, which the compiler vectorises.
    let mut bits = [0; 256];
    for out in out.chunks_mut(bits.len()) {
        for four in bits.chunks_exact_mut(4) {
            let word = rng.next_u64();
            four.iter_mut().zip(0..).for_each(|(x, i)| *x = (word >> (16 * i)) as u16);
        }
        out.iter_mut().zip(&bits).for_each(|(x, &bits)| *x = u8::from(u32::from(bits) >= threshold));
    }
}

fn generator(seed: u64, step: u64, stream: u64) -> Xoshiro256PlusPlus {
    let mix = |x: u64| SplitMix64::seed_from_u64(x).next_u64();
    Xoshiro256PlusPlus::seed_from_u64(mix(mix(seed).wrapping_add(step)).wrapping_add(stream))
}

/// A number from 0 ≤ x < n, without bias. Source: Lemire 2019, "Fast random integer generation in an interval".
fn below(rng: &mut Xoshiro256PlusPlus, n: u64) -> u64 {
    loop {
        let product = rng.next_u64() as u128 * n as u128;
        if product as u64 >= n.wrapping_neg() % n {
            return (product >> 64) as u64;
        }
    }
}

/// Turns each z of (n, 100) into one for a generator of this many classes: z begins with the one-hot of a class. Returns the
/// classes (n,). The first number of z, uniform in [-1, 1), selects one of equal intervals.
pub fn write_one_hot(mut z: ArrayViewMut2<f32>, classes: usize) -> Array1<u8> {
    let one_hot = |mut z: ArrayViewMut1<f32>| {
        let class = ((z[0] + 1.0) / 2.0 * classes as f32) as usize;
        z.slice_mut(s![..classes]).fill(0.0);
        z[class] = 1.0;
        class as u8
    };
    z.rows_mut().into_iter().map(one_hot).collect()
}

/// The z (16, 100) of the samples that are drawn after every epoch of a run.
pub fn sample_latents(plan: &Plan) -> Array2<f32> {
    let mut z = Array2::zeros((16, LATENT));
    write_uniform(z.as_slice_mut().expect("row-major"), plan.seed, 0, stream::SAMPLES);
    if let Some(classes) = plan.recipe.one_hot() {
        write_one_hot(z.view_mut(), classes);
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MAX_CLASSES;

    /// Checkpoints and models depend on these numbers, so they must never change. The expected ones were computed with
    /// the C code of Blackman and Vigna for SplitMix64 and xoshiro256++.
    #[test]
    fn seed_step_and_stream_give_the_same_numbers_for_ever() {
        let mut z = [0.0; 6];
        write_uniform(&mut z, 42, 7, 3);
        assert_eq!(z.map(|z| (z * 8388608.0) as i32), [-6113519, -2779015, 5011462, 6389495, 7999145, 6275]);
        let mut mask = [9; 32];
        write_dropout_mask(&mut mask, 42, 7, 3, 0.2);
        let expected = "00110111111111111101000101011100";
        assert_eq!(mask.map(|k| char::from(b'0' + k)).iter().collect::<String>(), expected);
        let mut order = [0; 10];
        write_order(&mut order, 42, 7);
        assert_eq!(order, [7, 0, 9, 8, 5, 4, 3, 1, 2, 6]);
    }

    #[test]
    fn equal_intervals_of_the_first_number_select_the_class() {
        for classes in 2..=MAX_CLASSES {
            let first = |class: usize| 2.0 * class as f32 / classes as f32 - 1.0;
            let inside = (0..classes).flat_map(|class| [first(class) + 1e-5, first(class + 1) - 1e-5]);
            let ends = [-1.0, 1.0 - 2f32.powi(-23)]; // the least and the greatest number that is drawn
            let mut z = Array2::from_elem((2 * classes + 2, LATENT), 0.5);
            z.column_mut(0).assign(&inside.chain(ends).collect::<Array1<_>>());
            let found = write_one_hot(z.view_mut(), classes);
            let expected = (0..2 * classes).map(|i| i / 2).chain([0, classes - 1]);
            assert!(found.iter().map(|&class| usize::from(class)).eq(expected), "{classes}: {found}");
            for (z, &class) in z.rows().into_iter().zip(&found) {
                let one_hot = z.iter().take(classes).enumerate().all(|(i, &x)| x == f32::from(i == usize::from(class)));
                assert!(one_hot && z.iter().skip(classes).all(|&x| x == 0.5), "{classes}: {z}");
            }
        }
    }

    #[test]
    fn an_order_is_a_permutation_that_depends_on_seed_and_epoch() {
        let order = |seed, epoch| {
            let mut order = vec![0; 1000];
            write_order(&mut order, seed, epoch);
            order
        };
        let mut sorted = order(1, 2);
        sorted.sort();
        assert_eq!(sorted, (0..1000).collect::<Vec<i64>>());
        assert_eq!(order(1, 2), order(1, 2));
        for other in [order(1, 3), order(2, 2)] {
            let same = order(1, 2).iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 10, "{same} of 1000 places agree");
        }
    }

    #[test]
    fn the_numbers_have_the_moments_of_their_distributions() {
        let mut z = vec![0.0; 100_000];
        write_uniform(&mut z, 3, 4, 5);
        assert!(z.iter().all(|z| (-1.0..1.0).contains(z)));
        let mean = |f: fn(f64) -> f64| z.iter().map(|&z| f(z as f64)).sum::<f64>() / z.len() as f64;
        assert!(mean(|z| z).abs() < 0.01 && (mean(|z| z * z) - 1.0 / 3.0).abs() < 0.01);
        let mut mask = vec![9; 100_001];
        write_dropout_mask(&mut mask, 3, 4, 5, 0.2);
        let kept = mask.iter().map(|&k| k as f64).sum::<f64>() / mask.len() as f64;
        assert!(mask.iter().all(|&k| k <= 1) && (kept - 0.8).abs() < 0.005, "{kept}");
    }

    #[test]
    fn steps_streams_and_seeds_are_independent() {
        let draw = |seed, step, stream| {
            let mut z = vec![0.0; 10_000];
            write_uniform(&mut z, seed, step, stream);
            z
        };
        let z = draw(0, 0, 0);
        for other in [draw(1, 0, 0), draw(0, 1, 0), draw(0, 0, 1), draw(0, 1, 1), draw(u64::MAX, 0, 0)] {
            let correlation = z.iter().zip(&other).map(|(a, b)| a * b * 3.0).sum::<f32>() / z.len() as f32;
            assert!(correlation.abs() < 0.05, "{correlation}");
        }
    }
}
