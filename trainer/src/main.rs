//! The `trainer` command: the one place where errors meet the user.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use trainer::gan::{Recipe, StepGraph};
use trainer::mnist::Dataset;
use trainer::report::{self, Terminal};
use trainer::session::{Device, OnnxRuntime};
use trainer::train::{Config, initial_state, steps_per_epoch, train};
use trainer::{bench, checkpoint};

/// Trains a GAN on MNIST and writes its generator as an ONNX file.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
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
}

#[derive(Args)]
struct Train {
    /// The folder with the four MNIST IDX files, gzipped or raw (also as torchvision keeps them, in MNIST/raw).
    #[arg(long, value_name = "DIR", env = "MNIST_DIR")]
    data: Option<PathBuf>,
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
    /// Writes the graph of the training step too, to look at in Netron.
    #[arg(long, value_name = "FILE")]
    write_step_graph: Option<PathBuf>,
    #[command(flatten)]
    engine: Engine,
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
    engine: Engine,
}

#[derive(Args)]
struct Engine {
    /// Where the training step runs.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// CPU threads; more than two have not paid off with networks this small [default: up to 2].
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

impl Engine {
    fn open(&self) -> Result<OnnxRuntime> {
        let threads = match self.threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism().map_or(1, |n| n.get()).min(2),
        };
        ensure!(threads >= 1, "--threads: at least 1 expected, 0 found");
        let device = match self.device {
            DeviceChoice::Auto => None,
            DeviceChoice::Cpu => Some(Device::Cpu),
            DeviceChoice::Cuda => Some(Device::Cuda),
        };
        OnnxRuntime::open(device, threads, self.offline, &mut |line| eprintln!("{line}"))
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Bench(args)) => run_bench(&args),
        None => run_train(&cli.train),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_train(args: &Train) -> Result<()> {
    ensure!(args.epochs >= 1, "--epochs: at least 1 expected, 0 found");
    ensure!(args.batch >= 1, "--batch: at least 1 expected, 0 found");
    ensure!(args.lr > 0.0 && args.lr.is_finite(), "--lr: a number above 0 expected, {} found", args.lr);
    checkpoint::check_writable(&args.out).context("--out")?;
    let mut recipe = Recipe::seed();
    recipe.adam.alpha = args.lr;
    let config = Config { recipe, epochs: args.epochs, batch: args.batch, seed: args.seed };

    let data =
        Dataset::open(args.data.as_deref().context("--data: the folder with the four MNIST IDX files expected")?)?;
    let n = data.len();
    if let Some(path) = &args.write_step_graph {
        let graph = StepGraph::new(&config.recipe, config.batch.min(n), n);
        checkpoint::write_model(path, &graph.model).context("--write-step-graph")?;
    }
    let runtime = args.engine.open()?;
    eprintln!(
        "{n} images of {} | recipe {}, seed {} | {} on {}",
        data.name, config.recipe.name, config.seed, runtime.library, runtime.device
    );

    let steps = steps_per_epoch(n, config.batch);
    let mut terminal = Terminal::new(config.epochs, steps, 0);
    let state = train(&config, &data, &runtime, &initial_state(config.seed), &mut terminal)?;
    let [d_loss, g_loss, ..] = terminal.last;
    let provenance = [
        ("recipe", config.recipe.name.to_string()),
        ("seed", config.seed.to_string()),
        ("epochs", config.epochs.to_string()),
        ("batch", config.batch.to_string()),
        ("lr", config.recipe.adam.alpha.to_string()),
        ("data", data.name.clone()),
        ("data_sha256", data.sha256.clone()),
        ("trainer_version", env!("CARGO_PKG_VERSION").to_string()),
        ("device", runtime.device.to_string()),
        ("final_d_loss", d_loss.to_string()),
        ("final_g_loss", g_loss.to_string()),
    ];
    checkpoint::write_model(&args.out, &checkpoint::export(&state, &provenance))?;
    report::say(&format!("{} written", args.out.display()));
    Ok(())
}

fn run_bench(args: &Bench) -> Result<()> {
    ensure!(args.batch >= 1, "--batch: at least 1 expected, 0 found");
    ensure!(args.steps >= 1, "--steps: at least 1 expected, 0 found");
    let runtime = args.engine.open()?;
    let figures = bench::bench(&runtime, args.batch, args.steps)?;
    report::say(&if args.json { figures.json() } else { figures.table() });
    Ok(())
}
