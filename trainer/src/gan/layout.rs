//! How a network's parameters lie in memory during training.

use crate::config::Recipe;
use crate::graph::onnx::Type;
use crate::graph::{Graph, Var};
use crate::state::{Spec, d_params, g_params, state_specs};

/// Which tensors hold the parameters of a network, and Adam's moments of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamLayout {
    /// One tensor per weight and bias. Nothing is copied, which counts on a CPU.
    PerTensor,
    /// One vector per network. Adam takes it in one operator instead of eight, which counts on a GPU, where each
    /// operator is a kernel launch.
    Flat,
}

/// A tensor of a layout, and the tensors that lie in it one after the other.
#[derive(Clone, Debug)]
pub struct PackedTensor {
    /// Name and shape of the whole.
    pub whole: Spec,
    /// Names and shapes of the parts, in order.
    pub parts: Vec<Spec>,
}

impl ParamLayout {
    /// The tensors that hold a training state, in the order of [`state_specs`].
    pub fn state_tensors(self, recipe: &Recipe) -> Vec<PackedTensor> {
        let specs = state_specs(recipe);
        let vector = |parts: &[Spec]| {
            let len = parts.iter().map(Spec::elements).sum();
            PackedTensor { whole: Spec::new(network(&parts[0]), Type::F32, &[len]), parts: parts.to_vec() }
        };
        match self {
            Self::PerTensor => {
                specs.into_iter().map(|spec| PackedTensor { whole: spec.clone(), parts: vec![spec] }).collect()
            }
            Self::Flat => specs.chunk_by(|a, b| network(a) == network(b)).map(vector).collect(),
        }
    }

    /// Packs a network's tensors, one per weight and bias, into this layout; the inverse of [`Self::unpack`].
    fn pack(self, g: &mut Graph, tensors: Vec<Var>) -> Vec<Var> {
        match self {
            Self::PerTensor => tensors,
            Self::Flat => vec![g.pack(&tensors)],
        }
    }

    /// A network's tensors of these shapes, one per weight and bias, out of this layout; the inverse of [`Self::pack`].
    fn unpack(self, g: &mut Graph, packed: &[Var], shapes: &[Vec<usize>]) -> Vec<Var> {
        match self {
            Self::PerTensor => packed.to_vec(),
            Self::Flat => g.unpack(packed[0], shapes),
        }
    }
}

/// The network that a tensor belongs to: `m.d` for `m.d.fc1.weight`, `m.d.conv1.weight` and `m.d`.
fn network(spec: &Spec) -> &str {
    let layer = spec.name.find(".conv").or_else(|| spec.name.find(".fc"));
    &spec.name[..layer.unwrap_or(spec.name.len())]
}

/// A training state in a graph, in one layout.
pub(crate) struct StateVars {
    pub d: NetworkVars,
    pub g: NetworkVars,
    /// The moving average of G's θ; empty if the recipe has none.
    pub ema: Vec<Var>,
}

/// A network in a graph: its parameters θ and Adam's moments m and v, each as the tensors of the layout.
pub(crate) struct NetworkVars {
    layout: ParamLayout,
    /// Weight and bias of each layer, whatever the layout.
    pub layers: Vec<Var>,
    pub theta: Vec<Var>,
    m: Vec<Var>,
    v: Vec<Var>,
}

impl StateVars {
    /// Graph inputs for a state, under the names of [`ParamLayout::state_tensors`]. In the flat layout `layers` are
    /// further inputs, `d.fc1.weight` and so on, which the caller binds to parts of the vectors: that saves a Split.
    pub fn inputs(g: &mut Graph, recipe: &Recipe, layout: ParamLayout) -> Self {
        let tensors = layout.state_tensors(recipe);
        let groups: Vec<Vec<Var>> = (tensors.chunk_by(|a, b| network(&a.whole) == network(&b.whole)))
            .map(|tensors| tensors.iter().map(|t| g.input(&t.whole.name, t.whole.elem, &t.whole.shape)).collect())
            .collect();
        let [d, gen_, m_d, m_g, v_d, v_g, ema @ ..] = &groups[..] else { unreachable!("state_specs has six groups") };
        let mut network = |params: Vec<Spec>, [theta, m, v]: [&Vec<Var>; 3]| {
            let layers = match layout {
                ParamLayout::PerTensor => theta.clone(),
                ParamLayout::Flat => params.iter().map(|spec| g.input(&spec.name, spec.elem, &spec.shape)).collect(),
            };
            NetworkVars { layout, layers, theta: theta.clone(), m: m.clone(), v: v.clone() }
        };
        let d = network(d_params(recipe), [d, m_d, v_d]);
        let g = network(g_params(), [gen_, m_g, v_g]);
        Self { d, g, ema: ema.concat() }
    }

    /// The tensors as graph outputs, under the names of the inputs with `next.` before them.
    pub fn outputs(&self, recipe: &Recipe) -> Vec<(Var, String)> {
        let Self { d, g, ema } = self;
        let tensors = [&d.theta, &g.theta, &d.m, &g.m, &d.v, &g.v, ema].into_iter().flatten();
        let names = d.layout.state_tensors(recipe).into_iter().map(|tensor| format!("next.{}", tensor.whole.name));
        tensors.copied().zip(names).collect()
    }
}

impl NetworkVars {
    /// The network after `update(g, θ, m, v, gradient)` → (θ', m', v') of every tensor, for the gradient of every
    /// layer.
    pub fn updated(
        &self,
        g: &mut Graph,
        gradient: Vec<Var>,
        update: impl Fn(&mut Graph, Var, Var, Var, Var) -> (Var, Var, Var),
    ) -> Self {
        let gradient = self.layout.pack(g, gradient);
        let Self { layout, theta, m, v, .. } = self;
        let next: Vec<_> = (0..theta.len()).map(|i| update(g, theta[i], m[i], v[i], gradient[i])).collect();
        let theta: Vec<Var> = next.iter().map(|n| n.0).collect();
        let shapes: Vec<Vec<usize>> = self.layers.iter().map(|&layer| g.shape(layer).to_vec()).collect();
        let layers = layout.unpack(g, &theta, &shapes);
        let (m, v) = (next.iter().map(|n| n.1).collect(), next.iter().map(|n| n.2).collect());
        Self { layout: *layout, layers, theta, m, v }
    }
}
