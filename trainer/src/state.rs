//! What is trained: its tensors, and what a step and an epoch tell of it.

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use crate::config::{G_SIZES, Plan, Recipe};
use crate::graph::onnx::Type;
use crate::noise::{self, stream};

/// The values of a step's metrics, in order.
pub const METRICS: [&str; 4] = ["d_loss", "g_loss", "d_real", "d_fake"];

/// All of training that outlives a step, on the host. Whatever is not in it does not survive a run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// Those of [`gan::state_specs`], in their order.
    pub tensors: Vec<Vec<f32>>,
    /// Steps taken.
    pub step: u64,
    /// Sums of the metrics over the steps of the epoch so far.
    pub sums: [f64; METRICS.len()],
}

/// The numbers of [`METRICS`].
pub type Metrics = [f32; METRICS.len()];

/// One step, just taken.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Steps taken in the whole run.
    pub step: u64,
    /// From 1.
    pub epoch: u64,
    /// In the order of [`METRICS`].
    pub metrics: Metrics,
}

/// One epoch, just ended: a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// From 1.
    pub epoch: u64,
    /// Steps taken in the whole run.
    pub step: u64,
    /// Means over the epoch's steps.
    pub d_loss: f32,
    pub g_loss: f32,
    /// The discriminator's mean probability that a real image is real.
    pub d_real: f32,
    /// The discriminator's mean probability that a fake is real.
    pub d_fake: f32,
    pub steps_per_second: f64,
    /// How far apart the 16 samples are, where as many real images have 1: see [`variety`].
    pub variety: f32,
    /// The Fréchet distance in the judge's features, in epochs that were scored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frechet_distance: Option<f64>,
    /// Whether the samples' variety has fallen below half its best, or the discriminator is never fooled.
    pub collapse: bool,
}

/// A named tensor that a step graph reads or writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub name: String,
    pub elem: Type,
    pub shape: Vec<usize>,
}

impl Spec {
    pub fn new(name: impl Into<String>, elem: Type, shape: &[usize]) -> Self {
        Self { name: name.into(), elem, shape: shape.into() }
    }

    pub fn bytes(&self) -> usize {
        self.len() * self.elem.size()
    }

    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The names and shapes of a network's weights and biases, in layer order: `g.fc1.weight` (I, O), `g.fc1.bias` (O,), …
pub fn params(net: &str, sizes: &[usize]) -> Vec<Spec> {
    (sizes.windows(2).enumerate())
        .flat_map(|(i, w)| {
            let fc = format!("{net}.fc{}", i + 1);
            [
                Spec::new(format!("{fc}.weight"), Type::F32, &[w[0], w[1]]),
                Spec::new(format!("{fc}.bias"), Type::F32, &[w[1]]),
            ]
        })
        .collect()
}

/// All that a training step reads and writes again, in a fixed order: both networks' parameters, Adam's first moments
/// m and second moments v of each (`m.g.fc1.weight`), and the moving average of the generator's (`ema.g.fc1.weight`)
/// where the recipe has one.
pub fn state_specs(recipe: &Recipe) -> Vec<Spec> {
    let (d, g) = (params("d", &recipe.d_sizes()), params("g", &G_SIZES));
    let theta = [d, g.clone()].concat();
    let named = |kind: &str, of: &[Spec]| -> Vec<Spec> {
        of.iter().map(|s| Spec { name: format!("{kind}.{}", s.name), ..s.clone() }).collect()
    };
    let (m, v) = (named("m", &theta), named("v", &theta));
    let ema = if recipe.ema > 0.0 { named("ema", &g) } else { vec![] };
    [theta, m, v, ema].concat()
}

/// Both networks at the start of a run: weights and biases from U(−1/√in, 1/√in), as `torch.nn.Linear` has them, and G's
/// last bias from the mean of the `images` (n, 784), where the recipe says so; the moments are zero.
pub fn initial_state(plan: &Plan, images: ArrayView2<u8>) -> TrainState {
    let specs = state_specs(&plan.recipe);
    let (mut fan_in, mut tensors) = (0, Vec::<Vec<f32>>::new());
    for (i, spec) in specs.iter().enumerate() {
        let mut tensor = vec![0.0; spec.len()];
        if let Some(name) = spec.name.strip_prefix("ema.") {
            let of = specs.iter().position(|s| s.name == name).expect("what is averaged");
            tensor.copy_from_slice(&tensors[of]);
        } else if !spec.name.starts_with("m.") && !spec.name.starts_with("v.") {
            if spec.shape.len() == 2 {
                fan_in = spec.shape[0]; // a bias has that of its weight, which stands before it
            }
            let bound = 1.0 / (fan_in as f32).sqrt();
            noise::uniform_into(&mut tensor, plan.seed, 0, stream::INIT + i as u64);
            tensor.iter_mut().for_each(|x| *x *= bound);
        }
        if plan.recipe.mean_bias && spec.name == "g.fc4.bias" {
            let n = images.nrows().max(1) as f32;
            for (pixels, bias) in images.columns().into_iter().zip(&mut tensor) {
                let sum: u64 = pixels.iter().map(|&x| u64::from(x)).sum();
                *bias = (sum as f32 / n / 127.5 - 1.0).clamp(-0.98, 0.98).atanh();
            }
        }
        tensors.push(tensor);
    }
    TrainState { tensors, step: 0, sums: Default::default() }
}

#[cfg(test)]
mod tests {
    use ndarray::aview2;

    use super::*;
    use crate::config::PIXELS;

    #[test]
    fn a_run_starts_as_torchs_linear_layers_do() {
        let plan = |seed| Plan { seed, ..Plan::seed_recipe() };
        let state = initial_state(&plan(1), aview2(&[[0; PIXELS]]));
        let (weight, bias, moments) = (&state.tensors[0], &state.tensors[1], &state.tensors[16]);
        let bound = 1.0 / 28.0;
        assert!(weight.iter().chain(bias).all(|x| x.abs() <= bound));
        let mean_square = weight.iter().map(|x| x * x).sum::<f32>() / weight.len() as f32;
        assert!((mean_square / (bound * bound / 3.0) - 1.0).abs() < 0.02, "{mean_square}");
        assert!(moments.iter().all(|&m| m == 0.0) && state.step == 0);
        assert_ne!(initial_state(&plan(2), aview2(&[[0; PIXELS]])).tensors[0], *weight);
    }
}
