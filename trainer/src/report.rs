//! What the user sees of a run: a progress bar on a terminal, a line an epoch elsewhere.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::state::{Epoch, Step};
use crate::train::Observer;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A line an epoch on stdout, and a bar on stderr where that is a terminal.
    Plain,
    /// An object an epoch on stdout, as in `metrics.jsonl`.
    Json,
    /// Nothing but warnings and errors.
    Quiet,
}

/// Reports to the terminal, and stops the run at Ctrl-C; a second one ends the program at once.
pub struct Terminal {
    style: Style,
    stop: Arc<AtomicBool>,
    epochs: u64,
    bar: ProgressBar,
    drawn: Instant,
}

/// The exit code of a program that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

impl Terminal {
    /// For a run of so many epochs.
    pub fn new(style: Style, epochs: u64) -> Self {
        let (stop, drawn) = (Arc::new(AtomicBool::new(false)), Instant::now());
        Self { style, stop, epochs, bar: ProgressBar::hidden(), drawn }
    }
}

impl Observer for Terminal {
    fn say(&mut self, line: &str) {
        if self.style == Style::Plain || line.starts_with("warning") {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    fn start(&mut self, steps: u64, done: u64) {
        // Not before: until there are steps to finish, Ctrl-C may end the program as it ends any other.
        let stop = self.stop.clone();
        let handler = ctrlc::set_handler(move || {
            if stop.swap(true, Ordering::Relaxed) {
                std::process::exit(INTERRUPTED.into());
            }
        });
        if let Err(why) = handler {
            self.say(&format!("warning: Ctrl-C will end the run without a checkpoint: {why}"));
        }
        if self.style == Style::Plain && std::io::stderr().is_terminal() {
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
        if !self.bar.is_hidden() && self.drawn.elapsed() > Duration::from_millis(100) {
            self.drawn = Instant::now();
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
        self.bar.suspend(|| say(&line));
    }
}

/// A line on stdout. Work goes on when nobody listens any more.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
