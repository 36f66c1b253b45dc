//! The loop of every dense layer, for every precision and every instruction set.
//!
//! A layer computes `y[n][j] = activation(bias[j] + Σₖ weight[k][j] · x[n][k])` for all images `n` and outputs `j`. One
//! accumulator holds the sums of `LANES` neighbouring outputs of one image. A tile is N images × C accumulators:
//!
//! ```text
//! for each strip of C·LANES outputs:                   the strip's weights stay in the L1 cache for all groups
//!     for each group of N images:
//!         acc[c][n] = start(bias[c])                   N·C accumulators, which never leave the registers
//!         for k in 0..K:                               ascending and never split
//!             w[c] = load(weight[k][c])                C loads
//!             b[n] = broadcast(x[n][k])                N broadcasts
//!             acc[c][n] += w[c] · b[n]                 N·C multiply-adds
//!         store(activation(acc[c][n]))
//! for each image that is left over: the same with N = 1 and C = SINGLE
//! ```
//!
//! Why tiles: one step of k needs N + C loads for N·C multiply-adds, so a large and square tile loads least. The register file
//! limits its size: N·C accumulators, the operands of the shorter side (they stay in registers while the longer side's
//! operands pass by), one operand of the longer side, and one product. For one image (N = 1) every weight is read once
//! whatever the tile is, so C only has to hide the latency of the adds.
//!
//! Why k is never split: the f32 result depends on the order of the additions, and every kernel must give the same bytes.
//! Different outputs and different images are independent, so vectorising over them changes nothing.
//!
//! The caller chooses SINGLE, N and C; each file of this folder names its choice beside the instructions. Outputs that no strip
//! of C accumulators covers get strips of 8, 4, 2 and 1.
//!
//! Letters: B images, N images of a tile, C accumulators of a tile per image, K inputs, O outputs.

use core::slice;

/// The element types of a precision.
pub(crate) trait Precision {
    /// An element of the weight matrix.
    type Weight;
    type Bias;
    /// The inputs that one [`Self::Weight`] multiplies.
    type Input: Copy;
}

/// The sums of `LANES` outputs of one image.
///
/// # Safety of all methods
/// The CPU has the instructions that the type stands for. Pointers are valid for `LANES` elements, of any alignment.
pub(crate) trait Accumulator: Copy {
    type Precision: Precision;
    /// Outputs of one accumulator.
    const LANES: usize;
    /// `LANES` weights in registers.
    type Weights: Copy;
    /// One input, repeated for each lane.
    type Broadcast: Copy;

    /// The accumulator before the first input. Exact arithmetic may return 0 and add the bias later.
    unsafe fn start(bias: *const Bias<Self>) -> Self;
    unsafe fn load(weights: *const Weight<Self>) -> Self::Weights;
    unsafe fn broadcast(x: Input<Self>) -> Self::Broadcast;
    /// `self + w · x`.
    unsafe fn multiply_add(self, w: Self::Weights, x: Self::Broadcast) -> Self;

    /// [`tile_sums`], or hand-written assembly for a CPU on which the compiler's code is slow.
    #[inline(always)]
    unsafe fn tile_sums<const K: usize, const O: usize, const N: usize, const C: usize>(
        weight: *const Weight<Self>,
        bias: *const Bias<Self>,
        x: &[[Input<Self>; K]; N],
    ) -> [[Self; N]; C] {
        // SAFETY: the caller promises the same.
        unsafe { tile_sums::<Self, K, O, N, C>(weight, bias, x) }
    }
}

type Weight<A> = <<A as Accumulator>::Precision as Precision>::Weight;
type Bias<A> = <<A as Accumulator>::Precision as Precision>::Bias;
type Input<A> = <<A as Accumulator>::Precision as Precision>::Input;

/// Turns finished sums into outputs and stores them.
pub(super) trait Epilogue<A: Accumulator>: Copy {
    type Output;
    /// Stores the `LANES` outputs from output `j` of the layer on at `y`.
    ///
    /// # Safety
    /// The CPU has the instructions of `A`, the layer has `j + LANES` outputs, and `y` is valid for `LANES` of them.
    unsafe fn store(self, sums: A, j: usize, y: *mut Self::Output);
}

/// A layer of K inputs and O outputs. Its epilogue says what follows the sums.
pub(crate) struct Layer<'a, P: Precision, E, const K: usize, const O: usize> {
    pub weight: &'a [[P::Weight; O]; K],
    pub bias: &'a [P::Bias; O],
    pub epilogue: E,
}

impl<P: Precision, E: Copy, const K: usize, const O: usize> Layer<'_, P, E, K, O> {
    /// Computes (B, K) → (B, O), for as many images as both `x` and `y` hold.
    ///
    /// # Safety
    /// The CPU has the instructions of `A`.
    #[inline(always)]
    pub(super) unsafe fn run<A: Accumulator<Precision = P>, const SINGLE: usize, const N: usize, const C: usize>(
        &self,
        x: &[[P::Input; K]],
        y: &mut [[E::Output; O]],
    ) where
        E: Epilogue<A>,
    {
        const { assert!(O.is_multiple_of(A::LANES)) };
        let images = x.len().min(y.len());
        let (x, x_rest) = x.get(..images).unwrap_or_default().as_chunks::<N>();
        let (y, y_rest) = y.get_mut(..images).unwrap_or_default().as_chunks_mut::<N>();
        // SAFETY: the caller vouches for the instruction set.
        unsafe {
            let j = self.strips::<A, N, C>(x, y, 0);
            let j = if C > 4 { self.strips::<A, N, 4>(x, y, j) } else { j };
            let j = if C > 2 { self.strips::<A, N, 2>(x, y, j) } else { j };
            self.strips::<A, N, 1>(x, y, j);
            for (x, y) in x_rest.as_chunks::<1>().0.iter().zip(y_rest.as_chunks_mut::<1>().0) {
                let (x, y) = (slice::from_ref(x), slice::from_mut(y));
                let j = self.strips::<A, 1, SINGLE>(x, y, 0);
                let j = if SINGLE > 8 { self.strips::<A, 1, 8>(x, y, j) } else { j };
                let j = if SINGLE > 4 { self.strips::<A, 1, 4>(x, y, j) } else { j };
                let j = if SINGLE > 2 { self.strips::<A, 1, 2>(x, y, j) } else { j };
                self.strips::<A, 1, 1>(x, y, j);
            }
        }
    }

    /// Computes the outputs from `j` on in strips of C accumulators, and returns the first output that no such strip covers.
    ///
    /// # Safety
    /// The CPU has the instructions of `A`.
    #[inline(always)]
    unsafe fn strips<A: Accumulator<Precision = P>, const N: usize, const C: usize>(
        &self,
        x: &[[[P::Input; K]; N]],
        y: &mut [[[E::Output; O]; N]],
        mut j: usize,
    ) -> usize
    where
        E: Epilogue<A>,
    {
        while j + C * A::LANES <= O {
            for (x, y) in x.iter().zip(&mut *y) {
                // SAFETY: a row of `y` holds O outputs, and j + C·LANES ≤ O.
                unsafe { self.tile::<A, N, C>(x, y.as_mut_ptr().cast::<E::Output>().add(j), j) };
            }
            j += C * A::LANES;
        }
        j
    }

    /// Computes R outputs of one image from output `j` on, C accumulators at a time; 0 beyond the layer's last output.
    ///
    /// # Safety
    /// The CPU has the instructions of `A`.
    #[inline(always)]
    pub(super) unsafe fn outputs_from<A: Accumulator<Precision = P>, const C: usize, const R: usize>(
        &self,
        x: &[P::Input; K],
        j: usize,
    ) -> [u8; R]
    where
        E: Epilogue<A, Output = u8>,
    {
        const { assert!(A::LANES == 1 && R.is_multiple_of(C) && R <= O) };
        let mut y = [0; R];
        for (first, y) in (j..).step_by(C).zip(y.as_chunks_mut::<C>().0) {
            if first <= O - C {
                // SAFETY: `y` has room for C outputs, and first + C ≤ O.
                unsafe { self.tile::<A, 1, C>(&*(&raw const *x).cast(), y.as_mut_ptr(), first) };
            }
        }
        y
    }

    /// Computes one tile: N images × C accumulators of outputs from `j` on.
    ///
    /// # Safety
    /// The CPU has the instructions of `A`, j + C·LANES ≤ O, and `y` is valid for C·LANES outputs of the first image and of each
    /// later one, O further on.
    #[inline(always)]
    unsafe fn tile<A: Accumulator<Precision = P>, const N: usize, const C: usize>(
        &self,
        x: &[[P::Input; K]; N],
        y: *mut E::Output,
        j: usize,
    ) where
        E: Epilogue<A>,
    {
        // SAFETY: each of the K rows of `weight`, and `bias`, have O elements, and j + c·LANES + LANES ≤ O.
        unsafe {
            let weight = self.weight.as_ptr().cast::<P::Weight>().add(j);
            let sums: [[A; N]; C] = A::tile_sums::<K, O, N, C>(weight, self.bias.as_ptr().add(j), x);
            for (c, sums) in sums.iter().enumerate() {
                for (n, &sums) in sums.iter().enumerate() {
                    self.epilogue.store(sums, j + c * A::LANES, y.add(n * O + c * A::LANES));
                }
            }
        }
    }
}

/// Sums a tile: the bias and then the K products in ascending order.
///
/// # Safety
/// The CPU has the instructions of `A`; `bias` is valid for C·LANES elements, and `weight` for K rows of as many, O apart.
#[inline(always)]
pub(super) unsafe fn tile_sums<A: Accumulator, const K: usize, const O: usize, const N: usize, const C: usize>(
    weight: *const Weight<A>,
    bias: *const Bias<A>,
    x: &[[Input<A>; K]; N],
) -> [[A; N]; C] {
    // SAFETY: the caller promises it; k < K, c < C, n < N.
    // (Loops rather than closures: a closure does not inherit the instruction set that its function was compiled for.)
    unsafe {
        let mut acc = [[A::start(bias); N]; C]; // an array expression, or LLVM keeps `acc` in memory
        for (c, acc) in acc.iter_mut().enumerate() {
            *acc = [A::start(bias.add(c * A::LANES)); N];
        }
        let x = x.as_ptr().cast::<Input<A>>();
        for k in 0..K {
            let weight = weight.add(k * O);
            // The inner loop runs over the shorter side, so it is the shorter side's operands that stay in registers. (For
            // one image both orders are the same work, but the first one makes LLVM unroll too much on a Cortex-M0.)
            if N > 1 && N <= C {
                for (c, acc) in acc.iter_mut().enumerate() {
                    let w = A::load(weight.add(c * A::LANES));
                    for (n, acc) in acc.iter_mut().enumerate() {
                        *acc = acc.multiply_add(w, A::broadcast(*x.add(n * K + k)));
                    }
                }
            } else {
                for n in 0..N {
                    let x = A::broadcast(*x.add(n * K + k));
                    for (c, acc) in acc.iter_mut().enumerate() {
                        if let Some(acc) = acc.get_mut(n) {
                            *acc = acc.multiply_add(A::load(weight.add(c * A::LANES)), x);
                        }
                    }
                }
            }
        }
        acc
    }
}

/// Defines the function `$name`, which computes a layer with one instruction set: in tiles of `$images` × `$vectors` accumulators
/// for several images, and of `$single` accumulators for one.
macro_rules! kernel {
    ($name:ident, $precision:ty, $accumulator:ty, single $single:tt, batch $images:tt x $vectors:tt $(, $features:literal)?) => {
        /// # Safety
        /// The CPU has the instructions of this file.
        $(#[target_feature(enable = $features)])?
        pub(super) unsafe fn $name<E: tiling::Epilogue<$accumulator>, const K: usize, const O: usize>(
            layer: &tiling::Layer<$precision, E, K, O>,
            x: &[[<$precision as tiling::Precision>::Input; K]],
            y: &mut [[E::Output; O]],
        ) {
            // SAFETY: the caller vouches for the instruction set.
            unsafe { layer.run::<$accumulator, $single, $images, $vectors>(x, y) }
        }
    };
}
pub(super) use kernel;

/// Defines methods of two operands, each by a function.
macro_rules! binary {
    ($($name:ident: $function:expr;)*) => {
        $(
            #[inline(always)]
            #[allow(unused_unsafe)] // plain Rust needs none
            unsafe fn $name(self, b: Self) -> Self {
                // SAFETY: the caller promises that the CPU has the instructions.
                unsafe { ($function)(self, b) }
            }
        )*
    };
}
pub(super) use binary;
