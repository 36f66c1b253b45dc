//! The `trainer` command. All errors reach the user here: exit code 2 for a usage error, 1 for any other.

mod args;
mod sweep;

use std::env;
use std::io::{IsTerminal, stdout};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use trainer::config::{Config, Device, Engine, RunDir, UsageError};
use trainer::gan::summary;
use trainer::ort::OnnxRuntime;
use trainer::ort::library::CUDA;
use trainer::overview::{self, Overview};
use trainer::print::{MOST, note, printable, result, written};
use trainer::report::{Style, Terminal, downloads};
use trainer::run::export::Kind;
use trainer::run::{GENERATOR, check_outputs, compare, export, resume};
use trainer::sample::SAMPLES;
use trainer::score::classifier::Training;
use trainer::score::full::{self, Full};
use trainer::score::judge::{self, Judge};
use trainer::score::{self, Score, judges};
use trainer::train::{open, read, train};
use trainer::{bench, signals};

use crate::args::{BenchArgs, Cli, Command, DataArgs, JudgeArgs, ScoreArgs, SetupArgs, TrainArgs, source};

fn main() -> ExitCode {
    signals::watch().and_then(|()| run()).unwrap_or_else(|error| {
        note(&format!("error: {error:#}"));
        // A model that exceeded its time limit may still be in ONNX Runtime.
        signals::exit(if error.is::<UsageError>() { 2 } else { 1 })
    })
}

fn run() -> Result<ExitCode> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) if usage.use_stderr() => {
            let _ = usage.print();
            return Ok(ExitCode::from(2));
        }
        Err(help) => return written(help.print()).map(|()| ExitCode::SUCCESS),
    };
    let text = match &cli.command {
        None => return run_train(&cli.train),
        Some(Command::Sweep(args)) => return sweep::run(args),
        Some(Command::Bench(args)) => run_bench(args),
        Some(Command::Data(args)) => run_data(args),
        Some(Command::Score(args)) => run_score(args),
        Some(Command::Judge(args)) => run_judge(args),
        Some(Command::Setup(args)) => run_setup(args),
        Some(Command::Compare { runs }) => compare::table(runs),
        Some(Command::Completions { shell }) => completions(*shell),
        Some(Command::Man { command }) => man(command.as_deref()),
    };
    result(&text?).map(|()| ExitCode::SUCCESS)
}

fn run_train(args: &TrainArgs) -> Result<ExitCode> {
    let config = args.config()?;
    if args.dry_run {
        return result(&dry_run(&config)?).map(|()| ExitCode::SUCCESS);
    }
    let style = match (args.quiet, args.json) {
        (true, _) => Style::Quiet,
        (_, true) => Style::Json,
        _ => Style::Plain,
    };
    let mut terminal = Terminal::new(style, config.plan.epochs);
    let outcome = train(&config, &mut terminal)?;
    let folder = outcome.folder.display();
    if let (false, Some(signal)) = (outcome.finished, terminal.stopped_by()) {
        let step = outcome.state.step;
        note(&format!("stopped after step {step}; continue with --resume {folder}"));
        return Ok(signal.exit_code().into());
    }
    if style == Style::Plain {
        let out = config.out.clone().unwrap_or_else(|| outcome.folder.join(GENERATOR));
        let line = format!("{} written; all files of the run are in {folder}", out.display());
        let _ = result(&printable(&line, MOST));
    }
    terminal.finish().map(|()| ExitCode::SUCCESS)
}

/// All settings, one a line, an estimate of time and memory, and both networks.
fn dry_run(config: &Config) -> Result<String> {
    config.plan.check()?;
    check_outputs(config)?;
    let (data, runtime) = open(&config.data, config.reading, &config.engine, &mut downloads())?;
    let config = &resume::with_classes(config, &data)?;
    let before = resume::resume_point(&config.run_dir, &config.plan, &data)?;
    let done = before.and_then(|before| before.state).map_or(0, |state| state.step);
    let estimate = bench::estimate(&config.plan, &data, &runtime, done)?;
    let steps = config.plan.steps(data.n())?;
    let folder = match &config.run_dir {
        RunDir::Next => "the next free number in runs".into(),
        RunDir::New(folder) | RunDir::Resume(folder) => folder.display().to_string(),
    };
    let time = indicatif::HumanDuration(estimate.time);
    let mut rows = config.plan.options();
    rows.extend([
        ("steps".into(), format!("{steps} ({done} done)")),
        ("data".into(), format!("{} images of {} (sha256 {})", data.n(), data.name, data.sha256)),
        ("device".into(), runtime.settings.describe()),
        ("runtime".into(), runtime.library.clone()),
        ("out".into(), config.out.as_deref().unwrap_or(Path::new("-")).display().to_string()),
        ("folder".into(), folder),
        ("memory".into(), format!("about {:.0} MB", estimate.memory_mb)),
        ("time".into(), format!("about {time} ({:.2} ms a step)", estimate.step_ms)),
    ]);
    let mut lines: Vec<String> =
        rows.iter().map(|(name, value)| format!("{name:<12} {}", printable(value, 300))).collect();
    lines.push(format!("\n{}", summary::networks(&config.plan.recipe)));
    Ok(lines.join("\n"))
}

fn run_bench(args: &BenchArgs) -> Result<String> {
    const MOST_STEPS: usize = 1_000_000;
    let batches = 1..=bench::IMAGES;
    let plan = args.plan();
    plan.check()?;
    UsageError::unless(batches.contains(&plan.batch), "batch", &format!("1 to {}", bench::IMAGES), plan.batch)?;
    UsageError::unless((1..=MOST_STEPS).contains(&args.steps), "steps", &format!("1 to {MOST_STEPS}"), args.steps)?;
    let runtime = OnnxRuntime::open(&args.engine.engine(), &mut note)?;
    let figures = bench::bench(&runtime, &plan, args.steps)?;
    Ok(if args.json { serde_json::to_string(&figures)? } else { figures.table() })
}

fn run_data(args: &DataArgs) -> Result<String> {
    let (source, reading) = (source(args.data.clone())?, args.reading.reading());
    args.out.as_ref().map_or(Ok(()), |out| overview::check_out(out, &source))?;
    let data = match read(&source, reading, args.offline, &mut downloads())? {
        Some(data) => data,
        None => open(&source, reading, &Engine { offline: args.offline, ..Engine::cpu(1) }, &mut downloads())?.0,
    };
    let overview = Overview::of(&data);
    let written = args.out.as_ref().map(|out| overview::write_pictures(&data, out, args.force)).transpose()?;
    if args.json {
        return Ok(serde_json::to_string(&overview)?);
    }
    let mut text = overview.table();
    let is_plain = env::var_os("NO_COLOR").is_some_and(|text| !text.is_empty())
        || env::var_os("TERM").is_some_and(|term| term == "dumb");
    if stdout().is_terminal() && !is_plain {
        text += &format!("\n\n{}", overview::half_blocks(&data));
    }
    if let (Some(written), Some(out)) = (written, &args.out) {
        text += &format!("\n\n{} pictures written to {}", written.len(), printable(&out.display().to_string(), MOST));
    }
    Ok(text)
}

fn run_score(args: &ScoreArgs) -> Result<String> {
    let (data, runtime) =
        open(&source(args.data.clone())?, args.reading.reading(), &args.engine.engine(), &mut downloads())?;
    let cpu = runtime.on_cpu();
    let mut judge = match &args.judge {
        Some(path) => judges::open(path, &data, &cpu)?,
        None => Judge::load(&cpu, &judges::judge_for(&data, &runtime, &mut note)?)?,
    };
    let count = if args.full { full::DRAWN } else { SAMPLES };
    let (drawn, labels) = score::images_of(&runtime, &args.file, judge.classes(), count, args.seed)?;
    let (drawn, labels) = (drawn.view(), labels.as_ref().map(|labels| labels.view()));
    let mut score = Score::measure(&mut judge, &data, drawn, labels)?;
    score::warning(score.images).iter().for_each(|warning| note(warning));
    if args.full {
        score.full = Some(Full::measure(&cpu, &data, drawn, labels, args.seed, &note)?);
    }
    Ok(if args.json { serde_json::to_string(&score)? } else { score.table() })
}

fn run_judge(args: &JudgeArgs) -> Result<String> {
    let source = source(args.data.clone())?;
    export::check_output(&args.out, Kind::Judge, &source, args.force).context("--out")?;
    let is_positive = args.lr > 0.0 && args.lr.is_finite();
    UsageError::unless(is_positive, "lr", "a number above 0", args.lr)?;
    let engine = Engine { device: Some(Device::Cpu), ..args.engine.engine() };
    let (data, runtime) = open(&source, args.reading.reading(), &engine, &mut downloads())?;
    let training = Training { network: args.network, lr: args.lr, seed: args.seed, ..judge::TRAINING };
    let (model, accuracy) = judge::train(&data, &runtime, &training, &mut note)?;
    export::write_model(&args.out, &model)?;
    let percent = 100.0 * accuracy;
    Ok(format!("{} written: it classifies {percent:.2} % of the test images correctly", args.out.display()))
}

fn run_setup(args: &SetupArgs) -> Result<String> {
    if args.cuda && !matches!(CUDA.cached(), Ok(Some(_))) {
        CUDA.fetch(args.offline, &mut note)?;
    }
    let engine = Engine { device: args.cuda.then_some(Device::Cuda), offline: args.offline, ..Engine::default() };
    let opened = OnnxRuntime::open(&engine, &mut note);
    let runtime =
        if args.cuda { opened.context("CUDA does not work here yet; its files stay in the cache")? } else { opened? };
    Ok(format!("ONNX Runtime works on {}: {}", runtime.settings.device, runtime.library))
}

fn completions(shell: clap_complete::Shell) -> Result<String> {
    let mut script = vec![];
    clap_complete::generate(shell, &mut Cli::command(), "trainer", &mut script);
    Ok(String::from_utf8(script)?)
}

fn man(subcommand: Option<&str>) -> Result<String> {
    let mut command = Cli::command();
    command.build(); // gives the subcommands their full names
    if let Some(name) = subcommand {
        let found = command.find_subcommand(name).cloned();
        command = found.ok_or_else(|| {
            UsageError(format!("man {name}: bench, data, score, judge, setup, sweep or compare expected"))
        })?;
    }
    let mut page = vec![];
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(String::from_utf8(page)?)
}
