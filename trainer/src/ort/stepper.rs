//! The interface of the two steppers, and the buffers that both have.

use std::ops::Range;

use anyhow::Result;
use ndarray::{ArrayView2, ArrayViewMut1, ArrayViewMut2};
use ort::memory::{AllocationDevice, Allocator};
use ort::session::{IoBinding, Session};
use ort::value::{DynTensor, Tensor};

use crate::config::{LATENT, PIXELS, Plan, Recipe};
use crate::gan::inputs::{StepKind, host_inputs};
use crate::gan::layout::{PackedTensor, ParamLayout};
use crate::gan::networks::sampler;
use crate::noise::sample_latents;
use crate::ort::OnnxRuntime;
use crate::ort::bind::InputNames;
use crate::state::{Metrics, Spec, TrainState};

/// Takes training steps. Holds the training state and the data set on the device.
///
/// Steps are taken in blocks. A block's inputs are written before it, into [`Self::inputs`] or by the `prepare_next` of
/// the block before it.
pub trait Stepper {
    /// The largest number of steps in a block: 1 on a CPU, up to 32 on a GPU.
    fn block_len(&self) -> usize;

    /// Buffers for the inputs of the next block, instead of those that `prepare_next` wrote.
    fn inputs(&mut self) -> &mut BatchBuffers;

    /// Takes a block of `steps`, which have one batch size, and returns the metrics of each.
    ///
    /// `prepare_next` writes the inputs of the next block, and returns whether there is one. A GPU stepper calls it on
    /// another thread while the GPU works; a CPU stepper calls it after the step.
    ///
    /// # Errors
    /// When ONNX Runtime fails.
    fn run(
        &mut self,
        steps: &[StepKind],
        prepare_next: &mut (dyn FnMut(&mut BatchBuffers) -> bool + Send),
    ) -> Result<&[Metrics]>;

    /// The generator's images (16, 784) in [-1, 1] of [`sample_latents`], without dropout.
    ///
    /// # Errors
    /// When ONNX Runtime fails.
    fn sample(&mut self) -> Result<ArrayView2<'_, f32>>;

    /// The tensors of the training state, copied to the host; see [`TrainState::tensors`].
    ///
    /// # Errors
    /// When ONNX Runtime fails.
    fn tensors(&self) -> Result<Vec<Vec<f32>>>;
}

/// Buffers for the inputs of one step.
pub struct StepInputs<'a> {
    /// Adam's step size, Adam's ε and the EMA rate, see [`Recipe::rates`].
    pub rates: &'a mut [f32; 3],
    /// The batch (B,), as rows of the data set.
    pub indices: ArrayViewMut1<'a, i64>,
    /// z (2B, 100): first for D's update, then for G's; (B, 100) if the recipe shares z.
    pub z: ArrayViewMut2<'a, f32>,
    /// The dropout masks, one after the other: 0 drops a unit, 1 keeps it.
    pub dropout_mask: &'a mut [u8],
}

/// Buffers for the inputs of a block of steps, in host memory: the four parts of [`StepInputs`], each for all steps of the
/// block one after the other. They are packed into one tensor, which is copied to a GPU at once.
pub struct BatchBuffers {
    pub(super) bytes: Tensor<u8>,
    pub(super) layouts: Vec<BufferLayout>,
}

/// Where the parts lie for one batch size.
pub(super) struct BufferLayout {
    pub batch: usize,
    /// Steps in a block of this batch size.
    pub steps: usize,
    pub specs: [Vec<Spec>; 4],
    /// First byte of each part. It is the same for every batch size, so that bytes of an earlier block have the right
    /// type.
    pub start: [usize; 4],
    /// Bytes of each part per step.
    pub bytes: [usize; 4],
}

impl BatchBuffers {
    /// Buffers for blocks of up to `block_len` steps of the first kind's batch size, or of one step of another batch
    /// size.
    pub(super) fn new(recipe: &Recipe, kinds: &[StepKind], block_len: usize) -> Result<Self> {
        let mut layouts: Vec<BufferLayout> = vec![];
        for &StepKind { batch, .. } in kinds {
            if layouts.iter().all(|layout| layout.batch != batch) {
                let specs = host_inputs(recipe, batch);
                let bytes = specs.each_ref().map(|specs| specs.iter().map(Spec::bytes).sum());
                let steps = if layouts.is_empty() { block_len } else { 1 };
                layouts.push(BufferLayout { batch, steps, specs, start: [0; 4], bytes });
            }
        }
        let mut len = 0;
        for part in 0..4 {
            layouts.iter_mut().for_each(|layout| layout.start[part] = len);
            let longest = layouts.iter().map(|layout| layout.steps * layout.bytes[part]).max().unwrap_or(0);
            len += longest.next_multiple_of(256); // the alignment of CUDA's own allocations
        }
        let mut bytes = Tensor::<u8>::new(&Allocator::default(), [len])?;
        bytes.extract_tensor_mut().1.fill(0);
        Ok(Self { bytes, layouts })
    }

    /// The buffers of step `index` of the block, for a step of `batch` images.
    pub fn step(&mut self, index: usize, batch: usize) -> StepInputs<'_> {
        let ranges = [0, 1, 2, 3].map(|part| self.layout(batch).range(part, index));
        let parts = self.bytes.extract_tensor_mut().1.get_disjoint_mut(ranges);
        let [rates, indices, z, dropout_mask] = parts.expect("consecutive parts");
        let z: &mut [f32] = bytemuck::cast_slice_mut(z);
        StepInputs {
            rates: bytemuck::cast_slice_mut(rates).first_chunk_mut().expect("three rates"),
            indices: ArrayViewMut1::from(bytemuck::cast_slice_mut(indices)),
            z: ArrayViewMut2::from_shape((z.len() / LATENT, LATENT), z).expect("rows of z"),
            dropout_mask,
        }
    }

    pub(super) fn layout(&self, batch: usize) -> &BufferLayout {
        self.layouts.iter().find(|layout| layout.batch == batch).expect("a batch size that the stepper was made for")
    }
}

impl BufferLayout {
    /// The bytes of a part of step `index`.
    pub fn range(&self, part: usize, index: usize) -> Range<usize> {
        assert!(index < self.steps, "step {index} of a block of {}", self.steps);
        let start = self.start[part] + index * self.bytes[part];
        start..start + self.bytes[part]
    }
}

/// Two copies of the training state on the device. A step reads one and writes the other, so that no parameter is
/// copied.
pub(super) struct StateBuffers {
    pub tensors: Vec<PackedTensor>,
    pub copies: [Vec<DynTensor>; 2],
    /// Which copy holds the newest state.
    pub live: usize,
}

impl StateBuffers {
    pub fn upload(runtime: &OnnxRuntime, recipe: &Recipe, layout: ParamLayout, state: &TrainState) -> Result<Self> {
        let tensors = layout.state_tensors(recipe);
        let mut values = &state.tensors[..];
        let mut copies = [vec![], vec![]];
        for PackedTensor { whole, parts } in &tensors {
            let (these, rest) = values.split_at(parts.len());
            for copy in &mut copies {
                let fill = |tensor: &mut [f32]| tensor.copy_from_slice(&these.concat());
                copy.push(runtime.upload_filled(&whole.shape, fill)?.upcast());
            }
            values = rest;
        }
        Ok(Self { tensors, copies, live: 0 })
    }

    /// Binds copy `from` as a step's inputs and the other copy as its outputs.
    pub fn bind_step(&mut self, names: &InputNames, binding: &mut IoBinding, from: usize) -> Result<()> {
        self.bind_inputs(names, binding, from, "")?;
        for (tensor, memory) in self.tensors.iter().zip(&mut self.copies[1 - from]) {
            binding.bind_output(format!("next.{}", tensor.whole.name), memory)?;
        }
        Ok(())
    }

    /// Binds the tensors of copy `from`, and their parts, to the inputs of the same name without `prefix`.
    fn bind_inputs(&self, names: &InputNames, binding: &mut IoBinding, from: usize, prefix: &str) -> Result<()> {
        for (PackedTensor { whole, parts }, memory) in self.tensors.iter().zip(&self.copies[from]) {
            names.bind_parts(binding, memory, 0, std::slice::from_ref(whole), prefix)?;
            if parts[0] != *whole {
                names.bind_parts(binding, memory, 0, parts, prefix)?;
            }
        }
        Ok(())
    }

    /// The newest state, see [`TrainState::tensors`].
    pub fn read(&self) -> Result<Vec<Vec<f32>>> {
        let mut all = vec![];
        for (memory, tensor) in self.copies[self.live].iter().zip(&self.tensors) {
            on_host(memory, |mut values| {
                all.extend(tensor.parts.iter().map(|part| {
                    let (these, rest) = values.split_at(part.elements());
                    values = rest;
                    these.to_vec()
                }));
            })?;
        }
        Ok(all)
    }
}

/// The generator without dropout for the z of [`sample_latents`]. Reads the parameters where the steps leave them.
pub(super) struct Sampler {
    session: Session,
    /// One binding per copy of the state.
    bindings: [IoBinding; 2],
    /// (n, 784)
    image: Tensor<f32>,
}

impl Sampler {
    pub fn new(runtime: &OnnxRuntime, plan: &Plan, state: &StateBuffers) -> Result<Self> {
        let z = sample_latents(plan);
        let n = z.nrows();
        let session = runtime.session(&sampler(n))?;
        let names = InputNames::of(&session);
        let z = runtime.upload(z.view())?;
        let mut image = Tensor::<f32>::new(&Allocator::default(), [n, PIXELS])?;
        let mut bind = |from: usize| -> Result<IoBinding> {
            let mut binding = session.create_binding()?;
            binding.bind_input("z", &z)?;
            state.bind_inputs(&names, &mut binding, from, plan.recipe.export_prefix())?;
            binding.bind_output("image", &mut image)?;
            Ok(binding)
        };
        let bindings = [bind(0)?, bind(1)?];
        Ok(Self { session, bindings, image })
    }

    /// The images of copy `live` of the state.
    pub fn run(&mut self, live: usize) -> Result<ArrayView2<'_, f32>> {
        self.session.run_binding(&self.bindings[live])?;
        Ok(self.image.extract_array().into_dimensionality()?)
    }
}

/// Calls `read` with the values of an f32 tensor, which are copied to the host if they are on a GPU.
pub(super) fn on_host(tensor: &DynTensor, read: impl FnOnce(&[f32])) -> Result<()> {
    if tensor.memory_info().is_cpu_accessible() {
        read(tensor.try_extract_tensor()?.1);
    } else {
        read(tensor.to(AllocationDevice::CPU, 0)?.try_extract_tensor()?.1);
    }
    Ok(())
}
