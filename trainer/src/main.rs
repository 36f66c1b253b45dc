//! The `trainer` command: the one place where errors meet the user.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};
use trainer::config::{Config, Device, Engine, KeepPolicy, Plan, Recipe, RunDir, Source, UsageError};
use trainer::ort::OnnxRuntime;
use trainer::ort::library::CUDA;
use trainer::report::{self, Style, Terminal, say};
use trainer::run::{compare, export, numbered, resume};
use trainer::score::judge::{self, Judge};
use trainer::score::{self, Score};
use trainer::train::train;
use trainer::{bench, files};

/// Trains a GAN on MNIST and writes its generator as an ONNX file.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, args_override_self = true, allow_negative_numbers = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: Train,
}

#[derive(Subcommand)]
enum Command {
    /// Measures milliseconds per training step, and how near they are to the machine's matrix-product peak.
    Bench(Bench),
    /// Scores a generator: its distance from the test images, its variety, whether it copies.
    Score(ScoreArgs),
    /// Trains the judge, the classifier whose features score generators; on the CPU.
    Judge(JudgeArgs),
    /// Sets ONNX Runtime up: looks for it, fetches it where there is none, and says whether it works here.
    Setup(SetupArgs),
    /// Prints a table of runs.
    Compare {
        /// Run folders.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
    },
}

#[derive(Args)]
struct Train {
    /// `mnist`, `fashion`, `kmnist` (from the cache, or downloaded), `demo` (drawn by the shipped generator: no MNIST), or
    /// a folder with the four IDX files, gzipped or raw [default: the folder in MNIST_DIR, else mnist].
    #[arg(long)]
    data: Option<String>,
    /// The recipe settings below that are not given: `seed` is the classic recipe, `tuned` the best we know [default: seed].
    #[arg(long, value_enum)]
    recipe: Option<Named>,
    /// Passes over the data set [default: 100].
    #[arg(long)]
    epochs: Option<u64>,
    /// Images in a training step [default: 64; tuned: 128].
    #[arg(long)]
    batch: Option<usize>,
    /// Names the run: the same seed gives the same file [default: 0].
    #[arg(long)]
    seed: Option<u64>,
    /// Adam's step size for both networks [default: 0.002; tuned: 0.003].
    #[arg(long)]
    lr: Option<f64>,
    /// Where the generator goes [default: g.onnx].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The run's folder [default: the next runs/NNNNN-recipe].
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    run_dir: Option<PathBuf>,
    /// Goes on with a run that was stopped or killed, as it was begun but for the options given; `latest` is the newest in
    /// runs.
    #[arg(long, value_name = "DIR|latest")]
    resume: Option<PathBuf>,
    /// How many checkpoints stay in the run's folder, beside the best by score [default: 3].
    #[arg(long, value_name = "K")]
    checkpoints: Option<usize>,
    /// Epochs from one score (the Fréchet distance in the judge's features) to the next; 0 is never [default: 10].
    #[arg(long, value_name = "EPOCHS")]
    score_every: Option<u64>,
    /// Which generator to leave: the last, or the best by score [default: last; tuned: best].
    #[arg(long, value_enum)]
    keep: Option<KeepPolicy>,
    /// Writes the graph of the training step too, to look at in Netron.
    #[arg(long, value_name = "FILE")]
    write_step_graph: Option<PathBuf>,
    /// Says what would be done, with what, and how long it would take; then stops. Data and ONNX Runtime are fetched where
    /// they are missing.
    #[arg(long)]
    dry_run: bool,
    /// Nothing but warnings and errors.
    #[arg(long)]
    quiet: bool,
    /// A JSON object an epoch on stdout.
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    recipe_settings: RecipeArgs,
}

#[derive(Args)]
#[command(next_help_heading = "Recipe")]
struct RecipeArgs {
    /// The share of --lr that is left at the end; it falls linearly [default: 1; tuned: 0.25].
    #[arg(long, value_name = "SHARE")]
    lr_end: Option<f64>,
    /// The decay of Adam's first moments [default: 0.9; tuned: 0.5].
    #[arg(long)]
    beta1: Option<f64>,
    /// The decay of Adam's second moments [default: 0.999; tuned: 0.99].
    #[arg(long)]
    beta2: Option<f64>,
    /// The widths of the discriminator's hidden layers [default: 128,64,32; tuned: 256,128].
    #[arg(long, alias = "d", value_delimiter = ',', value_name = "WIDTHS")]
    d_hidden: Option<Vec<usize>>,
    /// Whether the generator is told the digit, as one-hot in z[0..10], and D judges it as that digit [default: false; tuned: true].
    #[arg(long, value_name = "BOOL")]
    conditional: Option<bool>,
    /// Whether one z serves both updates [default: false; tuned: true].
    #[arg(long, alias = "one-z", value_name = "BOOL")]
    shared_z: Option<bool>,
    /// The probability of dropout in both networks [default: 0.2; tuned: 0].
    #[arg(long, value_name = "P")]
    dropout: Option<f64>,
    /// D's target for real images [default: 0.9; tuned: 1].
    #[arg(long, value_name = "TARGET")]
    real_target: Option<f64>,
    /// γ of the R1 penalty on D's gradients [default: 0; tuned: 0.3].
    #[arg(long, value_name = "GAMMA")]
    r1: Option<f64>,
    /// Steps from one R1 penalty to the next [default: 1; tuned: 4].
    #[arg(long, value_name = "STEPS")]
    r1_every: Option<u64>,
    /// The decay of the moving average of G's parameters, which is then what is exported [default: 0, no average; tuned: 0.999].
    #[arg(long, value_name = "DECAY")]
    ema: Option<f64>,
    /// Whether G's last bias starts at the mean image [default: false; tuned: true].
    #[arg(long, value_name = "BOOL")]
    mean_bias: Option<bool>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Named {
    Seed,
    Tuned,
}

impl RecipeArgs {
    fn apply(&self, recipe: &mut Recipe) {
        let Self {
            lr_end,
            beta1,
            beta2,
            d_hidden,
            conditional,
            shared_z,
            dropout,
            real_target,
            r1,
            r1_every,
            ema,
            mean_bias,
        } = self;
        set(&mut recipe.adam.alpha_end, *lr_end);
        set(&mut recipe.adam.beta1, *beta1);
        set(&mut recipe.adam.beta2, *beta2);
        set(&mut recipe.d_hidden, d_hidden.clone());
        set(&mut recipe.conditional, *conditional);
        set(&mut recipe.shared_z, *shared_z);
        set(&mut recipe.p_drop, *dropout);
        set(&mut recipe.real_target, *real_target);
        set(&mut recipe.r1, *r1);
        set(&mut recipe.r1_every, *r1_every);
        set(&mut recipe.ema, *ema);
        set(&mut recipe.mean_bias, *mean_bias);
    }
}

#[derive(Args)]
struct Bench {
    /// Images in a training step.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// How many steps to measure.
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Args)]
struct ScoreArgs {
    /// A generator's ONNX file, which draws 10,000 images; or an IDX file of drawn images, with its labels beside it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// As for training; real images to compare with.
    #[arg(long)]
    data: Option<String>,
    /// Names the images drawn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Args)]
struct JudgeArgs {
    /// As for training.
    #[arg(long)]
    data: Option<String>,
    /// Names the initial parameters and the order of the images.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the judge goes.
    #[arg(long, value_name = "FILE", default_value = "judge.onnx")]
    out: PathBuf,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Args)]
struct SetupArgs {
    /// The build with CUDA and the CUDA libraries that it needs, into the cache: about 740 MB.
    #[arg(long)]
    cuda: bool,
    /// Never fetch anything.
    #[arg(long)]
    offline: bool,
}

#[derive(Args)]
struct EngineArgs {
    /// Where the training step runs [default: auto].
    #[arg(long, value_enum)]
    device: Option<DeviceChoice>,
    /// CPU threads; another number changes the last bits of the generator [default: two, or one on a machine of one core].
    #[arg(long)]
    threads: Option<usize>,
    /// CUDA may round what it multiplies to TF32's 10 bits, which is faster.
    #[arg(long)]
    tf32: bool,
    /// Never fetch anything.
    #[arg(long)]
    offline: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum DeviceChoice {
    /// CUDA where it works, else the CPU.
    Auto,
    Cpu,
    Cuda,
}

impl EngineArgs {
    fn engine(&self) -> Engine {
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Bench(args)) => run_bench(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Score(args)) => run_score(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Judge(args)) => run_judge(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Setup(args)) => run_setup(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Compare { runs }) => compare::table(&runs).map(|table| {
            say(&table);
            ExitCode::SUCCESS
        }),
        None => run_train(&cli.train),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        if error.is::<UsageError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
    })
}

fn run_train(args: &Train) -> Result<ExitCode> {
    let config = configure(args)?;
    if args.dry_run {
        return dry_run(&config);
    }
    let style = match (args.quiet, args.json) {
        (true, _) => Style::Quiet,
        (_, true) => Style::Json,
        _ => Style::Plain,
    };
    let outcome = train(&config, &mut Terminal::new(style, config.plan.epochs))?;
    let folder = outcome.folder.display();
    if !outcome.finished {
        eprintln!("stopped after step {}; go on with --resume {folder}", outcome.state.step);
        return Ok(report::INTERRUPTED.into());
    }
    if style == Style::Plain {
        let out = config.out.as_deref().unwrap_or(Path::new("g.onnx")).display();
        say(&format!("{out} written; all of the run is in {folder}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The configuration that the options make, on top of that of the run to be resumed.
fn configure(args: &Train) -> Result<Config> {
    let mut config = match &args.resume {
        Some(latest) if latest == Path::new("latest") => resume::config_of(numbered::latest(Path::new("runs"))?)?,
        Some(folder) => resume::config_of(folder.clone()).context("--resume")?,
        None => {
            let out = Some("g.onnx".into());
            let plan = match args.recipe {
                Some(Named::Tuned) => Plan::tuned_recipe(),
                _ => Plan::seed_recipe(),
            };
            Config { out, ..Config::new(plan, source(None)?) }
        }
    };
    if let (Some(name), Some(_)) = (args.recipe, &args.resume) {
        config.plan.recipe = match name {
            Named::Seed => Recipe::seed(),
            Named::Tuned => Recipe::tuned(),
        };
    }
    args.recipe_settings.apply(&mut config.plan.recipe);
    let Plan { recipe, epochs, batch, seed } = &mut config.plan;
    set(epochs, args.epochs);
    set(batch, args.batch);
    set(seed, args.seed);
    set(&mut recipe.adam.alpha, args.lr);
    set(&mut config.checkpoints, args.checkpoints);
    set(&mut config.score_every, args.score_every);
    set(&mut config.keep, args.keep);
    set(&mut config.data, args.data.as_deref().map(str::parse).transpose()?);
    config.out = args.out.clone().or(config.out);
    config.step_graph = args.write_step_graph.clone();
    if let Some(folder) = &args.run_dir {
        config.run_dir = RunDir::New(folder.clone());
    }
    args.engine.apply(&mut config.engine);
    Ok(config)
}

fn set<T>(setting: &mut T, option: Option<T>) {
    if let Some(value) = option {
        *setting = value;
    }
}

/// What `--data` names; without it, what `MNIST_DIR` does, else MNIST.
fn source(data: Option<&str>) -> Result<Source> {
    match (data, std::env::var("MNIST_DIR").ok().filter(|folder| !folder.is_empty())) {
        (Some(data), _) => Ok(data.parse()?),
        (None, Some(folder)) => Ok(Source::Folder(folder.into())),
        (None, None) => Ok("mnist".parse()?),
    }
}

/// Prints the resolved configuration and what it would take.
fn dry_run(config: &Config) -> Result<ExitCode> {
    config.plan.check()?;
    if let Some(out) = &config.out {
        files::check_writable(out).context("--out")?;
    }
    let mut hear = |line: &str| eprintln!("{line}");
    let (data, runtime) = trainer::train::open(&config.data, &config.engine, &mut hear)?;
    let before = resume::resume_point(&config.run_dir, &config.plan, &data)?;
    let done = before.and_then(|before| before.state).map_or(0, |state| state.step);
    let estimate = bench::estimate(&config.plan, &data, &runtime, done)?;
    let plan = serde_json::to_value(&config.plan)?;
    let settings = plan.as_object().into_iter().flatten();
    let mut lines: Vec<(String, String)> =
        settings.map(|(name, value)| (name.replace('_', "-"), plain(value))).collect();
    let steps = config.plan.steps(data.len())?;
    let folder = match &config.run_dir {
        RunDir::Next => "the next in runs".into(),
        RunDir::New(folder) | RunDir::Resume(folder) => folder.display().to_string(),
    };
    let time = indicatif::HumanDuration(estimate.time);
    lines.extend([
        ("steps".into(), format!("{steps} ({done} done)")),
        ("data".into(), format!("{} images of {} (sha256 {})", data.len(), data.name, data.sha256)),
        ("device".into(), runtime.describe_device()),
        ("runtime".into(), runtime.library.clone()),
        ("out".into(), config.out.as_deref().unwrap_or(Path::new("-")).display().to_string()),
        ("folder".into(), folder),
        ("memory".into(), format!("about {:.0} MB", estimate.memory_mb)),
        ("time".into(), format!("about {time} ({:.2} ms a step)", estimate.step_ms)),
    ]);
    lines.iter().for_each(|(name, value)| say(&format!("{name:<12} {value}")));
    Ok(ExitCode::SUCCESS)
}

/// A setting as its option takes it.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or(value.to_string(), str::to_string).replace(['[', ']'], "")
}

fn run_score(args: &ScoreArgs) -> Result<()> {
    let mut hear = |line: &str| eprintln!("{line}");
    let (data, runtime) = trainer::train::open(&source(args.data.as_deref())?, &args.engine.engine(), &mut hear)?;
    let (drawn, labels) = score::images_of(&runtime, &args.file, args.seed)?;
    let score = Score::measure(
        &mut Judge::shipped(&runtime.on_cpu())?,
        &data,
        drawn.view(),
        labels.as_ref().map(|l| l.view()),
    )?;
    say(&if args.json { serde_json::to_string(&score)? } else { score.table() });
    Ok(())
}

fn run_judge(args: &JudgeArgs) -> Result<()> {
    files::check_writable(&args.out).context("--out")?;
    let mut hear = |line: &str| eprintln!("{line}");
    let engine = Engine { device: Some(Device::Cpu), ..args.engine.engine() };
    let (data, runtime) = trainer::train::open(&source(args.data.as_deref())?, &engine, &mut hear)?;
    let (model, accuracy) = judge::train(&data, &runtime, args.seed, &mut hear)?;
    export::write_model(&args.out, &model)?;
    say(&format!("{} written: it tells {:.2} % of the test images", args.out.display(), 100.0 * accuracy));
    Ok(())
}

fn run_setup(args: &SetupArgs) -> Result<()> {
    let mut hear = |line: &str| eprintln!("{line}");
    if args.cuda && CUDA.cached().is_none() {
        // Ctrl-C ends pip, and is not to end us before pip's files are removed.
        ctrlc::set_handler(|| ())?;
        CUDA.fetch(args.offline, &mut hear)?;
    }
    let engine = Engine { device: args.cuda.then_some(Device::Cuda), offline: args.offline, ..Engine::default() };
    let opened = OnnxRuntime::of(&engine, &mut hear);
    let runtime =
        if args.cuda { opened.context("CUDA does not work here yet; its files stay in the cache")? } else { opened? };
    say(&format!("ONNX Runtime works on {}: {}", runtime.device, runtime.library));
    Ok(())
}

fn run_bench(args: &Bench) -> Result<()> {
    let batches = 1..=bench::IMAGES;
    UsageError::unless(batches.contains(&args.batch), "batch", &format!("1 to {}", bench::IMAGES), args.batch)?;
    UsageError::unless(args.steps >= 1, "steps", "at least 1", args.steps)?;
    let runtime = OnnxRuntime::of(&args.engine.engine(), &mut |line| eprintln!("{line}"))?;
    let figures = bench::bench(&runtime, args.batch, args.steps)?;
    say(&if args.json { figures.json() } else { figures.table() });
    Ok(())
}
