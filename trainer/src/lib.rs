//! Trains a GAN that draws handwritten digits, and exports its generator as plain ONNX.

pub mod adam;
pub mod bench;
pub mod checkpoint;
pub mod gan;
pub mod graph;
pub mod mnist;
pub mod onnx;
pub mod onnxruntime;
pub mod random;
pub mod report;
pub mod session;
pub mod train;
