//! ONNX Runtime: the only part of the crate that uses the `ort` crate.
//!
//! - this file: [`OnnxRuntime`], the handle that makes sessions
//! - [`library`], `unpacked`, `environment`: find ONNX Runtime, check the copy in the cache, load the library
//! - `kernels`, `errors`, `bind`: operators in Rust, error texts, tensors bound to sessions
//! - `foreign`: models of unknown origin
//! - [`stepper`]: the interface of a training step's engine; [`cpu`] and [`gpu`] implement it

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use ndarray::{ArrayD, ArrayView, ArrayViewD, ArrayViewMut, Dimension, arr2, aview2};
use ort::environment::Environment;
use ort::ep;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::operator::OperatorDomain;
use ort::session::builder::SessionBuilder;
use ort::session::{IoBinding, RunOptions, Session, SessionInputValue};
use ort::value::{PrimitiveTensorElementType, Tensor, TensorRef};
use prost::Message;

mod bind;
pub mod cpu;
mod environment;
pub(crate) mod errors;
mod foreign;
pub mod gpu;
mod kernels;
pub mod library;
pub mod stepper;
mod unpacked;

use crate::config::{Device, DeviceSettings, Engine, UsageError};
use crate::graph::{Graph, onnx};
use crate::ort::environment::{load, preload};
use crate::ort::errors::user_message;
use crate::ort::kernels::OPERATORS;

/// Largest number of CPU threads to ask for.
const MOST_THREADS: usize = 1024;
/// More threads would get single rows of a training step's products. ONNX Runtime adds the sums of a single row in another order,
/// so the weights would depend on the number of threads.
const MOST_THREADS_OF_A_SESSION: usize = 64;

/// ONNX Runtime, loaded into this process, with the device and the threads of its sessions.
#[derive(Clone)]
pub struct OnnxRuntime {
    environment: Environment,
    /// The device that runs sessions, and its settings.
    pub settings: DeviceSettings,
    /// Path of the shared library, and how it was found.
    pub library: String,
    /// Whether the CPU provider gets the Rust kernels of this project's operators.
    kernels: bool,
}

impl OnnxRuntime {
    /// Loads ONNX Runtime (see [`library::locate`]) with the settings of a run. The default device is CUDA if it works
    /// here, else the CPU; the default number of threads is two, or one if this process may use only one core.
    ///
    /// # Errors
    /// When no library is found, the number of threads is not 1 to 1024 or too large for this system, or the device is CUDA and
    /// does not work. The sentence says what is missing.
    pub fn open(engine: &Engine, say: &mut dyn FnMut(&str)) -> Result<Self> {
        let Engine { device, tf32, offline, .. } = *engine;
        let threads = engine.threads.unwrap_or_else(|| cores().min(2));
        let expected = format!("1 to {MOST_THREADS}");
        UsageError::unless((1..=MOST_THREADS).contains(&threads), "threads", &expected, threads)?;
        check_threads(threads)?;
        let (environment, found) = load(device != Some(Device::Cpu), offline, say)?;
        let library = format!("{} ({})", found.path.display(), found.source);
        let settings = DeviceSettings { device: Device::Cuda, threads, tf32 };
        let mut runtime = Self { environment, settings, library, kernels: true };
        let probe = || {
            // Before 1.31, ONNX Runtime may overwrite host memory that a captured graph copies from before it is
            // replayed.
            let version = ort::util::probe(&found.path).unwrap_or(0);
            ensure!(
                version >= 31 || !library::has_cuda(&found.path),
                "ONNX Runtime 1.31 or newer expected, 1.{version} found; run `trainer setup --cuda`"
            );
            // A library that `preload` does not find matters only if the probe fails too: the provider searches by
            // itself.
            let preloaded = preload(&found.path);
            runtime.probe().map_err(|why| preloaded.err().unwrap_or_else(|| user_message(why)))
        };
        match device {
            Some(Device::Cpu) => runtime.settings.device = Device::Cpu,
            Some(Device::Cuda) => {
                probe().map_err(|why| anyhow!("--device cuda: {why:#}; tried with {}", runtime.library))?
            }
            None => {
                if let Err(why) = probe() {
                    runtime.settings.device = Device::Cpu;
                    say(&format!("device cpu (no CUDA: {why:#})"));
                } else {
                    say("device cuda");
                }
            }
        }
        Ok(runtime)
    }

    /// A CPU copy of this handle, for models that would need cuDNN on CUDA. Uses all cores if training runs on CUDA.
    pub fn on_cpu(&self) -> Self {
        let threads = match self.settings.device {
            Device::Cpu => self.settings.threads,
            Device::Cuda => cores(),
        };
        let settings = DeviceSettings { device: Device::Cpu, threads, ..self.settings };
        Self { settings, ..self.clone() }
    }

    /// A CPU copy of this handle with one thread, for results that must not depend on the device and the number of threads.
    pub fn on_one_thread(&self) -> Self {
        let settings = DeviceSettings { device: Device::Cpu, threads: 1, ..self.settings };
        Self { settings, ..self.clone() }
    }

    /// Loads a model and runs it once, see [`Loaded::run`].
    ///
    /// # Errors
    /// When ONNX Runtime does not accept the model or its inputs.
    pub fn run(&self, model: &onnx::Model, inputs: &[(&str, ArrayViewD<f32>)]) -> Result<Vec<ArrayD<f32>>> {
        self.load(&model.encode_to_vec())?.run(inputs)
    }

    /// The model of an ONNX file's bytes, ready to run.
    ///
    /// # Errors
    /// When ONNX Runtime does not accept the model.
    pub fn load(&self, model: &[u8]) -> Result<Loaded> {
        Ok(Loaded { session: self.session_of(model, false)?, options: Arc::new(RunOptions::new()?) })
    }

    /// A model whose inputs are f32 tensors of ones, to time its runs.
    ///
    /// # Errors
    /// When ONNX Runtime does not accept the model.
    pub fn bound(&self, model: &onnx::Model) -> Result<Bound> {
        let session = self.session(model)?;
        let mut binding = session.create_binding()?;
        for input in session.inputs() {
            let shape = input.dtype().tensor_shape().context("a tensor")?;
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            binding.bind_input(input.name(), &self.upload_filled::<f32>(&shape, |tensor| tensor.fill(1.0))?)?;
        }
        let device = match self.settings.device {
            Device::Cpu => AllocationDevice::CPU,
            Device::Cuda => AllocationDevice::CUDA,
        };
        let memory = MemoryInfo::new(device, 0, AllocatorType::Device, MemoryType::Default)?;
        for output in session.outputs() {
            binding.bind_output_to_device(output.name(), &memory)?;
        }
        Ok(Bound { session, binding })
    }

    fn session(&self, model: &onnx::Model) -> Result<Session> {
        self.session_of(&model.encode_to_vec(), false)
    }

    /// A session for the bytes of an ONNX file. With `captured`, CUDA captures the first run of each binding as a CUDA
    /// graph, and later runs replay it.
    fn session_of(&self, model: &[u8], captured: bool) -> Result<Session> {
        // ONNX Runtime registers a domain of operators without a lock: two sessions at once fail now and then.
        static REGISTERING: Mutex<()> = Mutex::new(());
        let _guard = self.has_kernels().then(|| REGISTERING.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(self.builder(captured)?.commit_from_memory(model)?)
    }

    /// Whether sessions get this project's operators.
    fn has_kernels(&self) -> bool {
        self.settings.device == Device::Cpu && self.kernels
    }

    fn builder(&self, captured: bool) -> Result<SessionBuilder> {
        let threads = self.settings.threads.min(MOST_THREADS_OF_A_SESSION);
        let mut builder = Session::builder(&self.environment)?.with_intra_threads(threads).map_err(plain)?;
        // Idle threads would spin for a while, on the cores of another session: steps with and without R1 have a session each.
        builder = builder.with_config_entry("session.force_spinning_stop", "1").map_err(plain)?;
        if self.has_kernels() {
            let ours = OPERATORS.into_iter().try_fold(OperatorDomain::new(onnx::DOMAIN)?, OperatorDomain::add)?;
            builder = builder.with_operators(ours).map_err(plain)?;
        }
        if self.settings.device == Device::Cuda {
            // Without `error_on_failure`, a failed registration falls back to the CPU silently.
            let cuda =
                ep::CUDA::default().with_tf32(self.settings.tf32).with_cuda_graph(captured).build().error_on_failure();
            builder =
                builder.with_execution_providers([cuda]).map_err(plain)?.with_disable_cpu_fallback().map_err(plain)?;
        }
        Ok(builder)
    }

    /// Runs a small matrix product on the device. Nothing less proves that the device works.
    ///
    /// # Errors
    /// When the device does not compute 3 · 3 = 9.
    fn probe(&self) -> Result<()> {
        let mut g = Graph::default();
        let x = g.input("x", onnx::Type::F32, &[1, 1]);
        let y = g.gemm(x, x, None, false, false);
        let model = g.to_model("probe", &[(y, "y".into())], None);
        let y = self.run(&model, &[("x", aview2(&[[3.0]]).into_dyn())])?;
        ensure!(y == [arr2(&[[9.0]]).into_dyn()], "3 · 3 gave {y:?}");
        Ok(())
    }

    /// A copy of an array on the device.
    fn upload<T, D>(&self, array: ArrayView<T, D>) -> Result<Tensor<T>>
    where
        T: PrimitiveTensorElementType + fmt::Debug + Copy + 'static,
        D: Dimension,
    {
        self.upload_filled(array.shape(), |tensor| {
            ArrayViewMut::from_shape(array.raw_dim(), tensor).expect("the same shape").assign(&array);
        })
    }

    /// A tensor of this shape on the device, with the row-major values that `fill` writes.
    fn upload_filled<T>(&self, shape: &[usize], fill: impl FnOnce(&mut [T])) -> Result<Tensor<T>>
    where
        T: PrimitiveTensorElementType + fmt::Debug + Copy + 'static,
    {
        let mut tensor = Tensor::<T>::new(&Allocator::default(), shape)?;
        fill(tensor.extract_tensor_mut().1);
        Ok(match self.settings.device {
            Device::Cpu => tensor,
            Device::Cuda => tensor.to(AllocationDevice::CUDA, 0)?,
        })
    }
}

/// A builder's error as text: the error itself contains the builder, which is not `Send`.
fn plain(error: ort::Error<SessionBuilder>) -> anyhow::Error {
    anyhow!("{error}")
}

/// Checks that the threads of a run whose sessions have `n` each can be started. ONNX Runtime waits for ever if only some of
/// the threads of a session can.
fn check_threads(n: usize) -> Result<()> {
    const SESSIONS: usize = 8; // at most seven are open at once, and the trainer has threads of its own
    let gate = Mutex::new(());
    let started = thread::scope(|scope| {
        let _closed = gate.lock(); // all threads are there before the first ends
        let start = |_| thread::Builder::new().spawn_scoped(scope, || drop(gate.lock())).map(drop);
        (0..n * SESSIONS).try_for_each(start)
    });
    started.with_context(|| format!("--threads: {n} expected for each of {SESSIONS} models, too few can be started"))
}

/// Number of cores that this process may use.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get())
}

/// A model with f32 inputs and outputs, which runs on data of the host.
pub struct Loaded {
    session: Session,
    /// Lets another thread stop a run.
    options: Arc<RunOptions>,
}

impl Loaded {
    /// The model's outputs, in its order, for named inputs, which must be row-major.
    ///
    /// # Errors
    /// When ONNX Runtime does not accept the inputs.
    pub fn run(&mut self, inputs: &[(&str, ArrayViewD<f32>)]) -> Result<Vec<ArrayD<f32>>> {
        let mut views: Vec<(&str, SessionInputValue)> = vec![];
        for (name, array) in inputs {
            views.push((name, TensorRef::from_array_view(array.view())?.into()));
        }
        let outputs = self.session.run_with_options(views, &*self.options)?;
        outputs.values().map(|output| Ok(output.try_extract_array()?.into_owned())).collect()
    }
}

/// A model with its inputs and outputs bound to tensors.
pub struct Bound {
    session: Session,
    binding: IoBinding,
}

impl Bound {
    /// Runs the model and waits for the result.
    ///
    /// # Errors
    /// When ONNX Runtime fails.
    pub fn run(&mut self) -> Result<()> {
        self.session.run_binding(&self.binding)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2};

    use super::*;
    use crate::config::{PIXELS, Recipe};
    use crate::gan::adam;
    use crate::gan::convolution::{PATCHES_OPERATOR, SUM_PATCHES_OPERATOR};
    use crate::gan::dropout::SLOPES_OPERATOR;
    use crate::gan::inputs::StepKind;
    use crate::gan::pixels::{REAL_OPERATOR, TANH_GRADIENT_OPERATOR, fake_images, real_images};
    use crate::gan::step::step_graph;

    /// All outputs of a step on noise.
    fn step(runtime: &OnnxRuntime, model: &[u8]) -> Result<Vec<Vec<f32>>> {
        let mut session = runtime.session_of(model, false)?;
        let mut binding = session.create_binding()?;
        let mut inputs = vec![];
        for input in session.inputs() {
            let shape = input.dtype().tensor_shape().context("a tensor")?;
            let shape: Vec<usize> = shape.iter().map(|&n| n as usize).collect();
            let (n, name) = (shape.iter().product(), input.name());
            let noise = Array1::from_iter((0..n).map(|i: usize| (i * 7919 % 1009) as f32 / 1009.0 - 0.5));
            let noise = noise.into_shape_with_order(shape)?;
            let tensor = match name {
                "images" => runtime.upload(noise.mapv(|x| (x * 255.0 + 128.0) as u8).view())?.upcast(),
                "indices" => runtime.upload(Array1::from_iter(0..n as i64).view())?.upcast(),
                "labels" => runtime.upload(Array1::from_iter((0..n).map(|i: usize| (i % 10) as u8)).view())?.upcast(),
                "step_size" | "epsilon" => runtime.upload(noise.mapv(|_| 1e-3f32).view())?.upcast(),
                _ if name.starts_with("dropout_mask.") => {
                    runtime.upload(noise.mapv(|x| u8::from(x > -0.3)).view())?.upcast()
                }
                _ if name.starts_with("v.") => runtime.upload(noise.mapv(|x| x * x).view())?.upcast(),
                _ => runtime.upload(noise.view())?.upcast(),
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
    fn the_rust_kernels_give_the_bits_of_the_functions_in_the_file() {
        let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
        let bare = OnnxRuntime { kernels: false, ..runtime.clone() };
        let recipe = Recipe { d_conv: vec![4, 6], ..Recipe::seed() };
        let mut graph = step_graph(&recipe, StepKind { batch: 64, with_r1: false }, 100);
        let whole = graph.encode_to_vec();
        // Without its functions only the kernels can run the file.
        let ours = [
            adam::OPERATOR,
            SLOPES_OPERATOR,
            PATCHES_OPERATOR,
            REAL_OPERATOR,
            SUM_PATCHES_OPERATOR,
            TANH_GRADIENT_OPERATOR,
        ];
        assert_eq!(graph.functions.drain(..).map(|f| f.name).collect::<Vec<_>>(), ours);
        let without = graph.encode_to_vec();
        assert!(step(&bare, &without).is_err());
        let bits = |outputs: Vec<Vec<f32>>| outputs.concat().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let kernels = bits(step(&runtime, &without).unwrap());
        assert!(kernels.iter().all(|&x| f32::from_bits(x).is_finite()));
        assert!(kernels == bits(step(&bare, &whole).unwrap()), "kernels and functions differ");
        assert!(kernels == bits(step(&runtime, &whole).unwrap()), "a file with both gives a third result");
    }

    #[test]
    fn a_step_gives_the_same_bits_on_any_number_of_threads() {
        let with_threads = |threads| OnnxRuntime::open(&Engine::cpu(threads), &mut |_| ()).unwrap();
        let one = with_threads(1);
        let others = [2, 3, 4].map(with_threads);
        let (seed, tuned, best) = (Recipe::seed(), Recipe::tuned(), Recipe::best());
        // More maps than rows: a product whose bits would depend on the threads.
        let many_maps = Recipe { d_conv: vec![32, 160], ..Recipe::tuned() };
        for (recipe, batch, with_r1) in [
            (&seed, 64, false),
            (&seed, 50, false),
            (&tuned, 128, true),
            (&tuned, 96, false),
            (&best, 96, true),
            (&many_maps, 2, true),
        ] {
            let model = step_graph(recipe, StepKind { batch, with_r1 }, 200).encode_to_vec();
            let expected = step(&one, &model).unwrap();
            assert!(expected.iter().flatten().all(|x| x.is_finite()));
            for other in &others {
                let same = step(other, &model).unwrap() == expected;
                assert!(same, "{}, batch {batch}, {} threads", recipe.name, other.settings.threads);
            }
        }
    }

    #[test]
    fn d_sees_a_grey_level_alike_in_reals_and_fakes() {
        let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
        let levels = Array2::from_shape_fn((1, PIXELS), |(_, i)| (i % 256) as f32);
        // What tanh takes to these levels. Black and white come from any number below or above.
        let before_tanh = levels.mapv(|level| match level {
            0.0 => -5.0,
            255.0 => 9.0,
            level => (level / 127.5 - 1.0).atanh(),
        });
        for spread in [0.3, 0.5, 1.0] {
            let recipe = Recipe { d_spread: spread, ..Recipe::best() };
            let g = &mut Graph::default();
            let images = g.input("levels", onnx::Type::F32, &[1, PIXELS]);
            let images = g.cast(images, onnx::Type::U8);
            let index = g.scalar(0.0);
            let index = g.reshape(index, &[1]);
            let index = g.cast(index, onnx::Type::I64);
            let real = real_images(g, &recipe, images, index);
            let x = g.input("before_tanh", onnx::Type::F32, &[1, PIXELS]);
            let fake = fake_images(g, &recipe, x);
            let sum = g.sum(fake, &[0, 1], false);
            let gradient = g.grad(sum, &[x])[0];
            let outputs = [(real, "real".into()), (fake, "fake".into()), (gradient, "gradient".into())];
            let inputs = [("levels", levels.view().into_dyn()), ("before_tanh", before_tanh.view().into_dyn())];
            let outputs = runtime.run(&g.to_model("seen", &outputs, None), &inputs).unwrap();
            let [real, fake, gradient] = &outputs[..] else { unreachable!() };
            for (((&level, real), fake), &gradient) in levels.iter().zip(real).zip(fake).zip(gradient) {
                assert!(
                    (real - fake).abs() < 1e-4 * spread as f32 + 2e-4,
                    "{spread}, level {level}: {real} and {fake}"
                );
                let least = spread as f32 / 3.2;
                let expected = if (1.0..255.0).contains(&level) { gradient > least } else { gradient.abs() < 1e-3 };
                assert!(expected, "{spread}, level {level}: slope {gradient}");
            }
        }
    }

    #[test]
    fn a_kernel_refuses_tensors_that_do_not_fit() {
        let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
        let info = |name: &String| onnx::ValueInfo { name: name.clone(), r#type: None };
        // The error of an operator with f32 inputs and u8 masks, all 1, of these lengths.
        let error = |operator: &str, lens: &[(onnx::Type, usize)], outputs: usize, numbers: [f32; 2]| {
            let initializer: Vec<onnx::Tensor> = (lens.iter().enumerate())
                .map(|(i, &(elem, len))| onnx::Tensor {
                    dims: vec![len as i64],
                    data_type: elem as i32,
                    name: format!("x{i}"),
                    raw_data: match elem {
                        onnx::Type::U8 => vec![1; len],
                        _ => numbers[usize::from(i == 3)].to_le_bytes().repeat(len),
                    },
                    ..Default::default()
                })
                .collect();
            let output: Vec<String> = (0..outputs).map(|i| format!("y{i}")).collect();
            let node = onnx::Node {
                input: initializer.iter().map(|tensor| tensor.name.clone()).collect(),
                output: output.clone(),
                op_type: operator.into(),
                domain: onnx::DOMAIN.into(),
                ..Default::default()
            };
            let output = output.iter().map(info).collect();
            let graph =
                onnx::GraphProto { name: "g".into(), node: vec![node], initializer, output, ..Default::default() };
            let set = |domain: &str, version| onnx::OperatorSetId { domain: domain.into(), version };
            let opset_import = vec![set("", onnx::OPSET), set(onnx::DOMAIN, 1)];
            let model =
                onnx::Model { ir_version: onnx::IR_VERSION, graph: Some(graph), opset_import, ..Default::default() };
            runtime.run(&model, &[]).map(|_| ()).map_err(|error| error.to_string())
        };
        let f32s = |lens: [usize; 9]| lens.map(|len| (onnx::Type::F32, len));
        let adam = |lens| error(adam::OPERATOR, &f32s(lens), 3, [1.0; 2]);
        adam([4, 4, 4, 4, 1, 1, 1, 1, 1]).unwrap();
        for at in 0..9 {
            let mut lens = [4, 4, 4, 4, 1, 1, 1, 1, 1];
            lens[at] = 2;
            let expected =
                if at < 4 { "Adam: four tensors of shape" } else { "one number expected, a tensor of shape [2]" };
            let error = adam(lens).unwrap_err();
            assert!(error.contains(expected), "{at}: {error}");
        }
        let slopes = |lens: [usize; 4], numbers| {
            use onnx::Type::{F32, U8};
            let lens: Vec<_> = [F32, U8, F32, F32].into_iter().zip(lens).collect();
            error(SLOPES_OPERATOR, &lens, 1, numbers)
        };
        let gradient = |lens: [usize; 2]| {
            error(TANH_GRADIENT_OPERATOR, &f32s([lens[0], lens[1], 0, 0, 0, 0, 0, 0, 0])[..2], 1, [1.0; 2])
        };
        gradient([4, 4]).unwrap();
        assert!(gradient([4, 5]).unwrap_err().contains("two tensors of shape [4] expected, [5] found"));
        for (operator, expected) in [
            (PATCHES_OPERATOR, "images (B, H, W, I) of even H and W expected, shape [4] found"),
            (SUM_PATCHES_OPERATOR, "patches (B, H, W, 16 I) expected, shape [4] found"),
        ] {
            let error = error(operator, &f32s([4, 0, 0, 0, 0, 0, 0, 0, 0])[..1], 1, [1.0; 2]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        slopes([5, 5, 1, 1], [0.2, 1.0]).unwrap();
        assert!(slopes([5, 4, 1, 1], [0.2, 1.0]).unwrap_err().contains("a mask of shape [5] expected, [4] found"));
        assert!(slopes([5, 5, 0, 1], [0.2, 1.0]).unwrap_err().contains("one number expected"));
        assert!(slopes([5, 5, 1, 1], [1.0, 0.2]).unwrap_err().contains("a positive slope of at least 1 expected, 0.2"));
        assert!(slopes([5, 5, 1, 1], [f32::NAN, 1.0]).unwrap_err().contains("at least NaN expected"));
    }
}
