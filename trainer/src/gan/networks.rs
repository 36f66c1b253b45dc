//! The generator G and the discriminator D.
//!
//! Shapes: B batch; C classes; I, O widths of a dense layer's input and output, or numbers of a convolution's maps. The parameters θ
//! of a network are a list of weight and bias for each layer: (I, O) of a dense layer, (16 I, O) of a convolution; and (O,).

use crate::config::{LATENT, Recipe, SIDE};
use crate::gan::convolution::convolution;
use crate::gan::dropout::{Dropout, SLOPE, leaky_relu_dropout};
use crate::gan::pixels;
use crate::graph::onnx::{self, Type};
use crate::graph::{Graph, Var};
use crate::state::g_params;

/// G in training: images (B, 784) as D sees them from z (B, 100), with the dropout of each hidden layer.
pub(crate) fn generate(g: &mut Graph, recipe: &Recipe, theta: &[Var], z: Var, dropout: &[Dropout]) -> Var {
    let last = mlp(g, theta, z, |g, i, h| leaky_relu_dropout(g, h, dropout.get(i))); // (B, 784)
    pixels::fake_images(g, recipe, last)
}

/// D in training: the logit (B, 1) that images x (B, 784), as D sees them, are real, with the dropout of each hidden dense layer. A
/// class-conditional D has one logit per class; `class` (B, C), one-hot, selects the logit of each image.
pub(crate) fn discriminate(
    g: &mut Graph,
    recipe: &Recipe,
    theta: &[Var],
    x: Var,
    class: Option<Var>,
    dropout: &[Dropout],
) -> Var {
    let (convolutions, dense) = theta.split_at(2 * recipe.d_conv.len());
    let batch = g.shape(x)[0];
    let (mut h, mut side, mut maps) = (x, SIDE, 1);
    for layer in convolutions.chunks(2) {
        let image = g.reshape(h, &[batch, side, side, maps]);
        h = convolution(g, image, layer[0], layer[1]);
        h = leaky_relu_dropout(g, h, None); // (B, 14, 14, O), then (B, 7, 7, O)
        (side, maps) = (side / 2, g.shape(h)[3]);
    }
    h = g.reshape(h, &[batch, side * side * maps]);
    let logits = mlp(g, dense, h, |g, i, h| leaky_relu_dropout(g, h, dropout.get(i))); // (B, 1) or (B, C)
    match class {
        Some(class) => {
            let selected = g.mul(logits, class);
            g.sum(selected, &[1], true)
        }
        None => logits,
    }
}

/// Dense layers, with `activation(g, i, h)` after each layer i but the last: x (B, I of the first) → (B, O of the
/// last).
fn mlp(g: &mut Graph, theta: &[Var], x: Var, activation: impl Fn(&mut Graph, usize, Var) -> Var) -> Var {
    let layers = theta.len() / 2;
    let mut h = x;
    for (i, layer) in theta.chunks(2).enumerate() {
        h = g.gemm(h, layer[0], Some(layer[1]), false, false); // x w + b, (B, O)
        if i + 1 < layers {
            h = activation(g, i, h);
        }
    }
    h
}

/// The trained generator as a model to export: `z` (N, 100) → `image` (N, 784) in [-1, 1], without dropout. `weights`
/// are stored in the file; they have the order and shapes of [`g_params`].
pub fn generator(weights: &[&[f32]]) -> onnx::Model {
    let g = &mut Graph::default();
    let z = g.input("z", Type::F32, &[1, LATENT]);
    let theta: Vec<Var> = (g_params().iter().zip(weights))
        .map(|(s, w)| g.constant(s.name.trim_start_matches("g."), &s.shape, w))
        .collect();
    let image = evaluate(g, &theta, z);
    g.to_model("generator", &[(image, "image".into())], Some("N"))
}

/// The generator during training, without dropout: `z` (n, 100) → `image` (n, 784) in [-1, 1]. Its parameters are
/// inputs, `g.fc1.weight` and so on.
pub fn sampler(n: usize) -> onnx::Model {
    let g = &mut Graph::default();
    let z = g.input("z", Type::F32, &[n, LATENT]);
    let theta: Vec<Var> = g_params().iter().map(|s| g.input(&s.name, s.elem, &s.shape)).collect();
    let image = evaluate(g, &theta, z);
    g.to_model("sampler", &[(image, "image".into())], None)
}

fn evaluate(g: &mut Graph, theta: &[Var], z: Var) -> Var {
    let last = mlp(g, theta, z, |g, _, h| g.leaky_relu(h, SLOPE));
    g.tanh(last)
}
