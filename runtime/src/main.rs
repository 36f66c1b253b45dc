//! The `runtime` program.

use std::process::ExitCode;

use runtime::cli;

fn main() -> ExitCode {
    cli::remove_on_signals();
    cli::main(std::env::args_os()).into()
}
