//! Training steps on a GPU, in blocks of up to 32 steps that the host only launches.
//!
//! Memory, all of it on the GPU at fixed addresses:
//!
//! ```text
//! data set: images as D sees them, labels       uploaded once
//! staging: the inputs of a block, packed         one copy from the host
//! prepared: the same as the steps read it        written by `prepare`, for all steps of the block
//! state copies 0 and 1                           a step reads one and writes the other
//! logits                                         written by the steps, for all steps of the block
//! metrics (32, 4)                                written by `metrics`; one copy to the host
//! ```
//!
//! Order of work for block k of n steps:
//!
//! ```text
//! copy host buffer → staging              only if block k − 1 has not done so
//! run prepare, and wait                   staging is free from here on
//! launch steps 0 … n − 2, no waiting      meanwhile another thread writes block k + 1 into the host buffer
//! copy host buffer → staging              block k + 1, while the GPU works
//! launch step n − 1, and wait
//! run metrics, copy metrics → host
//! ```
//!
//! One launch per step: the first run of a step is captured as a CUDA graph, which later runs replay. A captured graph
//! has fixed addresses, so each place in the block has two: one from state copy 0 to 1 and one back.
//!
//! Why 32 steps: between blocks the GPU waits for the host, so a long block is better. But every place in the block
//! costs two graphs to capture and memory for its inputs: 34 MB for 32 steps of the seed recipe, more for wider
//! networks and larger batches. So a block has at most 2048 images.

use std::thread;

use anyhow::{Context, Result};
use ndarray::{Array1, Array2, ArrayView2};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::{DynTensor, Tensor};
use prost::Message;

use crate::config::{Plan, Recipe};
use crate::data::Dataset;
use crate::gan::block;
use crate::gan::inputs::StepKind;
use crate::gan::layout::{PackedTensor, ParamLayout};
use crate::graph::onnx::Type;
use crate::ort::bind::{InputNames, part_of};
use crate::ort::stepper::{BatchBuffers, Sampler, StateBuffers, Stepper, on_host};
use crate::ort::{Bound, OnnxRuntime};
use crate::pixel::d_views;
use crate::state::{METRICS, Metrics, Spec, TrainState};

/// Takes blocks of steps with one vector per network. Runs on the CPU as well, slowly, to be tested there.
pub struct GpuStepper {
    // Sessions and bindings before the tensors that they point into.
    programs: Vec<Program>,
    blocks: Vec<BlockPrograms>,
    sampler: Sampler,
    state: StateBuffers,
    inputs: BatchBuffers,
    staging: DeviceStaging,
    /// (steps, 4), where `metrics` leaves the metrics of a block.
    metrics: DynTensor,
    result: Vec<Metrics>,
}

/// The session of a step graph.
struct Program {
    kind: StepKind,
    session: Session,
    /// Two for each place in the block: from the first copy of the state to the second, and back.
    bindings: Vec<IoBinding>,
}

/// `prepare` and `metrics` of blocks of one batch size, and the tensors between them and the steps.
struct BlockPrograms {
    // Bindings before the tensors that they point into.
    prepare: Bound,
    metrics: Bound,
    batch: usize,
    steps: usize,
    /// The tensors of [`block::prepared`] that have parts.
    prepared: Vec<(PackedTensor, DynTensor)>,
    /// The tensors of [`block::logits`].
    logits: Vec<(PackedTensor, DynTensor)>,
}

/// The inputs of a block on the device.
struct DeviceStaging {
    bytes: Tensor<u8>,
    /// Whether they are already those of the next block.
    is_filled: bool,
    /// Run options for each binding of a program: without and with waiting for the result. They name the CUDA graph
    /// that was captured in the binding's first run.
    options: Vec<[RunOptions; 2]>,
}

impl GpuStepper {
    /// A stepper for the steps of a plan.
    ///
    /// # Errors
    /// When ONNX Runtime fails.
    pub fn new(runtime: &OnnxRuntime, plan: &Plan, state: &TrainState, data: &Dataset) -> Result<Self> {
        let batch = plan.batch.min(data.n());
        let block_len = (2048 / batch).clamp(1, 32).min(data.n() / batch);
        Self::with_block_len(runtime, plan, state, data, block_len)
    }

    /// [`Self::new`] for blocks of up to `block_len` steps.
    pub(crate) fn with_block_len(
        runtime: &OnnxRuntime,
        plan: &Plan,
        state: &TrainState,
        data: &Dataset,
        block_len: usize,
    ) -> Result<Self> {
        let (recipe, kinds) = (&plan.recipe, StepKind::all(plan, data.n()));
        let mut state = StateBuffers::upload(runtime, recipe, ParamLayout::Flat, state)?;
        let inputs = BatchBuffers::new(recipe, &kinds, block_len)?;
        let staging = DeviceStaging::new(runtime, &inputs, block_len)?;
        let images = runtime.upload_filled(data.images.shape(), |images| {
            let levels = d_views(recipe.d_spread);
            images.iter_mut().zip(&data.images).for_each(|(x, &level)| *x = levels[usize::from(level)]);
        })?;
        let labels = recipe.one_hot().map(|_| runtime.upload(data.labels.view())).transpose()?;
        let metrics = runtime.upload(Array2::<f32>::zeros((block_len, METRICS.len())).view())?.upcast();
        let mut blocks = vec![];
        for layout in &inputs.layouts {
            let data_set = (&images, labels.as_ref());
            let (batch, steps) = (layout.batch, layout.steps);
            blocks.push(BlockPrograms::new(runtime, recipe, batch, steps, data_set, &staging, layout.start, &metrics)?);
        }
        let mut programs = vec![];
        for kind in kinds {
            let session = runtime.session_of(&block::step_graph(recipe, kind).encode_to_vec(), true)?;
            let names = InputNames::of(&session);
            let block = blocks.iter().find(|block| block.batch == kind.batch).expect("made for each batch size");
            let mut bind = |index: usize, from: usize| -> Result<IoBinding> {
                let mut binding = session.create_binding()?;
                state.bind_step(&names, &mut binding, from)?;
                block.bind_step(&names, &mut binding, index)?;
                Ok(binding)
            };
            let bindings = (0..2 * block.steps).map(|i| bind(i / 2, i % 2)).collect::<Result<_>>()?;
            programs.push(Program { kind, session, bindings });
        }
        let sampler = Sampler::new(runtime, plan, &state)?;
        Ok(Self { programs, blocks, sampler, state, inputs, staging, metrics, result: vec![] })
    }
}

impl Stepper for GpuStepper {
    fn block_len(&self) -> usize {
        self.inputs.layouts[0].steps
    }

    fn inputs(&mut self) -> &mut BatchBuffers {
        self.staging.is_filled = false;
        &mut self.inputs
    }

    fn run(
        &mut self,
        steps: &[StepKind],
        prepare_next: &mut (dyn FnMut(&mut BatchBuffers) -> bool + Send),
    ) -> Result<&[Metrics]> {
        let Self { programs, blocks, state, inputs, staging, .. } = self;
        let batch = steps[0].batch;
        assert!(steps.iter().all(|kind| kind.batch == batch), "a block of two batch sizes");
        let block = blocks.iter_mut().find(|block| block.batch == batch).expect("a batch size of the plan");
        if !std::mem::take(&mut staging.is_filled) {
            inputs.bytes.copy_into(&mut staging.bytes)?;
        }
        block.prepare.run()?;
        let mut launch = |staging: &DeviceStaging, index: usize| -> Result<()> {
            let program = programs.iter_mut().find(|program| program.kind == steps[index]).expect("a kind of the plan");
            // Another session has another stream: it and the host need the result before they go on.
            let waits = steps.get(index + 1) != Some(&steps[index]);
            let binding = 2 * index + state.live;
            let options = &staging.options[binding][usize::from(waits)];
            program.session.run_binding_with_options(&program.bindings[binding], options)?;
            state.live = 1 - state.live;
            Ok(())
        };
        let before_last = (steps.len() - 1).max(1);
        let mut is_next = false;
        thread::scope(|scope| {
            let prepare = thread::Builder::new().spawn_scoped(scope, || is_next = prepare_next(inputs));
            prepare.context("a thread cannot be started")?;
            (0..before_last).try_for_each(|index| launch(staging, index))
        })?;
        if is_next {
            inputs.bytes.copy_into(&mut staging.bytes)?;
            staging.is_filled = true;
        }
        (before_last..steps.len()).try_for_each(|index| launch(staging, index))?;
        block.metrics.run()?;
        let Self { metrics, result, .. } = self;
        on_host(metrics, |metrics| {
            let (rows, _) = metrics.as_chunks();
            result.clear();
            result.extend_from_slice(&rows[..steps.len()]);
        })?;
        Ok(result)
    }

    fn sample(&mut self) -> Result<ArrayView2<'_, f32>> {
        self.sampler.run(self.state.live)
    }

    fn tensors(&self) -> Result<Vec<Vec<f32>>> {
        self.state.read()
    }
}

impl Drop for GpuStepper {
    /// After a GPU failure, dropping the captured graphs would hit the same error again and abort the process before
    /// the error is reported. They are leaked instead.
    fn drop(&mut self) {
        if on_host(&self.metrics, |_| ()).is_err() {
            std::mem::forget(std::mem::take(&mut self.programs));
        }
    }
}

impl DeviceStaging {
    fn new(runtime: &OnnxRuntime, inputs: &BatchBuffers, block_len: usize) -> Result<Self> {
        let options = |graph: usize, waits: bool| -> Result<RunOptions> {
            let mut options = RunOptions::new()?;
            options.set("gpu_graph_id", graph.to_string())?;
            if !waits {
                options.disable_device_sync()?;
            }
            Ok(options)
        };
        let len = inputs.bytes.shape().num_elements();
        Ok(Self {
            bytes: runtime.upload(Array1::zeros(len).view())?,
            is_filled: false,
            // From 1: graph 0 is that of runs that name none.
            options: (1..=2 * block_len).map(|i| Ok([options(i, false)?, options(i, true)?])).collect::<Result<_>>()?,
        })
    }
}

impl BlockPrograms {
    /// Reads the data set and the staged inputs, whose parts begin at the bytes `start`, and leaves the metrics in
    /// `metrics`.
    #[allow(clippy::too_many_arguments)]
    fn new(
        runtime: &OnnxRuntime,
        recipe: &Recipe,
        batch: usize,
        steps: usize,
        (images, labels): (&Tensor<f32>, Option<&Tensor<u8>>),
        staging: &DeviceStaging,
        start: [usize; 4],
        metrics: &DynTensor,
    ) -> Result<Self> {
        let on_device = |tensor: PackedTensor| -> Result<(PackedTensor, DynTensor)> {
            let memory = runtime.upload_filled::<f32>(&tensor.whole.shape, |tensor| tensor.fill(0.0))?.upcast();
            Ok((tensor, memory))
        };
        let prepared = block::prepared(recipe, batch, steps).into_iter().filter(|tensor| !tensor.parts.is_empty());
        let mut prepared: Vec<_> = prepared.map(on_device).collect::<Result<_>>()?;
        let logits: Vec<_> = block::logits(recipe, batch, steps).into_iter().map(on_device).collect::<Result<_>>()?;

        let session = runtime.session(&block::prepare(recipe, batch, images.shape()[0] as usize, steps))?;
        let mut binding = session.create_binding()?;
        binding.bind_input("images", images)?;
        labels.map_or(Ok(()), |labels| binding.bind_input("labels", labels))?;
        let names = InputNames::of(&session);
        for (spec, at) in block::host_tensors(recipe, batch, steps).into_iter().zip(start) {
            names.bind_parts(&mut binding, &staging.bytes, at, &[spec], "")?;
        }
        for (tensor, memory) in &mut prepared {
            binding.bind_output(tensor.whole.name.as_str(), memory)?;
        }
        let prepare = Bound { session, binding };

        let session = runtime.session(&block::metrics(recipe, batch, steps))?;
        let mut binding = session.create_binding()?;
        for (tensor, memory) in &logits {
            binding.bind_input(tensor.whole.name.as_str(), memory)?;
        }
        let spec = Spec::new("metrics", Type::F32, &[steps, METRICS.len()]);
        binding.bind_output("metrics", &mut part_of(metrics, 0, &spec)?)?;
        Ok(Self { prepare, metrics: Bound { session, binding }, batch, steps, prepared, logits })
    }

    /// Binds what step `index` of the block reads and writes beside the state.
    fn bind_step(&self, names: &InputNames, binding: &mut IoBinding, index: usize) -> Result<()> {
        let at = |tensor: &PackedTensor| index * tensor.whole.bytes() / self.steps;
        for (tensor, memory) in &self.prepared {
            names.bind_parts(binding, memory, at(tensor), &tensor.parts, "")?;
        }
        for (tensor, memory) in &self.logits {
            let part = &tensor.parts[0];
            binding.bind_output(part.name.as_str(), &mut part_of(memory, at(tensor), part)?)?;
        }
        Ok(())
    }
}
