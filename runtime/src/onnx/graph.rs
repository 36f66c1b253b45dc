//! Reads the graph: follows it from the output back to z, each node once.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use super::call::Call;
use super::operators;
use super::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, shown};
use super::tensor::{FLOAT32, FLOAT64, Storage, size, type_name};
use super::value::{Data, SIZES, Stage, Value};

/// The most nodes that are read, those of called functions included.
const MAX_NODES: usize = 20_000;
/// The most inputs of a node.
const MAX_INPUTS: usize = 64;
/// The most functions that call each other.
const MAX_DEPTH: usize = 8;

/// The image that the first output of the graph is.
///
/// # Errors
/// The graph holds another network. The sentence names the node or tensor, what was expected, and what was found.
pub fn image(graph: &GraphProto, functions: &[FunctionProto], storage: &Storage) -> Result<Data, String> {
    let file = File { functions, storage, nodes_left: Cell::new(MAX_NODES) };
    let stored: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let inputs: Vec<&ValueInfoProto> =
        graph.input.iter().filter(|input| !stored.contains(input.name.as_str())).collect();
    let [z] = inputs[..] else {
        let names: Vec<String> = inputs.iter().take(5).map(|input| shown(&input.name)).collect();
        return Err(format!("one input expected, {} found: {}", inputs.len(), names.join(", ")));
    };
    let mut scope = Scope::new(&file, &graph.node, &graph.initializer, vec![], 0)?;
    scope.bind(&z.name, Some(latent(z).map_err(|e| format!("{}: {e}", shown(&z.name)))?))?;
    let output = graph.output.first().ok_or("an output expected, none found")?;
    match scope.value(&output.name)? {
        Some(Value::Data(data)) if data.stage == Stage::Image => Ok(data),
        Some(Value::Data(data)) => {
            Err(format!("{}: {} expected, the end of the graph found", shown(&output.name), data.expected()))
        }
        _ => Err(format!("{}: an output that depends on z expected, a constant found", shown(&output.name))),
    }
}

/// z by its declaration. It may have more axes, as long as 100 numbers make one image.
fn latent(z: &ValueInfoProto) -> Result<Value, String> {
    let tensor =
        z.r#type.as_ref().and_then(|r#type| r#type.tensor_type.as_ref()).ok_or("float32 expected, no type found")?;
    let stage = match tensor.elem_type {
        FLOAT32 => Stage::Activations,
        FLOAT64 => Stage::DoubleZ,
        other => return Err(format!("float32 expected, {} found", type_name(other))),
    };
    let declared: Vec<Option<usize>> = match &tensor.shape {
        Some(shape) => shape.dim.iter().map(|dim| dim.dim_value.and_then(|n| usize::try_from(n).ok())).collect(),
        None => vec![None, None],
    };
    // A size that the file leaves open is 1, but that of z is 100.
    let mut shape: Vec<usize> = declared.iter().map(|n| n.unwrap_or(1)).collect();
    if size(&shape)? == 1
        && let Some(last) = declared.iter().rposition(Option::is_none)
    {
        shape[last] = SIZES[0];
    }
    match size(&shape)? {
        n if n > 0 && n % SIZES[0] == 0 => Ok(Value::Data(Data { shape, layers: vec![], stage })),
        _ => Err(format!("shape [N, {}] expected, {shape:?} found", SIZES[0])),
    }
}

/// Everything that the graph and its functions share.
struct File<'a> {
    functions: &'a [FunctionProto],
    storage: &'a Storage<'a>,
    nodes_left: Cell<usize>,
}

/// The tensors of the graph, or of one call of a function.
struct Scope<'a> {
    file: &'a File<'a>,
    /// The attributes of the function's call.
    attributes: Vec<(&'a str, &'a AttributeProto)>,
    /// The number of calls around this one.
    depth: usize,
    sources: HashMap<&'a str, Source<'a>>,
    /// The tensors read so far. None for an optional input of the function that is left out.
    values: HashMap<&'a str, Option<Value>>,
}

/// Where a tensor comes from.
#[derive(Clone, Copy)]
enum Source<'a> {
    Stored(&'a TensorProto),
    /// The first output of a node.
    Node(&'a NodeProto),
    /// Another output of a node.
    SideOutput(&'a NodeProto),
}

impl<'a> Scope<'a> {
    fn new(
        file: &'a File<'a>,
        nodes: &'a [NodeProto],
        stored: &'a [TensorProto],
        attributes: Vec<(&'a str, &'a AttributeProto)>,
        depth: usize,
    ) -> Result<Self, String> {
        let left = file.nodes_left.get().checked_sub(nodes.len());
        file.nodes_left.set(left.ok_or_else(|| format!("at most {MAX_NODES} nodes expected, more found"))?);
        let mut scope = Self { file, attributes, depth, sources: HashMap::new(), values: HashMap::new() };
        for tensor in stored {
            scope.define(&tensor.name, Source::Stored(tensor))?;
        }
        for node in nodes {
            for (i, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
                scope.define(name, if i == 0 { Source::Node(node) } else { Source::SideOutput(node) })?;
            }
        }
        Ok(scope)
    }

    fn define(&mut self, name: &'a str, source: Source<'a>) -> Result<(), String> {
        match self.sources.insert(name, source) {
            None => Ok(()),
            Some(_) => Err(format!("{}: one definition expected, two found", shown(name))),
        }
    }

    /// Gives an input its value.
    fn bind(&mut self, name: &'a str, value: Option<Value>) -> Result<(), String> {
        match self.sources.contains_key(name) || self.values.insert(name, value).is_some() {
            false => Ok(()),
            true => Err(format!("{}: one definition expected, two found", shown(name))),
        }
    }

    /// The value of a tensor. Reads the nodes on which it depends first, without recursion, because a chain can be long.
    fn value(&mut self, name: &'a str) -> Result<Option<Value>, String> {
        let mut path = vec![name];
        let mut started = HashSet::from([name]);
        while let Some(&at) = path.last() {
            if self.values.contains_key(at) {
                path.pop();
                continue;
            }
            let node = match self.sources.get(at) {
                Some(Source::Node(node)) => *node,
                Some(Source::Stored(tensor)) => {
                    let constant = self.file.storage.read(tensor, at)?;
                    self.values.insert(at, Some(Value::Constant(constant)));
                    continue;
                }
                Some(Source::SideOutput(node)) => {
                    return Err(format!("{}: no use of its output {} expected, one found", label(node), shown(at)));
                }
                None => return Err(format!("{}: a stored tensor or a node's output expected, none found", shown(at))),
            };
            if node.input.len() > MAX_INPUTS {
                return Err(format!(
                    "{}: at most {MAX_INPUTS} inputs expected, {} found",
                    label(node),
                    node.input.len()
                ));
            }
            match node.input.iter().find(|input| !input.is_empty() && !self.values.contains_key(input.as_str())) {
                Some(missing) if started.insert(missing) => path.push(missing),
                Some(_) => return Err(format!("{}: a graph without circles expected, one found", label(node))),
                None => {
                    let value = self.output(node).map_err(|e| format!("{}: {e}", label(node)))?;
                    self.values.insert(at, Some(value));
                }
            }
        }
        Ok(self.values.get(name).cloned().flatten())
    }

    /// The first output of a node whose inputs have been read.
    fn output(&self, node: &'a NodeProto) -> Result<Value, String> {
        let inputs = node.input.iter().map(|input| self.values.get(input.as_str()).cloned().flatten()).collect();
        let given = |name: &str| self.attributes.iter().find(|(known, _)| *known == name).map(|(_, given)| *given);
        let attributes = node.attribute.iter().filter_map(|own| match own.ref_attr_name.as_str() {
            "" => Some((own.name.as_str(), own)),
            from => Some((own.name.as_str(), given(from)?)),
        });
        let call = Call { node, inputs, attributes: attributes.collect(), storage: self.file.storage };
        let is_callee = |function: &&FunctionProto| function.name == node.op_type && function.domain == node.domain;
        match self.file.functions.iter().find(is_callee) {
            Some(function) => self.function_output(function, call),
            None => operators::output(&call),
        }
    }

    /// The first output of a call of a function.
    fn function_output(&self, function: &'a FunctionProto, call: Call<'a>) -> Result<Value, String> {
        if self.depth == MAX_DEPTH {
            return Err(format!("at most {MAX_DEPTH} functions that call each other expected, more found"));
        }
        let mut attributes = call.attributes;
        let defaults = function.attribute_proto.iter().map(|default| (default.name.as_str(), default));
        attributes.extend(defaults); // the call's own come first
        let mut scope = Scope::new(self.file, &function.node, &[], attributes, self.depth + 1)?;
        let mut values = call.inputs.into_iter();
        for name in &function.input {
            scope.bind(name, values.next().flatten())?;
        }
        let output = function.output.first().ok_or("a function with an output expected, one without found")?;
        scope.value(output)?.ok_or_else(|| "a function's output expected, none found".into())
    }
}

/// What errors call a node: its operator, and its name or that of its output.
fn label(node: &NodeProto) -> String {
    let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
    format!("{} {}", shown(&node.op_type), name.map(|name| shown(name)).unwrap_or_default())
}
