//! Both networks as a table for people.

use crate::config::{G_SIZES, LATENT, PIXELS, Recipe, SIDE};
use crate::gan::dropout::SLOPE;
use crate::state::{Spec, d_params, g_params};

/// A table of the generator's and the discriminator's layers: operations, length of the output for one image, and number of
/// parameters.
pub fn networks(recipe: &Recipe) -> String {
    let (z, logits) = match recipe.one_hot() {
        Some(classes) => {
            (format!("z: one-hot of {classes} classes, then uniform numbers"), "one logit per class".to_string())
        }
        None => ("z: uniform numbers".to_string(), "logit".to_string()),
    };
    let hidden = match recipe.p_drop {
        0.0 => format!("LeakyReLU {SLOPE}"),
        p_drop => format!("LeakyReLU {SLOPE}, dropout {p_drop}"),
    };
    let widths = |sizes: &[usize], last: &str| -> Vec<(String, usize)> {
        let activations = (2..sizes.len()).map(|_| &hidden[..]).chain([last]);
        activations.zip(&sizes[1..]).map(|(after, &width)| (format!("dense, {after}"), width)).collect()
    };
    let convolutions = recipe.d_conv.iter().zip(1..).map(|(maps, i)| {
        let side = SIDE >> i;
        (format!("4 × 4 convolution, stride 2, LeakyReLU {SLOPE}"), maps * side * side)
    });
    let d_layers = convolutions.chain(widths(&recipe.d_sizes(), &logits)).collect();
    let generator = network("generator", (&z, LATENT), &g_params(), widths(&G_SIZES, "tanh"));
    let discriminator = network("discriminator", ("image, from -1 to 1", PIXELS), &d_params(recipe), d_layers);
    format!("{generator}\n\n{discriminator}")
}

/// The table of a network: a text and the length of its input, and of the output of each layer.
fn network(name: &str, input: (&str, usize), params: &[Spec], layers: Vec<(String, usize)>) -> String {
    let line = |layer: &str, output: String, parameters: String| format!("{layer:<52} {output:>9} {parameters:>12}");
    let mut lines = vec![
        line(name, "output".into(), "parameters".into()),
        line(&format!("  {}", input.0), input.1.to_string(), String::new()),
    ];
    for (tensors, (operations, width)) in params.chunks(2).zip(layers) {
        let layer = tensors[0].name.split('.').nth(1).unwrap_or_default();
        let parameters: usize = tensors.iter().map(Spec::elements).sum();
        lines.push(line(&format!("  {layer}: {operations}"), width.to_string(), parameters.to_string()));
    }
    let total: usize = params.iter().map(Spec::elements).sum();
    lines.push(line("  total", String::new(), total.to_string()));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_totals_are_those_of_the_published_networks() {
        // Keras' model.summary() gives these counts for the same layers.
        let text = networks(&Recipe::seed());
        let totals: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("total"))
            .filter_map(|line| line.split_whitespace().last())
            .collect();
        assert_eq!(totals, ["114800", "110849"]);
    }
}
