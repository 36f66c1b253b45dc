//! Reports of a run to the user: a progress bar on a terminal, and a line per epoch.

use std::io::{IsTerminal, stderr};
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::data::progress::Progress;
use crate::print::{note, result};
use crate::signals::{self, Signal};
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

/// An observer that prints to the terminal. The first signal stops the run with a checkpoint; a second one ends the program
/// at once. A line that cannot be written does not stop the run.
pub struct Terminal {
    style: Style,
    stopped_by: Arc<OnceLock<Signal>>,
    /// Whether all JSON objects could be written.
    written: Result<()>,
    epochs: u64,
    download: Option<ProgressBar>,
    bar: ProgressBar,
    bar_updated: Instant,
}

impl Terminal {
    /// A terminal for a run of `epochs`.
    pub fn new(style: Style, epochs: u64) -> Self {
        let (stopped_by, bar) = (Arc::default(), ProgressBar::hidden());
        Self { style, stopped_by, written: Ok(()), epochs, download: None, bar, bar_updated: Instant::now() }
    }

    /// The signal that stopped the run.
    pub fn stopped_by(&self) -> Option<Signal> {
        self.stopped_by.get().copied()
    }

    /// Ends the report of a run.
    ///
    /// # Errors
    /// When a JSON object could not be written.
    pub fn finish(self) -> Result<()> {
        self.written.context("the run is complete, but its epochs could not be written; its metrics.jsonl has them")
    }
}

impl Observer for Terminal {
    fn say(&mut self, line: &str) {
        if self.style == Style::Plain || line.starts_with("warning") {
            self.bar.suspend(|| note(line));
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
        // Before this line there is nothing to save, and a signal ends the program at once.
        let (stopped_by, bar) = (self.stopped_by.clone(), self.bar.clone());
        signals::on_first(move |signal| {
            let _ = stopped_by.set(signal);
            let answer = format!(
                "{signal}: stopping after this step; a second signal ends the run at once, without a checkpoint"
            );
            // On another thread, so that a second signal is heard even if nobody reads standard error.
            let _ = thread::Builder::new().spawn(move || bar.suspend(|| note(&answer)));
        });
    }

    fn step(&mut self, step: &Step) -> ControlFlow<()> {
        if self.stopped_by().is_some() {
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
        let written = self.bar.suspend(|| result(&line));
        if self.style == Style::Json && self.written.is_ok() {
            self.written = written;
        }
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
        Progress::Images { done, total } if total != done => {
            let bar = bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("reading images [{bar:30}] {pos} of {len} | {eta} left");
                ProgressBar::new(total).with_style(style.expect("a valid template").progress_chars("=> "))
            });
            bar.set_position(done);
        }
        // All is here, or was given up.
        _ => bar.take().iter().for_each(ProgressBar::finish_and_clear),
    }
    if let Progress::Line(line) = progress {
        note(line);
    }
}
