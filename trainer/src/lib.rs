//! Trains a GAN that draws handwritten digits, and exports its generator as plain ONNX.
//!
//! [`train::train`] does all that the `trainer` program does:
//!
//! ```no_run
//! use trainer::config::{Config, Plan};
//! use trainer::train::train;
//!
//! let plan = Plan { epochs: 5, ..Plan::seed_recipe() };
//! let config = Config { out: Some("g.onnx".into()), ..Config::new(plan, "mnist".parse()?) };
//! let outcome = train(&config, &mut ())?;
//! println!("{} steps, in {}", outcome.state.step, outcome.folder.display());
//! # anyhow::Ok(())
//! ```

#![deny(unsafe_code)]

pub mod bench;
pub mod clients;
pub mod config;
pub mod data;
pub mod files;
pub mod gan;
pub mod graph;
pub mod noise;
pub mod ort;
pub mod pixel;
pub mod report;
pub mod run;
pub mod sample;
pub mod score;
pub mod state;
pub mod steps;
pub mod train;
