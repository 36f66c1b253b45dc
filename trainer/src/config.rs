//! What to train: recipe, plan, and everything that a run is asked for.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// A run, wholly determined: the same plan on the same data gives the same generator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    #[serde(flatten)]
    pub recipe: Recipe,
    /// Passes over the data set.
    pub epochs: u64,
    /// Images in a step; the last step of an epoch takes what is left.
    pub batch: usize,
    /// Names the initial parameters and all that is drawn at random after them.
    pub seed: u64,
}

impl Plan {
    /// The classic recipe: 100 epochs in batches of 64.
    pub fn seed_recipe() -> Self {
        Self { recipe: Recipe::seed(), epochs: 100, batch: 64, seed: 0 }
    }

    /// Our best: 100 epochs in batches of 128.
    pub fn tuned_recipe() -> Self {
        Self { recipe: Recipe::tuned(), epochs: 100, batch: 128, seed: 0 }
    }

    /// # Errors
    /// Names the first setting that makes no sense.
    pub fn check(&self) -> Result<()> {
        ensure!(self.epochs >= 1, "--epochs: at least 1 expected, 0 found");
        ensure!(self.batch >= 1, "--batch: at least 1 expected, 0 found");
        let Recipe { adam, d, p_drop, real_target, r1, r1_every, ema, .. } = &self.recipe;
        let alpha = adam.alpha;
        ensure!(alpha > 0.0 && alpha.is_finite(), "--lr: a number above 0 expected, {alpha} found");
        let shares = [
            ("lr-end", adam.alpha_end, 0.0..=1.0),
            ("beta1", adam.beta1, 0.0..=0.9999),
            ("beta2", adam.beta2, 0.0..=0.999999),
            ("dropout", *p_drop, 0.0..=0.99),
            ("real-target", *real_target, 0.0..=1.0),
            ("r1", *r1, 0.0..=1e6),
            ("ema", *ema, 0.0..=0.999999),
        ];
        for (option, value, range) in shares {
            let (least, most) = (range.start(), range.end());
            ensure!(range.contains(&value), "--{option}: {least} to {most} expected, {value} found");
        }
        ensure!(*r1_every >= 1, "--r1-every: at least 1 expected, 0 found");
        ensure!(*r1 == 0.0 || *p_drop == 0.0, "--r1: 0 expected with --dropout {p_drop}, {r1} found");
        let layers = d.len();
        ensure!((1..=8).contains(&layers), "--d: 1 to 8 widths of hidden layers expected, {layers} found");
        let odd = d.iter().find(|width| !(1..=4096).contains(*width));
        odd.map_or(Ok(()), |width| bail!("--d: widths of 1 to 4096 expected, {width} found"))
    }

    /// How many steps the plan takes over `n` images.
    ///
    /// # Errors
    /// When there are more than can be counted.
    pub fn steps(&self, n: usize) -> Result<u64> {
        let per_epoch = steps_per_epoch(n, self.batch);
        let most = i64::MAX as u64 / per_epoch.max(1); // event files count in i64
        ensure!(self.epochs <= most, "--epochs: at most {most} expected, {} found", self.epochs);
        Ok(self.epochs * per_epoch)
    }

    /// Where this plan is not that of a `run` to go on with, in the words of the options: `--lr 0.1 (the run has
    /// 0.002)`. The number of epochs may differ, unless the learning
    /// rate falls.
    pub fn contradictions(&self, run: &Plan) -> Vec<String> {
        let [ours, theirs] = [self, run].map(|plan| serde_json::to_value(plan).unwrap_or_default());
        // A learning rate that falls does so over all epochs.
        let any_epochs = run.recipe.adam.alpha_end == 1.0;
        let ours = ours.as_object().into_iter().flatten().filter(|(key, _)| *key != "epochs" || !any_epochs);
        let plain = |value: &serde_json::Value| value.as_str().map_or(value.to_string(), str::to_string);
        ours.filter(|(key, value)| theirs.get(key) != Some(value))
            .map(|(key, value)| (key.replace('_', "-"), plain(value), plain(&theirs[key])))
            .map(|(option, ours, theirs)| format!("--{option} {ours} (the run has {theirs})"))
            .collect()
    }
}

/// How the training step is run. Another device or number of threads is another order of sums, and so another generator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// `None` takes CUDA where it works, else the CPU.
    pub device: Option<Device>,
    /// CPU threads; `None` takes two, or one on a machine of one core.
    pub threads: Option<usize>,
    /// Whether CUDA may round what it multiplies to TF32's 10 bits.
    #[serde(default)]
    pub tf32: bool,
    /// Never fetch anything.
    pub offline: bool,
}

/// What to train and where to leave it.
#[derive(Clone, Debug)]
pub struct Config {
    pub plan: Plan,
    pub data: Source,
    pub engine: Engine,
    /// Where the generator goes, beside the run folder's own copy.
    pub out: Option<PathBuf>,
    /// Where the graph of the training step goes, for people to look at.
    pub step_graph: Option<PathBuf>,
    pub folder: Folder,
    /// How many checkpoints stay, beside the best by score.
    pub checkpoints: usize,
    /// Epochs from one score to the next; 0 is never.
    pub score_every: u64,
    pub keep: Keep,
}

/// Which generator a run leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The one with the least Fréchet distance.
    Best,
    /// The one after the last step.
    Last,
}

impl Config {
    /// A plan and its data; the rest is what most would want: a numbered folder in `runs`, three checkpoints, a score
    /// every ten epochs; the seed recipe keeps its last generator, others their best.
    pub fn new(plan: Plan, data: Source) -> Self {
        let (engine, folder) = (Engine::default(), Folder::Next);
        let keep = if plan.recipe.name == "seed" { Keep::Last } else { Keep::Best };
        Self { plan, data, engine, out: None, step_graph: None, folder, checkpoints: 3, score_every: 10, keep }
    }
}

/// Where a run lives.
#[derive(Clone, Debug)]
pub enum Folder {
    /// A new one, numbered, below `runs`.
    Next,
    /// A new one of this name.
    New(PathBuf),
    /// The one of a run that was stopped or killed, to go on with it.
    Resume(PathBuf),
}

/// What a training step is made of. As JSON its fields have the names of the trainer's options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    #[serde(rename = "recipe")]
    pub name: String,
    #[serde(flatten)]
    pub adam: Adam,
    /// The widths of the discriminator's hidden layers.
    pub d: Vec<usize>,
    /// Whether z[0..10] is the class as one-hot, and D has a logit for each class.
    pub conditional: bool,
    /// Whether one z, and so one pass through G, serves both updates.
    pub one_z: bool,
    /// The probability of dropout after each hidden layer of both networks.
    #[serde(rename = "dropout")]
    pub p_drop: f64,
    /// The target of real images in the discriminator's update (one-sided label smoothing).
    pub real_target: f64,
    /// γ of R1, the penalty γ/2 · E|∂D(x)/∂x|² on real images; 0 is none. Source: Mescheder et al. 2018.
    pub r1: f64,
    /// R1 is taken every so many steps, and then so many times as large (lazy regularisation, StyleGAN2).
    pub r1_every: u64,
    /// The decay of the exponential moving average of G's parameters, which is then what is exported; 0 is none.
    pub ema: f64,
    /// Whether G's last bias starts at the atanh of the mean image.
    pub mean_bias: bool,
}

impl Recipe {
    /// The classic recipe.
    pub fn seed() -> Self {
        Self {
            name: "seed".into(),
            adam: Adam { alpha: 2e-3, alpha_end: 1.0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
            d: vec![128, 64, 32],
            conditional: false,
            one_z: false,
            p_drop: 0.2,
            real_target: 0.9,
            r1: 0.0,
            r1_every: 1,
            ema: 0.0,
            mean_bias: false,
        }
    }

    /// The same generator, trained as well as we know how to, and able to draw the digit asked for.
    pub fn tuned() -> Self {
        Self {
            name: "tuned".into(),
            adam: Adam { alpha: 3e-3, alpha_end: 0.25, beta1: 0.5, beta2: 0.99, epsilon: 1e-8 },
            d: vec![256, 128],
            conditional: true,
            one_z: true,
            p_drop: 0.0,
            real_target: 1.0,
            r1: 0.3,
            r1_every: 4,
            ema: 0.999,
            mean_bias: true,
        }
    }

    /// The discriminator's layer widths.
    pub fn d_sizes(&self) -> Vec<usize> {
        let logits = if self.conditional { CLASSES } else { 1 };
        [&[PIXELS], &self.d[..], &[logits]].concat()
    }

    /// How many z a step of `batch` images draws.
    pub fn z_rows(&self, batch: usize) -> usize {
        if self.one_z { batch } else { 2 * batch }
    }

    /// Whether a step, counted from 0, takes R1.
    pub fn penalises(&self, step: u64) -> bool {
        self.r1 > 0.0 && step.is_multiple_of(self.r1_every)
    }

    /// Adam's step size and ε (see [`Adam::at_step`]) in a step, counted from 0, of a run of `steps`, and how far the moving
    /// average goes towards the parameters: 1 − `ema`, and more in the first steps, so that it forgets where it began.
    pub fn rates(&self, step: u64, steps: u64) -> [f32; 3] {
        let t = step + 1;
        let AtStep { step_size, epsilon } = self.adam.at_step(t, steps);
        let ramp = 9.0 / (t as f32 + 9.0); // 1 − t / (t + 9)
        [step_size, epsilon, ramp.clamp((1.0 - self.ema) as f32, 1.0)]
    }

    /// What stands before the names of those parameters of [`state_specs`] that are sampled, scored and exported.
    pub fn best(&self) -> &'static str {
        if self.ema > 0.0 { "ema." } else { "" }
    }
}

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

/// What one step t has in common for all parameters: two numbers, or the scalars that hold them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AtStep<T> {
    /// α √(1 − β₂ᵗ) / (1 − β₁ᵗ)
    pub step_size: T,
    /// ε √(1 − β₂ᵗ)
    pub epsilon: T,
}

impl Adam {
    /// α and the bias corrections at step `t`, counted from 1, of a run of `steps`. They are computed in f64, as PyTorch
    /// does: in f32, 1 − 0.999¹ would be off by 5·10⁻⁵.
    pub fn at_step(&self, t: u64, steps: u64) -> AtStep<f32> {
        let [c1, c2] = [self.beta1, self.beta2].map(|beta| 1.0 - beta.powf(t as f64));
        // α (1 − (1 − end) (t − 1) / steps)
        let fall = self.alpha * (1.0 - self.alpha_end) / steps as f64;
        let alpha = self.alpha - fall * (t as f64 - 1.0);
        let correction = c2.sqrt();
        AtStep { step_size: (alpha / c1 * correction) as f32, epsilon: (self.epsilon * correction) as f32 }
    }
}

/// Where a session runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    Cpu,
    Cuda,
}

impl Device {
    /// What makes the sums of a run what they are, to the bit, in words: the device, and on the CPU its threads, on CUDA
    /// whether products are rounded to TF32.
    pub fn place(self, threads: usize, tf32: bool) -> String {
        match (self, threads, tf32) {
            (Device::Cpu, 1, _) => "cpu, 1 thread".into(),
            (Device::Cpu, threads, _) => format!("cpu, {threads} threads"),
            (Device::Cuda, _, false) => "cuda, TF32 off".into(),
            (Device::Cuda, _, true) => "cuda, TF32 on".into(),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
        })
    }
}

/// The data sets that `--data` knows by name.
pub const PUBLISHED: [&str; 3] = ["mnist", "fashion", "kmnist"];

/// What `--data` may name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// One of [`PUBLISHED`].
    Published(&'static str),
    Folder(PathBuf),
    /// Digits drawn by the shipped generator.
    Demo,
}

impl FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        ensure!(!text.is_empty(), "--data: mnist, fashion, kmnist, demo or a folder expected, nothing found");
        Ok(match PUBLISHED.iter().find(|&&name| name == text) {
            Some(name) => Source::Published(name),
            None if text == "demo" => Source::Demo,
            None => Source::Folder(text.into()),
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Source::Published(name) => f.write_str(name),
            Source::Folder(folder) => write!(f, "{}", folder.display()),
            Source::Demo => f.write_str("demo"),
        }
    }
}

/// The generator's layer widths.
pub const G_SIZES: [usize; 5] = [LATENT, 32, 64, 128, PIXELS];
/// Digits.
pub const CLASSES: usize = 10;
/// The length of z.
pub const LATENT: usize = 100;
/// 28 × 28.
pub const PIXELS: usize = 784;

/// How many steps an epoch over `n` images takes.
pub fn steps_per_epoch(n: usize, batch: usize) -> u64 {
    n.div_ceil(batch) as u64
}
