//! The `trainer` command: the one place where errors meet the user.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail, ensure};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use trainer::gan::Recipe;
use trainer::mnist::Source;
use trainer::report::{Style, Terminal, say};
use trainer::run::{self, RunConfig};
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
    /// a folder with the four IDX files, gzipped or raw.
    #[arg(long, default_value = "mnist", env = "MNIST_DIR")]
    data: String,
    /// Passes over the data set.
    #[arg(long, default_value_t = 100)]
    epochs: u64,
    /// Images in a training step.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Names the run: the same seed gives the same file.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Adam's step size for both networks.
    #[arg(long, default_value_t = Recipe::seed().adam.alpha)]
    lr: f64,
    /// Where the generator goes.
    #[arg(long, value_name = "FILE", default_value = "g.onnx")]
    out: PathBuf,
    /// The run's folder [default: the next runs/NNNNN-recipe].
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    run_dir: Option<PathBuf>,
    /// Goes on with a run that was stopped or killed; `latest` is the newest in runs.
    #[arg(long, value_name = "DIR|latest")]
    resume: Option<PathBuf>,
    /// How many checkpoints stay in the run's folder, beside the best by score.
    #[arg(long, value_name = "K", default_value_t = 3)]
    checkpoints: usize,
    /// Epochs from one score (the Fréchet distance in the judge's features) to the next; 0 is never.
    #[arg(long, value_name = "EPOCHS", default_value_t = 10)]
    score_every: u64,
    /// Writes the graph of the training step too, to look at in Netron.
    #[arg(long, value_name = "FILE")]
    write_step_graph: Option<PathBuf>,
    /// Says what would be done, with what, and how long it would take; then stops.
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
    #[arg(long, default_value = "mnist", env = "MNIST_DIR")]
    data: String,
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
    /// Where the training step runs.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// CPU threads [default: two, or one on a machine of one core].
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
        let device = match self.device {
            DeviceChoice::Auto => None,
            DeviceChoice::Cpu => Some(Device::Cpu),
            DeviceChoice::Cuda => Some(Device::Cuda),
        };
        Engine { device, threads: self.threads, offline: self.offline }
    }
}

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
        Some(Command::Bench(args)) => run_bench(&args),
        Some(Command::Judge(args)) => run_judge(&args),
        Some(Command::Compare { runs }) => run::compare(&runs).map(|table| say(&table)),
        None => run_train(&cli.train, &matches),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_train(args: &Train, matches: &ArgMatches) -> Result<()> {
    let config = configure(args, matches)?;
    if args.dry_run {
        return dry_run(&config);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let on_ctrl_c = stop.clone();
    ctrlc::set_handler(move || on_ctrl_c.store(true, Ordering::Relaxed)).context("Ctrl-C cannot be handled")?;
    let style = match (args.quiet, args.json) {
        (true, _) => Style::Quiet,
        (_, true) => Style::Json,
        _ => Style::Plain,
    };
    let outcome = train(&config, &mut Terminal::new(style, stop))?;
    let folder = outcome.folder.display();
    if !outcome.finished {
        eprintln!("stopped after step {}; go on with --resume {folder}", outcome.state.step);
    } else if style == Style::Plain {
        say(&format!("{} written; all of the run is in {folder}", args.out.display()));
    }
    Ok(())
}

/// The configuration that the options make, on top of that of the run to be resumed.
fn configure(args: &Train, matches: &ArgMatches) -> Result<Config> {
    let mut recipe = Recipe::seed();
    recipe.adam.alpha = args.lr;
    let plan = Plan { recipe, epochs: args.epochs, batch: args.batch, seed: args.seed };
    let folder = args.run_dir.clone().map_or(Folder::Next, Folder::New);
    let (out, engine) = (Some(args.out.clone()), args.engine.engine());
    let (data, step_graph) = (args.data.parse()?, args.write_step_graph.clone());
    let Train { checkpoints, score_every, .. } = *args;
    let mut config = Config { plan, data, engine, out, step_graph, folder, checkpoints, score_every };
    let Some(resume) = &args.resume else { return Ok(config) };

    let resume = if resume == Path::new("latest") { run::latest(Path::new("runs"))? } else { resume.clone() };
    let before = RunConfig::read(&resume).context("--resume")?;
    let given = |option: &str| matches.value_source(option) == Some(ValueSource::CommandLine);
    let Plan { recipe, batch, seed, epochs } = &before.plan;
    let claims = [
        ("lr", recipe.adam.alpha.to_string(), args.lr.to_string()),
        ("batch", batch.to_string(), args.batch.to_string()),
        ("seed", seed.to_string(), args.seed.to_string()),
    ];
    let contradictions: Vec<String> = (claims.iter())
        .filter(|(option, before, now)| given(option) && before != now)
        .map(|(option, before, now)| format!("--{option} {now} (the run has {before})"))
        .collect();
    ensure!(contradictions.is_empty(), "--resume: {} contradicts {}", contradictions.join(", "), resume.display());
    let epochs = if given("epochs") { args.epochs } else { *epochs };
    let done = run::read_metrics(&resume.join("metrics.jsonl"))?.len() as u64;
    if epochs < done {
        bail!("--epochs: at least the {done} that {} has behind it expected, {epochs} found", resume.display());
    }
    config.plan = Plan { epochs, ..before.plan };
    if !given("data") {
        config.data = before.data.parse::<Source>()?;
    }
    if !given("out") {
        config.out = before.out;
    }
    config.folder = Folder::Resume(resume);
    Ok(config)
}

/// Prints the resolved configuration and what it would take.
fn dry_run(config: &Config) -> Result<()> {
    config.plan.check()?;
    let mut hear = |line: &str| eprintln!("{line}");
    let (data, runtime) = trainer::train::open(&config.data, &config.engine, &mut hear)?;
    let estimate = bench::estimate(&config.plan, &data, &runtime)?;
    let (plan, recipe) = (&config.plan, &config.plan.recipe);
    say(&format!(
        "recipe     {}\nepochs     {}\nbatch      {}\nseed       {}\nlr         {}\nbetas      {}, {}\nepsilon    {}\ndropout    {}\n\
         real label {}\ndata       {} images of {} (sha256 {})\ndevice     {}, {} threads\nruntime    {}\nout        {}\n\
         memory     about {:.0} MB\ntime       about {} ({:.2} ms a step)",
        recipe.name,
        plan.epochs,
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
        estimate.memory_mb,
        indicatif::HumanDuration(estimate.time),
        estimate.step_ms
    ));
    Ok(())
}

fn run_judge(args: &JudgeArgs) -> Result<()> {
    checkpoint::check_writable(&args.out).context("--out")?;
    let mut hear = |line: &str| eprintln!("{line}");
    let (data, runtime) = trainer::train::open(&args.data.parse()?, &args.engine.engine(), &mut hear)?;
    let (model, accuracy) = judge::train(&data, &runtime, args.seed, &mut hear)?;
    checkpoint::write_model(&args.out, &model)?;
    say(&format!("{} written: it tells {:.2} % of the test images", args.out.display(), 100.0 * accuracy));
    Ok(())
}

fn run_bench(args: &Bench) -> Result<()> {
    ensure!(args.batch >= 1, "--batch: at least 1 expected, 0 found");
    ensure!(args.steps >= 1, "--steps: at least 1 expected, 0 found");
    let runtime = args.engine.engine().open(&mut |line| eprintln!("{line}"))?;
    let figures = bench::bench(&runtime, args.batch, args.steps)?;
    say(&if args.json { figures.json() } else { figures.table() });
    Ok(())
}
