//! Runs models of unknown origin: on the CPU, with ONNX Runtime's own kernels, within a time limit.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ort::session::RunOptions;

use crate::graph::foreign::ForeignModel;
use crate::ort::{Loaded, OnnxRuntime, plain};
use crate::print::printable;

impl OnnxRuntime {
    /// The result of `work` with a model of unknown origin, which is loaded and runs on another thread.
    ///
    /// # Errors
    /// When ONNX Runtime does not accept the model, `work` fails, or both take longer than `limit`. The thread of a model that
    /// exceeded the limit ends after its current node; while the model is still being loaded it cannot be stopped.
    pub fn run_foreign<T: Send + 'static>(
        &self,
        model: ForeignModel,
        limit: Duration,
        work: impl FnOnce(&mut Loaded) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let runtime = Self { kernels: false, ..self.on_cpu() };
        let options = Arc::new(RunOptions::new()?);
        let stop = options.clone();
        let load = move || -> Result<Loaded> {
            let mut builder = runtime.builder(false)?;
            for (name, content) in model.external {
                builder = builder.with_external_initializer_file_in_memory(name, content).map_err(plain)?;
            }
            Ok(Loaded { session: builder.commit_from_memory(&model.bytes)?, options })
        };
        let (send, result) = mpsc::channel();
        let run = move || {
            let result = load().and_then(|mut loaded| work(&mut loaded));
            let _ = send.send(result); // fails only after the limit
        };
        thread::Builder::new().spawn(run).context("a thread cannot be started")?;
        match result.recv_timeout(limit) {
            Ok(result) => result.map_err(|error| anyhow!(message(&format!("{error:#}")))),
            Err(RecvTimeoutError::Disconnected) => bail!("the thread that ran the model panicked"),
            Err(RecvTimeoutError::Timeout) => {
                stop.terminate()?;
                let _ = result.recv_timeout(GRACE);
                bail!("a result within {} seconds expected, the model still runs", limit.as_secs())
            }
        }
    }
}

/// How long a stopped model may take to end its current node. Then its thread is left alone.
const GRACE: Duration = Duration::from_secs(2);

/// ONNX Runtime's words about a model on one line: without the place in its source, escaped and cut.
fn message(error: &str) -> String {
    let words = match error.split_once(' ') {
        Some((place, rest)) if place.contains(".cc:") => rest.split_once(' ').map_or(rest, |(_function, words)| words),
        _ => error,
    };
    printable(words, 300)
}
