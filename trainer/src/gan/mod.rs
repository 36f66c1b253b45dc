//! The GAN: what a training step computes, as ONNX graphs.
//!
//! - [`networks`]: G and D
//! - [`update`]: losses, gradients and the order of the two updates; the place to read first
//! - `adam`, `convolution`, `dropout`, `pixels`: the operators with Rust kernels
//! - [`inputs`]: what the host writes for each step
//! - [`layout`]: how parameters lie in memory
//! - [`step`]: the step graph for a CPU
//! - [`block`]: the step graph for a GPU, and what is done once for a block of steps

pub(crate) mod adam;
pub mod block;
pub(crate) mod convolution;
pub(crate) mod dropout;
pub mod inputs;
pub mod layout;
pub mod networks;
pub(crate) mod pixels;
pub mod step;
pub mod summary;
pub mod update;
