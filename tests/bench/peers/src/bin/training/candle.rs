//! The training step in candle.
use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_nn::{AdamW, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap, linear, ops};

use crate::{BATCH, D, G, IMAGES, Step};

struct Net {
    layers: Vec<Linear>,
    adam: AdamW,
}

impl Net {
    fn new(sizes: &[usize]) -> Result<Self> {
        let map = VarMap::new();
        let build = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let layer = |(i, w): (usize, &[usize])| linear(w[0], w[1], build.pp(i));
        let layers = sizes.windows(2).enumerate().map(layer).collect::<candle_core::Result<_>>()?;
        let settings = ParamsAdamW { lr: 2e-3, weight_decay: 0.0, ..ParamsAdamW::default() };
        Ok(Self { layers, adam: AdamW::new(map.all_vars(), settings)? })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (last, hidden) = self.layers.split_last().expect("layers");
        let mut x = x.clone();
        for layer in hidden {
            x = ops::dropout(&ops::leaky_relu(&layer.forward(&x)?, 0.2)?, 0.2)?;
        }
        Ok(last.forward(&x)?)
    }
}

/// Binary cross-entropy on logits: max(x, 0) − x · target + ln(1 + e^−|x|).
fn bce(logits: &Tensor, target: f64) -> Result<Tensor> {
    let tail = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok(((logits.relu()? - (logits * target)?)? + tail)?.mean_all()?)
}

pub fn step() -> Result<Step> {
    let (mut d, mut g) = (Net::new(&D)?, Net::new(&G)?);
    let images = Tensor::rand(-1f32, 1f32, (IMAGES, D[0]), &Device::Cpu)?;
    let z = || Tensor::rand(-1f32, 1f32, (BATCH, G[0]), &Device::Cpu);
    Ok(Box::new(move |pick| {
        let real = images.index_select(&Tensor::new(pick, &Device::Cpu)?, 0)?;
        let fake = g.forward(&z()?)?.tanh()?.detach();
        let loss = (bce(&d.forward(&real)?, 0.9)? + bce(&d.forward(&fake)?, 0.0)?)?;
        d.adam.backward_step(&loss)?;
        let loss = bce(&d.forward(&g.forward(&z()?)?.tanh()?)?, 1.0)?;
        g.adam.backward_step(&loss)?;
        Ok(loss.to_scalar::<f32>()?)
    }))
}
