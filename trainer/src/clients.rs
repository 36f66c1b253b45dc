//! Runs Python and the package clients pip and npm. No file of the user's current folder is executed: each program runs in a
//! private folder, and Python in isolated mode (`-I`).

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// File name of npm's program.
const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };

/// A new private folder below `parent`, which is created if it is missing. Dropping the value removes the folder.
///
/// # Errors
/// When `parent` cannot be written.
pub fn private_folder(parent: &Path) -> Result<TempDir> {
    fs::create_dir_all(parent).with_context(|| format!("{}: cannot be created", parent.display()))?;
    let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent);
    folder.with_context(|| format!("{}: cannot be written", parent.display()))
}

/// Removes the private folders below `parent` that killed programs left. The caller makes sure that none of them is in use.
pub fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

const PREFIX: &str = ".private-";

/// What the first working Python prints for `code`, or nothing without Python. The Python beside this program comes before
/// those of `PATH`: if pip installed the program, its dependencies are that Python's packages.
pub fn python(code: &str) -> String {
    let Ok(folder) = tempfile::tempdir() else { return String::new() };
    let beside = env::current_exe().map(|program| program.with_file_name(format!("python{}", env::consts::EXE_SUFFIX)));
    let beside = beside.ok().filter(|python| python.is_file());
    // Only the first that runs is asked: starting Python takes a good part of the trainer's own start.
    let answer = beside.into_iter().chain(["python3", "python"].map(PathBuf::from)).find_map(|python| {
        let answer = command(python, folder.path()).args(["-I", "-c", code]).stdout(Stdio::piped()).output();
        answer.ok().filter(|answer| answer.status.success())
    });
    answer.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned()).unwrap_or_default()
}

/// Name and command line of the first working pip, to be run in `folder`.
pub fn pip(folder: &Path) -> Option<(&'static str, Command)> {
    ["python3 -I -m pip", "python -I -m pip", "pip3", "pip"].into_iter().find_map(|name| {
        let command = || {
            let mut words = name.split(' ');
            let mut command = command(words.next().unwrap_or_default(), folder);
            command.args(words);
            command
        };
        command().arg("--version").status().ok()?.success().then(|| (name, command()))
    })
}

/// Command line of npm, to be run in `folder`. The project settings (`.npmrc`) of other folders are not read, install scripts
/// do not run, and npm's cache and logs stay in `folder`.
pub fn npm(folder: &Path) -> Option<Command> {
    has_npm().then(|| {
        let mut command = command(NPM, folder);
        let options = "--prefix . --cache cache --logs-max 0 --loglevel error --ignore-scripts --no-update-notifier \
            --fetch-retries 0";
        command.args(options.split_whitespace());
        command
    })
}

/// Whether npm is on `PATH`.
pub fn has_npm() -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(NPM).is_file())
}

/// A program with no input and no output that runs in `folder`.
fn command(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs `command` to its end, and kills it as soon as `go_on`, which is asked every 50 ms, returns false. Standard error goes
/// to a file in `folder`.
///
/// # Errors
/// When the command cannot run, fails (with its own words) or is killed.
pub fn run(command: &mut Command, folder: &Path, go_on: &mut dyn FnMut() -> bool) -> Result<()> {
    let stderr = folder.join("stderr");
    let file = File::create(&stderr).with_context(|| format!("{}: cannot be written", stderr.display()))?;
    let mut child = command.stderr(file).spawn().context("it cannot be started")?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if !go_on() {
            let _ = child.kill();
            let _ = child.wait();
            bail!("nothing came in time");
        }
        sleep(Duration::from_millis(50));
    };
    ensure!(status.success(), "{}", problem(&String::from_utf8_lossy(&fs::read(stderr)?)));
    Ok(())
}

/// The error that pip or npm printed, in one line.
fn problem(stderr: &str) -> String {
    let pips = stderr.rfind("ERROR: ").map(|at| &stderr[at..]);
    let mut npms = stderr.lines().filter_map(|line| line.strip_prefix("npm error ").or(line.strip_prefix("npm ERR! ")));
    let npms = npms.find(|line| !["code ", "syscall ", "errno "].iter().any(|word| line.starts_with(word)));
    let problem = pips.or(npms).or(stderr.trim_end().lines().last()).unwrap_or("it said nothing");
    problem.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_error_is_told_in_one_line() {
        let cases = [
            (
                "WARNING: Retrying\nERROR: No version\nERROR: No matching distribution\n",
                "ERROR: No matching distribution",
            ),
            (
                "ERROR: HASHES DIFFER:\n    Expected sha256 a\n         Got        b\n",
                "ERROR: HASHES DIFFER: Expected sha256 a Got b",
            ),
            (
                "npm error code ENOTFOUND\nnpm error syscall getaddrinfo\nnpm error errno ENOTFOUND\nnpm error request to \
                 https://registry.example/x failed, reason: none\nnpm error Log files were not written\n",
                "request to https://registry.example/x failed, reason: none",
            ),
            ("npm ERR! code ETARGET\nnpm ERR! notarget No matching version\n", "notarget No matching version"),
            ("no such option: --abi\n\n", "no such option: --abi"),
            ("", "it said nothing"),
        ];
        cases.iter().for_each(|(stderr, expected)| assert_eq!(problem(stderr), *expected));
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_hangs_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let error = run(command("sleep", folder.path()).arg("60"), folder.path(), &mut || false).unwrap_err();
        assert_eq!(error.to_string(), "nothing came in time");
    }
}
