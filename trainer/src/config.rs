//! Settings of a training run: plan, recipe, data source, device and run folder.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Settings of one call of [`train`](crate::train::train).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// What to train.
    pub plan: Plan,
    /// Which images to train on.
    pub data: Source,
    /// How the images of a folder are read.
    #[serde(default)]
    pub reading: Reading,
    /// Where and how the training step is computed.
    pub engine: Engine,
    /// Path of the exported generator. The run folder gets its own copy.
    #[serde(with = "json_path")]
    pub out: Option<PathBuf>,
    /// Path for the ONNX file of one training step, to inspect in a viewer such as Netron.
    #[serde(skip)]
    pub step_graph: Option<PathBuf>,
    /// Overwrite `out` and `step_graph` even if they are other files than such models.
    #[serde(skip)]
    pub force: bool,
    /// Which folder holds the run's files.
    #[serde(skip)]
    pub run_dir: RunDir,
    /// Number of checkpoints to keep, not counting the best by score. 0 means 1.
    pub checkpoints: usize,
    /// Score the generator every `score_every` epochs and after the last epoch. 0 turns scoring off.
    pub score_every: u64,
    /// Which generator is exported when the run ends.
    pub keep: KeepPolicy,
}

impl Config {
    /// Settings for `plan` on `data`, with defaults for everything else: a new numbered folder in `runs`, three
    /// checkpoints, a score every ten epochs. The seed recipe exports its last generator, other recipes their best.
    pub fn new(plan: Plan, data: Source) -> Self {
        let (engine, run_dir, reading) = (Engine::default(), RunDir::Next, Reading::default());
        let keep = if plan.recipe.name == "seed" { KeepPolicy::Last } else { KeepPolicy::Best };
        let (out, step_graph, force) = (None, None, false);
        Self { plan, data, reading, engine, out, step_graph, force, run_dir, checkpoints: 3, score_every: 10, keep }
    }
}

/// Everything that determines the trained weights, given the data set and the device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The networks, losses and optimizer settings.
    #[serde(flatten)]
    pub recipe: Recipe,
    /// Number of passes over the data set, at least 1.
    pub epochs: u64,
    /// Images per training step, at least 1. The last step of an epoch may have fewer.
    pub batch: usize,
    /// Random seed for the initial parameters, the order of the images, z and the dropout masks.
    pub seed: u64,
}

impl Plan {
    /// The classic recipe: 100 epochs in batches of 64.
    pub fn seed_recipe() -> Self {
        Self { recipe: Recipe::seed(), epochs: 100, batch: 64, seed: 0 }
    }

    /// The recipe with good digits in minutes: 100 epochs in batches of 128.
    pub fn tuned_recipe() -> Self {
        Self { recipe: Recipe::tuned(), epochs: 100, batch: 128, seed: 0 }
    }

    /// The recipe whose digits are the hardest to tell from real ones: 100 epochs in batches of 128.
    pub fn best_recipe() -> Self {
        Self { recipe: Recipe::best(), epochs: 100, batch: 128, seed: 0 }
    }

    /// Checks the range of every setting.
    ///
    /// # Errors
    /// Names the first setting that is out of range, as a command-line option.
    pub fn check(&self) -> Result<(), UsageError> {
        let Recipe { adam, d_spread, d_conv, d_hidden, p_drop, real_target, r1, r1_every, ema, .. } = &self.recipe;
        UsageError::unless(self.epochs >= 1, "epochs", "at least 1", self.epochs)?;
        UsageError::unless(self.batch >= 1, "batch", "at least 1", self.batch)?;
        let classes = self.recipe.classes;
        UsageError::unless(
            (1..=MAX_CLASSES).contains(&classes),
            "data",
            &format!("1 to {MAX_CLASSES} classes"),
            classes,
        )?;
        UsageError::unless(adam.alpha > 0.0 && adam.alpha.is_finite(), "lr", "a number above 0", adam.alpha)?;
        let ranges = [
            ("lr-end", adam.alpha_end, 0.0..=1.0),
            ("beta1", adam.beta1, 0.0..=0.9999),
            ("beta2", adam.beta2, 0.0..=0.999999),
            ("d-spread", *d_spread, 0.0..=1.0),
            ("dropout", *p_drop, 0.0..=0.99),
            ("real-target", *real_target, 0.0..=1.0),
            ("r1", *r1, 0.0..=1e6),
            ("ema", *ema, 0.0..=0.999999),
        ];
        for (option, value, range) in ranges {
            let expected = format!("{} to {}", range.start(), range.end());
            UsageError::unless(range.contains(&value), option, &expected, value)?;
        }
        UsageError::unless((1..=1_000_000).contains(r1_every), "r1-every", "1 to 1000000", r1_every)?;
        UsageError::unless(*r1 == 0.0 || *p_drop == 0.0, "r1", &format!("0 with --dropout {p_drop}"), r1)?;
        UsageError::unless(d_conv.len() <= 2, "d-conv", "at most 2 numbers of maps", d_conv.len())?;
        let odd = d_conv.iter().find(|maps| !(1..=512).contains(*maps));
        odd.map_or(Ok(()), |maps| UsageError::unless(false, "d-conv", "1 to 512 maps", maps))?;
        UsageError::unless((1..=8).contains(&d_hidden.len()), "d-hidden", "1 to 8 widths", d_hidden.len())?;
        let odd = d_hidden.iter().find(|width| !(1..=4096).contains(*width));
        odd.map_or(Ok(()), |width| UsageError::unless(false, "d-hidden", "widths of 1 to 4096", width))
    }

    /// Number of steps over all epochs for a data set of `n` images.
    ///
    /// # Errors
    /// When the number does not fit in an `i64`, the type of TensorBoard's step counter.
    pub fn steps(&self, n: usize) -> Result<u64, UsageError> {
        let per_epoch = steps_per_epoch(n, self.batch);
        let most = i64::MAX as u64 / per_epoch.max(1);
        UsageError::unless(self.epochs <= most, "epochs", &format!("at most {most}"), self.epochs)?;
        Ok(self.epochs * per_epoch)
    }

    /// Settings in which this plan differs from the plan of an existing `run`, each as `--lr 0.1 (the run has 0.002)`.
    /// The number of epochs may differ, unless the learning rate decays: the decay is spread over all epochs. The number of
    /// classes is not compared, because it comes from the data.
    pub fn contradictions(&self, run: &Plan) -> Vec<String> {
        let any_epochs = run.recipe.adam.alpha_end == 1.0;
        (self.options().into_iter().zip(run.options()))
            .filter(|(ours, theirs)| ours != theirs && ours.0 != "classes" && !(any_epochs && ours.0 == "epochs"))
            .map(|((option, ours), (_, theirs))| format!("--{option} {ours} (the run has {theirs})"))
            .collect()
    }

    /// Names of the command-line options, without `--`, and their values. `classes` and `epsilon` are among them, but are no
    /// options.
    pub fn options(&self) -> Vec<(String, String)> {
        let json = serde_json::to_value(self).unwrap_or_default();
        let plain = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Array(items) if items.is_empty() => "none".into(),
            value => value.to_string().replace(['[', ']'], ""),
        };
        let fields = json.as_object().into_iter().flatten();
        fields.map(|(name, value)| (name.replace('_', "-"), plain(value))).collect()
    }
}

/// The networks, losses and optimizer settings. In JSON each field but `classes` and `epsilon` has the name of its command-line option,
/// with `_` for `-`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// `seed`, `tuned` or `best`: the recipe whose defaults these settings started from.
    #[serde(rename = "recipe")]
    pub name: String,
    /// Adam's settings, shared by both networks.
    #[serde(flatten)]
    pub adam: Adam,
    /// How far the discriminator's view of an image spreads the grey levels near black and white, 0 to 1, see
    /// [`d_view`](crate::pixel::d_view). Older runs had 0.
    #[serde(default)]
    pub d_spread: f64,
    /// Numbers of maps, 1 to 512, of the discriminator's convolutions, at most two. They come before its dense layers. Older runs
    /// had none.
    #[serde(default)]
    pub d_conv: Vec<usize>,
    /// Widths of the discriminator's hidden dense layers.
    #[serde(alias = "d")]
    pub d_hidden: Vec<usize>,
    /// Number of classes of the data set, 1 to 64. It comes from the data and is no option. Older runs had ten.
    #[serde(default = "ten_classes")]
    pub classes: usize,
    /// Class-conditional training, see [`Self::one_hot`].
    pub conditional: bool,
    /// Use the same z, and so the same pass through G, for the D update and the G update.
    #[serde(alias = "one_z")]
    pub shared_z: bool,
    /// Dropout probability after each hidden dense layer of both networks.
    #[serde(rename = "dropout")]
    pub p_drop: f64,
    /// Target for real images in the D update. A value below 1 is one-sided label smoothing.
    pub real_target: f64,
    /// γ of the R1 penalty, γ/2 · E|∂D(x)/∂x|² on real images; 0 turns it off. Source: Mescheder et al. 2018.
    pub r1: f64,
    /// Apply R1 on every `r1_every`-th step, multiplied by `r1_every` (lazy regularisation). Source: Karras et al. 2020,
    /// StyleGAN2.
    pub r1_every: u64,
    /// Decay of the exponential moving average of G's parameters, which is sampled, scored and exported in G's place. 0
    /// turns the average off.
    pub ema: f64,
    /// Start G's last bias at the atanh of the mean image.
    pub mean_bias: bool,
}

impl Recipe {
    /// The classic recipe.
    pub fn seed() -> Self {
        Self {
            name: "seed".into(),
            adam: Adam { alpha: 2e-3, alpha_end: 1.0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
            d_spread: 0.0,
            d_conv: vec![],
            d_hidden: vec![128, 64, 32],
            classes: ten_classes(),
            conditional: false,
            shared_z: false,
            p_drop: 0.2,
            real_target: 0.9,
            r1: 0.0,
            r1_every: 1,
            ema: 0.0,
            mean_bias: false,
        }
    }

    /// A class-conditional GAN with the same generator architecture.
    pub fn tuned() -> Self {
        Self {
            name: "tuned".into(),
            adam: Adam { alpha: 3e-3, alpha_end: 0.25, beta1: 0.5, beta2: 0.99, epsilon: 1e-8 },
            d_spread: 0.0,
            d_conv: vec![],
            d_hidden: vec![256, 128],
            classes: ten_classes(),
            conditional: true,
            shared_z: true,
            p_drop: 0.0,
            real_target: 1.0,
            r1: 0.3,
            r1_every: 4,
            ema: 0.999,
            mean_bias: true,
        }
    }

    /// The tuned recipe with convolutions in the discriminator, which also sees grey levels spread. Of the three recipes it has the
    /// digits that a plain classifier takes for real most often.
    pub fn best() -> Self {
        Self { name: "best".into(), d_spread: 0.5, d_conv: vec![32, 64], d_hidden: vec![128], r1: 1.0, ..Self::tuned() }
    }

    /// The widths of the discriminator's dense layers, input and output included. A convolution halves both sides of its input.
    pub fn d_sizes(&self) -> Vec<usize> {
        let side = SIDE >> self.d_conv.len();
        let input = side * side * self.d_conv.last().unwrap_or(&1);
        [&[input], &self.d_hidden[..], &[self.one_hot().unwrap_or(1)]].concat()
    }

    /// Number of classes if the recipe is class-conditional: z begins with the class as one-hot of this length, and D has one
    /// logit per class. `None` for unconditional training, which is also that on a data set of one class.
    pub fn one_hot(&self) -> Option<usize> {
        (self.conditional && self.classes > 1).then_some(self.classes)
    }

    /// Number of z vectors drawn for a step of `batch` images.
    pub fn z_rows(&self, batch: usize) -> usize {
        if self.shared_z { batch } else { 2 * batch }
    }

    /// Whether `step`, counted from 0, applies the R1 penalty.
    pub fn applies_r1(&self, step: u64) -> bool {
        self.r1 > 0.0 && step.is_multiple_of(self.r1_every)
    }

    /// Adam's step size, Adam's ε (see [`Adam::bias_corrected`]) and the EMA rate for `step`, counted from 0, of a run of
    /// `steps`. The EMA rate is 1 − `ema`, but larger in early steps, so that the average forgets the initial parameters.
    pub fn rates(&self, step: u64, steps: u64) -> [f32; 3] {
        let t = step + 1;
        let BiasCorrected { step_size, epsilon } = self.adam.bias_corrected(t, steps);
        let ramp = 9.0 / (t as f32 + 9.0); // 1 − t / (t + 9)
        [step_size, epsilon, ramp.clamp((1.0 - self.ema) as f32, 1.0)]
    }

    /// Name prefix of the parameters in [`state_specs`](crate::state::state_specs) that are sampled, scored and exported:
    /// `ema.` with a moving average, otherwise empty.
    pub fn export_prefix(&self) -> &'static str {
        if self.ema > 0.0 { "ema." } else { "" }
    }
}

/// Settings of the Adam optimizer, with the paper's letters. Source: Kingma & Ba 2015, Algorithm 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Adam {
    /// Initial step size α, above 0.
    #[serde(rename = "lr")]
    pub alpha: f64,
    /// Fraction of α that is left when the run ends, 0 to 1. α decays linearly over all steps.
    #[serde(rename = "lr_end")]
    pub alpha_end: f64,
    /// Decay rate β₁ of the first moments.
    pub beta1: f64,
    /// Decay rate β₂ of the second moments.
    pub beta2: f64,
    /// ε, which keeps the update finite where the second moment is 0.
    pub epsilon: f64,
}

impl Adam {
    /// Step size and ε with Adam's bias correction folded in, for step `t`, counted from 1, of a run of `steps`.
    /// Computed in f64, as PyTorch does: in f32, 1 − 0.999¹ would be off by 5·10⁻⁵.
    pub fn bias_corrected(&self, t: u64, steps: u64) -> BiasCorrected<f32> {
        let [c1, c2] = [self.beta1, self.beta2].map(|beta| 1.0 - beta.powf(t as f64));
        // α (1 − (1 − end) (t − 1) / steps)
        let fall = self.alpha * (1.0 - self.alpha_end) / steps as f64;
        let alpha = self.alpha - fall * (t as f64 - 1.0);
        let correction = c2.sqrt();
        BiasCorrected { step_size: (alpha / c1 * correction) as f32, epsilon: (self.epsilon * correction) as f32 }
    }
}

/// Adam's two scalars for one step `t`: numbers, or the graph nodes that hold them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BiasCorrected<T> {
    /// α √(1 − β₂ᵗ) / (1 − β₁ᵗ)
    pub step_size: T,
    /// ε √(1 − β₂ᵗ)
    pub epsilon: T,
}

/// Where and how the training step is computed. Another device adds sums in another order, which changes the last bits of the trained
/// weights. The number of threads changes the speed alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// `None` means CUDA if it works, otherwise the CPU.
    pub device: Option<Device>,
    /// CPU threads, 1 to 1024. `None` means two, or one if this process may use only one core.
    pub threads: Option<usize>,
    /// Allow CUDA to round the inputs of matrix products to TF32 (10 bits of mantissa).
    #[serde(default)]
    pub tf32: bool,
    /// Do not download anything.
    pub offline: bool,
}

impl Engine {
    /// The CPU with this number of threads.
    pub fn cpu(threads: usize) -> Self {
        Self { device: Some(Device::Cpu), threads: Some(threads), ..Self::default() }
    }
}

/// Device that a session runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    /// ONNX Runtime's CPU execution provider.
    Cpu,
    /// ONNX Runtime's CUDA execution provider, on GPU 0.
    Cuda,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
        })
    }
}

/// The device that a run trains on, with its settings.
#[derive(Clone, Copy, Debug)]
pub struct DeviceSettings {
    /// The device.
    pub device: Device,
    /// Threads of the CPU provider.
    pub threads: usize,
    /// Whether the CUDA provider may round to TF32.
    pub tf32: bool,
}

impl DeviceSettings {
    /// What decides the last bits of the trained weights: the device, and whether CUDA may round to TF32.
    pub fn arithmetic(&self) -> &'static str {
        match (self.device, self.tf32) {
            (Device::Cpu, _) => "cpu",
            (Device::Cuda, false) => "cuda, TF32 off",
            (Device::Cuda, true) => "cuda, TF32 on",
        }
    }

    /// A description: `cpu, 2 threads` or `cuda, TF32 off`.
    pub fn describe(&self) -> String {
        match (self.device, self.threads) {
            (Device::Cpu, 1) => "cpu, 1 thread".into(),
            (Device::Cpu, threads) => format!("cpu, {threads} threads"),
            (Device::Cuda, _) => self.arithmetic().into(),
        }
    }
}

/// The data sets that `--data` knows by name.
pub const PUBLISHED: [&str; 3] = ["mnist", "fashion", "kmnist"];

/// Name of the data set of [`Source::Demo`].
pub const DEMO: &str = "demo (no MNIST)";

/// Source of the training images: a parsed `--data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "JsonPath", into = "JsonPath")]
pub enum Source {
    /// A data set of [`PUBLISHED`], from the cache or downloaded.
    Published(String),
    /// A folder, or a `.npz` file.
    Folder(PathBuf),
    /// Digits drawn by the shipped generator.
    Demo,
}

/// How the images of a folder are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Exchange black and white, for ink on paper.
    pub invert: bool,
    /// Images that cannot be read are an error.
    #[serde(skip)]
    pub strict: bool,
}

impl TryFrom<OsString> for Source {
    type Error = UsageError;

    fn try_from(text: OsString) -> Result<Self, UsageError> {
        UsageError::unless(
            !text.is_empty(),
            "data",
            "mnist, fashion, kmnist, demo, a folder or a .npz file",
            "nothing",
        )?;
        Ok(match text.to_str() {
            Some("demo") => Source::Demo,
            Some(name) if PUBLISHED.contains(&name) => Source::Published(name.into()),
            _ => Source::Folder(text.into()),
        })
    }
}

impl TryFrom<JsonPath> for Source {
    type Error = UsageError;

    fn try_from(path: JsonPath) -> Result<Self, UsageError> {
        OsString::from(path).try_into()
    }
}

impl From<Source> for JsonPath {
    fn from(source: Source) -> Self {
        match source {
            Source::Published(name) => Self::Text(name),
            Source::Folder(folder) => folder.into_os_string().into(),
            Source::Demo => Self::Text("demo".into()),
        }
    }
}

/// A path in JSON: its text, or its bytes if it is no Unicode.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum JsonPath {
    Text(String),
    Other(OsString),
}

impl From<OsString> for JsonPath {
    fn from(path: OsString) -> Self {
        path.into_string().map_or_else(Self::Other, Self::Text)
    }
}

impl From<JsonPath> for OsString {
    fn from(path: JsonPath) -> Self {
        match path {
            JsonPath::Text(text) => text.into(),
            JsonPath::Other(path) => path,
        }
    }
}

/// An optional path as a [`JsonPath`].
mod json_path {
    use super::*;

    pub fn serialize<S: serde::Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        path.clone().map(|path| JsonPath::from(path.into_os_string())).serialize(to)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        let path = Option::<JsonPath>::deserialize(from)?;
        Ok(path.map(|path| OsString::from(path).into()))
    }
}

/// Which folder holds a run's files.
#[derive(Clone, Debug, Default)]
pub enum RunDir {
    /// A new numbered folder in `runs`.
    #[default]
    Next,
    /// A new run in this folder, which must not hold a run yet.
    New(PathBuf),
    /// The folder of a stopped or killed run, to continue that run.
    Resume(PathBuf),
}

/// Which generator a run exports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum KeepPolicy {
    /// The generator with the lowest Fréchet distance.
    Best,
    /// The generator after the last step.
    Last,
}

/// The generator's layer widths, input and output included.
pub const G_SIZES: [usize; 5] = [LATENT, 32, 64, 128, PIXELS];
/// Largest number of classes of a data set.
pub const MAX_CLASSES: usize = 64;
/// Length of z.
pub const LATENT: usize = 100;
/// Width and height of an image.
pub const SIDE: usize = 28;
/// Pixels of a patch, 4 × 4: the part of an image that a convolution of the discriminator sees at once.
pub const PATCH_PIXELS: usize = 4 * 4;
/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;

/// Whether the names of classes are just their numbers: "0", "1", and so on, as for digits.
pub fn are_numbers(classes: &[String]) -> bool {
    classes.iter().enumerate().all(|(class, name)| *name == class.to_string())
}

/// The number of classes in runs of older versions: the ten digits.
fn ten_classes() -> usize {
    10
}

/// Number of steps in an epoch over `n` images.
pub fn steps_per_epoch(n: usize, batch: usize) -> u64 {
    n.div_ceil(batch) as u64
}

/// An error that another command line would avoid: a value out of range, or options that contradict each other. `trainer`
/// exits with code 2 for it, and with 1 for every other error.
#[derive(Debug)]
pub struct UsageError(pub String);

impl UsageError {
    /// `--option: … expected, … found`, unless `ok`.
    ///
    /// # Errors
    /// When `ok` is false.
    pub fn unless(ok: bool, option: &str, expected: &str, found: impl fmt::Display) -> Result<(), Self> {
        if ok { Ok(()) } else { Err(Self(format!("--{option}: {expected} expected, {found} found"))) }
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_under_the_names_of_older_runs_too() {
        let plan = Plan::tuned_recipe();
        let json = serde_json::to_string(&plan).unwrap();
        assert!(json.contains("\"d_hidden\":[256,128]") && json.contains("\"shared_z\":true"), "{json}");
        let older = json.replace("\"d_hidden\"", "\"d\"").replace("\"shared_z\"", "\"one_z\"");
        assert_eq!(serde_json::from_str::<Plan>(&older).unwrap(), plan);
        let newer = ["\"classes\":10,", "\"d_conv\":[],", "\"d_spread\":0.0,"];
        let of_digits = newer.iter().fold(json.clone(), |json, field| json.replace(field, ""));
        assert!(of_digits != json && serde_json::from_str::<Plan>(&of_digits).unwrap() == plan);
    }

    #[test]
    fn a_recipe_for_one_class_is_unconditional() {
        let recipe = |classes| Recipe { classes, ..Recipe::tuned() };
        assert_eq!((recipe(1).one_hot(), recipe(1).d_sizes()), (None, vec![PIXELS, 256, 128, 1]));
        assert_eq!((recipe(64).one_hot(), recipe(64).d_sizes()), (Some(64), vec![PIXELS, 256, 128, 64]));
        let check = |classes| Plan { recipe: recipe(classes), ..Plan::tuned_recipe() }.check();
        assert!(check(1).is_ok() && check(64).is_ok());
        assert_eq!(check(65).unwrap_err().to_string(), "--data: 1 to 64 classes expected, 65 found");
    }

    #[cfg(unix)]
    #[test]
    fn paths_that_are_no_unicode_come_back_from_json() {
        use std::os::unix::ffi::OsStringExt;
        let path = || PathBuf::from(OsString::from_vec(b"/d\xff/g".into()));
        let config = Config { out: Some(path()), ..Config::new(Plan::seed_recipe(), Source::Folder(path())) };
        let back: Config = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!((back.out, back.data), (config.out, config.data));
    }
}
