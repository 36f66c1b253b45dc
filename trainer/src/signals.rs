//! Signals that ask the program to end: SIGINT (Ctrl-C), SIGTERM and SIGHUP; on Windows Ctrl-C.
//!
//! A signal ends the program at once, without leaving temporary files or child processes behind. A run that is training
//! gets the first signal as a request, see [`on_first`].

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};

/// A signal that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// Exit code of a program that this signal ended: 128 + the signal's number, as shells have it.
    pub fn exit_code(self) -> u8 {
        128 + self.0 as u8
    }
}

/// Watches the signals from now on. Those that were ignored at the start stay ignored. The program calls it before anything
/// else, because the kernel gives process 1 of a container only the signals that it watches.
///
/// # Errors
/// When the signals cannot be watched, or the thread that waits for them cannot be started.
pub fn watch() -> Result<()> {
    watch_with(receive).context("signals cannot be watched")
}

/// Gives the next signal to `request`. The signal after it ends the program.
pub fn on_first(request: impl FnOnce(Signal) + Send + 'static) {
    *lock(&REQUEST) = Some(Box::new(request));
}

/// Calls `create`, which creates something temporary. If a signal ends the program before the returned guard is dropped,
/// the function that `cleanup` returns is called first.
///
/// # Errors
/// Those of `create`.
pub fn with_cleanup<T, F: FnOnce() + Send + 'static>(
    create: impl FnOnce() -> io::Result<T>,
    cleanup: impl FnOnce(&T) -> F,
) -> io::Result<(T, Cleanup)> {
    // Under the lock, so that no signal comes between the creation and the entry.
    let mut cleanups = lock(&CLEANUPS);
    let created = create()?;
    let key = cleanups.last_key_value().map_or(0, |(last, _)| last + 1);
    cleanups.insert(key, Box::new(cleanup(&created)));
    Ok((created, Cleanup(key)))
}

/// The guard of [`with_cleanup`].
pub struct Cleanup(u64);

impl Drop for Cleanup {
    fn drop(&mut self) {
        lock(&CLEANUPS).remove(&self.0);
    }
}

type Request = Box<dyn FnOnce(Signal) + Send>;

static REQUEST: Mutex<Option<Request>> = Mutex::new(None);

/// The functions to call before the program ends, in the order of their creation.
static CLEANUPS: Mutex<BTreeMap<u64, Box<dyn FnOnce() + Send>>> = Mutex::new(BTreeMap::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn receive(signal: Signal) {
    let request = lock(&REQUEST).take();
    match request {
        Some(request) => request(signal),
        None => end(signal),
    }
}

/// Cleans up and ends the program. The lock is kept to the end: other threads that create or remove something temporary
/// wait in vain, so that none of them reports an error about a file that was cleaned up.
fn end(signal: Signal) -> ! {
    let mut cleanups = lock(&CLEANUPS);
    while let Some((_, cleanup)) = cleanups.pop_last() {
        cleanup();
    }
    exit(signal.exit_code().into())
}

#[cfg(unix)]
fn watch_with(receive: fn(Signal)) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default(); // Linux only
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let ignored = ignored.unwrap_or(1 << (SIGHUP - 1)); // in case that nohup started the program, which ignores SIGHUP
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored >> (signal - 1) & 1 == 0))?;
    let wait = move || signals.forever().for_each(|number| receive(Signal(number)));
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}

/// Ends the program without ONNX Runtime's destructors, which crash while another thread is in ONNX Runtime.
#[cfg(unix)]
pub use signal_hook::low_level::exit;

#[cfg(unix)]
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(signal_hook::low_level::signal_name(self.0).unwrap_or("a signal"))
    }
}

#[cfg(windows)]
fn watch_with(receive: fn(Signal)) -> io::Result<()> {
    ctrlc::set_handler(move || receive(Signal(2))).map_err(io::Error::other)
}

#[cfg(windows)]
pub use std::process::exit;

#[cfg(windows)]
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Ctrl-C")
    }
}
