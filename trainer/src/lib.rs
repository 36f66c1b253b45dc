//! Trains a GAN that draws handwritten digits, and exports its generator to an ONNX file.
//!
//! [`train::train`] does the work of the `trainer` program:
//!
//! ```no_run
//! use trainer::config::{Config, Plan, Source};
//! use trainer::train::train;
//!
//! let plan = Plan { epochs: 5, ..Plan::seed_recipe() };
//! let config = Config { out: Some("g.onnx".into()), ..Config::new(plan, Source::Published("mnist".into())) };
//! let outcome = train(&config, &mut ())?;
//! println!("{} steps, in {}", outcome.state.step, outcome.folder.display());
//! # anyhow::Ok(())
//! ```
//!
//! The modules stand in layers. A module uses only modules on lower lines:
//!
//! ```text
//! report                         progress bar and lines on the terminal
//! train                          the training loop
//! overview                       what a data set holds
//! bench   run    score           speed; the run folder; scores of a generator
//! steps   sample                 the steps of a plan; images drawn by a generator
//! ort                            ONNX Runtime: sessions, kernels, steps on the CPU and on CUDA
//! gan     data                   networks, losses and update as graphs; data sets
//! state                          training state and metrics
//! graph   noise                  the tape of ONNX operators; random numbers
//! config  clients pixel          settings; Python, pip and npm; grey levels
//! cache                          the folder for downloads; private folders
//! files                          atomic file writes
//! signals print                  the end by a signal; lines for the user
//! ```

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod bench;
pub mod cache;
pub mod clients;
pub mod config;
pub mod data;
pub mod files;
pub mod gan;
pub mod graph;
pub mod noise;
pub mod ort;
pub mod overview;
pub mod pixel;
pub mod print;
pub mod report;
pub mod run;
pub mod sample;
pub mod score;
pub mod signals;
pub mod state;
pub mod steps;
pub mod train;
