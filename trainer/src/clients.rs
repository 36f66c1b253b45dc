//! Runs Python and the package clients pip and npm. No file of the user's current folder is executed: each program runs in a
//! private folder, and Python in isolated mode (`-I`).

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::signals::with_cleanup;
use crate::{cache, files};

/// File name of npm's program.
const NPM: &str = if cfg!(windows) { "npm.cmd" } else { "npm" };

/// What the first working Python prints for `code`, or nothing without Python. The Python beside this program comes before
/// those of `PATH`: if pip installed the program, its dependencies are that Python's packages.
pub fn python(code: &str) -> String {
    let Ok(folder) = cache::temporary_folder(&env::temp_dir()) else { return String::new() };
    let beside = env::current_exe().map(|program| program.with_file_name(format!("python{}", env::consts::EXE_SUFFIX)));
    let beside = beside.ok().filter(|python| python.is_file());
    // Only the first that runs is asked: starting Python takes a good part of the trainer's own start.
    let answer = beside.into_iter().chain(["python3", "python"].map(PathBuf::from)).find_map(|python| {
        let answer = command(python, folder.path()).args(["-I", "-c", code]).stdout(Stdio::piped()).output();
        answer.ok().filter(|answer| answer.status.success())
    });
    answer.map(|answer| String::from_utf8_lossy(&answer.stdout).into_owned()).unwrap_or_default()
}

/// Name and command line of the first pip that works and can name the platforms of wheels, to be run in `folder`. Temporary
/// files stay in `folder`.
///
/// # Errors
/// When there is no pip, or only one that is too old: says how to get one.
pub fn pip(folder: &Path) -> Result<(&'static str, Command)> {
    let mut too_old = None;
    for name in ["python3 -I -m pip", "python -I -m pip", "pip3", "pip"] {
        let command = || {
            let mut words = name.split(' ');
            let mut command = command(words.next().unwrap_or_default(), folder);
            command.args(words).envs(["TMPDIR", "TEMP", "TMP"].map(|variable| (variable, folder)));
            pass_certificates(&mut command, "PIP_CERT", &["PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]);
            command
        };
        let answer = command().arg("--version").stdout(Stdio::piped()).output();
        let Some(answer) = answer.ok().filter(|answer| answer.status.success()) else { continue };
        // pip 23.0.1 from /usr/lib/python3/dist-packages/pip (python 3.11)
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        let version = answer.split_whitespace().nth(1).unwrap_or_default();
        let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
        let is_old = numbers.next().is_some_and(|major| (major, numbers.next().unwrap_or(0)) < (20, 3));
        if !is_old {
            return Ok((name, command()));
        }
        let advice = format!("pip 20.3 or newer expected, pip {version} found; run `{name} install --upgrade pip`");
        too_old.get_or_insert(advice);
    }
    let none = "neither `python3 -m pip` nor `python -m pip`, `pip3` or `pip` works here; install pip";
    bail!(too_old.unwrap_or(none.into()))
}

/// Passes the certificates of `SSL_CERT_FILE` on to a client in its own `variable`, unless one of `theirs` is set.
fn pass_certificates(command: &mut Command, variable: &str, theirs: &[&str]) {
    let file = env::var_os("SSL_CERT_FILE").filter(|_| theirs.iter().all(|name| env::var_os(name).is_none()));
    // The client runs in another folder.
    if let Some(file) = file.and_then(|file| std::path::absolute(file).ok()) {
        command.env(variable, file);
    }
}

/// What to do about a problem that these words of a client tell, if it is a certificate that is not trusted.
pub fn certificate_advice(words: &str) -> Option<&'static str> {
    let problems = [
        "CERTIFICATE_VERIFY_FAILED",
        "invalid peer certificate",
        "SELF_SIGNED_CERT",
        "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
        "UNABLE_TO_GET_ISSUER_CERT",
    ];
    let is_one = problems.iter().any(|problem| words.contains(problem));
    is_one.then_some(
        "the server's certificate is not trusted; name a file with the certificates of your proxy in SSL_CERT_FILE",
    )
}

/// Command line of npm, to be run in `folder`. The project settings (`.npmrc`) of other folders are not read, install scripts
/// do not run, and npm's cache and logs stay in `folder`.
pub fn npm(folder: &Path) -> Option<Command> {
    has_npm().then(|| {
        let mut command = command(NPM, folder);
        let options = "--prefix . --cache cache --logs-max 0 --loglevel error --ignore-scripts --no-update-notifier \
            --fetch-retries 0";
        command.args(options.split_whitespace());
        pass_certificates(&mut command, "NODE_EXTRA_CA_CERTS", &["NODE_EXTRA_CA_CERTS"]);
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

/// Runs `command` to its end, and kills it as soon as `go_on`, which is asked every 50 ms, returns an error, or a signal ends
/// this program. Standard error goes to a file in `folder`.
///
/// # Errors
/// When the command cannot run, fails (with its own words) or is killed (with the error of `go_on`).
pub fn run(command: &mut Command, folder: &Path, go_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
    let stderr = folder.join("stderr");
    let file = File::create(&stderr).with_context(|| files::cannot_write(&stderr))?;
    let kill = |child: &Mutex<Child>| {
        let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    };
    let (child, _cleanup) = with_cleanup(
        || command.stderr(file).spawn().map(|child| Arc::new(Mutex::new(child))),
        |child| {
            let child = child.clone();
            move || kill(&child)
        },
    )
    .context("it cannot be started")?;
    let status = loop {
        let ended = child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?;
        if let Some(status) = ended {
            break status;
        }
        // Without the lock, which a signal needs: `go_on` may wait for a reader of standard error.
        if let Err(problem) = go_on() {
            kill(&child);
            return Err(problem);
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
    let problem = problem.split_whitespace().collect::<Vec<_>>().join(" ");
    certificate_advice(stderr).map(|advice| format!("{problem} ({advice})")).unwrap_or(problem)
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
            (
                "WARNING: Retrying: SSLError([SSL: CERTIFICATE_VERIFY_FAILED])\nERROR: No matching distribution\n",
                "ERROR: No matching distribution (the server's certificate is not trusted; name a file with the \
                 certificates of your proxy in SSL_CERT_FILE)",
            ),
            ("", "it said nothing"),
        ];
        cases.iter().for_each(|(stderr, expected)| assert_eq!(problem(stderr), *expected));
    }

    #[cfg(unix)]
    #[test]
    fn a_program_that_hangs_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            run(command("sleep", folder.path()).arg("60"), folder.path(), &mut || bail!("no time")).unwrap_err();
        assert_eq!(error.to_string(), "no time");
    }
}
