//! What the user sees of a run: a progress bar on a terminal, a line an epoch elsewhere.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

use crate::session::{Metrics, Stepper};
use crate::train::{Epoch, Observer, Step};

/// Reports to the terminal: the bar on stderr when that is a terminal, and a line an epoch on stdout.
pub struct Terminal {
    epochs: u64,
    bar: Option<ProgressBar>,
    drawn: Instant,
    /// The last epoch's means.
    pub last: Metrics,
}

impl Terminal {
    /// For a run of `epochs`, `steps` each, of which `done` steps are behind it.
    pub fn new(epochs: u64, steps: u64, done: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = "{msg} [{bar:30}] {percent:>3} % | {per_sec} | {eta} left";
            let style = ProgressStyle::with_template(style).expect("a valid template").progress_chars("=> ");
            let style = style.with_key("per_sec", |state: &indicatif::ProgressState, f: &mut dyn std::fmt::Write| {
                let _ = write!(f, "{:.0} steps/s", state.per_sec());
            });
            let bar = ProgressBar::new(epochs * steps).with_style(style).with_position(done);
            bar.reset_eta();
            bar
        });
        Self { epochs, bar, drawn: Instant::now(), last: [f32::NAN; _] }
    }

    /// Prints above the bar.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }
}

impl Observer for Terminal {
    fn step(&mut self, step: &Step) -> Result<ControlFlow<()>> {
        if let Some(bar) = &self.bar
            && self.drawn.elapsed() > Duration::from_millis(100)
        {
            self.drawn = Instant::now();
            let [d_loss, g_loss, ..] = step.metrics;
            bar.set_message(format!(
                "Epoch {:>3}/{} | d_loss {d_loss:.4} | g_loss {g_loss:.4}",
                step.epoch, self.epochs
            ));
            bar.set_position(step.step);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn epoch(&mut self, epoch: &Epoch, _: &Stepper) -> Result<ControlFlow<()>> {
        self.last = epoch.metrics;
        let [d_loss, g_loss, ..] = epoch.metrics;
        self.line(&format!(
            "Epoch [{:>5}/{:>5}] | d_loss: {d_loss:.4} | g_loss: {g_loss:.4}",
            epoch.epoch, self.epochs
        ));
        Ok(ControlFlow::Continue(()))
    }
}

/// A line on stdout. Training goes on when nobody listens any more.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
