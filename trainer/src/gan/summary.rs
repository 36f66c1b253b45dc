//! Both networks as a table for people.

use crate::config::{G_SIZES, Recipe};
use crate::gan::dropout::SLOPE;
use crate::state::params;

/// A table of the generator's and the discriminator's layers: operations, length of the output for one image, and number of
/// parameters.
pub fn networks(recipe: &Recipe) -> String {
    let (z, logits) = match recipe.one_hot() {
        Some(classes) => {
            (format!("z: one-hot of {classes} classes, then uniform numbers"), "one logit per class".to_string())
        }
        None => ("z: uniform numbers".to_string(), "logit".to_string()),
    };
    let generator = network("generator", &z, &G_SIZES, "tanh", recipe.p_drop);
    let discriminator = network("discriminator", "image, from -1 to 1", &recipe.d_sizes(), &logits, recipe.p_drop);
    format!("{generator}\n\n{discriminator}")
}

/// The table of a network with these layer widths. `last` is the operation after its last dense layer.
fn network(name: &str, input: &str, sizes: &[usize], last: &str, p_drop: f64) -> String {
    let line = |layer: &str, output: String, parameters: String| format!("{layer:<52} {output:>9} {parameters:>12}");
    let dropout = if p_drop > 0.0 { format!(", dropout {p_drop}") } else { String::new() };
    let hidden = format!("LeakyReLU {SLOPE}{dropout}");
    let mut lines = vec![
        line(name, "output".into(), "parameters".into()),
        line(&format!("  {input}"), sizes[0].to_string(), String::new()),
    ];
    let specs = params("", sizes);
    for (i, (layer, width)) in specs.chunks(2).zip(&sizes[1..]).enumerate() {
        let after = if i + 2 == sizes.len() { last } else { &hidden };
        let parameters: usize = layer.iter().map(|tensor| tensor.elements()).sum();
        lines.push(line(&format!("  fc{}: dense, {after}", i + 1), width.to_string(), parameters.to_string()));
    }
    let total: usize = specs.iter().map(|tensor| tensor.elements()).sum();
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
