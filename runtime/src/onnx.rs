//! Reads a generator from an ONNX file. The build script and the command share this file.
//!
//! The graph must lead from one input to one output through dense, LeakyReLU 0.2, dense, LeakyReLU 0.2, dense, LeakyReLU 0.2,
//! dense, tanh, with 100 → 32 → 64 → 128 → 784 units. A dense layer is a Gemm with either layout of its weight, or a MatMul and
//! an Add. Names of tensors do not matter.

use prost::Message;

/// The widths of the layers: z, three hidden ones, the image.
pub const SIZES: [usize; 5] = [100, 32, 64, 128, 784];

/// The parameters of a generator and the metadata of its file.
pub struct Model {
    pub layers: Vec<Layer>,
    /// The version of the standard operator set.
    pub opset: i64,
    /// The program that wrote the file, and its version.
    pub producer: String,
    /// `metadata_props`, in the file's order.
    pub metadata: Vec<(String, String)>,
}

/// A dense layer's weight (I, O), row-major, and its bias (O,).
pub struct Layer {
    /// The names of weight and bias in the file.
    pub names: [String; 2],
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Model {
    /// The generator in the `bytes` of the file `name`.
    ///
    /// # Errors
    /// The bytes are not ONNX, or hold another network. The sentence names the tensor or node, what was expected, and what was
    /// found.
    pub fn read(bytes: &[u8], name: &str) -> Result<Self, String> {
        let model =
            ModelProto::decode(bytes).map_err(|_| format!("{name}: an ONNX file expected, something else found"))?;
        let opset = model.opset_import.iter().find(|set| set.domain.is_empty()).map_or(0, |set| set.version);
        let producer = format!("{} {}", model.producer_name, model.producer_version).trim().into();
        let graph = model.graph.ok_or_else(|| format!("{name}: an ONNX file expected, one without a graph found"))?;
        let layers = Walk::new(&graph).and_then(|walk| walk.layers()).map_err(|e| format!("{name}: {e}"))?;
        let metadata = model.metadata_props.into_iter().map(|entry| (entry.key, entry.value)).collect();
        Ok(Self { layers, opset, producer, metadata })
    }

    /// The bytes of `generator::Generator`: weight and bias of each layer in turn, little-endian.
    pub fn f32_bytes(&self) -> Vec<u8> {
        let values = self.layers.iter().flat_map(|layer| layer.weight.iter().chain(&layer.bias));
        values.flat_map(|value| value.to_le_bytes()).collect()
    }

    /// Whether the generator is class-conditional: then z[0..10] is the digit as one-hot.
    pub fn conditional(&self) -> bool {
        self.metadata.iter().any(|(key, value)| key == "conditional" && value == "one-hot:10")
    }
}

/// A walk along the graph, from its input to its output.
struct Walk<'a> {
    graph: &'a GraphProto,
    /// The tensor that the next node must read.
    at: &'a str,
}

impl<'a> Walk<'a> {
    fn new(graph: &'a GraphProto) -> Result<Self, String> {
        let is_parameter = |name: &str| graph.initializer.iter().any(|tensor| tensor.name == name);
        let inputs: Vec<&str> =
            graph.input.iter().map(|i| i.name.as_str()).filter(|name| !is_parameter(name)).collect();
        match inputs[..] {
            [at] => Ok(Self { graph, at }),
            _ => Err(format!("one input expected, {} found", inputs.len())),
        }
    }

    fn layers(mut self) -> Result<Vec<Layer>, String> {
        let mut layers = vec![];
        for (i, size) in SIZES.windows(2).enumerate() {
            layers.push(self.dense(size[0], size[1])?);
            let node = self.next_node(if i < 3 { "LeakyRelu" } else { "Tanh" })?;
            let alpha = node.attribute("alpha").and_then(|a| a.f).unwrap_or(0.01);
            if i < 3 && alpha != 0.2 {
                return Err(format!("LeakyRelu after layer {}: alpha 0.2 expected, {alpha} found", i + 1));
            }
        }
        match self.graph.output.iter().any(|output| output.name == self.at) {
            true => Ok(layers),
            false => Err(format!("the graph to end after Tanh expected, {} goes on", self.at)),
        }
    }

    /// The one node that reads the current tensor, which must be an `op_type`; Identity nodes before it are skipped. Moves on to
    /// the node's output.
    fn next_node(&mut self, op_type: &str) -> Result<&'a NodeProto, String> {
        loop {
            let mut readers = self.graph.node.iter().filter(|node| node.input.iter().any(|input| input == self.at));
            let node = match (readers.next(), readers.next()) {
                (Some(node), None) => node,
                (None, _) => return Err(format!("{op_type} expected after {}, nothing found", self.at)),
                (Some(_), Some(_)) => return Err(format!("one node that reads {} expected, more found", self.at)),
            };
            self.at = node.output.first().ok_or_else(|| format!("{op_type} expected, a node without output found"))?;
            if node.op_type == op_type {
                return Ok(node);
            }
            if node.op_type != "Identity" {
                return Err(format!("{op_type} expected, {} found", node.op_type));
            }
        }
    }

    /// The next layer's parameters.
    fn dense(&mut self, inputs: usize, outputs: usize) -> Result<Layer, String> {
        let before = self.at;
        let (node, bias, transposed) = match self.next_node("Gemm") {
            Ok(gemm) => {
                let flag = |name| gemm.attribute(name).and_then(|a| a.i).unwrap_or(0) != 0;
                let scale = |name| gemm.attribute(name).and_then(|a| a.f).unwrap_or(1.0);
                if flag("transA") || scale("alpha") != 1.0 || scale("beta") != 1.0 {
                    return Err("Gemm without transA, alpha and beta expected, one with found".into());
                }
                (gemm, gemm.input.get(2), flag("transB"))
            }
            Err(no_gemm) => {
                self.at = before;
                let product = self.next_node("MatMul").map_err(|_| no_gemm)?;
                let from = self.at;
                let sum = self.next_node("Add")?;
                (product, sum.input.iter().find(|input| *input != from), false)
            }
        };
        let weight_name =
            node.input.get(1).filter(|name| *name != before).ok_or("a weight as second input expected")?;
        let shape = if transposed { [outputs, inputs] } else { [inputs, outputs] };
        let mut weight = self.parameter(weight_name, &shape)?;
        if transposed {
            weight = (0..inputs * outputs).map(|at| weight[at % outputs * inputs + at / outputs]).collect();
        }
        let bias_name = bias.ok_or("a bias expected, none found")?;
        let bias = self.parameter(bias_name, &[outputs])?;
        Ok(Layer { names: [weight_name.clone(), bias_name.clone()], weight, bias })
    }

    /// The values of an initializer.
    fn parameter(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let tensor = self.graph.initializer.iter().find(|tensor| tensor.name == name);
        let tensor = tensor.ok_or_else(|| format!("{name}: stored values expected, none found"))?;
        let found: Vec<usize> = tensor.dims.iter().map(|&n| n as usize).collect();
        if found != shape {
            return Err(format!("{name}: shape {shape:?} expected, {found:?} found"));
        }
        if tensor.data_type != 1 {
            return Err(format!("{name}: float32 (data type 1) expected, data type {} found", tensor.data_type));
        }
        let values: Vec<f32> = match tensor.float_data.is_empty() {
            false => tensor.float_data.clone(),
            true => tensor.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        };
        let expected = shape.iter().product::<usize>();
        if values.len() != expected {
            return Err(format!("{name}: {expected} values expected, {} found", values.len()));
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(format!("{name}: finite values expected, {} found at {at}", values[at])),
            None => Ok(values),
        }
    }
}

// The messages and fields of onnx.proto that a generator needs.

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
    #[prost(message, repeated, tag = "14")]
    metadata_props: Vec<StringStringEntryProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct StringStringEntryProto {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

impl NodeProto {
    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name == name)
    }
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, optional, tag = "2")]
    f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    i: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
}
