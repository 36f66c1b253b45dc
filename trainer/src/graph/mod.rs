//! A tape of ONNX operators with reverse-mode differentiation.
//!
//! - this file: the tape and [`Graph::grad`]
//! - `operators`: every operator with its formula, its ONNX node and its backward rule
//! - `export`: the tape as an ONNX model
//! - [`onnx`]: the protobuf messages
//! - [`foreign`]: ONNX files of unknown origin
//!
//! Backward rules are written in the same operators as forward passes. A gradient is therefore part of the graph and
//! can be differentiated again, as R1 needs. Tensor shapes are fixed when the graph is built. A shape mismatch is a bug
//! in the code that builds the graph, and panics.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

mod export;
pub mod foreign;
pub mod onnx;
mod operators;

use crate::graph::onnx::{Attribute, Type};

/// A tensor of the [`Graph`] that returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Var(usize);

/// A graph under construction.
#[derive(Default)]
pub struct Graph {
    values: Vec<Value>,
    nodes: Vec<Node>,
    scalars: HashMap<u32, Var>,
    functions: BTreeMap<&'static str, onnx::Function>,
    names: HashSet<String>,
    scope: String,
    sums_by_gemm: bool,
    same_on_all_threads: bool,
}

struct Value {
    name: String,
    elem: Type,
    shape: Vec<usize>,
    origin: Origin,
}

enum Origin {
    Input,
    /// Little-endian numbers, row-major.
    Constant(Vec<u8>),
    /// Index of the node that computes the value.
    Node(usize),
}

struct Node {
    /// Empty for standard operators.
    domain: &'static str,
    op_type: &'static str,
    attributes: Vec<Attribute>,
    inputs: Vec<Var>,
    outputs: Vec<Var>,
    /// `None` for operators that gradients do not pass through.
    backward: Option<Backward>,
}

/// Maps an operator's output y and its gradient dy to the gradient of each input, in order.
type Backward = Rc<dyn Fn(&mut Graph, Var, Var) -> Vec<Option<Var>>>;

impl Node {
    fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|other| other.name == attribute)
    }
}

impl Graph {
    /// A graph that sums the rows of a matrix as a product with a row of ones. CUDA's ReduceSum adds many rows in a
    /// varying order; its matrix product adds them in a fixed order, so that two runs give the same bits.
    pub fn with_sums_by_gemm() -> Self {
        Self { sums_by_gemm: true, ..Self::default() }
    }

    /// A graph whose matrix products have the same bits on any number of CPU threads; `export` writes them so.
    pub fn same_on_all_threads() -> Self {
        Self { same_on_all_threads: true, ..Self::default() }
    }

    /// Appends the backward pass of `loss`, a scalar, and returns d loss / d w for each w of `wrt`.
    ///
    /// Reverse-mode differentiation. `d` holds the gradient of the loss with respect to each value, as far as it is
    /// known:
    ///
    /// ```text
    /// depends = the values between wrt and loss        forward over the tape, from each w
    /// d[loss] = 1
    /// for each value y of depends, from loss backwards:      all uses of y lie behind us, so d[y] is complete
    ///     for each input x of y's operator, x in depends:
    ///         d[x] += backward rule of the operator (y, d[y])     appended to the tape as operators
    /// return d[w] for w of wrt
    /// ```
    ///
    /// Values stand on the tape after the values that they are computed from, so that one pass in each direction is
    /// enough. The `depends` filter keeps gradients nobody asked for out of the graph, such as the gradient of the
    /// images.
    ///
    /// # Panics
    /// When `loss` is not a scalar or does not depend on every w.
    pub fn grad(&mut self, loss: Var, wrt: &[Var]) -> Vec<Var> {
        assert!(self.shape(loss).is_empty(), "{}: a loss is a scalar", self.values[loss.0].name);
        let mut depends = vec![false; loss.0 + 1];
        wrt.iter().for_each(|w| depends[w.0] = true);
        for v in 0..=loss.0 {
            if let Origin::Node(n) = self.values[v].origin {
                let node = &self.nodes[n];
                depends[v] |= node.backward.is_some() && node.inputs.iter().any(|i| depends[i.0]);
            }
        }
        let mut gradient: Vec<Option<Var>> = vec![None; loss.0 + 1];
        gradient[loss.0] = Some(self.scalar(1.0));
        for v in (0..=loss.0).rev().filter(|&v| depends[v]) {
            let (Some(dy), Origin::Node(n)) = (gradient[v], &self.values[v].origin) else { continue };
            let n = *n;
            let Some(backward) = self.nodes[n].backward.clone() else { continue };
            let inputs = self.nodes[n].inputs.clone();
            for (x, dx) in inputs.into_iter().zip(backward(self, Var(v), dy)) {
                let Some(dx) = dx.filter(|_| depends[x.0]) else { continue };
                gradient[x.0] = Some(match gradient[x.0] {
                    Some(sum) => self.add(sum, dx),
                    None => dx,
                });
            }
        }
        wrt.iter().map(|w| gradient[w.0].expect("the loss depends on every w")).collect()
    }

    /// Floating-point operations of the matrix products that compute the `outputs`, two per multiply-add.
    pub fn gemm_flop(&self, outputs: &[(Var, String)]) -> f64 {
        let (live, _) = self.needed_for(outputs);
        let gemms = self.nodes.iter().zip(live).filter(|(node, live)| *live && node.op_type == "Gemm");
        let terms = |node: &Node| {
            let a = self.shape(node.inputs[0]);
            a[usize::from(!node.has("transA"))]
        };
        gemms.map(|(node, _)| 2.0 * (self.shape(node.outputs[0]).iter().product::<usize>() * terms(node)) as f64).sum()
    }

    /// Prefixes the names of all later nodes with `scope`, to group them in a viewer such as Netron.
    pub fn scope(&mut self, scope: &str) {
        self.scope = scope.into();
    }

    /// The shape of `x`.
    pub fn shape(&self, x: Var) -> &[usize] {
        &self.values[x.0].shape
    }

    fn elem(&self, x: Var) -> Type {
        self.values[x.0].elem
    }

    /// A tensor that the caller supplies at run time.
    pub fn input(&mut self, name: &str, elem: Type, shape: &[usize]) -> Var {
        self.value(name.into(), elem, shape, Origin::Input)
    }

    /// A tensor stored in the model file; `data` is row-major.
    ///
    /// # Panics
    /// When the number of values does not match the shape.
    pub fn constant(&mut self, name: &str, shape: &[usize], data: &[f32]) -> Var {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "{name}");
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.value(name.into(), Type::F32, shape, Origin::Constant(bytes))
    }

    /// The f32 scalar x. Equal scalars share one tensor.
    pub fn scalar(&mut self, x: f32) -> Var {
        if let Some(&known) = self.scalars.get(&x.to_bits()) {
            return known;
        }
        let v = self.constant(&format!("{x:?}"), &[], &[x]);
        self.scalars.insert(x.to_bits(), v);
        v
    }

    fn ints(&mut self, name: &str, data: &[i64]) -> Var {
        let bytes = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.value(name.into(), Type::I64, &[data.len()], Origin::Constant(bytes))
    }

    /// Appends a value. ONNX names must be unique: a name that is in use gets a number.
    fn value(&mut self, name: String, elem: Type, shape: &[usize], origin: Origin) -> Var {
        let name = if self.names.insert(name.clone()) { name } else { format!("{name}_{}", self.values.len()) };
        self.values.push(Value { name, elem, shape: shape.into(), origin });
        Var(self.values.len() - 1)
    }

    /// Appends an operator of one output, with its backward rule.
    fn node(
        &mut self,
        op_type: &'static str,
        attributes: Vec<Attribute>,
        inputs: Vec<Var>,
        elem: Type,
        shape: &[usize],
        backward: impl Fn(&mut Graph, Var, Var) -> Vec<Option<Var>> + 'static,
    ) -> Var {
        let y = self.leaf_node(op_type, attributes, inputs, elem, &[shape])[0];
        self.nodes.last_mut().expect("just made").backward = Some(Rc::new(backward));
        y
    }

    /// Appends an operator that gradients do not pass through.
    fn leaf_node(
        &mut self,
        op_type: &'static str,
        attributes: Vec<Attribute>,
        inputs: Vec<Var>,
        elem: Type,
        shapes: &[&[usize]],
    ) -> Vec<Var> {
        let node = self.nodes.len();
        let name = format!("{}{op_type}", self.scope);
        let outputs: Vec<Var> =
            shapes.iter().map(|shape| self.value(name.clone(), elem, shape, Origin::Node(node))).collect();
        self.nodes.push(Node { domain: "", op_type, attributes, inputs, outputs: outputs.clone(), backward: None });
        outputs
    }
}
