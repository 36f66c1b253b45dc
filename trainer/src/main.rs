//! The `trainer` command: the one place where errors meet the user.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use trainer::mnist::Source;
use trainer::report::{self, Style, Terminal, say};
use trainer::run;
use trainer::session::Device;
use trainer::train::{Config, Engine, Folder, Plan, train};
use trainer::{bench, checkpoint, judge};

/// Trains a GAN on MNIST and writes its generator as an ONNX file.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, args_override_self = true)]
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
    /// Trains the judge, the classifier whose features score generators.
    Judge(JudgeArgs),
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
    /// Passes over the data set [default: 100].
    #[arg(long)]
    epochs: Option<u64>,
    /// Images in a training step [default: 64].
    #[arg(long)]
    batch: Option<usize>,
    /// Names the run: the same seed gives the same file [default: 0].
    #[arg(long)]
    seed: Option<u64>,
    /// Adam's step size for both networks [default: 0.002].
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
struct EngineArgs {
    /// Where the training step runs [default: auto].
    #[arg(long, value_enum)]
    device: Option<DeviceChoice>,
    /// CPU threads; another number changes the last bits of the generator [default: two, or one on a machine of one core].
    #[arg(long)]
    threads: Option<usize>,
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
        engine.offline |= self.offline;
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Bench(args)) => run_bench(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Judge(args)) => run_judge(&args).map(|()| ExitCode::SUCCESS),
        Some(Command::Compare { runs }) => run::compare(&runs).map(|table| {
            say(&table);
            ExitCode::SUCCESS
        }),
        None => run_train(&cli.train),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
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
        Some(latest) if latest == Path::new("latest") => Config::resume(run::latest(Path::new("runs"))?)?,
        Some(folder) => Config::resume(folder.clone()).context("--resume")?,
        None => {
            let out = Some("g.onnx".into());
            Config { out, ..Config::new(Plan::seed_recipe(), source(None)?) }
        }
    };
    let Plan { recipe, epochs, batch, seed } = &mut config.plan;
    set(epochs, args.epochs);
    set(batch, args.batch);
    set(seed, args.seed);
    set(&mut recipe.adam.alpha, args.lr);
    set(&mut config.checkpoints, args.checkpoints);
    set(&mut config.score_every, args.score_every);
    set(&mut config.data, args.data.as_deref().map(str::parse).transpose()?);
    config.out = args.out.clone().or(config.out);
    config.step_graph = args.write_step_graph.clone();
    if let Some(folder) = &args.run_dir {
        config.folder = Folder::New(folder.clone());
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
        (Some(data), _) => data.parse(),
        (None, Some(folder)) => Ok(Source::Folder(folder.into())),
        (None, None) => "mnist".parse(),
    }
}

/// Prints the resolved configuration and what it would take.
fn dry_run(config: &Config) -> Result<ExitCode> {
    config.plan.check()?;
    if let Some(out) = &config.out {
        checkpoint::check_writable(out).context("--out")?;
    }
    let mut hear = |line: &str| eprintln!("{line}");
    let (data, runtime) = trainer::train::open(&config.data, &config.engine, &mut hear)?;
    let before = run::standing(&config.folder, &config.plan, &data)?;
    let done = before.and_then(|before| before.state).map_or(0, |state| state.step);
    let estimate = bench::estimate(&config.plan, &data, &runtime, done)?;
    let (plan, recipe) = (&config.plan, &config.plan.recipe);
    say(&format!(
        "recipe     {}\nepochs     {}\nsteps      {} ({done} done)\nbatch      {}\nseed       {}\nlr         {}\nbetas      {}, {}\nepsilon    {}\ndropout    {}\n\
         real label {}\ndata       {} images of {} (sha256 {})\ndevice     {}, {} threads\nruntime    {}\nout        {}\nfolder     {}\n\
         memory     about {:.0} MB\ntime       about {} ({:.2} ms a step)",
        recipe.name,
        plan.epochs,
        plan.steps(data.len())?,
        plan.batch,
        plan.seed,
        recipe.adam.alpha,
        recipe.adam.beta1,
        recipe.adam.beta2,
        recipe.adam.epsilon,
        recipe.p_drop,
        recipe.real_target,
        data.len(),
        data.name,
        data.sha256,
        runtime.device,
        runtime.threads,
        runtime.library,
        config.out.as_deref().unwrap_or(Path::new("-")).display(),
        match &config.folder {
            Folder::Next => "the next in runs".into(),
            Folder::New(folder) | Folder::Resume(folder) => folder.display().to_string(),
        },
        estimate.memory_mb,
        indicatif::HumanDuration(estimate.time),
        estimate.step_ms
    ));
    Ok(ExitCode::SUCCESS)
}

fn run_judge(args: &JudgeArgs) -> Result<()> {
    checkpoint::check_writable(&args.out).context("--out")?;
    let mut hear = |line: &str| eprintln!("{line}");
    let (data, runtime) = trainer::train::open(&source(args.data.as_deref())?, &args.engine.engine(), &mut hear)?;
    let (model, accuracy) = judge::train(&data, &runtime, args.seed, &mut hear)?;
    checkpoint::write_model(&args.out, &model)?;
    say(&format!("{} written: it tells {:.2} % of the test images", args.out.display(), 100.0 * accuracy));
    Ok(())
}

fn run_bench(args: &Bench) -> Result<()> {
    ensure!(
        (1..=bench::IMAGES).contains(&args.batch),
        "--batch: 1 to {} expected, {} found",
        bench::IMAGES,
        args.batch
    );
    ensure!(args.steps >= 1, "--steps: at least 1 expected, 0 found");
    let runtime = args.engine.engine().open(&mut |line| eprintln!("{line}"))?;
    let figures = bench::bench(&runtime, args.batch, args.steps)?;
    say(&if args.json { figures.json() } else { figures.table() });
    Ok(())
}
