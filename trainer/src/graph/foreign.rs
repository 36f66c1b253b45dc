//! ONNX files of unknown origin: read and checked before ONNX Runtime sees them.
//!
//! ONNX Runtime itself checks operators, attributes, types, shapes and the length of every tensor's data. The checks here bound the
//! memory that reading takes, and refuse parts of the format that a generator does not need.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use prost::{Message, decode_length_delimiter};

use crate::graph::onnx::{GraphProto, Model, Node, StringStringEntry, Tensor};
use crate::print::printable;

/// Largest total length of a model's file and its external data, in bytes.
const MAX_BYTES: u64 = 256 << 20;
/// Largest part of a model's file that is not weights, in bytes. In memory it can become a hundred times as long.
const MAX_STRUCTURE: usize = 4 << 20;
/// Largest number of nodes in a model, those of subgraphs included.
const MAX_NODES: usize = 20_000;
/// Largest depth of nested messages, as in the protobuf libraries.
const MAX_DEPTH: usize = 100;

/// A model of unknown origin that passed the checks of [`Self::read`].
pub struct ForeignModel {
    /// The model's file.
    pub bytes: Vec<u8>,
    /// The files of its external data: content by name.
    pub external: BTreeMap<String, Arc<[u8]>>,
    /// The file's `metadata_props`.
    pub metadata: Vec<StringStringEntry>,
}

impl ForeignModel {
    /// The model of an ONNX file, with the external data that lies beside it.
    ///
    /// # Errors
    /// When the file is too large or too deep, is truncated or no ONNX file, has functions or operators outside the standard
    /// domain, defines a name twice, or has external data that is not a file beside it.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).context("cannot be read")?;
        let bytes = read_at_most(file, MAX_BYTES)?;
        ensure!(!bytes.is_empty(), "an ONNX file expected, an empty one found");
        let mut survey = Survey::default();
        survey.visit(Part::Model, &bytes, 0)?;
        ensure!(survey.nodes <= MAX_NODES, "at most {MAX_NODES} nodes expected, {} found", survey.nodes);
        let structure = bytes.len() - survey.weights;
        ensure!(structure <= MAX_STRUCTURE, "at most {MAX_STRUCTURE} bytes beside weights expected, {structure} found");
        let model = Model::decode(&bytes[..]).context("an ONNX file expected, something else found")?;
        let graph = check(&model)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (mut external, mut left) = (BTreeMap::new(), MAX_BYTES - bytes.len() as u64);
        for tensor in graph.initializer.iter().filter(|tensor| tensor.data_location != 0) {
            read_external(tensor, folder, &mut external, &mut left)
                .with_context(|| format!("tensor {}", shown(&tensor.name)))?;
        }
        Ok(Self { external, metadata: model.metadata_props, bytes })
    }
}

/// A name from a file, for an error message: at most 60 characters.
fn shown(name: &str) -> String {
    printable(name, 60)
}

fn read_at_most(file: File, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    file.take(limit + 1).read_to_end(&mut bytes).context("cannot be read")?;
    ensure!(bytes.len() as u64 <= limit, "at most {MAX_BYTES} bytes of model and external data expected, more found");
    Ok(bytes)
}

/// What a model's encoded messages hold, counted without decoding them into memory.
#[derive(Default)]
struct Survey {
    nodes: usize,
    /// Bytes of `raw_data` and `float_data`, which take no more memory than in the file.
    weights: usize,
}

/// The messages that hold nodes or weights.
#[derive(Clone, Copy)]
enum Part {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
}

impl Survey {
    /// Counts what a message holds.
    fn visit(&mut self, part: Part, mut message: &[u8], depth: usize) -> Result<()> {
        ensure!(depth < MAX_DEPTH, "graphs nested less than {MAX_DEPTH} deep expected, deeper ones found");
        while !message.is_empty() {
            let (number, content) = next_field(&mut message)?;
            let inside = match (part, number) {
                (Part::Model, 7) | (Part::Attribute, 6 | 11) => Part::Graph,
                (Part::Graph, 1) => Part::Node,
                (Part::Node, 5) => Part::Attribute,
                (Part::Graph, 5) | (Part::Attribute, 5 | 10) => Part::Tensor,
                (Part::Tensor, 4 | 9) => {
                    self.weights += content.len();
                    continue;
                }
                _ => continue,
            };
            self.nodes += usize::from(matches!(inside, Part::Node));
            self.visit(inside, content, depth + 1)?;
        }
        Ok(())
    }
}

/// Takes the next field off a protobuf message: its number, and its content if it is bytes or another message.
fn next_field<'a>(message: &mut &'a [u8]) -> Result<(usize, &'a [u8])> {
    let mut varint =
        || decode_length_delimiter(&mut *message).ok().context("a whole ONNX file expected, it is truncated");
    let key = varint()?;
    ensure!(key >> 3 > 0, "an ONNX file expected, surplus bytes or something else found");
    let length = match key & 7 {
        0 => varint().map(|_| 0)?,
        1 => 8,
        2 => varint()?,
        5 => 4,
        _ => bail!("an ONNX file expected, something else found"),
    };
    let (content, rest) = message.split_at_checked(length).with_context(|| {
        format!("a whole ONNX file expected, {} bytes of {length} found: it is truncated", message.len())
    })?;
    *message = rest;
    Ok((key >> 3, content))
}

/// The graph of a model that uses only the standard operators and defines every name once.
fn check(model: &Model) -> Result<&GraphProto> {
    if let Some(function) = model.functions.first() {
        bail!("no functions of the file's own expected, {} found", shown(&function.name));
    }
    let domains = model.opset_import.iter().map(|set| if is_standard(&set.domain) { "" } else { &set.domain });
    ensure_unique(domains, "operator set")?;
    let graph = model.graph.as_ref().context("an ONNX file with a graph expected, none found")?;
    check_graph(graph)?;
    Ok(graph)
}

fn check_graph(graph: &GraphProto) -> Result<()> {
    ensure!(graph.sparse_initializer.is_empty(), "no sparse tensors expected, an initializer is one");
    let results =
        || graph.node.iter().flat_map(|node| &node.output).map(String::as_str).filter(|name| !name.is_empty());
    // An input may have an initializer of its name: its default value.
    ensure_unique(graph.input.iter().map(|input| input.name.as_str()).chain(results()), "tensor")?;
    ensure_unique(graph.initializer.iter().map(|tensor| tensor.name.as_str()).chain(results()), "tensor")?;
    ensure_unique(graph.output.iter().map(|output| output.name.as_str()), "output")?;
    for node in &graph.node {
        let described = || {
            let name = [&node.name].into_iter().chain(&node.output).find(|name| !name.is_empty());
            format!("node {}", shown(name.map_or("", String::as_str)))
        };
        check_node(node).with_context(described)?;
    }
    Ok(())
}

fn check_node(node: &Node) -> Result<()> {
    let (operator, domain) = (shown(&node.op_type), shown(&node.domain));
    ensure!(is_standard(&node.domain), "a standard operator expected, {operator} of domain {domain} found");
    ensure_unique(node.attribute.iter().map(|attribute| attribute.name.as_str()), "attribute")?;
    for attribute in &node.attribute {
        let attribute_name = shown(&attribute.name);
        let sparse = attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty();
        ensure!(!sparse, "no sparse tensors expected, attribute {attribute_name} is one");
        let subgraphs = || attribute.g.iter().chain(&attribute.graphs);
        let tensors = attribute.t.iter().chain(&attribute.tensors);
        let external = tensors.chain(subgraphs().flat_map(|graph| &graph.initializer)).any(|t| t.data_location != 0);
        ensure!(
            !external,
            "external data only for the model's own initializers expected, attribute {attribute_name} has some"
        );
        subgraphs().try_for_each(check_graph)?;
    }
    Ok(())
}

fn is_standard(domain: &str) -> bool {
    ["", "ai.onnx"].contains(&domain)
}

fn ensure_unique<'a>(names: impl Iterator<Item = &'a str>, what: &str) -> Result<()> {
    let mut seen = HashSet::new();
    for name in names {
        ensure!(seen.insert(name), "{what} {}: one definition expected, two found", shown(name));
    }
    Ok(())
}

/// Adds the file of a tensor's external data to `external`, if it is not there yet, and takes its length from `left`.
fn read_external(
    tensor: &Tensor,
    folder: &Path,
    external: &mut BTreeMap<String, Arc<[u8]>>,
    left: &mut u64,
) -> Result<()> {
    let entries = &tensor.external_data;
    ensure_unique(entries.iter().map(|entry| entry.key.as_str()), "key of its external data")?;
    let value = |key| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    let location = value("location").context("the location of its external data expected, none found")?;
    let name = shown(location);
    if !external.contains_key(location) {
        let is_name = Path::new(location).file_name().is_some_and(|name| name == location.as_str());
        ensure!(is_name, "external data in a file beside the model expected, the path {name} found");
        let found = fs::canonicalize(folder.join(location)).with_context(|| format!("external data {name}"))?;
        let beside = found.parent() == Some(&*fs::canonicalize(folder)?);
        ensure!(beside && found.is_file(), "external data in a file beside the model expected, {name} is none");
        let file = File::open(&found).with_context(|| format!("external data {name}"))?;
        let bytes = read_at_most(file, *left)?;
        *left -= bytes.len() as u64;
        external.insert(location.clone(), bytes.into());
    }
    let number = |key| value(key).map_or(Ok(0), |text| text.parse::<u64>());
    let (offset, length) = (number("offset"), number("length"));
    let (Ok(offset), Ok(length @ 1..)) = (offset, length) else {
        bail!("offset and length of its external data expected, no such numbers found");
    };
    let (end, size) = (offset.saturating_add(length), external[location].len());
    ensure!(end <= size as u64, "{end} bytes of external data in {name} expected, {size} found: it is truncated");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::onnx::{Attribute, OperatorSetId};

    const G: &[u8] = include_bytes!("../../../models/g.onnx");

    /// What reading a file with these bytes gives.
    fn read(bytes: &[u8]) -> Result<ForeignModel> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.onnx");
        fs::write(&path, bytes).unwrap();
        ForeignModel::read(&path)
    }

    /// The error of reading `models/g.onnx` after `spoil`.
    fn error(spoil: impl FnOnce(&mut Model, &mut GraphProto)) -> String {
        let mut model = Model::decode(G).unwrap();
        let mut graph = model.graph.take().unwrap();
        spoil(&mut model, &mut graph);
        let error = read(&Model { graph: Some(graph), ..model }.encode_to_vec()).err().expect("an error");
        format!("{error:#}")
    }

    #[test]
    fn the_shipped_generator_passes_with_its_metadata() {
        let model = read(G).unwrap();
        assert_eq!(model.bytes, G);
        assert!(model.external.is_empty() && model.metadata.iter().any(|entry| entry.key == "conditional"));
    }

    #[test]
    fn a_truncated_file_is_called_that() {
        for len in (1..G.len()).step_by(9973).chain([G.len() - 1]) {
            let error = format!("{:#}", read(&G[..len]).err().expect("an error"));
            assert!(error.contains("truncated") || error.contains("graph expected"), "{len}: {error}");
        }
        let error = |bytes: &[u8]| format!("{:#}", read(bytes).err().expect("an error"));
        assert_eq!(error(b""), "an ONNX file expected, an empty one found");
        assert_eq!(error(b"no model at all"), "an ONNX file expected, something else found");
        assert_eq!(error(&[G, &[0; 4]].concat()), "an ONNX file expected, surplus bytes or something else found");
    }

    #[test]
    fn a_name_that_is_defined_twice_is_told() {
        let twice = |what: &str| format!("{what}: one definition expected, two found");
        assert_eq!(error(|_, graph| graph.initializer.push(graph.initializer[0].clone())), twice("tensor fc1.weight"));
        assert_eq!(error(|_, graph| graph.input.push(graph.input[0].clone())), twice("tensor z"));
        assert_eq!(error(|_, graph| graph.node[0].output[0] = "z".into()), twice("tensor z"));
        assert_eq!(error(|_, graph| graph.output.push(graph.output[0].clone())), twice("output image"));
        assert_eq!(error(|model, _| model.opset_import.push(OperatorSetId::default())), twice("operator set "));
        let attributes = vec![Attribute::int("axis", 1); 2];
        let error = error(|_, graph| (graph.node[0].name, graph.node[0].attribute) = ("n".into(), attributes));
        assert_eq!(error, twice("node n: attribute axis"));
    }

    #[test]
    fn operators_of_other_domains_are_refused_in_subgraphs_too() {
        let node =
            Node { name: "n\u{1b}[2J".into(), op_type: "Adam".into(), domain: "trainer".into(), ..Node::default() };
        let refused = "node n\\u{1b}[2J: a standard operator expected, Adam of domain trainer found";
        assert_eq!(error(|_, graph| graph.node.push(node.clone())), refused);
        let body = GraphProto { node: vec![node], ..GraphProto::default() };
        let body = Attribute { name: "then_branch".into(), g: Some(body), ..Attribute::default() };
        let outer = Node { name: "outer".into(), attribute: vec![body], ..Node::default() };
        assert_eq!(error(|_, graph| graph.node.push(outer)), format!("node outer: {refused}"));
    }

    #[test]
    fn too_many_nodes_or_levels_are_refused_before_they_are_decoded() {
        let nodes = error(|_, graph| graph.node = vec![Node::default(); MAX_NODES + 1]);
        assert_eq!(nodes, "at most 20000 nodes expected, 20001 found");
        let text = error(|model, _| model.doc_string = "x".repeat(MAX_STRUCTURE));
        assert!(text.starts_with("at most 4194304 bytes beside weights expected, 41"), "{text}");
        // A graph in an attribute of a node of a graph, and so on.
        let mut message = vec![];
        for number in [6, 5, 1].into_iter().cycle().take(3 * MAX_DEPTH) {
            let mut outer = vec![number << 3 | 2];
            prost::encode_length_delimiter(message.len(), &mut outer).unwrap();
            message = [outer, message].concat();
        }
        let mut survey = Survey::default();
        let deep = survey.visit(Part::Graph, &message, 0).unwrap_err().to_string();
        assert_eq!(deep, "graphs nested less than 100 deep expected, deeper ones found");
    }
}
