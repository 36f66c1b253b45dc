//! Adam as graph operators, in the letters of Kingma & Ba 2015, Algorithm 1.

use multiversion::multiversion;

use crate::config::{Adam, BiasCorrected};
use crate::graph::{Graph, Var};

impl Adam {
    /// (θₜ, mₜ, vₜ) from θₜ₋₁, mₜ₋₁, vₜ₋₁ and the gradient gₜ at θₜ₋₁, in PyTorch's order of operations: the operator
    /// [`OPERATOR`], for which [`kernel`] may stand in.
    pub fn update(
        &self,
        g: &mut Graph,
        at: BiasCorrected<Var>,
        theta: Var,
        m: Var,
        v: Var,
        grad: Var,
    ) -> (Var, Var, Var) {
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
/// θ, m, v and the gradient have one length; the numbers are 1 − β₁, β₂, 1 − β₂, the step size and ε of [`BiasCorrected`].
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
