//! ONNX Runtime. The only file that says `ort`.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use ort::environment::Environment;
use ort::ep;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput, OperatorOutput};
use ort::session::builder::SessionBuilder;
use ort::session::{IoBinding, Session};
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor, TensorElementType};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::adam;
use crate::gan::{self, LATENT, PIXELS, Recipe, Spec, StepGraph, sampler, state_specs};
use crate::graph::Graph;
use crate::mnist::Dataset;
use crate::onnx;
use crate::onnxruntime;

/// Where a session runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    Cpu,
    Cuda,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Device::Cpu => "cpu",
            Device::Cuda => "cuda",
        })
    }
}

/// ONNX Runtime, loaded into this process, and the device and threads that its sessions use.
#[derive(Clone)]
pub struct OnnxRuntime {
    environment: Environment,
    pub device: Device,
    pub threads: usize,
    /// The shared library, and how it was found.
    pub library: String,
    /// Whether our kernels take the places of our operators' functions, on the CPU.
    kernels: bool,
}

impl OnnxRuntime {
    /// Loads ONNX Runtime (see [`onnxruntime::locate`]) and settles the device: the one asked for, or, with `None`,
    /// CUDA where it works and else the CPU.
    ///
    /// # Errors
    /// When no library can be had, or CUDA was asked for and does not work: the sentence says what is missing.
    pub fn open(device: Option<Device>, threads: usize, offline: bool, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let (environment, library) = load(device == Some(Device::Cuda), offline, say)?;
        let mut runtime = Self { environment, device: Device::Cuda, threads, library, kernels: true };
        match device {
            Some(Device::Cpu) => runtime.device = Device::Cpu,
            Some(Device::Cuda) => runtime.probe().map_err(|why| {
                let (why, library) = (brief(&why), &runtime.library);
                anyhow!(
                    "--device cuda: an ONNX Runtime with CUDA, a GPU, its driver and the CUDA libraries expected; with \
                     {library}: {why}"
                )
            })?,
            None => {
                if let Err(why) = runtime.probe() {
                    runtime.device = Device::Cpu;
                    say(&format!("device cpu (no CUDA: {})", brief(&why)));
                } else {
                    say("device cuda");
                }
            }
        }
        Ok(runtime)
    }

    /// Runs a model of f32 inputs once, see [`Loaded::run`].
    pub fn run(&self, model: &onnx::Model, inputs: &[(&str, &[usize], &[f32])]) -> Result<Vec<Vec<f32>>> {
        self.load(&model.encode_to_vec())?.run(inputs)
    }

    /// A session for the bytes of an ONNX file.
    pub fn load(&self, model: &[u8]) -> Result<Loaded> {
        Ok(Loaded(self.session_of(model)?))
    }

    /// A model of f32 inputs, filled with ones, to run again and again.
    pub fn timed(&self, model: &onnx::Model) -> Result<Timed> {
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
        Ok(Timed { session, binding })
    }

    fn session(&self, model: &onnx::Model) -> Result<Session> {
        self.session_of(&model.encode_to_vec())
    }

    fn session_of(&self, model: &[u8]) -> Result<Session> {
        // The builder's errors carry the builder; their text is all that is wanted.
        let plain = |error: ort::Error<SessionBuilder>| anyhow!("{error}");
        let mut builder = Session::builder(&self.environment)?.with_intra_threads(self.threads).map_err(plain)?;
        if self.device == Device::Cpu && self.kernels {
            let ours = OperatorDomain::new(onnx::DOMAIN)?.add(FusedAdam)?.add(FusedSlopes)?;
            builder = builder.with_operators(ours).map_err(plain)?;
        }
        if self.device == Device::Cuda {
            // TF32 would round every product to 10 bits; a registration that fails must say so, not fall back.
            let cuda = ep::CUDA::default().with_tf32(false).build().error_on_failure();
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
    fn upload<T>(&self, shape: &[usize], data: &[T]) -> Result<DynTensor>
    where
        T: PrimitiveTensorElementType + fmt::Debug + Copy + 'static,
    {
        let mut tensor = Tensor::<T>::new(&Allocator::default(), shape)?;
        tensor.extract_tensor_mut().1.copy_from_slice(data);
        Ok(match self.device {
            Device::Cpu => tensor.upcast(),
            Device::Cuda => tensor.to(AllocationDevice::CUDA, 0)?.upcast(),
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
        adam::kernel(
            [theta?.1, m?.1, v?.1, grad?.1],
            [a?, b?, c?, d?, e?],
            [
                next_theta.try_extract_tensor_mut()?.1,
                next_m.try_extract_tensor_mut()?.1,
                next_v.try_extract_tensor_mut()?.1,
            ],
        );
        Ok(())
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
        let absent = || ort::Error::new("LeakyReluDropoutSlope: a tensor is missing");
        let input = |i| ctx.input(i)?.ok_or_else(absent);
        let (x, keep, low, high) = (input(0)?, input(1)?, input(2)?, input(3)?);
        let (shape, x) = x.try_extract_tensor()?;
        let mut s = ctx.output(0, shape.to_vec())?.ok_or_else(absent)?;
        let [low, high] = [low.try_extract_tensor()?.1[0], high.try_extract_tensor()?.1[0]];
        gan::slopes(x, keep.try_extract_tensor()?.1, low, high, s.try_extract_tensor_mut()?.1);
        Ok(())
    }
}

/// ONNX Runtime's words without its source line and what follows the first line.
fn brief(why: &anyhow::Error) -> String {
    let why = format!("{why:#}");
    let line = why.lines().next().unwrap_or_default();
    line.rsplit(" : FAIL : ").next().unwrap_or_default().to_string()
}

/// The one environment that ONNX Runtime allows a process, and its library.
static LOADED: Mutex<Option<(Environment, String)>> = Mutex::new(None);

/// Tries the candidates in their order; what was wrong with each is told when none loads. Later calls get the library of
/// the first that succeeded.
fn load(cuda: bool, offline: bool, say: &mut dyn FnMut(&str)) -> Result<(Environment, String)> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = &*loaded {
        return Ok(loaded.clone());
    }
    let mut refused = vec![];
    for candidate in onnxruntime::locate(cuda, offline, say) {
        let candidate = match candidate {
            Ok(candidate) => candidate,
            Err(why) if refused.is_empty() => return Err(why),
            Err(why) => bail!("{why:#} (what was found does not load: {})", refused.join("; ")),
        };
        match ort::init_from(&candidate.path) {
            Ok(builder) => {
                let environment = builder.with_name("trainer").with_telemetry(false).build()?;
                let library = format!("{} ({})", candidate.path.display(), candidate.source);
                return Ok(loaded.insert((environment, library)).clone());
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

/// A model that is run only for the time it takes.
pub struct Timed {
    session: Session,
    binding: IoBinding,
}

impl Timed {
    /// Seconds that one run takes.
    pub fn run(&mut self) -> Result<f64> {
        let start = Instant::now();
        self.session.run_binding(&self.binding)?;
        Ok(start.elapsed().as_secs_f64())
    }
}

/// All of training that outlives a step, on the host. Whatever is not in it does not survive a run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainState {
    /// Those of [`state_specs`] but the step, in their order.
    pub tensors: Vec<Vec<f32>>,
    /// Steps taken.
    pub step: u64,
    /// Sums of the metrics over the steps of the epoch so far.
    pub sums: [f64; StepGraph::METRICS.len()],
}

/// The numbers of [`StepGraph::METRICS`].
pub type Metrics = [f32; StepGraph::METRICS.len()];

/// A training loop's hold on ONNX Runtime: the data set and two sets of state tensors on the device, and for each step
/// graph a session with its two bindings, from the first set to the second and back. Nothing is allocated per step,
/// and no parameter is copied.
pub struct Stepper {
    runtime: OnnxRuntime,
    programs: Vec<Program>,
    sampler: Sampler,
    state: [Vec<DynTensor>; 2],
    /// The set that holds the newest state.
    live: usize,
}

/// A step graph's session, and the host's side of its bindings.
struct Program {
    session: Session,
    bindings: [IoBinding; 2],
    pick: Tensor<i64>,
    z: Tensor<f32>,
    keep: Tensor<u8>,
    metrics: Tensor<f32>,
}

/// The generator in evaluation mode on a fixed z, reading the parameters where the step graphs leave them.
struct Sampler {
    session: Session,
    bindings: [IoBinding; 2],
    image: Tensor<f32>,
}

/// The host's buffers that a step reads, see [`StepGraph::new`].
pub struct Feed<'a> {
    pub pick: &'a mut [i64],
    pub z: &'a mut [f32],
    pub keep: &'a mut [u8],
}

impl Stepper {
    /// Sessions for `graphs` of one recipe, which share the state and the data set, and one that draws `z` (n, 100) with
    /// the generator as it stands.
    pub fn new(
        runtime: &OnnxRuntime,
        recipe: &Recipe,
        graphs: &[StepGraph],
        state: &TrainState,
        data: &Dataset,
        z: &[f32],
    ) -> Result<Self> {
        let specs = state_specs(recipe);
        let images = runtime.upload(&[data.len(), PIXELS], &data.images)?;
        let labels = recipe.conditional.then(|| runtime.upload(&[data.len()], &data.labels)).transpose()?;
        let mut sets = [Vec::new(), Vec::new()];
        for set in &mut sets {
            for (spec, data) in specs.iter().zip(&state.tensors) {
                set.push(runtime.upload(&spec.shape, data)?);
            }
            set.push(runtime.upload(&[], &[state.step as i64])?);
        }
        let data = (&images, labels.as_ref());
        let programs =
            graphs.iter().map(|graph| Program::new(runtime, graph, data, &specs, &mut sets)).collect::<Result<_>>()?;
        let sampler = Sampler::new(runtime, z, recipe, &sets)?;
        Ok(Self { runtime: runtime.clone(), programs, sampler, state: sets, live: 0 })
    }

    /// What the next [`Self::step`] of this graph will read.
    pub fn feed(&mut self, graph: usize) -> Feed<'_> {
        let Program { pick, z, keep, .. } = &mut self.programs[graph];
        Feed { pick: pick.extract_tensor_mut().1, z: z.extract_tensor_mut().1, keep: keep.extract_tensor_mut().1 }
    }

    /// One training step.
    pub fn step(&mut self, graph: usize) -> Result<Metrics> {
        let program = &mut self.programs[graph];
        program.session.run_binding(&program.bindings[self.live])?;
        self.live = 1 - self.live;
        let metrics = program.metrics.extract_tensor().1;
        Ok(metrics.try_into().expect("the shape that was bound"))
    }

    /// The images (n, 784), in [-1, 1], of the z given to [`Self::new`].
    pub fn sample(&mut self) -> Result<&[f32]> {
        self.sampler.session.run_binding(&self.sampler.bindings[self.live])?;
        Ok(self.sampler.image.extract_tensor().1)
    }

    /// The newest state, copied to the host; `sums` are the caller's.
    pub fn state(&self, sums: [f64; StepGraph::METRICS.len()]) -> Result<TrainState> {
        let (step, tensors) = self.state[self.live].split_last().expect("the step is last");
        let tensors = tensors.iter().map(|t| self.download(t)).collect::<Result<_>>()?;
        Ok(TrainState { tensors, step: self.download::<i64>(step)?[0] as u64, sums })
    }

    fn download<T: PrimitiveTensorElementType + Copy>(&self, tensor: &DynTensor) -> Result<Vec<T>> {
        Ok(match self.runtime.device {
            Device::Cpu => tensor.try_extract_tensor::<T>()?.1.to_vec(),
            Device::Cuda => tensor.to(AllocationDevice::CPU, 0)?.try_extract_tensor::<T>()?.1.to_vec(),
        })
    }
}

impl Program {
    fn new(
        runtime: &OnnxRuntime,
        graph: &StepGraph,
        (images, labels): (&DynTensor, Option<&DynTensor>),
        specs: &[Spec],
        sets: &mut [Vec<DynTensor>; 2],
    ) -> Result<Self> {
        let session = runtime.session(&graph.model)?;
        let host = Allocator::default();
        let pick = Tensor::<i64>::new(&host, [graph.batch])?;
        let z = Tensor::<f32>::new(&host, [graph.z_rows, LATENT])?;
        let keep = Tensor::<u8>::new(&host, [graph.keep_len])?;
        let mut metrics = Tensor::<f32>::new(&host, [1, StepGraph::METRICS.len()])?;
        let mut bind = |from: usize| -> Result<IoBinding> {
            let mut binding = session.create_binding()?;
            binding.bind_input("images", images)?;
            labels.map_or(Ok(()), |labels| binding.bind_input("labels", labels))?;
            binding.bind_input("pick", &pick)?;
            binding.bind_input("z", &z)?;
            if graph.keep_len > 0 {
                binding.bind_input("keep", &keep)?;
            }
            binding.bind_output("metrics", &mut metrics)?;
            for (i, spec) in specs.iter().enumerate() {
                binding.bind_input(&spec.name, &sets[from][i])?;
                binding.bind_output(format!("next.{}", spec.name), &mut sets[1 - from][i])?;
            }
            Ok(binding)
        };
        let bindings = [bind(0)?, bind(1)?];
        Ok(Self { session, bindings, pick, z, keep, metrics })
    }
}

impl Sampler {
    fn new(runtime: &OnnxRuntime, z: &[f32], recipe: &Recipe, sets: &[Vec<DynTensor>; 2]) -> Result<Self> {
        let n = z.len() / LATENT;
        let session = runtime.session(&sampler(n))?;
        let latents = runtime.upload(&[n, LATENT], z)?;
        let mut image = Tensor::<f32>::new(&Allocator::default(), [n, PIXELS])?;
        let mut bind = |set: &[DynTensor]| -> Result<IoBinding> {
            let mut binding = session.create_binding()?;
            binding.bind_input("z", &latents)?;
            binding.bind_output("image", &mut image)?;
            for (spec, tensor) in state_specs(recipe).iter().zip(set) {
                match spec.name.strip_prefix(recipe.best()) {
                    Some(name) if name.starts_with("g.") => binding.bind_input(name, tensor)?,
                    _ => {}
                }
            }
            Ok(binding)
        };
        let bindings = [bind(&sets[0])?, bind(&sets[1])?];
        Ok(Self { session, bindings, image })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gan::StepGraph;

    /// One step of the seed recipe on noise: all outputs.
    fn step(runtime: &OnnxRuntime, model: &[u8]) -> Result<Vec<Vec<f32>>> {
        let mut session = runtime.session_of(model)?;
        let mut binding = session.create_binding()?;
        let mut inputs = vec![];
        for input in session.inputs() {
            let shape = input.dtype().tensor_shape().context("a tensor")?;
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            let (n, name) = (shape.iter().product(), input.name());
            let noise: Vec<f32> = (0..n).map(|i| (i * 7919 % 1009) as f32 / 1009.0 - 0.5).collect();
            let tensor = match name {
                "images" => {
                    runtime.upload(&shape, &noise.iter().map(|x| (x * 255.0 + 128.0) as u8).collect::<Vec<_>>())?
                }
                "keep" => runtime.upload(&shape, &noise.iter().map(|&x| u8::from(x > -0.3)).collect::<Vec<_>>())?,
                "pick" => runtime.upload(&shape, &(0..n as i64).collect::<Vec<_>>())?,
                "step" => runtime.upload(&shape, &[41i64])?,
                _ if name.starts_with("v.") => {
                    runtime.upload(&shape, &noise.iter().map(|x| x * x).collect::<Vec<_>>())?
                }
                _ => runtime.upload(&shape, &noise)?,
            };
            inputs.push((name.to_string(), tensor));
        }
        inputs.iter().try_for_each(|(name, tensor)| binding.bind_input(name, tensor))?;
        let names: Vec<String> = session.outputs().iter().map(|o| o.name().to_string()).collect();
        let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        names.iter().try_for_each(|name| binding.bind_output_to_device(name, &host))?;
        let outputs = session.run_binding(&binding)?;
        (names.iter().filter(|name| *name != "next.step"))
            .map(|name| Ok(outputs[name.as_str()].try_extract_tensor::<f32>()?.1.to_vec()))
            .collect()
    }

    #[test]
    fn our_kernels_give_the_bits_of_the_functions_that_the_file_carries() {
        let runtime = OnnxRuntime::open(Some(Device::Cpu), 1, false, &mut |_| ()).unwrap();
        let bare = OnnxRuntime { kernels: false, ..runtime.clone() };
        let graph = StepGraph::new(&Recipe::seed(), 64, 100, 1, false);
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
