//! Adam as graph operators, in the letters of Kingma & Ba 2015, Algorithm 1.

use multiversion::multiversion;
use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Var};
use crate::onnx::Type;

/// The step size α, which falls linearly over a run to a share of itself, and the decay rates β₁ and β₂ of the moments.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adam {
    #[serde(rename = "lr")]
    pub alpha: f64,
    /// The share of α that is left at the run's end.
    #[serde(rename = "lr_end")]
    pub alpha_end: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
}

/// What one step t has in common for all parameters.
pub struct AtStep {
    /// α √(1 − β₂ᵗ) / (1 − β₁ᵗ)
    step_size: Var,
    /// ε √(1 − β₂ᵗ)
    epsilon: Var,
}

impl Adam {
    /// α and the bias corrections at step `t` of a run of `steps`, an i64 scalar that counts from 1. They are computed in f64, as PyTorch
    /// does: in f32, 1 − 0.999¹ would be off by 5·10⁻⁵.
    pub fn at_step(&self, g: &mut Graph, t: Var, steps: u64) -> AtStep {
        let t = g.cast(t, Type::F64);
        let one_minus_pow = |g: &mut Graph, beta: f64| {
            let (beta, one) = (g.scalar64(beta), g.scalar64(1.0));
            let pow = g.pow(beta, t);
            g.sub(one, pow)
        };
        let (c1, c2) = (one_minus_pow(g, self.beta1), one_minus_pow(g, self.beta2));
        let (epsilon, correction) = (g.scalar64(self.epsilon), g.sqrt(c2));
        let mut alpha = g.scalar64(self.alpha);
        if self.alpha_end != 1.0 {
            // α (1 − (1 − end) (t − 1) / steps)
            let fall = g.scalar64(self.alpha * (1.0 - self.alpha_end) / steps as f64);
            let one = g.scalar64(1.0);
            let before = g.sub(t, one);
            let fallen = g.mul(fall, before);
            alpha = g.sub(alpha, fallen);
        }
        let step_size = g.div(alpha, c1);
        let (step_size, epsilon) = (g.mul(step_size, correction), g.mul(epsilon, correction));
        AtStep { step_size: g.cast(step_size, Type::F32), epsilon: g.cast(epsilon, Type::F32) }
    }

    /// (θₜ, mₜ, vₜ) from θₜ₋₁, mₜ₋₁, vₜ₋₁ and the gradient gₜ at θₜ₋₁, in PyTorch's order of operations: the operator
    /// [`OPERATOR`], for which [`kernel`] may stand in.
    pub fn update(&self, g: &mut Graph, at: &AtStep, theta: Var, m: Var, v: Var, grad: Var) -> (Var, Var, Var) {
        let one_minus_beta1 = g.scalar((1.0 - self.beta1) as f32);
        let (beta2, one_minus_beta2) = (g.scalar(self.beta2 as f32), g.scalar((1.0 - self.beta2) as f32));
        let inputs = [
            ("theta", theta),
            ("m", m),
            ("v", v),
            ("grad", grad),
            ("one_minus_beta1", one_minus_beta1),
            ("beta2", beta2),
            ("one_minus_beta2", one_minus_beta2),
            ("step_size", at.step_size),
            ("epsilon", at.epsilon),
        ];
        let next = g.fused(OPERATOR, &inputs, |g, inputs| {
            let &[theta, m, v, grad, one_minus_beta1, beta2, one_minus_beta2, step_size, epsilon] = inputs else {
                unreachable!()
            };
            // mₜ = β₁ mₜ₋₁ + (1 − β₁) gₜ, as mₜ₋₁ + (1 − β₁)(gₜ − mₜ₋₁)
            let towards = g.sub(grad, m);
            let towards = g.mul(towards, one_minus_beta1);
            let m = g.add(m, towards);
            // vₜ = β₂ vₜ₋₁ + (1 − β₂) gₜ²
            let grad2 = g.mul(grad, grad);
            let grad2 = g.mul(grad2, one_minus_beta2);
            let v = g.mul(v, beta2);
            let v = g.add(v, grad2);
            // θₜ = θₜ₋₁ − α m̂ₜ / (√v̂ₜ + ε), with numerator and denominator multiplied by √(1 − β₂ᵗ)
            let root = g.sqrt(v);
            let denominator = g.add(root, epsilon);
            let ratio = g.div(m, denominator);
            let change = g.mul(ratio, step_size);
            vec![("next_theta", g.sub(theta, change)), ("next_m", m), ("next_v", v)]
        });
        (next[0], next[1], next[2])
    }
}

/// The name of the operator whose inputs and outputs [`kernel`] has.
pub const OPERATOR: &str = "Adam";

/// What [`Adam::update`] describes, in one pass over memory: the same single operations, so the same bits.
///
/// θ, m, v and the gradient have one length; the numbers are 1 − β₁, β₂, 1 − β₂, the step size and ε of [`AtStep`].
#[multiversion(targets("x86_64+avx512f", "x86_64+avx2"))]
pub fn kernel(
    [theta, m, v, grad]: [&[f32]; 4],
    [one_minus_beta1, beta2, one_minus_beta2, step_size, epsilon]: [f32; 5],
    [next_theta, next_m, next_v]: [&mut [f32]; 3],
) {
    let n = theta.len();
    let (m, v, grad) = (&m[..n], &v[..n], &grad[..n]);
    let (next_theta, next_m, next_v) = (&mut next_theta[..n], &mut next_m[..n], &mut next_v[..n]);
    for i in 0..n {
        next_m[i] = m[i] + (grad[i] - m[i]) * one_minus_beta1;
        next_v[i] = v[i] * beta2 + grad[i] * grad[i] * one_minus_beta2;
        next_theta[i] = theta[i] - next_m[i] / (next_v[i].sqrt() + epsilon) * step_size;
    }
}
