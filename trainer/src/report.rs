//! What the user sees of a run: a progress bar on a terminal, a line an epoch elsewhere.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::train::{Epoch, Observer, Plan, Step};

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

/// Reports to the terminal, and stops the run when `stop` is set.
pub struct Terminal {
    style: Style,
    stop: Arc<AtomicBool>,
    epochs: u64,
    bar: ProgressBar,
    drawn: Instant,
}

impl Terminal {
    pub fn new(style: Style, stop: Arc<AtomicBool>) -> Self {
        Self { style, stop, epochs: 0, bar: ProgressBar::hidden(), drawn: Instant::now() }
    }
}

impl Observer for Terminal {
    fn say(&mut self, line: &str) {
        if self.style == Style::Plain || line.starts_with("warning") {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    fn start(&mut self, plan: &Plan, steps_per_epoch: u64, done: u64) {
        self.epochs = plan.epochs;
        if self.style == Style::Plain && std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{msg} [{bar:30}] {percent:>3} % | {speed} | {eta} left")
                .expect("a valid template")
                .progress_chars("=> ")
                .with_key("speed", |state: &ProgressState, f: &mut dyn std::fmt::Write| {
                    let _ = write!(f, "{:.0} steps/s", state.per_sec());
                });
            self.bar = ProgressBar::new(plan.epochs * steps_per_epoch).with_style(style).with_position(done);
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
