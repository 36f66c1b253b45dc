//! One GAN update: first D's, then G's against the new D.
//!
//! ```text
//! x ~ data    z, z' ~ U(-1, 1)    BCE(l, t) = softplus(l) − l·t, the cross-entropy of a logit l and its target t
//!
//! L_D = mean BCE(D(x), 0.9) + mean BCE(D(G(z)), 0)      + γ/2 · E|∂D(x)/∂x|²   in steps with R1
//! D'  = Adam(D, ∂L_D/∂θ_D)
//! L_G = mean BCE(D'(G(z')), 1)                          "flipped labels": G wants its fakes to be taken for real
//! G'  = Adam(G, ∂L_G/∂θ_G)
//! ema = ema + rate · (G' − ema)                         for recipes with a moving average
//! ```
//!
//! The update knows neither device nor memory layout. [`step`](crate::gan::step) prepares its inputs for a CPU,
//! [`block`](crate::gan::block) for a GPU. On a GPU the reported losses are computed again from the logits by
//! [`block::metrics`](crate::gan::block::metrics).
//!
//! Source: Goodfellow et al. 2014, "Generative adversarial nets", Algorithm 1 with k = 1 and the non-saturating loss.

use ndarray::{Array2, s};

use crate::config::{BiasCorrected, Recipe};
use crate::gan::dropout::{Dropout, Passes};
use crate::gan::layout::StateVars;
use crate::gan::networks::{discriminate, generate};
use crate::graph::{Graph, Var};

/// What an update reads beside the training state.
pub(crate) struct UpdateInputs {
    /// Adam's step size and ε, two scalars.
    pub adam: BiasCorrected<Var>,
    /// Weight of the new parameters in the moving average, a scalar.
    pub ema_rate: Var,
    /// Real images (B, 784) as D sees them, see [`d_view`](crate::pixel::d_view).
    pub real: Var,
    /// Their classes (B, C), one-hot, for class-conditional recipes.
    pub class: Option<Var>,
    pub z: Latents,
    pub dropout: Passes<Dropout>,
}

/// z for the two updates, and the passes of G that it takes.
pub(crate) enum Latents {
    /// z (B, 100) for both updates: one pass of G.
    Shared(Var),
    /// z (B, 100) for D's update and z' (B, 100) for G's: a pass of G for each.
    Separate(Var, Var),
    /// z and z' as one tensor (2B, 100): one pass of G over both, and one of the new D over all fakes, of which the
    /// loss counts only those of z'. More arithmetic than [`Self::Separate`], but half the operators.
    OnePass(Var),
}

/// The tensors that an update computes.
pub(crate) struct Update {
    pub next: StateVars,
    /// L_D without R1, a scalar.
    pub d_loss: Var,
    /// L_G, a scalar.
    pub g_loss: Var,
    /// D's logits (2B, 1) of reals, then fakes.
    pub d_logits: Var,
    /// The new D's logits of fakes: (B, 1), or (2B, 1) of which the last B count.
    pub g_logits: Var,
}

/// Appends one update to the graph.
pub(crate) fn update(
    g: &mut Graph,
    recipe: &Recipe,
    state: &StateVars,
    inputs: &UpdateInputs,
    with_r1: bool,
) -> Update {
    let (theta_d, theta_g) = (&state.d.layers, &state.g.layers);
    let batch = g.shape(inputs.real)[0];
    let adam_step = |g: &mut Graph, theta, m, v, grad| recipe.adam.update(g, inputs.adam, theta, m, v, grad);

    g.scope("fakes/");
    let [for_d, for_g] = fakes(g, recipe, theta_g, inputs);

    g.scope("d_update/");
    let (d_logits, penalty) = d_logits(g, recipe, theta_d, inputs, &for_d, with_r1);
    let target = g.constant("d_target", &[2 * batch, 1], &d_targets(recipe, batch));
    let d_loss = bce(g, d_logits, target);
    let d_loss = mean(g, d_loss, batch);
    let objective = match penalty {
        Some(penalty) => {
            let weight = g.scalar((recipe.r1 / 2.0 * recipe.r1_every as f64) as f32);
            let penalty = g.mul(penalty, weight);
            g.add(d_loss, penalty)
        }
        None => d_loss,
    };
    let gradient = g.grad(objective, theta_d);
    g.scope("d_adam/");
    let d = state.d.updated(g, gradient, adam_step);

    g.scope("g_update/");
    let g_logits = discriminate(g, recipe, &d.layers, for_g.images, for_g.class, &inputs.dropout.d_on_fake); // (B or 2B, 1)
    let one = g.scalar(1.0);
    let mut g_loss = bce(g, g_logits, one);
    let rows = g.shape(g_logits)[0];
    if rows > batch {
        let weights = g.constant("last_batch", &[rows, 1], &last_ones(rows, batch));
        g_loss = g.mul(g_loss, weights);
    }
    let g_loss = mean(g, g_loss, batch);
    let gradient = g.grad(g_loss, theta_g);
    g.scope("g_adam/");
    let gen_ = state.g.updated(g, gradient, adam_step);

    g.scope("ema/");
    let ema = state.ema.iter().zip(&gen_.theta).map(|(&old, &new)| lerp(g, old, new, inputs.ema_rate)).collect();
    Update { next: StateVars { d, g: gen_, ema }, d_loss, g_loss, d_logits, g_logits }
}

/// Fakes as one of the updates sees them.
struct Fakes {
    /// (B, 784), or (2B, 784) of which the last B count.
    images: Var,
    /// Their classes (B or 2B, C), one-hot, for class-conditional recipes.
    class: Option<Var>,
}

/// The fakes of D's update and of G's.
fn fakes(g: &mut Graph, recipe: &Recipe, theta_g: &[Var], inputs: &UpdateInputs) -> [Fakes; 2] {
    let (batch, dropout) = (g.shape(inputs.real)[0], &inputs.dropout);
    let z_and_images = match inputs.z {
        Latents::Shared(z) => [(z, generate(g, recipe, theta_g, z, &dropout.g_for_d)); 2],
        Latents::Separate(z_d, z_g) => {
            let passes = [(z_d, &dropout.g_for_d), (z_g, &dropout.g_for_g)];
            passes.map(|(z, dropout)| (z, generate(g, recipe, theta_g, z, dropout)))
        }
        Latents::OnePass(z) => {
            let both = generate(g, recipe, theta_g, z, &dropout.g_for_d); // (2B, 784)
            [(g.rows(z, 0, batch), g.rows(both, 0, batch)), (z, both)]
        }
    };
    // A class-conditional z begins with its class, one-hot.
    z_and_images.map(|(z, images)| Fakes { images, class: recipe.one_hot().map(|classes| g.columns(z, 0, classes)) })
}

/// D's logits (2B, 1) of reals, then fakes; with R1 also the penalty, a scalar.
fn d_logits(
    g: &mut Graph,
    recipe: &Recipe,
    theta_d: &[Var],
    inputs: &UpdateInputs,
    fakes: &Fakes,
    with_r1: bool,
) -> (Var, Option<Var>) {
    let (real, class) = (inputs.real, inputs.class);
    let fake = g.detach(fakes.images); // D's loss has no gradient for G
    if with_r1 {
        // R1 differentiates D(x) by x, so reals and fakes take a pass each. Recipes with R1 have no dropout.
        let on_real = discriminate(g, recipe, theta_d, real, class, &[]);
        let on_fake = discriminate(g, recipe, theta_d, fake, fakes.class, &[]);
        let penalty = r1(g, on_real, real);
        (g.concat_rows(on_real, on_fake), Some(penalty))
    } else {
        let both = g.concat_rows(real, fake);
        let class = class.zip(fakes.class).map(|(real, fake)| g.concat_rows(real, fake));
        (discriminate(g, recipe, theta_d, both, class, &inputs.dropout.d_on_both), None)
    }
}

/// The sum of all elements of a matrix, divided by B.
fn mean(g: &mut Graph, x: Var, batch: usize) -> Var {
    let sum = g.sum(x, &[0, 1], false);
    g.div_by(sum, batch as f32)
}

/// The binary cross-entropy of each logit and its target: softplus(logit) − logit · target.
pub(crate) fn bce(g: &mut Graph, logit: Var, target: Var) -> Var {
    let (softplus, hit) = (g.softplus(logit), g.mul(logit, target));
    g.sub(softplus, hit)
}

/// E|∂D(x)/∂x|² for logits (B, 1) of x (B, 784).
///
/// Source: Mescheder et al. 2018, "Which training methods for GANs do actually converge?", equation 9.
fn r1(g: &mut Graph, logits: Var, x: Var) -> Var {
    let batch = g.shape(x)[0];
    let sum = g.sum(logits, &[0, 1], false); // each logit depends on its own x alone
    let slope = g.grad(sum, &[x])[0]; // (B, 784)
    let square = g.mul(slope, slope);
    mean(g, square, batch)
}

/// a + (b − a) · rate
fn lerp(g: &mut Graph, a: Var, b: Var, rate: Var) -> Var {
    let difference = g.sub(b, a);
    let change = g.mul(difference, rate);
    g.add(a, change)
}

/// D's targets (2B,) for B reals, then B fakes.
pub(crate) fn d_targets(recipe: &Recipe, batch: usize) -> Vec<f32> {
    [vec![recipe.real_target as f32; batch], vec![0.0; batch]].concat()
}

/// Zeros (rows,) with ones in the last `count` places.
pub(crate) fn last_ones(rows: usize, count: usize) -> Vec<f32> {
    [vec![0.0; rows - count], vec![1.0; count]].concat()
}

/// A matrix (2, 2B) that sums reals and fakes of a column (2B, 1) apart: `x` for the first B columns in row 0 and for
/// the last B in row 1, 0 elsewhere.
pub(crate) fn halves(batch: usize, x: f32) -> Vec<f32> {
    let mut halves = Array2::zeros((2, 2 * batch));
    halves.slice_mut(s![0, ..batch]).fill(x);
    halves.slice_mut(s![1, batch..]).fill(x);
    halves.into_raw_vec_and_offset().0
}
