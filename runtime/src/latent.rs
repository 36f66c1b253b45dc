//! From a seed to z, the 100 numbers that the network starts from.

use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// The length of z.
pub const LATENT: usize = 100;
/// How many of its numbers are the class as one-hot, where the generator is class-conditional.
pub const CLASSES: usize = 10;
/// 1.0 in fixed point.
pub(crate) const ONE: i32 = 1 << 23;

/// z: 100 numbers in [-1, 1], multiples of 2⁻²³, in fixed point so that a CPU without an FPU can hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latent(pub(crate) [i32; LATENT]);

impl Latent {
    /// The z of a seed: from U(−1, 1), by xoshiro128++ seeded through SplitMix64: `(next_u32() >> 8) · 2⁻²³ − 1`.
    ///
    /// Source: Blackman & Vigna 2021, "Scrambled linear pseudorandom number generators".
    pub fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed, None);
        Self(core::array::from_fn(|_| numbers.one()))
    }

    /// The z of a seed for a class-conditional generator: the same numbers, of which the first ten give way to the
    /// one-hot of `digit`. So a seed is a handwriting, and its ten digits share it.
    pub fn with_digit(seed: u64, digit: Digit) -> Self {
        let mut numbers = Numbers::new(seed, Some(digit));
        Self(core::array::from_fn(|_| numbers.one()))
    }

    /// The z of a seed that the generator itself asks for: of a `conditional` one, with the digit that the seed names.
    pub fn of_seed(seed: u64, conditional: bool) -> Self {
        if conditional { Self::with_digit(seed, Digit::of(seed)) } else { Self::new(seed) }
    }

    /// From any numbers, brought into [-1, 1] and cut to multiples of 2⁻²³ toward 0: for walks from one z to another.
    pub fn from_numbers(z: &[f32; LATENT]) -> Self {
        Self(z.map(|x| (x.clamp(-1.0, 1.0) * ONE as f32) as i32))
    }

    /// The numbers, exact.
    pub fn numbers(&self) -> [f32; LATENT] {
        self.0.map(number)
    }
}

/// What a fixed-point number stands for, exact.
pub(crate) fn number(x: i32) -> f32 {
    x as f32 * (1.0 / ONE as f32)
}

/// The numbers of a seed's z one after another, for who has no room for all of them.
pub(crate) struct Numbers {
    rng: Xoshiro128PlusPlus,
    digit: Option<Digit>,
    k: usize,
}

impl Numbers {
    pub(crate) fn new(seed: u64, digit: Option<Digit>) -> Self {
        Self { rng: Xoshiro128PlusPlus::seed_from_u64(seed), digit, k: 0 }
    }

    fn one(&mut self) -> i32 {
        let k = self.k;
        self.k += 1;
        let noise = (self.rng.next_u32() >> 8) as i32 - ONE;
        match self.digit {
            Some(digit) if k < CLASSES => {
                if k == usize::from(digit.0) {
                    ONE
                } else {
                    0
                }
            }
            _ => noise,
        }
    }
}

impl Iterator for Numbers {
    type Item = i32;

    fn next(&mut self) -> Option<i32> {
        Some(self.one())
    }
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
        for z in Latent::new(0).numbers() {
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
        let z = |digit| Latent::with_digit(5, Digit::new(digit).unwrap()).numbers();
        let (seven, three) = (z(7), z(3));
        assert_eq!(seven[10..], three[10..]);
        assert_eq!((seven[7], seven[3], three[3]), (1.0, 0.0, 1.0));
        let mut count = [0; 10];
        (0..10_000).for_each(|seed| count[usize::from(Digit::of(seed).value())] += 1);
        assert!(count.iter().all(|n| (900..1100).contains(n)), "{count:?}");
        assert_eq!(Digit::new(10), None);
    }
}
