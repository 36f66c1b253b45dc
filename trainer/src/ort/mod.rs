//! ONNX Runtime. The only file that says `ort`.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ort::AsPointer;
use ort::environment::Environment;
use ort::ep;
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::session::builder::SessionBuilder;
use ort::session::{IoBinding, RunOptions, Session};
use ort::util::preload_dylib;
use ort::value::{
    DefiniteTensorValueTypeMarker, DynTensor, PrimitiveTensorElementType, Tensor, TensorElementType, Value,
};
use prost::Message;

pub mod library;

use crate::config::{Device, DeviceSettings, Engine, LATENT, PIXELS, Recipe, UsageError};
use crate::data::Dataset;
use crate::gan::{self, Block, Form, StepGraph, adam, sampler};
use crate::graph::{Graph, onnx};
use crate::ort::library::Candidate;
use crate::pixel::unit;
use crate::state::{METRICS, Metrics, Spec, TrainState};

/// ONNX Runtime, loaded into this process, and the device and threads that its sessions use.
#[derive(Clone)]
pub struct OnnxRuntime {
    environment: Environment,
    pub device: Device,
    pub threads: usize,
    /// Whether CUDA may round what it multiplies to TF32's 10 bits.
    pub tf32: bool,
    /// The shared library, and how it was found.
    pub library: String,
    /// Whether our kernels take the places of our operators' functions, on the CPU.
    kernels: bool,
}

impl OnnxRuntime {
    /// Loads ONNX Runtime (see [`library::locate`]) and settles the device: the one asked for, or, with `None`,
    /// CUDA where it works and else the CPU.
    ///
    /// # Errors
    /// When no library can be had, or CUDA was asked for and does not work: the sentence says what is missing.
    pub fn open(device: Option<Device>, threads: usize, offline: bool, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let (environment, found) = load(device != Some(Device::Cpu), offline, say)?;
        let library = format!("{} ({})", found.path.display(), found.source);
        let mut runtime = Self { environment, device: Device::Cuda, threads, tf32: false, library, kernels: true };
        let probe = || {
            // Before 1.31, what a captured graph copies from the host may be overwritten before it is replayed.
            let version = ort::util::probe(&found.path).unwrap_or(0);
            ensure!(
                version >= 31 || !library::has_cuda(&found.path),
                "ONNX Runtime 1.31 or newer expected, 1.{version} found; run `trainer setup --cuda`"
            );
            // A library not found here matters only if the probe fails too: the provider searches on its own.
            let preloaded = preload(&found.path);
            runtime.probe().map_err(|why| preloaded.err().unwrap_or_else(|| explain(why)))
        };
        match device {
            Some(Device::Cpu) => runtime.device = Device::Cpu,
            Some(Device::Cuda) => {
                probe().map_err(|why| anyhow!("--device cuda: {why:#}; tried with {}", runtime.library))?
            }
            None => {
                if let Err(why) = probe() {
                    runtime.device = Device::Cpu;
                    say(&format!("device cpu (no CUDA: {why:#})"));
                } else {
                    say("device cuda");
                }
            }
        }
        Ok(runtime)
    }

    /// As [`Self::open`], for the device and threads that are asked for; two threads where none are, or one on a machine of
    /// one core.
    pub fn of(engine: &Engine, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let available = || thread::available_parallelism().map_or(1, |n| n.get());
        let threads = engine.threads.unwrap_or_else(|| available().min(2));
        UsageError::unless(threads >= 1, "threads", "at least 1", threads)?;
        let mut runtime = Self::open(engine.device, threads, engine.offline, say)?;
        runtime.tf32 = engine.tf32;
        Ok(runtime)
    }

    /// The form of step graphs that is fast here.
    pub fn form(&self) -> Form {
        match self.device {
            Device::Cpu => Form::Tensors,
            Device::Cuda => Form::Vectors,
        }
    }

    /// How many steps of `batch` images a round has here: one on the CPU; on CUDA up to 32, for the host has to do with the
    /// GPU between rounds, though each slot is two CUDA graphs to capture, and what a round is fed takes memory: of the seed
    /// recipe 34 MB, of wider networks in proportion.
    pub fn slots(&self, batch: usize) -> usize {
        match self.device {
            Device::Cpu => 1,
            Device::Cuda => (2048 / batch).clamp(1, 32),
        }
    }

    /// The same on the CPU, for what CUDA would want cuDNN for: on all cores, where it is CUDA that trains.
    pub fn on_cpu(&self) -> Self {
        let threads = match self.device {
            Device::Cpu => self.threads,
            Device::Cuda => std::thread::available_parallelism().map_or(1, |n| n.get()),
        };
        Self { device: Device::Cpu, threads, ..self.clone() }
    }

    /// The device, with the settings that decide the summation order.
    pub fn device_settings(&self) -> DeviceSettings {
        DeviceSettings { device: self.device, threads: self.threads, tf32: self.tf32 }
    }

    /// See [`DeviceSettings::describe`].
    pub fn describe_device(&self) -> String {
        self.device_settings().describe()
    }

    /// Runs a model of f32 inputs once, see [`Loaded::run`].
    pub fn run(&self, model: &onnx::Model, inputs: &[(&str, &[usize], &[f32])]) -> Result<Vec<Vec<f32>>> {
        self.load(&model.encode_to_vec())?.run(inputs)
    }

    /// A session for the bytes of an ONNX file.
    pub fn load(&self, model: &[u8]) -> Result<Loaded> {
        Ok(Loaded(self.session_of(model, false)?))
    }

    /// A model of f32 inputs, filled with ones, to run again and again.
    pub fn bound(&self, model: &onnx::Model) -> Result<Bound> {
        let session = self.session(model)?;
        let mut binding = session.create_binding()?;
        for input in session.inputs() {
            let shape = input.dtype().tensor_shape().context("a tensor")?;
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            binding.bind_input(input.name(), &self.upload(&shape, &vec![1f32; shape.iter().product()])?)?;
        }
        let place = match self.device {
            Device::Cpu => AllocationDevice::CPU,
            Device::Cuda => AllocationDevice::CUDA,
        };
        let place = MemoryInfo::new(place, 0, AllocatorType::Device, MemoryType::Default)?;
        for output in session.outputs() {
            binding.bind_output_to_device(output.name(), &place)?;
        }
        Ok(Bound { session, binding })
    }

    fn session(&self, model: &onnx::Model) -> Result<Session> {
        self.session_of(&model.encode_to_vec(), false)
    }

    /// `captured`: on CUDA, runs are captured as a graph, which later runs replay.
    fn session_of(&self, model: &[u8], captured: bool) -> Result<Session> {
        // The builder's errors carry the builder; their text is all that is wanted.
        let plain = |error: ort::Error<SessionBuilder>| anyhow!("{error}");
        let mut builder = Session::builder(&self.environment)?.with_intra_threads(self.threads).map_err(plain)?;
        if self.device == Device::Cpu && self.kernels {
            let ours = OperatorDomain::new(onnx::DOMAIN)?.add(FusedAdam)?.add(FusedSlopes)?;
            builder = builder.with_operators(ours).map_err(plain)?;
        }
        if self.device == Device::Cuda {
            // A registration that fails must say so, not fall back.
            let cuda = ep::CUDA::default().with_tf32(self.tf32).with_cuda_graph(captured).build().error_on_failure();
            builder =
                builder.with_execution_providers([cuda]).map_err(plain)?.with_disable_cpu_fallback().map_err(plain)?;
        }
        Ok(builder.commit_from_memory(model)?)
    }

    /// Runs one small product on the device: the only proof that it is there.
    fn probe(&self) -> Result<()> {
        let mut g = Graph::default();
        let x = g.input("x", onnx::Type::F32, &[1, 1]);
        let y = g.gemm(x, x, None, false, false);
        let model = g.to_model("probe", &[(y, "y".into())], None);
        let y = self.run(&model, &[("x", &[1, 1], &[3.0])])?;
        if y != [[9.0]] {
            bail!("3 · 3 gave {y:?}");
        }
        Ok(())
    }

    /// A tensor of the host's, moved to where sessions want it.
    fn upload<T>(&self, shape: &[usize], data: &[T]) -> Result<Tensor<T>>
    where
        T: PrimitiveTensorElementType + fmt::Debug + Copy + 'static,
    {
        self.upload_filled(shape, |tensor| tensor.copy_from_slice(data))
    }

    fn upload_filled<T>(&self, shape: &[usize], fill: impl FnOnce(&mut [T])) -> Result<Tensor<T>>
    where
        T: PrimitiveTensorElementType + fmt::Debug + Copy + 'static,
    {
        let mut tensor = Tensor::<T>::new(&Allocator::default(), shape)?;
        fill(tensor.extract_tensor_mut().1);
        Ok(match self.device {
            Device::Cpu => tensor,
            Device::Cuda => tensor.to(AllocationDevice::CUDA, 0)?,
        })
    }
}

/// [`adam::kernel`], in the place of the operator's function.
struct FusedAdam;

impl Operator for FusedAdam {
    type Kernel<'attr> = Self;

    fn name(&self) -> &str {
        adam::OPERATOR
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        (0..9).map(|_| OperatorInput::required(TensorElementType::Float32))
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        (0..3).map(|_| OperatorOutput::required(TensorElementType::Float32))
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for FusedAdam {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        let absent = || ort::Error::new("Adam: a tensor is missing");
        let input = |i| ctx.input(i)?.ok_or_else(absent);
        let tensors = [input(0)?, input(1)?, input(2)?, input(3)?];
        let [theta, m, v, grad] = tensors.each_ref().map(|x| x.try_extract_tensor::<f32>());
        let shape = theta.as_ref().map(|(shape, _)| shape.to_vec()).unwrap_or_default();
        let numbers = [input(4)?, input(5)?, input(6)?, input(7)?, input(8)?];
        let [a, b, c, d, e] = numbers.each_ref().map(|x| x.try_extract_tensor::<f32>().map(|(_, x)| x[0]));
        let output = |i| ctx.output(i, shape.as_slice())?.ok_or_else(absent);
        let (mut next_theta, mut next_m, mut next_v) = (output(0)?, output(1)?, output(2)?);
        let next = [&mut next_theta, &mut next_m, &mut next_v].map(|x| x.try_extract_tensor_mut::<f32>());
        let [next_theta, next_m, next_v] = next;
        let (state, numbers) = ([theta?.1, m?.1, v?.1, grad?.1], [a?, b?, c?, d?, e?]);
        let next = [next_theta?.1, next_m?.1, next_v?.1];
        // Large tensors in parts, which the session's threads share.
        const PART: usize = 1 << 14;
        if state[0].len() < 2 * PART {
            adam::kernel(state, numbers, next);
            return Ok(());
        }
        let [theta, m, v] = next.map(|x| x.chunks_mut(PART));
        let parts: Vec<_> = theta.zip(m).zip(v).map(|((theta, m), v)| Mutex::new([theta, m, v])).collect();
        ctx.par_for(parts.len(), 0, |i| {
            let [theta, m, v] = &mut *parts[i].lock().unwrap_or_else(PoisonError::into_inner);
            let state = state.map(|x| &x[i * PART..][..theta.len()]);
            adam::kernel(state, numbers, [theta, m, v]);
        })
    }
}

/// [`gan::slopes`], in the place of the operator's function.
struct FusedSlopes;

impl Operator for FusedSlopes {
    type Kernel<'attr> = Self;

    fn name(&self) -> &str {
        gan::SLOPES
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        use TensorElementType::{Float32, Uint8};
        [Float32, Uint8, Float32, Float32].map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(TensorElementType::Float32)]
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Self> {
        Ok(Self)
    }
}

impl Kernel for FusedSlopes {
    fn compute(&mut self, ctx: &ComputeContext) -> ort::Result<()> {
        let absent = || ort::Error::new(format!("{}: a tensor is missing", gan::SLOPES));
        let input = |i| ctx.input(i)?.ok_or_else(absent);
        let (x, keep, low, high) = (input(0)?, input(1)?, input(2)?, input(3)?);
        let (shape, x) = x.try_extract_tensor()?;
        let mut s = ctx.output(0, shape.to_vec())?.ok_or_else(absent)?;
        let [low, high] = [low.try_extract_tensor()?.1[0], high.try_extract_tensor()?.1[0]];
        gan::slopes(x, keep.try_extract_tensor()?.1, low, high, s.try_extract_tensor_mut()?.1);
        Ok(())
    }
}

/// What went wrong on the device in plain words, and what to do; an error of another kind as it is.
pub(crate) fn explain(error: anyhow::Error) -> anyhow::Error {
    plain_words(&format!("{error:#}")).map_or(error, |words| anyhow!(words))
}

/// What ONNX Runtime's words mean, where it is the device or CUDA that failed.
fn plain_words(text: &str) -> Option<String> {
    const SETUP: &str = "run `trainer setup --cuda`";
    const DRIVER: &str = "CUDA 13 needs NVIDIA's driver 580 or newer";
    let between = |start, end| Some(text.split_once(start)?.1.split_once(end)?.0);
    let missing = between("with error: ", ": cannot open shared object file")
        .or(between("which depends on \"", "\" which is missing"));
    if let Some(library) = missing {
        return Some(match library {
            "libcuda.so.1" | "nvcuda.dll" => {
                format!("no NVIDIA driver found, whose {library} is missing; {DRIVER}")
            }
            _ => format!("{library}, which CUDA's provider needs, not found; {SETUP}"),
        });
    }
    if text.contains("execution provider is not enabled in this build") {
        return Some(format!("this ONNX Runtime is built without CUDA; where there is an NVIDIA GPU, {SETUP}"));
    }
    let no_memory = ["Failed to allocate memory for requested buffer", "smaller than requested bytes", "ALLOC_FAILED"];
    if no_memory.iter().any(|words| text.contains(words)) {
        return Some(
            "the device is out of memory; a smaller --batch needs less, and other programs may hold some".into(),
        );
    }
    if let Some((library, failure)) = text.split_once(" failure ")
        && (library.ends_with("CUDA") || library.ends_with("CUBLAS"))
    {
        let (code, rest) = failure.split_once(": ")?;
        let meaning = rest.split(" ;").next()?;
        return Some(match code {
            "2" => "out of GPU memory; a smaller --batch needs less, and `nvidia-smi` tells who holds it".into(),
            "35" => format!("NVIDIA's driver is too old; {DRIVER}, and `nvidia-smi` tells which is here"),
            "46" => "the GPU is busy, or another process has it to itself; `nvidia-smi` tells which".into(),
            "100" => {
                "no GPU found; `nvidia-smi` tells which the driver sees, CUDA_VISIBLE_DEVICES may hide some".into()
            }
            "209" => {
                "the GPU is of a generation that this ONNX Runtime has no code for; --device cpu does without".into()
            }
            "803" => "NVIDIA's driver and its libraries are of two versions; restart the machine".into(),
            _ => format!("the GPU failed or went away ({code}: {meaning}); `nvidia-smi` tells whether it is there"),
        });
    }
    Some(text.lines().next()?.rsplit_once(" : FAIL : ")?.1.into())
}

/// Loads the CUDA libraries that the provider beside ONNX Runtime's library wants, for by itself the provider finds only
/// those that the system's loader does.
fn preload(library: &Path) -> Result<()> {
    if !library::has_cuda(library) {
        return Ok(());
    }
    for name in library::CUDA_LIBRARIES {
        let mut problem = "not found".to_string();
        let loads = |path: PathBuf| preload_dylib(&path).map_err(|why| problem = format!("{:#}", anyhow!(why))).is_ok();
        let found = library::cuda_library(library, name).any(loads) || preload_dylib(*name).is_ok();
        ensure!(
            found,
            "{name} expected beside {}, in Python's nvidia packages or in the system, {problem}; run `trainer setup --cuda`",
            library.display()
        );
    }
    Ok(())
}

/// The one environment that ONNX Runtime allows a process, and its library.
static LOADED: Mutex<Option<(Environment, Candidate)>> = Mutex::new(None);

/// Tries the candidates in their order; what was wrong with each is told when none loads. Later calls get the library of
/// the first that succeeded.
fn load(cuda: bool, offline: bool, say: &mut dyn FnMut(&str)) -> Result<(Environment, Candidate)> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = &*loaded {
        return Ok(loaded.clone());
    }
    let mut refused = vec![];
    for candidate in library::locate(cuda, offline, say) {
        let candidate = match candidate {
            Ok(candidate) => candidate,
            Err(why) if refused.is_empty() => return Err(why),
            Err(why) => bail!("{why:#} (what was found does not load: {})", refused.join("; ")),
        };
        match ort::init_from(&candidate.path) {
            Ok(builder) => {
                let environment = builder.with_name("trainer").with_telemetry(false).build()?;
                environment.set_log_level(LogLevel::Fatal); // errors are returned, and told once
                return Ok(loaded.insert((environment, candidate)).clone());
            }
            Err(why) => refused.push(format!("{}: {why}", candidate.source)),
        }
    }
    bail!("no usable ONNX Runtime found: {}", refused.join("; "))
}

/// A model of f32 inputs and outputs, run on the host's data.
pub struct Loaded(Session);

impl Loaded {
    /// The outputs in the model's order, for inputs by name, shape and values.
    pub fn run(&mut self, inputs: &[(&str, &[usize], &[f32])]) -> Result<Vec<Vec<f32>>> {
        let mut binding = self.0.create_binding()?;
        for (name, shape, data) in inputs {
            binding.bind_input(*name, &Tensor::from_array((*shape, data.to_vec()))?)?;
        }
        let names: Vec<String> = self.0.outputs().iter().map(|o| o.name().to_string()).collect();
        let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        names.iter().try_for_each(|name| binding.bind_output_to_device(name, &host))?;
        let outputs = self.0.run_binding(&binding)?;
        names.iter().map(|name| Ok(outputs[name.as_str()].try_extract_tensor::<f32>()?.1.to_vec())).collect()
    }
}

/// A model, and where it finds its inputs and leaves its outputs.
pub struct Bound {
    session: Session,
    binding: IoBinding,
}

impl Bound {
    /// Runs it, and waits until it is done.
    pub fn run(&mut self) -> Result<()> {
        self.session.run_binding(&self.binding)?;
        Ok(())
    }
}

/// A training loop's hold on ONNX Runtime: the data set and two sets of state tensors on the device, and for each step
/// graph a session with its bindings, from the first set to the second and back. No parameter is copied.
///
/// Steps are taken in rounds. In [`Form::Tensors`] a step reads its numbers where the host wrote them. In
/// [`Form::Vectors`] the numbers of a round are copied to the device during the one before, if there is one in the
/// epoch, and [`gan::prepare`] does what it can with all of them; [`gan::metrics`] tells how it went after it. Between
/// its steps the host does nothing but start them.
pub struct Stepper {
    // Before what its bindings read and write.
    programs: Vec<Program>,
    /// For each batch size, in [`Form::Vectors`].
    shared: Vec<Shared>,
    sampler: Sampler,
    blocks: Vec<Block>,
    /// Two sets of the blocks, of which `live` holds the newest state.
    state: [Vec<DynTensor>; 2],
    live: usize,
    /// Steps taken in the whole run.
    step: u64,
    slots: usize,
    /// Of the feed of a round by each graph.
    layouts: Vec<Layout>,
    /// What the next round will be fed.
    bytes: Tensor<u8>,
    /// In [`Form::Vectors`].
    device: Option<OnDevice>,
    /// The metrics of a round (slots, 4), where its steps leave them, or [`gan::metrics`].
    history: DynTensor,
    metrics: Vec<Metrics>,
}

/// A step graph's session, and for each slot of a round two bindings, one after the other: from the first set of the state,
/// and from the second.
struct Program {
    session: Session,
    bindings: Vec<IoBinding>,
    batch: usize,
}

/// A round's numbers on the device, and how it is started.
struct OnDevice {
    /// What [`gan::prepare`] reads, at an address that never changes.
    bytes: Tensor<u8>,
    /// Whether it is the next round's.
    is_fed: bool,
    /// For each binding of a program the options of runs whose result nobody waits for, and of those with a result that is
    /// awaited: on CUDA they name the graph that was captured in the binding's first run.
    options: Vec<[RunOptions; 2]>,
}

/// What rounds of steps of one batch size have in common.
struct Shared {
    // Before what their bindings write.
    prepare: Bound,
    metrics: Bound,
    batch: usize,
    slots: usize,
    /// On the device, the blocks of [`gan::prepared`] that are not empty, which steps read.
    prepared: Vec<(Block, DynTensor)>,
    /// Those of [`gan::logits`], which steps write.
    logits: Vec<(Block, DynTensor)>,
}

/// The generator in evaluation mode on a fixed z, reading the parameters where the step graphs leave them.
struct Sampler {
    session: Session,
    bindings: [IoBinding; 2],
    image: Tensor<f32>,
}

/// The numbers that the steps of a round are fed, packed: the four parts of [`Form::feed`], each for all slots one after the
/// other.
pub struct Feed<'a> {
    bytes: &'a mut [u8],
    layouts: &'a [Layout],
}

struct Layout {
    /// Steps of a round.
    slots: usize,
    /// Where each part begins: for all graphs at the same byte, so that what an earlier round left there is of its type.
    from: [usize; 4],
    /// Bytes of each part in a slot.
    bytes: [usize; 4],
}

/// What one step is fed.
pub struct Row<'a> {
    /// [`Recipe::rates`]
    pub rates: &'a mut [f32; 3],
    pub pick: &'a mut [i64],
    pub z: &'a mut [f32],
    /// The dropout masks, one after the other.
    pub keep: &'a mut [u8],
}

impl Layout {
    /// The layout of each graph's rounds, of so many slots, and the bytes that hold any of them.
    fn of(graphs: &[StepGraph], slots: impl Fn(&StepGraph) -> usize) -> (Vec<Self>, usize) {
        let bytes = |graph: &StepGraph| graph.feed.each_ref().map(|specs| specs.iter().map(Spec::bytes).sum::<usize>());
        let mut len = 0;
        let from = [0, 1, 2, 3].map(|part| {
            let from = len;
            let room = graphs.iter().map(|graph| slots(graph) * bytes(graph)[part]).max().unwrap_or(0);
            len += room.next_multiple_of(256); // what CUDA's libraries like
            from
        });
        (graphs.iter().map(|graph| Self { slots: slots(graph), from, bytes: bytes(graph) }).collect(), len)
    }

    /// Where a part of a slot is.
    fn range(&self, part: usize, slot: usize) -> Range<usize> {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        let from = self.from[part] + slot * self.bytes[part];
        from..from + self.bytes[part]
    }
}

impl Feed<'_> {
    /// What the step in `slot` of the round is fed, if it is by `graph`.
    pub fn row(&mut self, slot: usize, graph: usize) -> Row<'_> {
        let parts = self.bytes.get_disjoint_mut([0, 1, 2, 3].map(|part| self.layouts[graph].range(part, slot)));
        let [rates, pick, z, keep] = parts.expect("parts that stand one after the other");
        Row {
            rates: bytemuck::cast_slice_mut(rates).first_chunk_mut().expect("three rates"),
            pick: bytemuck::cast_slice_mut(pick),
            z: bytemuck::cast_slice_mut(z),
            keep,
        }
    }
}

impl Stepper {
    /// Sessions for `graphs` of one recipe and form, which share the state and the data set, and one that draws `z` (n, 100)
    /// with the generator as it stands. A round has up to `slots` steps of the first graph's batch size, or one of another.
    pub fn new(
        runtime: &OnnxRuntime,
        recipe: &Recipe,
        graphs: &[StepGraph],
        slots: usize,
        state: &TrainState,
        data: &Dataset,
        z: &[f32],
    ) -> Result<Self> {
        let form = graphs[0].form;
        let slots_of = |graph: &StepGraph| if graph.batch == graphs[0].batch { slots } else { 1 };
        let (layouts, len) = Layout::of(graphs, slots_of);
        let blocks = form.blocks(recipe);
        let mut tensors = &state.tensors[..];
        let mut sets = [vec![], vec![]];
        for Block { whole, parts } in &blocks {
            let (these, rest) = tensors.split_at(parts.len());
            for set in &mut sets {
                set.push(runtime.upload(&whole.shape, &these.concat())?.upcast());
            }
            tensors = rest;
        }
        let mut bytes = Tensor::<u8>::new(&Allocator::default(), [len])?;
        bytes.extract_tensor_mut().1.fill(0);
        let device = match form {
            Form::Tensors => None,
            Form::Vectors => Some(OnDevice::new(runtime, len, slots)?),
        };
        let fed = device.as_ref().map_or(&bytes, |device| &device.bytes);
        let shape = [data.len(), PIXELS];
        let images = match form {
            Form::Tensors => {
                let copy = |tensor: &mut [u8]| tensor.iter_mut().zip(&data.images).for_each(|(x, &p)| *x = p);
                runtime.upload_filled(&shape, copy)?.upcast()
            }
            Form::Vectors => {
                let units = |tensor: &mut [f32]| tensor.iter_mut().zip(&data.images).for_each(|(x, &p)| *x = unit(p));
                runtime.upload_filled(&shape, units)?.upcast()
            }
        };
        let labels = recipe.conditional.then(|| runtime.upload(&[data.len()], &data.labels.to_vec())).transpose()?;
        let row = Spec::new("metrics", onnx::Type::F32, &[METRICS.len()]);
        let history = runtime.upload(&[slots, row.len()], &vec![0f32; slots * row.len()])?.upcast();
        let mut shared: Vec<Shared> = vec![];
        if form == Form::Vectors {
            for (graph, layout) in graphs.iter().zip(&layouts) {
                if shared.iter().all(|of| of.batch != graph.batch) {
                    let data = (&images, labels.as_ref());
                    shared.push(Shared::new(runtime, recipe, graph.batch, data, fed, layout, &history)?);
                }
            }
        }
        let mut programs = vec![];
        for (graph, layout) in graphs.iter().zip(&layouts) {
            let session = runtime.session_of(&graph.model.encode_to_vec(), form == Form::Vectors)?;
            let names = Names::of(&session);
            let shared = shared.iter().find(|of| of.batch == graph.batch);
            let mut bind = |slot: usize, from: usize| -> Result<IoBinding> {
                let mut binding = session.create_binding()?;
                names.bind_state(&mut binding, &blocks, &sets[from], "")?;
                for (block, tensor) in blocks.iter().zip(&mut sets[1 - from]) {
                    binding.bind_output(format!("next.{}", block.whole.name), tensor)?;
                }
                match shared {
                    None => {
                        for (part, specs) in graph.feed.iter().enumerate() {
                            names.bind_parts(&mut binding, fed, layout.range(part, slot).start, specs, "")?;
                        }
                        binding.bind_input("images", &images)?;
                        labels.as_ref().map_or(Ok(()), |labels| binding.bind_input("labels", labels))?;
                        binding.bind_output("metrics", &mut part_of(&history, slot * row.bytes(), &row)?)?;
                    }
                    Some(shared) => shared.bind(&names, &mut binding, slot)?,
                }
                Ok(binding)
            };
            let bindings = (0..2 * layout.slots).map(|i| bind(i / 2, i % 2)).collect::<Result<_>>()?;
            programs.push(Program { session, bindings, batch: graph.batch });
        }
        let sampler = Sampler::new(runtime, z, recipe, &blocks, &sets)?;
        let (state, live, step, metrics) = (sets, 0, state.step, vec![]);
        Ok(Self {
            programs,
            shared,
            sampler,
            blocks,
            state,
            live,
            step,
            slots,
            layouts,
            bytes,
            device,
            history,
            metrics,
        })
    }

    /// How many steps a round can have.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// What the next [`Self::round`] will be fed.
    pub fn feed(&mut self) -> Feed<'_> {
        if let Some(device) = &mut self.device {
            device.is_fed = false;
        }
        Feed { bytes: self.bytes.extract_tensor_mut().1, layouts: &self.layouts }
    }

    /// Takes a round of steps, each by one of `graphs`, all of one batch size, and returns their metrics. `ahead` fills the
    /// feed of the round after it, and tells whether there is one: while the steps run, where these do not read what the host
    /// writes, else when they are done.
    pub fn round(&mut self, graphs: &[usize], ahead: impl FnOnce(Feed) -> bool + Send) -> Result<&[Metrics]> {
        let Self { programs, shared, live, layouts, bytes, .. } = self;
        match &mut self.device {
            None => {
                for (slot, &graph) in graphs.iter().enumerate() {
                    let Program { session, bindings, .. } = &mut programs[graph];
                    session.run_binding(&bindings[2 * slot + *live])?;
                    *live = 1 - *live;
                }
                ahead(Feed { bytes: bytes.extract_tensor_mut().1, layouts });
            }
            Some(device) => {
                let batch = programs[graphs[0]].batch;
                assert!(graphs.iter().all(|&graph| programs[graph].batch == batch), "a round of two batch sizes");
                let shared = shared.iter_mut().find(|of| of.batch == batch).expect("made for each size");
                if !std::mem::take(&mut device.is_fed) {
                    bytes.copy_into(&mut device.bytes)?;
                }
                shared.prepare.run()?;
                thread::scope(|scope| {
                    // A thread for each round, which takes much longer than to start one.
                    let drawn = scope.spawn(|| {
                        let is_next = ahead(Feed { bytes: bytes.extract_tensor_mut().1, layouts });
                        is_next.then_some(bytes)
                    });
                    let mut start = |device: &OnDevice, slot: usize| -> Result<()> {
                        let graph = graphs[slot];
                        // What follows on another session's stream, or on the host, must find the result.
                        let awaited = graphs.get(slot + 1) != Some(&graph);
                        let (i, Program { session, bindings, .. }) = (2 * slot + *live, &mut programs[graph]);
                        session.run_binding_with_options(&bindings[i], &device.options[i][usize::from(awaited)])?;
                        *live = 1 - *live;
                        Ok(())
                    };
                    // The device is fed while it is at the steps before the last one, which is waited for.
                    let before = (graphs.len() - 1).max(1);
                    (0..before).try_for_each(|slot| start(device, slot))?;
                    if let Some(bytes) = joined(drawn) {
                        bytes.copy_into(&mut device.bytes)?;
                        device.is_fed = true;
                    }
                    (before..graphs.len()).try_for_each(|slot| start(device, slot))
                })?;
                shared.metrics.run()?;
            }
        }
        self.step += graphs.len() as u64;
        self.metrics.clear();
        let Self { history, metrics, .. } = self;
        on_host(history, |history| {
            let rows = history.chunks(METRICS.len()).take(graphs.len());
            metrics.extend(rows.map(|row| Metrics::try_from(row).expect("the shape that was bound")));
        })?;
        Ok(metrics)
    }

    /// The images (n, 784), in [-1, 1], of the z given to [`Self::new`].
    pub fn sample(&mut self) -> Result<&[f32]> {
        self.sampler.session.run_binding(&self.sampler.bindings[self.live])?;
        Ok(self.sampler.image.extract_tensor().1)
    }

    /// The newest state, copied to the host; `sums` are the caller's.
    pub fn state(&self, sums: [f64; METRICS.len()]) -> Result<TrainState> {
        let mut tensors = vec![];
        for (tensor, block) in self.state[self.live].iter().zip(&self.blocks) {
            on_host(tensor, |mut numbers| {
                tensors.extend(block.parts.iter().map(|part| {
                    let (these, rest) = numbers.split_at(part.len());
                    numbers = rest;
                    these.to_vec()
                }));
            })?;
        }
        Ok(TrainState { tensors, step: self.step, sums })
    }
}

impl Drop for Stepper {
    /// Where the GPU has failed, the destructors of what was captured on it would meet its error again, and end the process
    /// before the error is told.
    fn drop(&mut self) {
        if on_host(&self.history, |_| ()).is_err() {
            std::mem::forget(std::mem::take(&mut self.programs));
        }
    }
}

/// What a thread returns when it is done; its panic is ours.
pub(crate) fn joined<T>(thread: thread::ScopedJoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Shows the numbers of a tensor, copied to the host where it is not there.
fn on_host(tensor: &DynTensor, look: impl FnOnce(&[f32])) -> Result<()> {
    if tensor.memory_info().is_cpu_accessible() {
        look(tensor.try_extract_tensor()?.1);
    } else {
        look(tensor.to(AllocationDevice::CPU, 0)?.try_extract_tensor()?.1);
    }
    Ok(())
}

impl OnDevice {
    fn new(runtime: &OnnxRuntime, len: usize, slots: usize) -> Result<Self> {
        let options = |id: usize, awaited: bool| -> Result<RunOptions> {
            let mut options = RunOptions::new()?;
            options.set("gpu_graph_id", id.to_string())?;
            if !awaited {
                options.disable_device_sync()?;
            }
            Ok(options)
        };
        Ok(Self {
            bytes: runtime.upload(&[len], &vec![0u8; len])?,
            is_fed: false,
            // From 1, for 0 is the id of a run that names none.
            options: (1..=2 * slots).map(|id| Ok([options(id, false)?, options(id, true)?])).collect::<Result<_>>()?,
        })
    }
}

impl Shared {
    /// Reads the data set and a round's feed, and leaves the metrics in `history` (slots, 4).
    fn new(
        runtime: &OnnxRuntime,
        recipe: &Recipe,
        batch: usize,
        (images, labels): (&DynTensor, Option<&Tensor<u8>>),
        fed: &Tensor<u8>,
        layout: &Layout,
        history: &DynTensor,
    ) -> Result<Self> {
        let slots = layout.slots;
        let on_device = |block: Block| -> Result<(Block, DynTensor)> {
            let tensor = runtime.upload(&block.whole.shape, &vec![0f32; block.whole.len()])?.upcast();
            Ok((block, tensor))
        };
        let prepared = gan::prepared(recipe, batch, slots).into_iter().filter(|block| !block.parts.is_empty());
        let mut prepared: Vec<_> = prepared.map(on_device).collect::<Result<_>>()?;
        let logits: Vec<_> = gan::logits(recipe, batch, slots).into_iter().map(on_device).collect::<Result<_>>()?;

        let session = runtime.session(&gan::prepare(recipe, batch, images.shape()[0] as usize, slots))?;
        let mut binding = session.create_binding()?;
        binding.bind_input("images", images)?;
        labels.map_or(Ok(()), |labels| binding.bind_input("labels", labels))?;
        let names = Names::of(&session);
        let parts = [
            Spec::new("fed_rates", onnx::Type::F32, &[slots, 3]),
            Spec::new("pick", onnx::Type::I64, &[slots * batch]),
            Spec::new("fed_z", onnx::Type::F32, &[slots * recipe.z_rows(batch), LATENT]),
            Spec::new("keep", onnx::Type::Bool, &[slots, layout.bytes[3]]),
        ];
        for (part, from) in parts.into_iter().zip(layout.from) {
            names.bind_parts(&mut binding, fed, from, &[part], "")?;
        }
        for (block, tensor) in &mut prepared {
            binding.bind_output(block.whole.name.as_str(), tensor)?;
        }
        let prepare = Bound { session, binding };

        let session = runtime.session(&gan::metrics(recipe, batch, slots))?;
        let mut binding = session.create_binding()?;
        for (block, tensor) in &logits {
            binding.bind_input(block.whole.name.as_str(), tensor)?;
        }
        let metrics = Spec::new("metrics", onnx::Type::F32, &[slots, METRICS.len()]);
        binding.bind_output("metrics", &mut part_of(history, 0, &metrics)?)?;
        Ok(Self { prepare, metrics: Bound { session, binding }, batch, slots, prepared, logits })
    }

    /// Binds what a step in `slot` reads and writes.
    fn bind(&self, names: &Names, binding: &mut IoBinding, slot: usize) -> Result<()> {
        let from = |block: &Block| slot * block.whole.bytes() / self.slots;
        for (block, tensor) in &self.prepared {
            names.bind_parts(binding, tensor, from(block), &block.parts, "")?;
        }
        for (block, tensor) in &self.logits {
            let part = &block.parts[0];
            binding.bind_output(part.name.as_str(), &mut part_of(tensor, from(block), part)?)?;
        }
        Ok(())
    }
}

impl Sampler {
    fn new(
        runtime: &OnnxRuntime,
        z: &[f32],
        recipe: &Recipe,
        blocks: &[Block],
        sets: &[Vec<DynTensor>; 2],
    ) -> Result<Self> {
        let n = z.len() / LATENT;
        let session = runtime.session(&sampler(n))?;
        let names = Names::of(&session);
        let latents = runtime.upload(&[n, LATENT], z)?;
        let mut image = Tensor::<f32>::new(&Allocator::default(), [n, PIXELS])?;
        let mut bind = |set: &[DynTensor]| -> Result<IoBinding> {
            let mut binding = session.create_binding()?;
            binding.bind_input("z", &latents)?;
            names.bind_state(&mut binding, blocks, set, recipe.export_prefix())?;
            binding.bind_output("image", &mut image)?;
            Ok(binding)
        };
        let bindings = [bind(&sets[0])?, bind(&sets[1])?];
        Ok(Self { session, bindings, image })
    }
}

/// The names of a model's inputs, to bind those of a feed or a state that it has.
struct Names(HashSet<String>);

impl Names {
    fn of(session: &Session) -> Self {
        Self(session.inputs().iter().map(|input| input.name().to_string()).collect())
    }

    /// Binds the tensors of `specs`, which stand one after the other from `at` bytes into `whole`, by the names that are left
    /// of theirs without `prefix`.
    fn bind_parts<T: DefiniteTensorValueTypeMarker + ?Sized>(
        &self,
        binding: &mut IoBinding,
        whole: &Value<T>,
        mut at: usize,
        specs: &[Spec],
        prefix: &str,
    ) -> Result<()> {
        for spec in specs {
            if let Some(name) = spec.name.strip_prefix(prefix).filter(|&name| self.0.contains(name)) {
                binding.bind_input(name, &part_of(whole, at, spec)?)?;
            }
            at += spec.bytes();
        }
        Ok(())
    }

    /// Binds the blocks of a state, their parts, or both.
    fn bind_state(&self, binding: &mut IoBinding, blocks: &[Block], set: &[DynTensor], prefix: &str) -> Result<()> {
        for (Block { whole, parts }, tensor) in blocks.iter().zip(set) {
            self.bind_parts(binding, tensor, 0, std::slice::from_ref(whole), prefix)?;
            if parts[0] != *whole {
                self.bind_parts(binding, tensor, 0, parts, prefix)?;
            }
        }
        Ok(())
    }
}

/// The tensor of `spec` in the memory of another one, `at` bytes into it: nothing is copied. It is for the bindings of
/// [`Stepper`], which keeps `whole` as long as them.
#[allow(unsafe_code)] // ort has no safe call for a part of a tensor, or none that a binding does not copy
fn part_of<T: DefiniteTensorValueTypeMarker + ?Sized>(whole: &Value<T>, at: usize, spec: &Spec) -> Result<DynTensor> {
    let elem = match spec.elem {
        onnx::Type::F32 => TensorElementType::Float32,
        onnx::Type::I64 => TensorElementType::Int64,
        onnx::Type::U8 => TensorElementType::Uint8,
        onnx::Type::Bool => TensorElementType::Bool,
    };
    let room = whole.data_type().byte_size(whole.shape().num_elements()).expect("a tensor of numbers");
    assert!(at + spec.bytes() <= room && at.is_multiple_of(spec.elem.size()), "{}: {at} of {room} bytes", spec.name);
    let shape: Vec<i64> = spec.shape.iter().map(|&n| n as i64).collect();
    let memory = whole.data_ptr().cast_mut().wrapping_byte_add(at);
    let mut part = ptr::null_mut();
    // SAFETY: the memory is `whole`'s, on the device that its info names, and, as asserted, long enough and aligned for
    // numbers (bytes that are read as bool are 0 or 1); the value neither frees it nor is read when `whole` is gone.
    unsafe {
        let make = ort::api().CreateTensorWithDataAsOrtValue;
        let (info, len) = (whole.memory_info().ptr(), spec.bytes());
        let status = make(info, memory, len, shape.as_ptr(), shape.len(), elem.into(), &mut part);
        ort::Error::<()>::result_from_status(status)?;
        Ok(DynTensor::from_ptr(NonNull::new(part).context("a tensor")?, Some(&Allocator::default())))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use ndarray::Array2;

    use super::*;
    use crate::config::Plan;
    use crate::state::{Step, initial_state, state_specs};
    use crate::train::Training;

    /// What CUDA runs, by the CPU: steps of every kind, in rounds that are cut short, from the same numbers.
    #[test]
    fn both_forms_of_a_step_graph_train_alike() {
        let runtime = OnnxRuntime::open(Some(Device::Cpu), 1, false, &mut |_| ()).unwrap();
        let images = Array2::from_shape_fn((100, PIXELS), |(n, i)| ((n * PIXELS + i) * 7919 % 251) as u8);
        let labels = (0..100).map(|i| i % 10).collect();
        let data = Dataset { images, labels, ..Dataset::default() };
        let (seed, tuned) = (Plan::seed_recipe(), Plan::tuned_recipe());
        // What the two do not have together, and widths that no vector is aligned to.
        let other = Recipe { conditional: true, ema: 0.9, d_hidden: vec![33, 17], ..seed.recipe.clone() };
        let shared_z = Recipe { shared_z: true, ..seed.recipe.clone() };
        for plan in [Plan { recipe: other, ..seed.clone() }, Plan { recipe: shared_z, ..seed.clone() }, seed, tuned] {
            let plan = Plan { batch: 16, epochs: 2, ..plan };
            // Both epochs from a state, or until a step and what is left of its round.
            let train = |form: Form, slots: usize, from: TrainState, until: u64| {
                let mut training = Training::with_form(&plan, &data, &runtime, from, form, slots).unwrap();
                let mut metrics = vec![];
                let mut flow = ControlFlow::Continue(());
                while flow.is_continue() {
                    let mut step = |step: &Step| {
                        metrics.push(step.metrics);
                        if step.step >= until { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    };
                    flow = training.epoch(&mut step).unwrap();
                }
                (metrics, training.state().unwrap())
            };
            let start = initial_state(&plan, data.images.view());
            let (metrics, state) = train(Form::Tensors, 1, start.clone(), 14);
            assert_eq!(metrics.len(), 14, "six whole batches and a smaller one, twice");
            let (metrics_of_vectors, state_of_vectors) = train(Form::Vectors, 3, start.clone(), 14);
            let near = |a: f32, b: f32| (a - b).abs() <= 2e-5 * (1.0 + a.abs());
            for (a, b) in metrics.concat().iter().zip(metrics_of_vectors.concat()) {
                assert!(near(*a, b), "{}: {a} and {b}", plan.recipe.name);
            }
            assert_eq!(state.step, state_of_vectors.step);
            for ((spec, a), b) in state_specs(&plan.recipe).iter().zip(&state.tensors).zip(&state_of_vectors.tensors) {
                let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(a.len() == b.len() && apart <= 2e-4, "{}: {}: {apart} apart", plan.recipe.name, spec.name);
            }
            // A run that goes on after a round, and in rounds of another length, is the same to the bit.
            let (_, stopped) = train(Form::Vectors, 3, start, 8);
            assert_eq!(stopped.step, 10, "the second epoch's first round");
            assert!(train(Form::Vectors, 2, stopped, 14).1 == state_of_vectors);
        }
    }

    #[test]
    fn what_onnx_runtime_says_of_cuda_is_told_in_plain_words() {
        let failed = |words: &str| {
            format!(
                "Non-zero status code returned while running Gemm node. Name:'n' Status Message: {words} ; GPU=0 ; hostname=h"
            )
        };
        let load = |what: &str| {
            format!(
                "bridge.cc:2195 Get [ONNXRuntimeError] : 1 : FAIL : Failed to load library /a/libp.so with error: {what}"
            )
        };
        let cases = [
            (failed("CUDA failure 2: out of memory"), "out of GPU memory; a smaller --batch"),
            (failed("CUDA failure 35: CUDA driver version is insufficient"), "driver 580 or newer"),
            (failed("CUDA failure 46: all CUDA-capable devices are busy or unavailable"), "another process has it"),
            (failed("CUDA failure 100: no CUDA-capable device is detected"), "no GPU found"),
            (failed("CUDA failure 209: no kernel image is available"), "no code for"),
            (failed("CUDA failure 803: system has unsupported driver combination"), "restart the machine"),
            (failed("CUDA failure 700: an illegal address"), "the GPU failed or went away (700: an illegal address)"),
            (failed("CUDA failure 719: unspecified launch failure"), "(719: unspecified launch failure)"),
            (failed("CUDA failure 999: unknown error"), "(999: unknown error)"),
            (failed("CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED"), "(13: CUBLAS_STATUS_EXECUTION_FAILED)"),
            (failed("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"), "out of memory; a smaller --batch"),
            ("bfc_arena.cc:359 Failed to allocate memory for requested buffer of size 64".into(), "out of memory"),
            ("Available memory of 8 is smaller than requested bytes of 64".into(), "out of memory"),
            (load("libcublas.so.13: cannot open shared object file: No such file"), "libcublas.so.13, which"),
            (load("libcurand.so.10: cannot open shared object file: No such file"), "run `trainer setup --cuda`"),
            (load("libcuda.so.1: cannot open shared object file: No such file"), "no NVIDIA driver found"),
            (
                "Error loading \"p.dll\" which depends on \"nvcuda.dll\" which is missing. (126)".into(),
                "no NVIDIA driver",
            ),
            ("CUDA execution provider is not enabled in this build.".into(), "is built without CUDA; where"),
            ("x.cc:7 [ONNXRuntimeError] : 1 : FAIL : odd\n#2 stack".into(), "odd"),
        ];
        for (text, expected) in cases {
            let words = explain(anyhow!(text.clone())).to_string();
            assert!(words.contains(expected) && !words.contains(['\n', '[']), "{text}: {words}");
        }
        assert_eq!(
            explain(anyhow!("no such file").context("--data")).to_string(),
            "--data",
            "an error of another kind"
        );
    }

    /// One step of the seed recipe on noise: all outputs.
    fn step(runtime: &OnnxRuntime, model: &[u8]) -> Result<Vec<Vec<f32>>> {
        let mut session = runtime.session_of(model, false)?;
        let mut binding = session.create_binding()?;
        let mut inputs = vec![];
        for input in session.inputs() {
            let shape = input.dtype().tensor_shape().context("a tensor")?;
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            let (n, name) = (shape.iter().product(), input.name());
            let noise: Vec<f32> = (0..n).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5).collect();
            let tensor = match name {
                "images" => {
                    let pixels: Vec<u8> = noise.iter().map(|x| (x * 255.0 + 128.0) as u8).collect();
                    runtime.upload(&shape, &pixels)?.upcast()
                }
                "pick" => runtime.upload(&shape, &(0..n as i64).collect::<Vec<_>>())?.upcast(),
                "step_size" | "epsilon" => runtime.upload(&shape, &[1e-3f32])?.upcast(),
                _ if name.starts_with("keep.") => {
                    let keep: Vec<u8> = noise.iter().map(|&x| u8::from(x > -0.3)).collect();
                    runtime.upload(&shape, &keep)?.upcast()
                }
                _ if name.starts_with("v.") => {
                    runtime.upload(&shape, &noise.iter().map(|x| x * x).collect::<Vec<_>>())?.upcast()
                }
                _ => runtime.upload(&shape, &noise)?.upcast(),
            };
            inputs.push((name.to_string(), tensor));
        }
        inputs.iter().try_for_each(|(name, tensor)| binding.bind_input(name, tensor))?;
        let names: Vec<String> = session.outputs().iter().map(|o| o.name().to_string()).collect();
        let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        names.iter().try_for_each(|name| binding.bind_output_to_device(name, &host))?;
        let outputs = session.run_binding(&binding)?;
        names.iter().map(|name| Ok(outputs[name.as_str()].try_extract_tensor::<f32>()?.1.to_vec())).collect()
    }

    #[test]
    fn our_kernels_give_the_bits_of_the_functions_that_the_file_carries() {
        let runtime = OnnxRuntime::open(Some(Device::Cpu), 1, false, &mut |_| ()).unwrap();
        let bare = OnnxRuntime { kernels: false, ..runtime.clone() };
        let graph = StepGraph::new(&Recipe::seed(), 64, 100, false, Form::Tensors);
        let whole = graph.model.encode_to_vec();
        // Without its functions the file can only be run by the kernels.
        let mut without = graph.model.clone();
        assert_eq!(without.functions.drain(..).map(|f| f.name).collect::<Vec<_>>(), [adam::OPERATOR, gan::SLOPES]);
        let without = without.encode_to_vec();
        assert!(step(&bare, &without).is_err());
        let bits = |outputs: Vec<Vec<f32>>| outputs.concat().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let kernels = bits(step(&runtime, &without).unwrap());
        assert!(kernels.iter().all(|&x| f32::from_bits(x).is_finite()));
        assert!(kernels == bits(step(&bare, &whole).unwrap()), "kernels and functions differ");
        assert!(kernels == bits(step(&runtime, &whole).unwrap()), "a file with both gives a third result");
    }
}
