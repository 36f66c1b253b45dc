//! Random numbers that are addressed, not consumed: each is a function of (seed, step, stream), so that any step can be
//! replayed alone and no generator's state is saved.

use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rand_xoshiro::{SplitMix64, Xoshiro256PlusPlus};

use crate::config::{CLASSES, LATENT, Plan};

/// The streams, one for each thing that is drawn.
pub mod stream {
    /// A step's z.
    pub const Z: u64 = 0;
    /// A step's dropout masks.
    pub const KEEP: u64 = 1;
    /// The z of the samples.
    pub const SAMPLES: u64 = 2;
    /// The z that scores are drawn from.
    pub const SCORE: u64 = 3;
    /// The z of the demo's digits.
    pub const DEMO: u64 = 4;
    /// The first of the initial parameters', one for each tensor.
    pub const INIT: u64 = 100;
    /// An epoch's order of the data set.
    pub const ORDER: u64 = u64::MAX;
    /// The first of the judge's initial parameters'; the judge is no part of a run, so that these may be those of others.
    pub const JUDGE_INIT: u64 = 0;
    /// How far the judge's training images are moved in an epoch.
    pub const JUDGE_MOVES: u64 = 1000;
}

/// Fills `out` with a permutation of 0 ≤ i < len, the batch order of an epoch.
pub fn order_into(out: &mut [i64], seed: u64, epoch: u64) {
    let rng = &mut generator(seed, epoch, stream::ORDER);
    out.iter_mut().zip(0..).for_each(|(x, i)| *x = i);
    for i in (1..out.len()).rev() {
        out.swap(i, below(rng, i as u64 + 1) as usize);
    }
}

/// Fills `out` with numbers from U(−1, 1), multiples of 2⁻²³.
pub fn uniform_into(out: &mut [f32], seed: u64, step: u64, stream: u64) {
    let rng = &mut generator(seed, step, stream);
    // Drawing and scaling in turns, for the scaling is then a vector operation.
    let mut bits = [0u32; 256];
    for out in out.chunks_mut(bits.len()) {
        for two in bits[..out.len().next_multiple_of(2)].chunks_exact_mut(2) {
            let word = rng.next_u64();
            two.copy_from_slice(&[word as u32, (word >> 32) as u32]);
        }
        // As i32, which 24 bits fit in: there is no instruction for u32.
        out.iter_mut().zip(&bits).for_each(|(x, bits)| *x = (bits >> 8) as i32 as f32 * (1.0 / (1 << 23) as f32) - 1.0);
    }
}

/// Fills `out` with dropout masks: 0 with probability `p_drop`, to the nearest 2⁻¹⁶, else 1.
pub fn keep_masks_into(out: &mut [u8], seed: u64, step: u64, stream: u64, p_drop: f64) {
    let rng = &mut generator(seed, step, stream);
    let threshold = (p_drop * 65536.0).round() as u32;
    // Drawing and comparing in turns of 256, for the comparison is then a vector operation.
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

/// Uniform in 0 ≤ x < n, without bias (Lemire 2019, "Fast random integer generation in an interval").
fn below(rng: &mut Xoshiro256PlusPlus, n: u64) -> u64 {
    loop {
        let product = rng.next_u64() as u128 * n as u128;
        if product as u64 >= n.wrapping_neg() % n {
            return (product >> 64) as u64;
        }
    }
}

/// Makes each z (100,) one for a class-conditional generator, of the digit that its first number names, in ten equal
/// parts; returns the digits.
pub fn name_digits(z: &mut [f32]) -> impl Iterator<Item = u8> {
    z.chunks_mut(LATENT).map(|z| {
        let digit = ((z[0] + 1.0) / 2.0 * CLASSES as f32) as usize;
        (0..CLASSES).for_each(|class| z[class] = f32::from(u8::from(class == digit)));
        digit as u8
    })
}

/// The latents whose images show how a run comes along: 16 × (100,), the same after every epoch.
pub fn sample_latents(plan: &Plan) -> Vec<f32> {
    let mut z = vec![0.0; 16 * LATENT];
    uniform_into(&mut z, plan.seed, 0, stream::SAMPLES);
    if plan.recipe.conditional {
        name_digits(&mut z).for_each(drop);
    }
    z
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checkpoints and models name their numbers by (seed, step, stream), so these can never change. The expected ones
    /// were computed apart from this code, from the C that Blackman and Vigna give for SplitMix64 and xoshiro256++.
    #[test]
    fn an_address_names_the_same_numbers_for_ever() {
        let mut z = [0.0; 6];
        uniform_into(&mut z, 42, 7, 3);
        assert_eq!(z.map(|z| (z * 8388608.0) as i32), [-6113519, -2779015, 5011462, 6389495, 7999145, 6275]);
        let mut keep = [9; 32];
        keep_masks_into(&mut keep, 42, 7, 3, 0.2);
        let expected = "00110111111111111101000101011100";
        assert_eq!(keep.map(|k| char::from(b'0' + k)).iter().collect::<String>(), expected);
        let mut order = [0; 10];
        order_into(&mut order, 42, 7);
        assert_eq!(order, [7, 0, 9, 8, 5, 4, 3, 1, 2, 6]);
    }

    #[test]
    fn an_order_is_a_permutation_of_its_seed_and_epoch() {
        let order = |seed, epoch| {
            let mut order = vec![0; 1000];
            order_into(&mut order, seed, epoch);
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
        uniform_into(&mut z, 3, 4, 5);
        assert!(z.iter().all(|z| (-1.0..1.0).contains(z)));
        let mean = |f: fn(f64) -> f64| z.iter().map(|&z| f(z as f64)).sum::<f64>() / z.len() as f64;
        assert!(mean(|z| z).abs() < 0.01 && (mean(|z| z * z) - 1.0 / 3.0).abs() < 0.01);
        let mut keep = vec![9; 100_001];
        keep_masks_into(&mut keep, 3, 4, 5, 0.2);
        let kept = keep.iter().map(|&k| k as f64).sum::<f64>() / keep.len() as f64;
        assert!(keep.iter().all(|&k| k <= 1) && (kept - 0.8).abs() < 0.005, "{kept}");
    }

    #[test]
    fn steps_streams_and_seeds_are_independent() {
        let draw = |seed, step, stream| {
            let mut z = vec![0.0; 10_000];
            uniform_into(&mut z, seed, step, stream);
            z
        };
        let z = draw(0, 0, 0);
        for other in [draw(1, 0, 0), draw(0, 1, 0), draw(0, 0, 1), draw(0, 1, 1), draw(u64::MAX, 0, 0)] {
            let correlation = z.iter().zip(&other).map(|(a, b)| a * b * 3.0).sum::<f32>() / z.len() as f32;
            assert!(correlation.abs() < 0.05, "{correlation}");
        }
    }
}
