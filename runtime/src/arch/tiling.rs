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

/// The sums of `LANES` outputs of one image.
///
/// # Safety of all methods
/// The CPU has the instructions that the type stands for. Pointers are valid for `LANES` elements, of any alignment.
pub(crate) trait Accumulator: Copy {
    /// Outputs of one accumulator.
    const LANES: usize;
    /// One element of the weight matrix.
    type Weight;
    /// One element of the bias.
    type Bias;
    /// The inputs that one [`Self::Weight`] multiplies.
    type Input: Copy;
    /// `LANES` weights in registers.
    type Weights: Copy;
    /// One input, repeated for each lane.
    type Broadcast: Copy;

    /// The accumulator before the first input. Exact arithmetic may return 0 and add the bias later.
    unsafe fn start(bias: *const Self::Bias) -> Self;
    unsafe fn load(weights: *const Self::Weight) -> Self::Weights;
    unsafe fn broadcast(x: Self::Input) -> Self::Broadcast;
    /// `self + w · x`.
    unsafe fn multiply_add(self, w: Self::Weights, x: Self::Broadcast) -> Self;

    /// [`tile_sums`], or hand-written assembly for a CPU on which the compiler's code is slow.
    #[inline(always)]
    unsafe fn tile_sums<const K: usize, const O: usize, const N: usize, const C: usize>(
        weight: *const Self::Weight,
        bias: *const Self::Bias,
        x: &[[Self::Input; K]; N],
    ) -> [[Self; N]; C] {
        // SAFETY: the caller promises the same.
        unsafe { tile_sums::<Self, K, O, N, C>(weight, bias, x) }
    }
}

/// Turns finished sums into outputs and stores them.
pub(super) trait Epilogue<A: Accumulator>: Copy {
    type Output;
    /// Stores the `LANES` outputs from output `j` of the layer on at `y`.
    ///
    /// # Safety
    /// The CPU has the instructions of `A`, the layer has `j + LANES` outputs, and `y` is valid for `LANES` of them.
    unsafe fn store(self, sums: A, j: usize, y: *mut Self::Output);
}

/// Computes a layer, (B, K) → (B, O), for as many images as both `x` and `y` hold.
///
/// # Safety
/// The CPU has the instructions of `A`.
#[inline(always)]
pub(super) unsafe fn layer<
    A: Accumulator,
    E: Epilogue<A>,
    const K: usize,
    const O: usize,
    const SINGLE: usize,
    const N: usize,
    const C: usize,
>(
    weight: &[[A::Weight; O]; K],
    bias: &[A::Bias; O],
    x: &[[A::Input; K]],
    y: &mut [[E::Output; O]],
    epilogue: E,
) {
    const { assert!(O.is_multiple_of(A::LANES)) };
    let images = x.len().min(y.len());
    let (groups, rest) = x.get(..images).unwrap_or_default().as_chunks::<N>();
    let (y_groups, y_rest) = y.get_mut(..images).unwrap_or_default().as_chunks_mut::<N>();
    // SAFETY: the caller vouches for the instruction set.
    unsafe {
        let j = strips::<A, E, K, O, N, C>(weight, bias, groups, y_groups, 0, epilogue);
        let j = if C > 4 { strips::<A, E, K, O, N, 4>(weight, bias, groups, y_groups, j, epilogue) } else { j };
        let j = if C > 2 { strips::<A, E, K, O, N, 2>(weight, bias, groups, y_groups, j, epilogue) } else { j };
        strips::<A, E, K, O, N, 1>(weight, bias, groups, y_groups, j, epilogue);
        for (x, y) in rest.as_chunks::<1>().0.iter().zip(y_rest.as_chunks_mut::<1>().0) {
            let (x, y) = (core::slice::from_ref(x), core::slice::from_mut(y));
            let j = strips::<A, E, K, O, 1, SINGLE>(weight, bias, x, y, 0, epilogue);
            let j = if SINGLE > 8 { strips::<A, E, K, O, 1, 8>(weight, bias, x, y, j, epilogue) } else { j };
            let j = if SINGLE > 4 { strips::<A, E, K, O, 1, 4>(weight, bias, x, y, j, epilogue) } else { j };
            let j = if SINGLE > 2 { strips::<A, E, K, O, 1, 2>(weight, bias, x, y, j, epilogue) } else { j };
            strips::<A, E, K, O, 1, 1>(weight, bias, x, y, j, epilogue);
        }
    }
}

/// Computes the outputs from `j` on in strips of C accumulators, and returns the first output that no such strip covers.
///
/// # Safety
/// The CPU has the instructions of `A`.
#[inline(always)]
unsafe fn strips<A: Accumulator, E: Epilogue<A>, const K: usize, const O: usize, const N: usize, const C: usize>(
    weight: &[[A::Weight; O]; K],
    bias: &[A::Bias; O],
    x: &[[[A::Input; K]; N]],
    y: &mut [[[E::Output; O]; N]],
    mut j: usize,
    epilogue: E,
) -> usize {
    while j + C * A::LANES <= O {
        for (x, y) in x.iter().zip(&mut *y) {
            // SAFETY: a row of `y` holds O outputs, and j + C·LANES ≤ O.
            unsafe {
                let y = y.as_mut_ptr().cast::<E::Output>().add(j);
                tile::<A, E, K, O, N, C>(weight, bias, x, y, j, epilogue);
            }
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
pub(super) unsafe fn outputs_from<
    A: Accumulator,
    E: Epilogue<A, Output = u8>,
    const K: usize,
    const O: usize,
    const C: usize,
    const R: usize,
>(
    weight: &[[A::Weight; O]; K],
    bias: &[A::Bias; O],
    x: &[A::Input; K],
    j: usize,
    epilogue: E,
) -> [u8; R] {
    const { assert!(A::LANES == 1 && R.is_multiple_of(C) && R <= O) };
    let mut y = [0; R];
    for (first, y) in (j..).step_by(C).zip(y.as_chunks_mut::<C>().0) {
        if first <= O - C {
            // SAFETY: `y` has room for C outputs, and first + C ≤ O.
            unsafe {
                let x = core::slice::from_ref(x).as_ptr().cast::<[[A::Input; K]; 1]>();
                tile::<A, E, K, O, 1, C>(weight, bias, &*x, y.as_mut_ptr(), first, epilogue);
            }
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
unsafe fn tile<A: Accumulator, E: Epilogue<A>, const K: usize, const O: usize, const N: usize, const C: usize>(
    weight: &[[A::Weight; O]; K],
    bias: &[A::Bias; O],
    x: &[[A::Input; K]; N],
    y: *mut E::Output,
    j: usize,
    epilogue: E,
) {
    // SAFETY: each of the K rows of `weight`, and `bias`, have O elements, and j + c·LANES + LANES ≤ O.
    unsafe {
        let weight = weight.as_ptr().cast::<A::Weight>().add(j);
        let sums: [[A; N]; C] = A::tile_sums::<K, O, N, C>(weight, bias.as_ptr().add(j), x);
        for (c, sums) in sums.iter().enumerate() {
            for (n, &sums) in sums.iter().enumerate() {
                epilogue.store(sums, j + c * A::LANES, y.add(n * O + c * A::LANES));
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
    weight: *const A::Weight,
    bias: *const A::Bias,
    x: &[[A::Input; K]; N],
) -> [[A; N]; C] {
    // SAFETY: the caller promises it; k < K, c < C, n < N.
    // (Loops rather than closures: a closure does not inherit the instruction set that its function was compiled for.)
    unsafe {
        let mut acc = [[A::start(bias); N]; C]; // an array expression, or LLVM keeps `acc` in memory
        for (c, acc) in acc.iter_mut().enumerate() {
            *acc = [A::start(bias.add(c * A::LANES)); N];
        }
        let x = x.as_ptr().cast::<A::Input>();
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

/// Defines the function `$name` that computes a layer with one instruction set: [`layer`] with tiles of `$images` × `$vectors`
/// accumulators for several images, and of `$single` accumulators for one.
macro_rules! kernel {
    ($name:ident, $accumulator:ty, single $single:tt, batch $images:tt x $vectors:tt $(, $features:literal)?) => {
        /// # Safety
        /// The CPU has the instructions of this file.
        $(#[target_feature(enable = $features)])?
        pub(super) unsafe fn $name<E: $crate::arch::tiling::Epilogue<$accumulator>, const K: usize, const O: usize>(
            weight: &[[<$accumulator as $crate::arch::tiling::Accumulator>::Weight; O]; K],
            bias: &[<$accumulator as $crate::arch::tiling::Accumulator>::Bias; O],
            x: &[[<$accumulator as $crate::arch::tiling::Accumulator>::Input; K]],
            y: &mut [[E::Output; O]],
            epilogue: E,
        ) {
            // SAFETY: the caller vouches for the instruction set.
            unsafe {
                $crate::arch::tiling::layer::<$accumulator, E, K, O, $single, $images, $vectors>(weight, bias, x, y, epilogue)
            }
        }
    };
}
pub(super) use kernel;
