//! The tape as an ONNX model.

use crate::graph::onnx::{self, Attribute};
use crate::graph::{Graph, Origin, Value, Var};

impl Graph {
    /// An ONNX model that computes the named `outputs`, without the nodes that they do not need. `free` names the first
    /// dimension of all inputs and outputs and leaves its length to the caller; the graph must not depend on that
    /// length.
    pub fn to_model(&self, name: &str, outputs: &[(Var, String)], free: Option<&str>) -> onnx::Model {
        let mut needed = vec![false; self.values.len()];
        outputs.iter().for_each(|(v, _)| needed[v.0] = true);
        let mut live = vec![false; self.nodes.len()];
        for (n, node) in self.nodes.iter().enumerate().rev() {
            live[n] = node.outputs.iter().any(|o| needed[o.0]);
            if live[n] {
                node.inputs.iter().for_each(|i| needed[i.0] = true);
            }
        }
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
            .map(|(_, node)| onnx::Node {
                input: text(&node.inputs),
                output: text(&node.outputs),
                name: names[node.outputs[0].0].into(),
                op_type: node.op_type.into(),
                attribute: node.attributes.clone(),
                domain: node.domain.into(),
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
