//! The tape as an ONNX model.

use crate::graph::onnx::{self, Attribute, Type};
use crate::graph::{Graph, Node, Origin, Value, Var};

/// Most terms of a sum that ONNX Runtime's matrix product always adds without a break.
const UNBROKEN_SUM: usize = 128;

impl Graph {
    /// An ONNX model that computes the named `outputs`, without the nodes that they do not need. `free` names the first
    /// dimension of all inputs and outputs and leaves its length to the caller; the graph must not depend on that
    /// length.
    pub fn to_model(&self, name: &str, outputs: &[(Var, String)], free: Option<&str>) -> onnx::Model {
        let (live, needed) = self.needed_for(outputs);
        // A node's result takes the name of the output. An input, or a value with a second name, needs a copy.
        let mut names: Vec<&str> = self.values.iter().map(|v| v.name.as_str()).collect();
        let mut copies = vec![];
        let mut taken = vec![false; self.values.len()];
        for (v, output) in outputs {
            let computed = matches!(self.values[v.0].origin, Origin::Node(_));
            if computed && !std::mem::replace(&mut taken[v.0], true) {
                names[v.0] = output;
            } else {
                copies.push((*v, output));
            }
        }
        let text = |vars: &[Var]| vars.iter().map(|v| names[v.0].to_string()).collect::<Vec<_>>();
        let mut nodes: Vec<onnx::Node> = (self.nodes.iter().enumerate().filter(|(n, _)| live[*n]))
            .flat_map(|(_, node)| {
                let written = onnx::Node {
                    input: text(&node.inputs),
                    output: text(&node.outputs),
                    name: names[node.outputs[0].0].into(),
                    op_type: node.op_type.into(),
                    attribute: node.attributes.clone(),
                    domain: node.domain.into(),
                };
                match self.thread_dependent_product(node).filter(|_| self.same_on_all_threads) {
                    Some(shape) => product_of_transposed(written, shape),
                    None => vec![written],
                }
            })
            .collect();
        nodes.extend(copies.into_iter().map(|(v, output)| onnx::Node {
            input: text(&[v]),
            output: vec![output.clone()],
            name: output.clone(),
            op_type: "Identity".into(),
            ..Default::default()
        }));
        let info = |v: &Value, name: &str| onnx::ValueInfo::tensor(name, v.elem, &v.shape, free);
        let mut graph = onnx::GraphProto { node: nodes, name: name.into(), ..Default::default() };
        for value in self.values.iter().zip(&needed).filter_map(|(value, needed)| needed.then_some(value)) {
            match &value.origin {
                Origin::Input => graph.input.push(info(value, &value.name)),
                Origin::Constant(bytes) => graph.initializer.push(onnx::Tensor {
                    dims: value.shape.iter().map(|&n| n as i64).collect(),
                    data_type: value.elem as i32,
                    name: value.name.clone(),
                    raw_data: bytes.clone(),
                    ..Default::default()
                }),
                Origin::Node(_) => {}
            }
        }
        graph.output = outputs.iter().map(|(v, name)| info(&self.values[v.0], name)).collect();
        let functions: Vec<onnx::Function> = self.functions.values().cloned().collect();
        let mut opset_import = vec![onnx::OperatorSetId { domain: String::new(), version: onnx::OPSET }];
        if !functions.is_empty() {
            opset_import.push(onnx::OperatorSetId { domain: onnx::DOMAIN.into(), version: 1 });
        }
        onnx::Model {
            ir_version: onnx::IR_VERSION,
            producer_name: "trainer".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(graph),
            opset_import,
            functions,
            ..Default::default()
        }
    }

    /// For each node and for each value, whether the `outputs` are computed from it.
    pub(super) fn needed_for(&self, outputs: &[(Var, String)]) -> (Vec<bool>, Vec<bool>) {
        let (mut live, mut needed) = (vec![false; self.nodes.len()], vec![false; self.values.len()]);
        outputs.iter().for_each(|(v, _)| needed[v.0] = true);
        for (n, node) in self.nodes.iter().enumerate().rev() {
            live[n] = node.outputs.iter().any(|o| needed[o.0]);
            if live[n] {
                node.inputs.iter().for_each(|i| needed[i.0] = true);
            }
        }
        (live, needed)
    }

    /// The shape (M, N, K) of a node's matrix product, if its bits depend on the number of threads; see
    /// [`product_of_transposed`].
    fn thread_dependent_product(&self, node: &Node) -> Option<[usize; 3]> {
        if node.op_type != "Gemm" || node.has("transA") {
            return None;
        }
        let (&[m, k], &[_, n]) = (self.shape(node.inputs[0]), self.shape(node.outputs[0])) else { return None };
        (k > UNBROKEN_SUM && n > m).then_some([m, n, k])
    }

    /// The graph as the function `name` of the domain [`onnx::DOMAIN`]. Functions have no initializers, so constants
    /// become nodes.
    pub(super) fn to_function(&self, name: &str, outputs: &[(Var, String)]) -> onnx::Function {
        let model = self.to_model(name, outputs, None);
        let graph = model.graph.expect("a model has a graph");
        let constants = graph.initializer.into_iter().map(|tensor| onnx::Node {
            output: vec![tensor.name.clone()],
            op_type: "Constant".into(),
            attribute: vec![Attribute::tensor("value", tensor)],
            ..Default::default()
        });
        onnx::Function {
            name: name.into(),
            input: graph.input.into_iter().map(|input| input.name).collect(),
            output: graph.output.into_iter().map(|output| output.name).collect(),
            node: constants.chain(graph.node).collect(),
            opset_import: model.opset_import,
            domain: onnx::DOMAIN.into(),
        }
    }
}

/// The Gemm y (M, N) = a (M, K) b + c with `transA`: as (aᵀ)ᵀ b if b is stored as (N, K), else as (bᵀ aᵀ)ᵀ.
///
/// ONNX Runtime's threads share the rows of a result, or its columns if it has more columns than rows. An element of the result is a
/// sum over K. A sum of more than [`UNBROKEN_SUM`] terms is added in parts, and the length of a part depends on the number of
/// columns that a thread computes. With `transA`, all parts have [`UNBROKEN_SUM`] terms.
fn product_of_transposed(product: onnx::Node, [m, n, k]: [usize; 3]) -> Vec<onnx::Node> {
    let onnx::Node { input, output, name, attribute, .. } = product;
    let part = |part: &str| format!("{name}/{part}");
    let flags = ["transA", "transB"].map(|name| Attribute::int(name, 1)).to_vec();
    let gemm = |input: &[String], output| node("Gemm", input, output, flags.clone());
    let (a, b, y) = (&input[0], &input[1], output[0].clone());
    let mut nodes = vec![];
    if attribute.iter().any(|attribute| attribute.name == "transB") {
        nodes.extend(transpose(a, part("a"), [m, k]));
        nodes.push(gemm(&[&[part("a"), b.clone()], &input[2..]].concat(), y));
    } else {
        let mut factors = vec![b.clone(), a.clone()];
        if let Some(c) = input.get(2) {
            nodes.extend(reshape(c, part("c"), &[n, 1]));
            factors.push(part("c"));
        }
        nodes.push(gemm(&factors, part("y")));
        nodes.extend(transpose(&part("y"), y, [n, m]));
    }
    nodes
}

/// The transpose of a matrix (R, C), with a third axis: ONNX Runtime merges a Transpose of two axes into a Gemm beside it.
fn transpose(x: &str, output: String, [rows, columns]: [usize; 2]) -> Vec<onnx::Node> {
    let (stacked, turned) = (format!("{output}/stacked"), format!("{output}/turned"));
    let mut nodes = reshape(x, stacked.clone(), &[1, rows, columns]);
    nodes.push(node("Transpose", &[stacked], turned.clone(), vec![Attribute::ints("perm", &[0, 2, 1])]));
    nodes.extend(reshape(&turned, output, &[columns, rows]));
    nodes
}

fn reshape(x: &str, output: String, shape: &[usize]) -> Vec<onnx::Node> {
    let tensor = onnx::Tensor {
        dims: vec![shape.len() as i64],
        data_type: Type::I64 as i32,
        raw_data: shape.iter().flat_map(|&n| (n as i64).to_le_bytes()).collect(),
        ..Default::default()
    };
    let name = format!("{output}/shape");
    let constant = node("Constant", &[], name.clone(), vec![Attribute::tensor("value", tensor)]);
    vec![constant, node("Reshape", &[x.to_string(), name], output, vec![])]
}

/// A node of a standard operator with one output, which also names it.
fn node(op_type: &str, input: &[String], output: String, attribute: Vec<Attribute>) -> onnx::Node {
    let (op_type, domain) = (op_type.into(), String::new());
    onnx::Node { input: input.into(), name: output.clone(), output: vec![output], op_type, attribute, domain }
}
