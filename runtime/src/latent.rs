//! From a seed to z, the 100 numbers that the network starts from.

use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// The length of z.
pub const LATENT: usize = 100;
/// The length of the one-hot at the start of a class-conditional generator's z.
pub const CLASSES: usize = 10;
/// 1.0 in units of 2⁻²³.
pub(crate) const ONE: i32 = 1 << 23;

/// A z: 100 numbers in [-1, 1], multiples of 2⁻²³. It holds them as integers, for CPUs without an FPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latent(pub(crate) [i32; LATENT]);

impl Latent {
    /// The z of a seed for an unconditional generator: uniform on [-1, 1), each number `(next_u32() >> 8) · 2⁻²³ − 1` of
    /// xoshiro128++, which SplitMix64 seeds.
    ///
    /// Source: Blackman & Vigna 2021, "Scrambled linear pseudorandom number generators".
    pub fn new(seed: u64) -> Self {
        Self::collect(LatentStream::new(seed, None))
    }

    /// The z of a seed for a class-conditional generator: the numbers of [`Self::new`], the first ten replaced by the one-hot
    /// of `digit`. So a seed is a handwriting, and its ten digits share it.
    pub fn with_digit(seed: u64, digit: Digit) -> Self {
        Self::collect(LatentStream::new(seed, Some(digit)))
    }

    /// [`Self::with_digit`] of the seed's own digit ([`Digit::of`]) if the generator is `conditional`, else [`Self::new`].
    pub fn of_seed(seed: u64, conditional: bool) -> Self {
        if conditional { Self::with_digit(seed, Digit::of(seed)) } else { Self::new(seed) }
    }

    /// A z of any numbers, clamped to [-1, 1] and truncated to multiples of 2⁻²³; NaN becomes 0. For walks between two z.
    pub fn from_numbers(z: &[f32; LATENT]) -> Self {
        Self(z.map(|x| (x.clamp(-1.0, 1.0) * ONE as f32) as i32))
    }

    /// The 100 numbers, exact.
    pub fn numbers(&self) -> [f32; LATENT] {
        self.0.map(to_f32)
    }

    fn collect(mut stream: LatentStream) -> Self {
        Self(core::array::from_fn(|_| stream.next_number()))
    }
}

/// A number in units of 2⁻²³ as f32, exact.
pub(crate) fn to_f32(x: i32) -> f32 {
    x as f32 * (1.0 / ONE as f32)
}

/// The numbers of a seed's z one after another, in units of 2⁻²³, for devices without memory for all of them.
pub(crate) struct LatentStream {
    rng: Xoshiro128PlusPlus,
    digit: Option<Digit>,
    k: usize,
}

impl LatentStream {
    /// The numbers of [`Latent::new`], or with a digit of [`Latent::with_digit`]. The stream does not end.
    pub(crate) fn new(seed: u64, digit: Option<Digit>) -> Self {
        Self { rng: Xoshiro128PlusPlus::seed_from_u64(seed), digit, k: 0 }
    }

    fn next_number(&mut self) -> i32 {
        let k = self.k;
        self.k += 1;
        let noise = (self.rng.next_u32() >> 8) as i32 - ONE;
        match self.digit {
            Some(digit) if k == usize::from(digit.0) => ONE,
            Some(_) if k < CLASSES => 0,
            _ => noise,
        }
    }
}

impl Iterator for LatentStream {
    type Item = i32;

    fn next(&mut self) -> Option<i32> {
        Some(self.next_number())
    }
}

/// A digit, 0 to 9: the class of a class-conditional generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digit(u8);

impl Digit {
    /// The digit; `None` above 9.
    pub fn new(digit: u8) -> Option<Self> {
        (digit < 10).then_some(Self(digit))
    }

    /// The digit of a seed, unless one is chosen. Each digit has a tenth of all seeds.
    pub fn of(seed: u64) -> Self {
        let first = Xoshiro128PlusPlus::seed_from_u64(seed).next_u32();
        Self(((u64::from(first) * 10) >> 32) as u8)
    }

    /// The digit as a number, 0 to 9.
    pub fn value(self) -> u8 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn z_is_that_of_the_authors_generator() {
        // xoshiro128++ 1.0 by Blackman and Vigna, seeded with the halves of the first two outputs of SplitMix64 for seed 0.
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
    fn digits_share_a_seeds_handwriting_and_each_digit_has_a_tenth_of_the_seeds() {
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
