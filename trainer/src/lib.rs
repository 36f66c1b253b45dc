//! Trains a GAN that draws handwritten digits, and exports its generator as plain ONNX.
