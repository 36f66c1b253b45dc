//! Trains a GAN that draws handwritten digits, and exports its generator as plain ONNX.

pub mod adam;
pub mod gan;
pub mod graph;
pub mod onnx;
pub mod onnxruntime;
pub mod session;
