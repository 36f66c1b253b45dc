//! Trains a GAN that draws handwritten digits, and exports its generator as plain ONNX.
//!
//! [`train::train`] does all that the `trainer` program does:
//!
//! ```no_run
//! use trainer::train::{Config, Plan, train};
//!
//! let plan = Plan { epochs: 5, ..Plan::seed_recipe() };
//! let config = Config { out: Some("g.onnx".into()), ..Config::new(plan, "mnist".parse()?) };
//! let outcome = train(&config, &mut ())?;
//! println!("{} steps, in {}", outcome.state.step, outcome.folder.display());
//! # anyhow::Ok(())
//! ```

#![deny(unsafe_code)]

pub mod adam;
pub mod bench;
pub mod checkpoint;
pub mod download;
pub mod events;
pub mod gan;
pub mod graph;
pub mod judge;
pub mod mnist;
pub mod onnx;
pub mod onnxruntime;
pub mod picture;
pub mod random;
pub mod report;
pub mod run;
pub mod score;
pub mod session;
pub mod train;
