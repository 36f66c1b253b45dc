//! The command line: subcommands, options and their help texts.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use trainer::config::{Config, Device, Engine, KeepPolicy, Plan, Reading, Recipe, RunDir, Source, UsageError};
use trainer::run::resume::CONFIG;
use trainer::run::{numbered, resume};
use trainer::score::classifier::Network;
use trainer::score::judge;

/// Trains a GAN on images, by default MNIST, and writes its generator to an ONNX file.
#[derive(Parser)]
#[command(
    name = "trainer",
    version,
    args_conflicts_with_subcommands = true,
    args_override_self = true,
    allow_negative_numbers = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub train: TrainArgs,
}

#[derive(Subcommand)]
pub enum Command {
    /// Measures milliseconds per training step, and compares them with the machine's peak in matrix products.
    Bench(BenchArgs),
    /// Shows what a data set holds: counts, classes, the mean image and contact sheets.
    Data(DataArgs),
    /// Scores a generator: distance from the test images, variety, copies of training images.
    Score(ScoreArgs),
    /// Trains the judge of a data set on the CPU. A judge is the classifier whose features score generators.
    Judge(JudgeArgs),
    /// Finds ONNX Runtime or downloads it, and checks that it works on this machine.
    Setup(SetupArgs),
    /// Trains many seeds, one run folder each, and prints one table of all.
    Sweep(SweepArgs),
    /// Prints a table of runs.
    Compare {
        /// Run folders.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
    },
    /// Prints a script that completes this command's arguments in a shell.
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Prints the man page of this command, or of one of its subcommands.
    #[command(hide = true)]
    Man { command: Option<String> },
}

#[derive(Args)]
pub struct TrainArgs {
    /// Training images: `mnist`, `fashion` or `kmnist` (from the cache, or downloaded), `demo` (drawn by the shipped
    /// generator, not MNIST), a folder with four IDX files, a .npz file, or a folder with a folder of PNG or JPEG images for each
    /// class [default: the folder in MNIST_DIR, else mnist].
    #[arg(long)]
    data: Option<OsString>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Defaults for the recipe options below: `seed` is the classic recipe, `tuned` has good digits in minutes,
    /// `best` has digits that are harder to tell from real ones, after an hour or two on a CPU [default: seed].
    #[arg(long, value_enum)]
    recipe: Option<RecipeName>,
    /// Number of passes over the data set [default: 100].
    #[arg(long)]
    epochs: Option<u64>,
    /// Images per training step [default: 64; tuned and best: 128].
    #[arg(long)]
    batch: Option<usize>,
    /// Random seed. With the same device and ONNX Runtime, the same command writes the same file
    /// [default: 0].
    #[arg(long)]
    seed: Option<u64>,
    /// Adam's step size, for both networks [default: 0.002; tuned and best: 0.003].
    #[arg(long)]
    lr: Option<f64>,
    /// Path of the exported generator; a name that ends in .gz gets a gzipped file [default: g.onnx].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Overwrites the file of --out or --write-step-graph even if it is none that the trainer wrote.
    #[arg(long)]
    force: bool,
    /// Folder for the run's files [default: the next free number in runs, such as runs/00000-seed].
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    run_dir: Option<PathBuf>,
    /// Continues a stopped or killed run. Options that are not given keep the run's values. `latest` is the run in runs that
    /// was worked on last.
    #[arg(long, value_name = "DIR|latest")]
    resume: Option<PathBuf>,
    /// Number of checkpoints to keep, not counting the best by score [default: 3].
    #[arg(long, value_name = "K")]
    checkpoints: Option<usize>,
    /// Epochs from one score to the next; 0 turns scoring off. The score is the Fréchet distance in the judge's features
    /// [default: 10].
    #[arg(long, value_name = "EPOCHS")]
    score_every: Option<u64>,
    /// Which generator to export: the last, or the best by score [default: last; tuned and best: best].
    #[arg(long, value_enum)]
    keep: Option<KeepPolicy>,
    /// Also writes the graph of one training step, as the CPU runs it, to inspect in a viewer such as Netron.
    #[arg(long, value_name = "FILE")]
    write_step_graph: Option<PathBuf>,
    /// Prints the training settings with an estimate of time and memory, and both networks layer by layer, and stops. Downloads
    /// the data set and ONNX Runtime if they are missing.
    #[arg(long)]
    pub dry_run: bool,
    /// Prints only warnings and errors.
    #[arg(long)]
    pub quiet: bool,
    /// Prints one JSON object per epoch to standard output.
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    recipe_options: RecipeArgs,
}

impl TrainArgs {
    /// The settings of a new run, or those of the run to resume, with the given options.
    ///
    /// # Errors
    /// When the run to resume cannot be read, or an option has no valid value.
    pub fn config(&self) -> Result<Config> {
        let mut config = match &self.resume {
            Some(latest) if latest == Path::new("latest") => resume::config_of(numbered::latest()?)?,
            Some(folder) => resume::config_of(folder.clone()).context("--resume")?,
            None => {
                let plan = self.recipe.unwrap_or(RecipeName::Seed).plan();
                Config { out: Some("g.onnx".into()), ..Config::new(plan, source(None)?) }
            }
        };
        if let (Some(name), Some(_)) = (self.recipe, &self.resume) {
            config.plan.recipe = name.plan().recipe;
        }
        self.recipe_options.apply(&mut config.plan.recipe);
        let Plan { recipe, epochs, batch, seed } = &mut config.plan;
        set(epochs, self.epochs);
        set(batch, self.batch);
        set(seed, self.seed);
        set(&mut recipe.adam.alpha, self.lr);
        set(&mut config.checkpoints, self.checkpoints);
        set(&mut config.score_every, self.score_every);
        set(&mut config.keep, self.keep);
        set(&mut config.data, self.data.clone().map(Source::try_from).transpose()?);
        config.reading.invert |= self.reading.invert;
        config.reading.strict = self.reading.strict;
        match &self.out {
            Some(out) => config.out = Some(out.clone()),
            None => resume::check_recorded_out(&config)?,
        }
        config.step_graph = self.write_step_graph.clone();
        config.force = self.force;
        if let Some(folder) = &self.run_dir {
            config.run_dir = RunDir::New(folder.clone());
        }
        self.engine.apply(&mut config.engine);
        Ok(config)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum RecipeName {
    Seed,
    Tuned,
    Best,
}

impl RecipeName {
    fn plan(self) -> Plan {
        match self {
            Self::Seed => Plan::seed_recipe(),
            Self::Tuned => Plan::tuned_recipe(),
            Self::Best => Plan::best_recipe(),
        }
    }
}

#[derive(Args)]
#[command(next_help_heading = "Recipe")]
struct RecipeArgs {
    /// Fraction of --lr that is left at the end of the run. The step size decays linearly [default: 1; tuned and best: 0.25].
    #[arg(long, value_name = "FRACTION")]
    lr_end: Option<f64>,
    /// Decay rate of Adam's first moments [default: 0.9; tuned and best: 0.5].
    #[arg(long)]
    beta1: Option<f64>,
    /// Decay rate of Adam's second moments [default: 0.999; tuned and best: 0.99].
    #[arg(long)]
    beta2: Option<f64>,
    /// How far the discriminator's view of an image spreads the grey levels near black and white, 0 to 1 [default: 0; best: 0.5].
    #[arg(long, value_name = "SPREAD")]
    d_spread: Option<f64>,
    /// Numbers of maps of the discriminator's convolutions before its dense layers, such as 32,64; at most two of 1 to 512 each, or
    /// none [default: none; best: 32,64].
    #[arg(long, value_name = "MAPS")]
    d_conv: Option<Maps>,
    /// Widths of the discriminator's hidden dense layers [default: 128,64,32; tuned: 256,128; best: 128].
    #[arg(long, alias = "d", value_delimiter = ',', value_name = "WIDTHS")]
    d_hidden: Option<Vec<usize>>,
    /// Class-conditional training: z begins with the class as one-hot, and the discriminator has one output per class [default:
    /// false; tuned and best: true].
    #[arg(long, value_name = "BOOL")]
    conditional: Option<bool>,
    /// Uses the same z for the discriminator's and the generator's update [default: false; tuned and best: true].
    #[arg(long, alias = "one-z", value_name = "BOOL")]
    shared_z: Option<bool>,
    /// Dropout probability after the hidden dense layers of both networks [default: 0.2; tuned and best: 0].
    #[arg(long, value_name = "P")]
    dropout: Option<f64>,
    /// The discriminator's target for real images [default: 0.9; tuned and best: 1].
    #[arg(long, value_name = "TARGET")]
    real_target: Option<f64>,
    /// γ of the R1 penalty on the discriminator's gradients [default: 0; tuned: 0.3; best: 1].
    #[arg(long, value_name = "GAMMA")]
    r1: Option<f64>,
    /// Steps from one R1 penalty to the next [default: 1; tuned and best: 4].
    #[arg(long, value_name = "STEPS")]
    r1_every: Option<u64>,
    /// Decay of the moving average of the generator's parameters, which is exported in the generator's place; 0 turns it
    /// off [default: 0; tuned and best: 0.999].
    #[arg(long, value_name = "DECAY")]
    ema: Option<f64>,
    /// Starts the generator's last bias at the mean image [default: false; tuned and best: true].
    #[arg(long, value_name = "BOOL")]
    mean_bias: Option<bool>,
}

impl RecipeArgs {
    fn apply(&self, recipe: &mut Recipe) {
        set(&mut recipe.adam.alpha_end, self.lr_end);
        set(&mut recipe.adam.beta1, self.beta1);
        set(&mut recipe.adam.beta2, self.beta2);
        set(&mut recipe.d_spread, self.d_spread);
        set(&mut recipe.d_conv, self.d_conv.clone().map(|Maps(maps)| maps));
        set(&mut recipe.d_hidden, self.d_hidden.clone());
        set(&mut recipe.conditional, self.conditional);
        set(&mut recipe.shared_z, self.shared_z);
        set(&mut recipe.p_drop, self.dropout);
        set(&mut recipe.real_target, self.real_target);
        set(&mut recipe.r1, self.r1);
        set(&mut recipe.r1_every, self.r1_every);
        set(&mut recipe.ema, self.ema);
        set(&mut recipe.mean_bias, self.mean_bias);
    }
}

/// Numbers of maps, or `none`.
#[derive(Clone)]
struct Maps(Vec<usize>);

impl FromStr for Maps {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let maps = if text == "none" { Ok(vec![]) } else { text.split(',').map(str::parse).collect() };
        maps.map(Self).map_err(|_| "numbers such as 32,64, or none expected".into())
    }
}

#[derive(Args)]
pub struct ReadingArgs {
    /// Exchanges black and white in all images, for ink on paper.
    #[arg(long)]
    invert: bool,
    /// Makes images that cannot be read an error. Otherwise they are left out, with a warning.
    #[arg(long)]
    strict: bool,
}

impl ReadingArgs {
    /// How images are read.
    pub fn reading(&self) -> Reading {
        Reading { invert: self.invert, strict: self.strict }
    }
}

#[derive(Args)]
pub struct DataArgs {
    /// A name, a folder or a .npz file, as --data for training [default: the folder in MNIST_DIR, else mnist].
    pub data: Option<OsString>,
    /// Writes the mean image and a contact sheet of each class to this folder, as PNG files.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Overwrites files in the folder of --out.
    #[arg(long)]
    pub force: bool,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Downloads nothing.
    #[arg(long)]
    pub offline: bool,
}

#[derive(Args)]
pub struct BenchArgs {
    /// Recipe whose steps are measured.
    #[arg(long, value_enum, default_value_t = RecipeName::Seed)]
    recipe: RecipeName,
    /// Images per training step [default: 64; tuned and best: 128].
    #[arg(long)]
    batch: Option<usize>,
    #[command(flatten)]
    settings: RecipeArgs,
    /// Number of steps to measure.
    #[arg(long, default_value_t = 1000)]
    pub steps: usize,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}

impl BenchArgs {
    /// The plan whose steps are measured.
    pub fn plan(&self) -> Plan {
        let mut plan = self.recipe.plan();
        set(&mut plan.batch, self.batch);
        self.settings.apply(&mut plan.recipe);
        plan
    }
}

#[derive(Args)]
pub struct ScoreArgs {
    /// A generator's ONNX file, from which 10,000 images are drawn, or 70,000 with --full; or an IDX file of drawn images. Their
    /// labels are read from the file beside it that `runtime gen` writes, such as drawn-labels for drawn.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Real images: a name, a folder or a .npz file, as for training.
    #[arg(long)]
    pub data: Option<OsString>,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// The judge: an ONNX file of `trainer judge` [default: the shipped judge for MNIST; for other data, one that is trained once
    /// and kept in the cache].
    #[arg(long, value_name = "FILE")]
    pub judge: Option<PathBuf>,
    /// Random seed of the drawn images, and of the classifiers of --full.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Also trains classifiers, which takes minutes. One tells drawn from real images: the two-sample test. One learns the classes
    /// from drawn images and is tested on real ones: the classification accuracy score.
    #[arg(long)]
    pub full: bool,
    /// Prints one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Args)]
pub struct JudgeArgs {
    /// Real images: a name, a folder or a .npz file, as for training.
    #[arg(long)]
    pub data: Option<OsString>,
    #[command(flatten)]
    pub reading: ReadingArgs,
    /// Layers of the judge. A judge of another network checks a generator that the first judge's scores selected.
    #[arg(long, value_enum, default_value_t = judge::TRAINING.network)]
    pub network: Network,
    /// Adam's step size at the start of the ten epochs; it falls to 0.
    #[arg(long, default_value_t = judge::TRAINING.lr)]
    pub lr: f64,
    /// Random seed of the initial parameters and of the order of the images.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Path of the trained judge.
    #[arg(long, value_name = "FILE", default_value = "judge.onnx")]
    pub out: PathBuf,
    /// Overwrites the file of --out even if it is no judge.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
}

#[derive(Args)]
pub struct SetupArgs {
    /// Downloads ONNX Runtime with CUDA and the CUDA libraries that it needs, about 740 MB, to the cache.
    #[arg(long)]
    pub cuda: bool,
    /// Downloads nothing.
    #[arg(long)]
    pub offline: bool,
}

#[derive(Args)]
pub struct SweepArgs {
    /// The seeds from FIRST to END - 1.
    #[arg(long, value_name = "FIRST..END")]
    pub seeds: Seeds,
    /// Trains part K of N of the seeds, from 1/N to N/N, and leaves the others to other programs.
    #[arg(long, value_name = "K/N", default_value = "1/1")]
    part: Part,
    /// Folder of the run folders, which are named by their seeds, such as seed-00042.
    #[arg(long, value_name = "DIR", default_value = "sweep")]
    dir: PathBuf,
    /// Prints one JSON object instead of the table.
    #[arg(long)]
    pub json: bool,
    /// Options of training, the same for all seeds.
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<OsString>,
}

impl SweepArgs {
    /// The run folder of a seed.
    pub fn folder(&self, seed: u64) -> PathBuf {
        self.dir.join(format!("seed-{seed:05}"))
    }

    /// The seeds of this part: consecutive ones.
    pub fn seeds_of_part(&self) -> Range<u64> {
        let (Seeds(seeds), Part { k, n }) = (&self.seeds, self.part);
        let count = u128::from(seeds.end - seeds.start);
        let start = |k: u64| seeds.start + (count * u128::from(k) / u128::from(n)) as u64;
        start(k - 1)..start(k)
    }

    /// The settings of a seed's run: a new one, or the one in its folder.
    ///
    /// # Errors
    /// When the options are not those of training, or choose what the sweep chooses.
    pub fn config(&self, seed: u64) -> Result<Config> {
        let options = [OsString::from("trainer")].into_iter().chain(self.options.iter().cloned());
        let cli = Cli::try_parse_from(options).map_err(|error| {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            UsageError(format!("options after --: {line}"))
        })?;
        let mut train = cli.train;
        let chosen = [
            ("a subcommand", cli.command.is_some()),
            ("--seed", train.seed.is_some()),
            ("--out", train.out.is_some()),
            ("--run-dir", train.run_dir.is_some()),
            ("--resume", train.resume.is_some()),
            ("--write-step-graph", train.write_step_graph.is_some()),
            ("--dry-run", train.dry_run),
            ("--json", train.json),
        ];
        if let Some((option, _)) = chosen.iter().find(|(_, chosen)| *chosen) {
            return Err(UsageError(format!(
                "options after --: {option} found, which does not fit every run of a sweep"
            ))
            .into());
        }
        train.seed = Some(seed);
        let folder = self.folder(seed);
        let run_dir = if folder.join(CONFIG).is_file() { RunDir::Resume(folder) } else { RunDir::New(folder) };
        Ok(Config { run_dir, out: None, ..train.config()? })
    }
}

/// Seeds from the first one to the one before the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub Range<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once("..").and_then(|(first, end)| Some(first.parse().ok()?..end.parse().ok()?));
        parsed
            .filter(|seeds| !seeds.is_empty())
            .map(Self)
            .ok_or("FIRST..END with FIRST below END expected, such as 0..1000".into())
    }
}

/// Part `k` of `n`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    k: u64,
    n: u64,
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(k, n)| Some(Self { k: k.parse().ok()?, n: n.parse().ok()? }));
        parsed
            .filter(|part| (1..=part.n).contains(&part.k))
            .ok_or("K/N with K from 1 to N expected, such as 1/8".into())
    }
}

#[derive(Args)]
pub struct EngineArgs {
    /// Device that runs the training step [default: auto].
    #[arg(long, value_enum)]
    device: Option<DeviceChoice>,
    /// CPU threads. The trained weights do not depend on them [default: 2, or 1 if this process may use only one core].
    #[arg(long)]
    threads: Option<usize>,
    /// Lets CUDA round the inputs of matrix products to TF32 (10 bits of mantissa), which is faster.
    #[arg(long)]
    tf32: bool,
    /// Downloads nothing.
    #[arg(long)]
    offline: bool,
}

impl EngineArgs {
    /// The default engine, with the given options.
    pub fn engine(&self) -> Engine {
        let mut engine = Engine::default();
        self.apply(&mut engine);
        engine
    }

    fn apply(&self, engine: &mut Engine) {
        let device = self.device.map(|device| match device {
            DeviceChoice::Auto => None,
            DeviceChoice::Cpu => Some(Device::Cpu),
            DeviceChoice::Cuda => Some(Device::Cuda),
        });
        set(&mut engine.device, device);
        set(&mut engine.threads, self.threads.map(Some));
        engine.tf32 |= self.tf32;
        engine.offline |= self.offline;
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum DeviceChoice {
    /// CUDA if it works, otherwise the CPU.
    Auto,
    Cpu,
    Cuda,
}

/// The data set named by `--data`; without that option, the folder in MNIST_DIR, or MNIST.
///
/// # Errors
/// When `data` is empty.
pub fn source(data: Option<OsString>) -> Result<Source, UsageError> {
    match (data, std::env::var_os("MNIST_DIR").filter(|folder| !folder.is_empty())) {
        (Some(data), _) => data.try_into(),
        (None, Some(folder)) => Ok(Source::Folder(folder.into())),
        (None, None) => OsString::from("mnist").try_into(),
    }
}

fn set<T>(setting: &mut T, option: Option<T>) {
    if let Some(value) = option {
        *setting = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    /// The help writes them as `[default: 64; tuned and best: 128]`.
    #[test]
    fn the_help_tells_each_recipes_defaults() {
        let command = <Cli as clap::CommandFactory>::command();
        for recipe in [RecipeName::Seed, RecipeName::Tuned, RecipeName::Best] {
            let config = Config::new(recipe.plan(), source(Some("mnist".into())).unwrap());
            let mut options = config.plan.options();
            options.push(("keep".into(), config.keep.to_possible_value().unwrap().get_name().into()));
            options.retain(|(option, _)| !["recipe", "classes", "epsilon"].contains(&option.as_str()));
            let name = &config.plan.recipe.name;
            for (option, value) in &options {
                let argument =
                    command.get_arguments().find(|argument| argument.get_long() == Some(option)).expect(option);
                let help = argument.get_help().unwrap().to_string();
                let (_, defaults) = help.split_once("[default: ").expect(option);
                let mut defaults = defaults.split(']').next().unwrap().split("; ");
                let of_seed = defaults.next().unwrap();
                let mut of_recipe = defaults.filter_map(|default| default.split_once(": "));
                let told = of_recipe.find(|(names, _)| names.split(" and ").any(|n| n == name));
                let plain = |value: &str| value.trim_end_matches(".0").to_owned();
                assert_eq!(plain(told.map_or(of_seed, |(_, value)| value)), plain(value), "--{option} of {name}");
            }
        }
    }

    #[test]
    fn the_parts_of_a_sweep_have_each_seed_once() {
        let sweep = |arguments: &str| match Cli::try_parse_from(format!("trainer sweep {arguments}").split(' ')) {
            Ok(Cli { command: Some(Command::Sweep(sweep)), .. }) => Some(sweep),
            _ => None,
        };
        let seeds = |k| sweep(&format!("--seeds 3..10 --part {k}/3")).unwrap().seeds_of_part();
        assert!((1..=3).flat_map(seeds).eq(3..10));
        for wrong in
            ["--seeds 3..3", "--seeds 3", "--seeds 0..4 --part 0/2", "--seeds 0..4 --part 3/2", "--seeds -1..2"]
        {
            assert!(sweep(wrong).is_none(), "{wrong}");
        }
        for (options, expected) in
            [("--seed 3", "--seed found"), ("--epoch 3", "unexpected argument"), ("bench", "a subcommand")]
        {
            let error = sweep(&format!("--seeds 0..4 -- {options}")).unwrap().config(0).unwrap_err();
            assert!(error.is::<UsageError>() && error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn older_names_of_options_still_work() {
        let cli = Cli::try_parse_from(["trainer", "--d", "32,16", "--one-z", "true"]).unwrap();
        let recipe = cli.train.config().unwrap().plan.recipe;
        assert_eq!((recipe.d_hidden, recipe.shared_z), (vec![32, 16], true));
    }
}
