//! From a seed to z, the 100 numbers that the network starts from.

use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// The length of z.
pub const LATENT: usize = 100;
/// The most classes of a class-conditional generator; the fewest are 2.
pub const MAX_CLASSES: usize = 64;
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

    /// The z of a seed for a class-conditional generator: the numbers of [`Self::new`], the first ones replaced by the one-hot
    /// of `class`, which has one number per class. So a seed is a handwriting, and all classes of a seed share it.
    pub fn with_class(seed: u64, class: Class) -> Self {
        Self::collect(LatentStream::new(seed, Some(class)))
    }

    /// The z of a seed for a generator of `classes` classes: [`Self::with_class`] of the seed's own class ([`Class::of`]), or
    /// [`Self::new`] for an unconditional generator, which has 0 classes.
    pub fn of_seed(seed: u64, classes: usize) -> Self {
        Self::collect(LatentStream::new(seed, Class::of(seed, classes)))
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
    class: Option<Class>,
    k: usize,
}

impl LatentStream {
    /// The numbers of [`Latent::new`], or with a class of [`Latent::with_class`]. The stream does not end.
    pub(crate) fn new(seed: u64, class: Option<Class>) -> Self {
        Self { rng: Xoshiro128PlusPlus::seed_from_u64(seed), class, k: 0 }
    }

    fn next_number(&mut self) -> i32 {
        let k = self.k;
        self.k += 1;
        let noise = (self.rng.next_u32() >> 8) as i32 - ONE;
        match self.class {
            Some(class) if k == class.index() => ONE,
            Some(class) if k < class.classes() => 0,
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

/// A class of a class-conditional generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    index: u8,
    classes: u8,
}

impl Class {
    /// Class number `index`, from 0 on, of a generator of `classes` classes; `None` if it has fewer, or if `classes` is not 2 to
    /// 64.
    pub fn new(index: usize, classes: usize) -> Option<Self> {
        let exists = index < classes && (2..=MAX_CLASSES).contains(&classes);
        exists.then_some(Self { index: index as u8, classes: classes as u8 })
    }

    /// The class that a seed draws if the caller chooses none, by a generator of `classes` classes; `None` if `classes` is not 2
    /// to 64. Each class has the same share of all seeds.
    pub fn of(seed: u64, classes: usize) -> Option<Self> {
        Self::new(0, classes)?;
        let first = Xoshiro128PlusPlus::seed_from_u64(seed).next_u32();
        Self::new(((u64::from(first) * classes as u64) >> 32) as usize, classes)
    }

    /// The class with the name `wanted`. If no class has this name, the class with this number; `None` if there is none either.
    /// `names` are those of all classes, in the order of their numbers.
    pub fn find(wanted: &str, names: &[impl AsRef<str>]) -> Option<Self> {
        let named = names.iter().position(|name| name.as_ref() == wanted);
        Self::new(named.or_else(|| wanted.parse().ok())?, names.len())
    }

    /// The class whose name is `digit`; `None` if there is none. `names` as for [`Self::find`].
    pub fn of_digit(digit: Digit, names: &[impl AsRef<str>]) -> Option<Self> {
        let index = names.iter().position(|name| name.as_ref().as_bytes() == [b'0' + digit.0])?;
        Self::new(index, names.len())
    }

    /// The number of this class, from 0 on.
    pub fn index(self) -> usize {
        self.index.into()
    }

    /// The number of classes of the generator, 2 to 64.
    pub fn classes(self) -> usize {
        self.classes.into()
    }
}

/// A digit, 0 to 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digit(u8);

impl Digit {
    /// The digit; `None` above 9.
    pub fn new(digit: u8) -> Option<Self> {
        (digit < 10).then_some(Self(digit))
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
    fn classes_share_a_seeds_handwriting_and_have_equal_shares_of_the_seeds() {
        for classes in [2, 10, 26, 64] {
            let z = |index| Latent::with_class(5, Class::new(index, classes).unwrap()).numbers();
            let (last, first) = (z(classes - 1), z(0));
            assert_eq!(last[classes..], Latent::new(5).numbers()[classes..]);
            assert_eq!(last[classes..], first[classes..]);
            assert_eq!((last[classes - 1], last[0], first[0]), (1.0, 0.0, 1.0));
            let mut count = [0; MAX_CLASSES];
            (0..1000 * classes as u64).for_each(|seed| count[Class::of(seed, classes).unwrap().index()] += 1);
            assert!(count[..classes].iter().all(|n| (880..1120).contains(n)), "{count:?}");
        }
    }

    #[test]
    fn a_class_that_a_generator_does_not_have_is_none() {
        for (index, classes) in [(2, 2), (0, 0), (0, 1), (0, 65), (usize::MAX, usize::MAX)] {
            assert_eq!(Class::new(index, classes), None);
        }
        assert!([0, 1, 65, usize::MAX].iter().all(|&classes| Class::of(7, classes).is_none()));
        assert_eq!(Digit::new(10), None);
    }

    #[test]
    fn a_name_wins_over_a_number() {
        let find = |wanted, names: &[&str]| Class::find(wanted, names).map(Class::index);
        let names = ["one", "0", "B"];
        assert_eq!(["B", "0", "1", "2"].map(|wanted| find(wanted, &names)), [Some(2), Some(1), Some(1), Some(2)]);
        assert_eq!(["b", "3", "-1", ""].map(|wanted| find(wanted, &names)), [None; 4]);
        assert_eq!(find("0", &[]), None);
        let digit = |digit| Class::of_digit(Digit::new(digit).unwrap(), &names).map(Class::index);
        assert_eq!((digit(0), digit(1)), (Some(1), None));
    }
}
