//! From a seed to z.

use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// The length of z.
pub const LATENT: usize = 100;

/// The z of a seed: 100 numbers from U(−1, 1), multiples of 2⁻²³, by xoshiro128++ seeded through SplitMix64.
///
/// Source: Blackman & Vigna 2021, "Scrambled linear pseudorandom number generators".
pub fn latent(seed: u64) -> [f32; LATENT] {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    core::array::from_fn(|_| (rng.next_u32() >> 8) as f32 * (1.0 / (1 << 23) as f32) - 1.0)
}

/// The z of a seed for a class-conditional generator: the same numbers, of which the first ten give way to the one-hot
/// of `digit`. So a seed is a handwriting, and its ten digits share it.
///
/// `None` takes the digit that the seed itself names.
pub fn conditional_latent(seed: u64, digit: Option<Digit>) -> [f32; LATENT] {
    let digit = digit.unwrap_or_else(|| Digit::of(seed));
    let mut z = latent(seed);
    z[..10].fill(0.0);
    z[usize::from(digit.0)] = 1.0;
    z
}

/// A class, 0 to 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digit(u8);

impl Digit {
    /// `None` where `digit` is above 9.
    pub fn new(digit: u8) -> Option<Self> {
        (digit < 10).then_some(Self(digit))
    }

    /// The one that a seed names: a tenth of all seeds each.
    pub fn of(seed: u64) -> Self {
        let first = Xoshiro128PlusPlus::seed_from_u64(seed).next_u32();
        Self(((u64::from(first) * 10) >> 32) as u8)
    }

    /// 0 to 9.
    pub fn value(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z_is_that_of_the_authors_generator() {
        // xoshiro128++ 1.0 by Blackman and Vigna, seeded with the halves of SplitMix64's first two outputs for 0.
        let mut x = 0u64;
        let mut split_mix = || {
            x = x.wrapping_add(0x9e3779b97f4a7c15);
            let z = (x ^ (x >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d049bb133111eb);
            z ^ (z >> 31)
        };
        let (a, b) = (split_mix(), split_mix());
        let mut s = [a as u32, (a >> 32) as u32, b as u32, (b >> 32) as u32];
        for z in latent(0) {
            let result = s[0].wrapping_add(s[3]).rotate_left(7).wrapping_add(s[0]);
            let t = s[1] << 9;
            s[2] ^= s[0];
            s[3] ^= s[1];
            s[1] ^= s[2];
            s[0] ^= s[3];
            s[2] ^= t;
            s[3] = s[3].rotate_left(11);
            assert_eq!(z, ((result >> 8) as f64 / 8388608.0 - 1.0) as f32);
        }
    }

    #[test]
    fn digits_share_a_seeds_handwriting_and_seeds_name_each_digit_alike_often() {
        let (seven, three) = (conditional_latent(5, Digit::new(7)), conditional_latent(5, Digit::new(3)));
        assert_eq!(seven[10..], three[10..]);
        assert_eq!((seven[7], seven[3], three[3]), (1.0, 0.0, 1.0));
        let mut count = [0; 10];
        (0..10_000).for_each(|seed| count[usize::from(Digit::of(seed).value())] += 1);
        assert!(count.iter().all(|n| (900..1100).contains(n)), "{count:?}");
        assert_eq!(Digit::new(10), None);
    }
}
