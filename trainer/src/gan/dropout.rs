//! LeakyReLU and dropout of a hidden layer, computed as one product.

use multiversion::multiversion;

use crate::config::{G_SIZES, Recipe};
use crate::graph::onnx::Type;
use crate::graph::{Graph, Var};
use crate::state::Spec;

/// Slope of LeakyReLU for negative numbers.
pub const SLOPE: f32 = 0.2;

/// The dropout of one hidden layer in one pass.
#[derive(Clone, Copy)]
pub(crate) enum Dropout {
    /// A mask (B, O) u8 of zeros and ones, and the dropout probability.
    Mask {
        /// 0 drops a unit, 1 keeps it.
        mask: Var,
        p_drop: f32,
    },
    /// The factors (B, O) of LeakyReLU and dropout together, for positive and for other inputs. A dropped unit has 0 in
    /// both.
    Slopes { positive: Var, negative: Var },
}

/// y = x · s.   dx = dy · s
///
/// s is the slope of LeakyReLU at x times dropout's factor: 0 for a dropped unit, 1 / (1 − p) for others. One product
/// in the forward pass makes the backward pass one product too. s comes from the two [`Dropout::Slopes`] if they are
/// given; with a mask from the operator [`SLOPES_OPERATOR`]; without dropout from [`select_slope`].
pub(crate) fn leaky_relu_dropout(g: &mut Graph, x: Var, dropout: Option<&Dropout>) -> Var {
    let s = match dropout {
        None => {
            let [negative, positive] = leaky_slopes(0.0).map(|slope| g.scalar(slope));
            select_slope(g, x, negative, positive)
        }
        Some(&Dropout::Slopes { positive, negative }) => {
            let zero = g.scalar(0.0);
            let is_positive = g.greater(x, zero);
            g.r#where(is_positive, positive, negative)
        }
        Some(&Dropout::Mask { mask, p_drop }) => {
            let [negative, positive] = leaky_slopes(p_drop).map(|slope| g.scalar(slope));
            let inputs = [("x", x), ("dropout_mask", mask), ("negative_slope", negative), ("positive_slope", positive)];
            g.fused(SLOPES_OPERATOR, &inputs, |g, inputs| {
                let &[x, mask, negative, positive] = inputs else { unreachable!() };
                let (slope, mask) = (select_slope(g, x, negative, positive), g.cast(mask, Type::F32));
                vec![("s", g.mul(slope, mask))]
            })[0]
        }
    };
    let s = g.detach(s);
    g.mul(x, s)
}

/// The slopes of LeakyReLU for negative and positive inputs, times 1 / (1 − p).
pub(crate) fn leaky_slopes(p_drop: f32) -> [f32; 2] {
    [SLOPE, 1.0].map(|slope| slope / (1.0 - p_drop))
}

/// `positive` where x > 0, else `negative`, computed as x · 10³⁸ clamped to [`negative`, `positive`]. On a CPU this
/// takes half the time of ONNX Runtime's Greater and Where. The result differs only for subnormal x.
fn select_slope(g: &mut Graph, x: Var, negative: Var, positive: Var) -> Var {
    let huge = g.scalar(HUGE);
    let steep = g.mul(x, huge);
    g.clip(steep, negative, positive)
}

const HUGE: f32 = 1e38;

/// Name of the operator that [`slopes`] computes: the slope of LeakyReLU at x times dropout's factor.
pub const SLOPES_OPERATOR: &str = "LeakyReluDropoutSlope";

/// Writes the slope of LeakyReLU and dropout at each x into `s`: the operations of [`SLOPES_OPERATOR`]'s function in
/// one pass over memory, so the same bits. `x`, `mask` and `s` have the same length; `mask` holds zeros and ones.
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub fn slopes(x: &[f32], mask: &[u8], negative: f32, positive: f32, s: &mut [f32]) {
    for ((s, x), &mask) in s.iter_mut().zip(x).zip(mask) {
        *s = (x * HUGE).clamp(negative, positive) * f32::from(mask);
    }
}

/// A list per pass of an update, one item per hidden dense layer of the network. The lists are empty without dropout.
#[derive(Clone, Debug)]
pub(crate) struct Passes<T> {
    /// D on reals and fakes, in D's update.
    pub d_on_both: Vec<T>,
    /// The new D on fakes, in G's update.
    pub d_on_fake: Vec<T>,
    /// G, for the fakes of D's update. The only pass of G if one pass makes the fakes of both updates.
    pub g_for_d: Vec<T>,
    /// G, for the fakes of G's update.
    pub g_for_g: Vec<T>,
}

impl Passes<[usize; 2]> {
    /// The shapes (rows, units) of the dropout masks of a step: B fakes for each update, or the same B for both.
    pub fn mask_shapes(recipe: &Recipe, batch: usize) -> Self {
        Self::shapes(recipe, [2 * batch, batch, batch, recipe.z_rows(batch) - batch])
    }

    /// The mask shapes if one pass of G makes the fakes of both updates, and D sees all of them in G's update.
    pub fn one_pass_shapes(recipe: &Recipe, batch: usize) -> Self {
        let fakes = recipe.z_rows(batch);
        Self::shapes(recipe, [2 * batch, fakes, fakes, 0])
    }

    /// The shapes for passes over this many rows. A pass of no rows does not take place.
    fn shapes(recipe: &Recipe, rows: [usize; 4]) -> Self {
        let d = recipe.d_sizes();
        let sizes = [&d[..], &d, &G_SIZES, &G_SIZES];
        Self::from_lists([0, 1, 2, 3].map(|pass| {
            let units = &sizes[pass][1..sizes[pass].len() - 1];
            let has_dropout = recipe.p_drop > 0.0 && rows[pass] > 0;
            units.iter().filter(|_| has_dropout).map(|&units| [rows[pass], units]).collect()
        }))
    }

    /// A tensor of each shape: `name.d_on_both.fc1`, …
    pub fn specs(&self, name: &str, elem: Type) -> Vec<Spec> {
        let passes = ["d_on_both", "d_on_fake", "g_for_d", "g_for_g"].into_iter().zip(self.lists());
        let layers = passes.flat_map(|(pass, shapes)| shapes.iter().zip(1..).map(move |layer| (pass, layer)));
        layers.map(|(pass, (shape, i))| Spec::new(format!("{name}.{pass}.fc{i}"), elem, shape)).collect()
    }

    /// The number of elements of each shape.
    pub fn lens(&self) -> Vec<usize> {
        self.lists().into_iter().flatten().map(|[rows, units]| rows * units).collect()
    }

    /// Distributes a list of all layers, in the order of [`Self::specs`], over the passes.
    pub fn group<T>(&self, layers: impl IntoIterator<Item = T>) -> Passes<T> {
        let mut layers = layers.into_iter();
        Passes::from_lists(self.lists().map(|shapes| layers.by_ref().take(shapes.len()).collect()))
    }
}

impl<T> Passes<T> {
    fn from_lists([d_on_both, d_on_fake, g_for_d, g_for_g]: [Vec<T>; 4]) -> Self {
        Self { d_on_both, d_on_fake, g_for_d, g_for_g }
    }

    fn lists(&self) -> [&Vec<T>; 4] {
        [&self.d_on_both, &self.d_on_fake, &self.g_for_d, &self.g_for_g]
    }
}
