//! Draws handwritten digits with a GAN's generator, without a heap, the same bytes everywhere.
#![no_std]
