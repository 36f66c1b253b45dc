//! Reports of a run to the user: a progress bar on a terminal, and a line per epoch.

use std::io::{IsTerminal, Write, stderr, stdout};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::data::download::Progress;
use crate::state::{Epoch, Step};
use crate::train::Observer;

/// How much of a run is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A line per epoch on standard output, and a progress bar on standard error if that is a terminal.
    Plain,
    /// A JSON object per epoch on standard output, as in `metrics.jsonl`.
    Json,
    /// Only warnings and errors.
    Quiet,
}

/// An observer that prints to the terminal. Ctrl-C stops the run with a checkpoint; a second Ctrl-C ends the program at
/// once.
pub struct Terminal {
    style: Style,
    stop: Arc<AtomicBool>,
    epochs: u64,
    download: Option<ProgressBar>,
    bar: ProgressBar,
    bar_updated: Instant,
}

/// Exit code of a program that Ctrl-C ended: 128 + SIGINT, as shells have it.
pub const INTERRUPTED: u8 = 130;

impl Terminal {
    /// A terminal for a run of `epochs`.
    pub fn new(style: Style, epochs: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        Self { style, stop, epochs, download: None, bar: ProgressBar::hidden(), bar_updated: Instant::now() }
    }
}

impl Observer for Terminal {
    fn say(&mut self, line: &str) {
        if self.style == Style::Plain || line.starts_with("warning") {
            self.bar.suspend(|| print_line(stderr(), line));
        }
    }

    fn fetching(&mut self, progress: Progress) {
        match (self.style, progress) {
            (Style::Plain, progress) => show(&mut self.download, progress),
            (_, Progress::Line(line)) => self.say(line),
            _ => {}
        }
    }

    fn start(&mut self, steps: u64, done: u64) {
        // Until the first step there is nothing to save, and Ctrl-C may end the program at once.
        let stop = self.stop.clone();
        let handler = ctrlc::set_handler(move || {
            if stop.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
        });
        if let Err(why) = handler {
            self.say(&format!("warning: Ctrl-C will end the run without a checkpoint: {why}"));
        }
        if self.style == Style::Plain && stderr().is_terminal() {
            let style = ProgressStyle::with_template("{msg} [{bar:30}] {percent:>3} % | {speed} | {eta} left")
                .expect("a valid template")
                .progress_chars("=> ")
                .with_key("speed", |state: &ProgressState, f: &mut dyn std::fmt::Write| {
                    let _ = write!(f, "{:.0} steps/s", state.per_sec());
                });
            self.bar = ProgressBar::new(steps).with_style(style).with_position(done);
            self.bar.reset_eta();
        }
    }

    fn step(&mut self, step: &Step) -> ControlFlow<()> {
        if self.stop.load(Ordering::Relaxed) {
            self.bar.abandon();
            return ControlFlow::Break(());
        }
        if !self.bar.is_hidden() && self.bar_updated.elapsed() > Duration::from_millis(100) {
            self.bar_updated = Instant::now();
            let [d_loss, g_loss, ..] = step.metrics;
            let Step { epoch, step, .. } = step;
            self.bar.set_message(format!("Epoch {epoch:>3}/{} | d_loss {d_loss:.4} | g_loss {g_loss:.4}", self.epochs));
            self.bar.set_position(*step);
        }
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, epoch: &Epoch) {
        if epoch.epoch == self.epochs {
            self.bar.finish_and_clear();
        }
        let line = match self.style {
            Style::Plain => format!(
                "Epoch [{:>5}/{:>5}] | d_loss: {:.4} | g_loss: {:.4}{}",
                epoch.epoch,
                self.epochs,
                epoch.d_loss,
                epoch.g_loss,
                epoch.frechet_distance.map_or(String::new(), |distance| format!(" | FD: {distance:.1}"))
            ),
            Style::Json => serde_json::to_string(epoch).expect("numbers"),
            Style::Quiet => return,
        };
        self.bar.suspend(|| print_line(stdout(), &line));
    }
}

/// A function that prints to standard error how files are fetched, with a progress bar for each download if that is a terminal.
pub fn downloads() -> impl FnMut(Progress<'_>) {
    let mut bar = None;
    move |progress: Progress| show(&mut bar, progress)
}

fn show(bar: &mut Option<ProgressBar>, progress: Progress) {
    match progress {
        Progress::Bytes { file, done, total } if total != Some(done) => {
            let bar = bar.get_or_insert_with(|| {
                let template = "{msg} [{bar:30}] {bytes} of {total_bytes} | {bytes_per_sec} | {eta} left";
                let style = ProgressStyle::with_template(template).expect("a valid template").progress_chars("=> ");
                ProgressBar::no_length().with_style(style).with_message(file.to_string())
            });
            total.iter().for_each(|total| bar.set_length(*total));
            bar.set_position(done);
        }
        // The download ended, or was given up.
        _ => bar.take().iter().for_each(ProgressBar::finish_and_clear),
    }
    if let Progress::Line(line) = progress {
        print_line(stderr(), line);
    }
}

/// Prints a line to standard output or standard error. Ignores errors: a run continues when its reader closes the pipe.
pub fn print_line(mut to: impl Write, line: &str) {
    let _ = writeln!(to, "{line}");
}
