//! The `runtime` command, as a library function so that other front ends can call it.

mod bench;
mod dataset;
mod draw;
mod error;
mod files;
mod r#gen;
mod inspect;
mod layout;
mod model;
mod output;
mod parallel;
mod pipeline;
mod shards;
mod temporary;
mod verify;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};

pub use dataset::DataSet;
use error::{Usage, printable};
pub use model::{ModelFile, Precision, weights_sha256};
pub use output::png;
use output::print;
pub use parallel::{draw_on_threads, threads};
use temporary::before_signals;
pub use temporary::remove_on_signals;

/// Draws handwritten digits. A seed names one image of a generator, and its bytes are the same on every machine.
#[derive(Parser)]
#[command(name = "runtime", version, args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[command(defer = true)] // a start makes only the arguments of the subcommand that it runs
enum Command {
    /// Draws digits: as characters on a terminal, as PNG or a data set into a file, a folder or a pipe.
    Gen(r#gen::Gen),
    /// Draws a data set in shards, alone or as one of many programs on any number of machines.
    Shards(shards::Shards),
    /// Checks a data set in shards: digests, gaps, overlaps, labels, and a share of the images drawn again.
    Verify(verify::Verify),
    /// Measures microseconds per image on this machine.
    Bench(bench::Bench),
    /// Prints what a generator's ONNX file contains.
    Inspect(inspect::Inspect),
    /// Prints a script that completes this command's arguments in a shell.
    #[command(hide = true)]
    Completions { shell: clap_complete::Shell },
    /// Prints the man page of this command, or of one of its subcommands.
    #[command(hide = true)]
    Man { command: Option<String> },
}

/// Runs the command and returns its exit code: 0 for success, 1 for failure, 2 for wrong usage. The first of `args` is the
/// program's name. Errors are printed to standard error, each as one sentence. A reader who closes the pipe early is success.
///
/// A program that has no handlers of its own for signals calls [`remove_on_signals`] first.
pub fn main(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> u8 {
    let done = match Cli::try_parse_from(args) {
        Ok(cli) => run(cli.command),
        Err(error) if error.use_stderr() => {
            let _ = error.print(); // nobody can be told that stderr is closed
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
        Err(help) => help.print().and_then(|()| io::stdout().flush()).context("stdout: cannot be written"),
    };
    match done {
        Ok(()) => 0,
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe) => 0,
        Err(error) => {
            // After a signal this waits for the end: the error may be that a temporary file is gone.
            let _ = before_signals(|| writeln!(io::stderr(), "error: {}", printable(&format!("{error:#}"))));
            if error.is::<Usage>() { 2 } else { 1 }
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Gen(args) => r#gen::run(&args),
        Command::Shards(args) => shards::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Completions { shell } => completions(shell),
        Command::Man { command } => man(command.as_deref()),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut script = vec![]; // because `generate` panics if it cannot write
    clap_complete::generate(shell, &mut Cli::command(), "runtime", &mut script);
    print(script)
}

fn man(subcommand: Option<&str>) -> Result<()> {
    let mut page = Cli::command();
    page.build(); // gives the subcommands their full names
    if let Some(name) = subcommand {
        let found = page.find_subcommand(name).cloned();
        page = found.ok_or_else(|| Usage(format!("man {name}: gen, shards, verify, bench or inspect expected")))?;
    }
    let mut text = vec![];
    clap_mangen::Man::new(page).render(&mut text)?;
    print(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Cli::command().debug_assert();
    }
}
