//! What is trained: the training state, its tensors, and the metrics of steps and epochs.

use ndarray::{Array1, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::config::{G_SIZES, PATCH_PIXELS, Plan, Recipe};
use crate::graph::onnx::Type;
use crate::noise::{self, stream};

/// Everything that a run carries from one step to the next, on the host. A checkpoint holds a `TrainState`.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// The tensors of [`state_specs`] in that order, each row-major.
    pub tensors: Vec<Vec<f32>>,
    /// Number of steps taken.
    pub step: u64,
    /// Sums of the [`METRICS`] over the steps of the current epoch.
    pub sums: [f64; METRICS.len()],
}

/// Names of a step's metrics. `d_loss` and `g_loss` are binary cross-entropies, `d_real` and `d_fake` the
/// discriminator's mean probability that a real or a fake image is real.
pub const METRICS: [&str; 4] = ["d_loss", "g_loss", "d_real", "d_fake"];

/// A step's metrics, in the order of [`METRICS`].
pub type Metrics = [f32; METRICS.len()];

/// A step that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Number of steps taken in the whole run, this one included.
    pub step: u64,
    /// The step's epoch, from 1.
    pub epoch: u64,
    /// The step's metrics, in the order of [`METRICS`].
    pub metrics: Metrics,
}

/// An epoch that has ended: a line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Epoch {
    /// Number of the epoch, from 1.
    pub epoch: u64,
    /// Number of steps taken in the whole run.
    pub step: u64,
    /// D's loss without R1, as the mean over the epoch's steps.
    pub d_loss: f32,
    /// G's loss, as the mean over the epoch's steps.
    pub g_loss: f32,
    /// The discriminator's mean probability that a real image is real.
    pub d_real: f32,
    /// The discriminator's mean probability that a fake is real.
    pub d_fake: f32,
    /// Speed of the epoch's steps, without sampling, scoring and recording.
    pub steps_per_second: f64,
    /// Standard deviation between the 16 samples, relative to that of 16 real images: about 1 is good, 0 means equal
    /// samples.
    pub variety: f32,
    /// Fréchet distance between generated and real images in the judge's features; `None` in epochs without a score.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frechet_distance: Option<f64>,
    /// Whether the samples' variety fell below half its best value, or fakes never fool the discriminator.
    pub collapse: bool,
}

/// Name, type and shape of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Name in the ONNX graph.
    pub name: String,
    /// Element type.
    pub elem: Type,
    /// Lengths of the axes; empty for a scalar.
    pub shape: Vec<usize>,
}

impl Spec {
    /// A tensor of this name, type and shape.
    pub fn new(name: impl Into<String>, elem: Type, shape: &[usize]) -> Self {
        Self { name: name.into(), elem, shape: shape.into() }
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.elem.size()
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// The weights (I, O) and biases (O,) of the generator's layers: `g.fc1.weight`, `g.fc1.bias`, …
pub fn g_params() -> Vec<Spec> {
    layers("g.fc", &G_SIZES, 1)
}

/// The weights and biases of the discriminator's layers: of its convolutions, with I maps in and O maps out, `d.conv1.weight` (16 I, O),
/// `d.conv1.bias` (O,), …; then of its dense layers, `d.fc1.weight` (I, O), `d.fc1.bias` (O,), ….
pub fn d_params(recipe: &Recipe) -> Vec<Spec> {
    let maps = [&[1], &recipe.d_conv[..]].concat();
    [layers("d.conv", &maps, PATCH_PIXELS), layers("d.fc", &recipe.d_sizes(), 1)].concat()
}

/// The weights (`inputs` · I, O) and biases (O,) between layers of these widths: `name1.weight`, `name1.bias`, …
fn layers(name: &str, widths: &[usize], inputs: usize) -> Vec<Spec> {
    let both = |(i, width): (usize, &[usize])| {
        let spec = |kind: &str, shape: &[usize]| Spec::new(format!("{name}{i}.{kind}"), Type::F32, shape);
        [spec("weight", &[inputs * width[0], width[1]]), spec("bias", &[width[1]])]
    };
    (1..).zip(widths.windows(2)).flat_map(both).collect()
}

/// The tensors of a training state, in order: the parameters of [`d_params`] and [`g_params`]; Adam's first moments of both
/// (`m.d.fc1.weight`, …); the second moments (`v.d.fc1.weight`, …); and for recipes with a moving average of G's parameters, the
/// average (`ema.g.fc1.weight`, …).
pub fn state_specs(recipe: &Recipe) -> Vec<Spec> {
    let (d, g) = (d_params(recipe), g_params());
    let theta = [d, g.clone()].concat();
    let named = |kind: &str, of: &[Spec]| -> Vec<Spec> {
        of.iter().map(|s| Spec { name: format!("{kind}.{}", s.name), ..s.clone() }).collect()
    };
    let (m, v) = (named("m", &theta), named("v", &theta));
    let ema = if recipe.ema > 0.0 { named("ema", &g) } else { vec![] };
    [theta, m, v, ema].concat()
}

/// The state at the start of a run. Weights and biases are drawn from U(−1/√in, 1/√in), as by `torch.nn.Linear`
/// and `torch.nn.Conv2d`;
/// moments are 0; the moving average starts at the parameters. For recipes with `mean_bias`, G's last bias starts at
/// the atanh of the mean of the `images` (n, 784).
pub fn initial_state(plan: &Plan, images: ArrayView2<u8>) -> TrainState {
    let specs = state_specs(&plan.recipe);
    let (mut fan_in, mut tensors) = (0, Vec::<Vec<f32>>::new());
    for (i, spec) in specs.iter().enumerate() {
        let mut tensor = vec![0.0; spec.elements()];
        if let Some(name) = spec.name.strip_prefix("ema.") {
            let of = specs.iter().position(|s| s.name == name).expect("the averaged parameter");
            tensor.copy_from_slice(&tensors[of]);
        } else if !spec.name.starts_with("m.") && !spec.name.starts_with("v.") {
            if spec.shape.len() == 2 {
                fan_in = spec.shape[0]; // a bias follows its weight and has the same bound
            }
            let bound = 1.0 / (fan_in as f32).sqrt();
            noise::write_uniform(&mut tensor, plan.seed, 0, stream::INIT + i as u64);
            tensor.iter_mut().for_each(|x| *x *= bound);
        }
        if plan.recipe.mean_bias && spec.name == "g.fc4.bias" {
            let mut sums = Array1::<u64>::zeros(images.ncols());
            images.rows().into_iter().for_each(|image| sums.zip_mut_with(&image, |sum, &x| *sum += u64::from(x)));
            let n = images.nrows().max(1) as f32;
            for (bias, &sum) in tensor.iter_mut().zip(&sums) {
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
