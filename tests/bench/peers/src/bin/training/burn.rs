//! The training step in burn, on its ndarray backend: deprecated in favour of flex, and still the faster here, by a tenth. The
//! third, `cpu`, builds with an LLVM that it fetches from outside crates.io.
#![allow(deprecated)]

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::{leaky_relu, log_sigmoid};
use burn::tensor::{Device, Distribution, Tensor};

use crate::{BATCH, D, G, IMAGES, Step};

#[derive(Module, Debug)]
struct Net {
    layers: Vec<Linear>,
    dropout: Dropout,
}

impl Net {
    fn new(sizes: &[usize], device: &Device) -> Self {
        let layers = sizes.windows(2).map(|w| LinearConfig::new(w[0], w[1]).init(device)).collect();
        Self { layers, dropout: DropoutConfig::new(0.2).init() }
    }

    fn forward(&self, mut x: Tensor<2>) -> Tensor<2> {
        let (last, hidden) = self.layers.split_last().expect("layers");
        for layer in hidden {
            x = self.dropout.forward(leaky_relu(layer.forward(x), 0.2));
        }
        last.forward(x)
    }
}

/// Binary cross-entropy on logits, as burn's own loss has it, which takes no target but 0 and 1.
fn bce(logits: Tensor<2>, target: f64) -> Tensor<1> {
    (logits.clone() * (1.0 - target) - log_sigmoid(logits)).mean()
}

pub fn step() -> Step {
    let device = Device::ndarray().autodiff();
    let adam = || AdamConfig::new().with_epsilon(1e-8).init();
    let (mut adam_d, mut adam_g) = (adam(), adam());
    let mut nets = Some((Net::new(&D, &device), Net::new(&G, &device)));
    let uniform = Distribution::Uniform(-1.0, 1.0);
    let images = Tensor::<2>::random([IMAGES, D[0]], uniform, &device);
    Box::new(move |pick| {
        let (d, g) = nets.take().expect("nets");
        let z = || Tensor::random([BATCH, G[0]], uniform, &device);
        let real = images.clone().select(0, Tensor::from_ints(pick, &device));
        let fake = g.forward(z()).tanh().detach();
        let loss = bce(d.forward(real), 0.9) + bce(d.forward(fake), 0.0);
        let grads = GradientsParams::from_grads(loss.backward(), &d);
        let d = adam_d.step(2e-3, d, grads);
        let loss = bce(d.forward(g.forward(z()).tanh()), 1.0);
        let grads = GradientsParams::from_grads(loss.backward(), &g);
        nets = Some((d, adam_g.step(2e-3, g, grads)));
        Ok(loss.into_scalar::<f32>())
    })
}
