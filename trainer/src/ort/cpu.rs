//! Training steps on the CPU: a session per step graph, one step at a time.
//!
//! A step reads its inputs where the host wrote them, and the parameters where the step before left them.

use anyhow::Result;
use ndarray::ArrayView2;
use ort::memory::Allocator;
use ort::session::{IoBinding, Session};
use ort::value::Tensor;

use crate::config::Plan;
use crate::data::Dataset;
use crate::gan::inputs::StepKind;
use crate::gan::layout::ParamLayout;
use crate::gan::step::step_graph;
use crate::ort::OnnxRuntime;
use crate::ort::bind::InputNames;
use crate::ort::stepper::{BatchBuffers, Sampler, StateBuffers, Stepper};
use crate::state::{METRICS, Metrics, TrainState};

/// Takes steps with one tensor per parameter.
pub struct CpuStepper {
    // Bindings before the tensors that they point into.
    programs: Vec<Program>,
    sampler: Sampler,
    state: StateBuffers,
    inputs: BatchBuffers,
    /// (4,), where each step leaves its metrics.
    metrics: Tensor<f32>,
    result: [Metrics; 1],
}

/// The session of a step graph.
struct Program {
    kind: StepKind,
    session: Session,
    /// From the first copy of the state to the second, and back.
    bindings: [IoBinding; 2],
}

impl CpuStepper {
    /// A stepper for the steps of a plan.
    ///
    /// # Errors
    /// When ONNX Runtime fails.
    pub fn new(runtime: &OnnxRuntime, plan: &Plan, state: &TrainState, data: &Dataset) -> Result<Self> {
        let (recipe, n) = (&plan.recipe, data.n());
        let kinds = StepKind::all(plan, n);
        let mut state = StateBuffers::upload(runtime, recipe, ParamLayout::PerTensor, state)?;
        let inputs = BatchBuffers::new(recipe, &kinds, 1)?;
        let images = runtime.upload(data.images.view())?;
        let labels = recipe.one_hot().map(|_| runtime.upload(data.labels.view())).transpose()?;
        let mut metrics = Tensor::<f32>::new(&Allocator::default(), [METRICS.len()])?;
        let mut programs = vec![];
        for kind in kinds {
            let session = runtime.session(&step_graph(recipe, kind, n))?;
            let names = InputNames::of(&session);
            let layout = inputs.layout(kind.batch);
            let mut bind = |from: usize| -> Result<IoBinding> {
                let mut binding = session.create_binding()?;
                state.bind_step(&names, &mut binding, from)?;
                for (part, specs) in layout.specs.iter().enumerate() {
                    names.bind_parts(&mut binding, &inputs.bytes, layout.start[part], specs, "")?;
                }
                binding.bind_input("images", &images)?;
                labels.as_ref().map_or(Ok(()), |labels| binding.bind_input("labels", labels))?;
                binding.bind_output("metrics", &mut metrics)?;
                Ok(binding)
            };
            let bindings = [bind(0)?, bind(1)?];
            programs.push(Program { kind, session, bindings });
        }
        let sampler = Sampler::new(runtime, plan, &state)?;
        Ok(Self { programs, sampler, state, inputs, metrics, result: Default::default() })
    }
}

impl Stepper for CpuStepper {
    fn block_len(&self) -> usize {
        1
    }

    fn inputs(&mut self) -> &mut BatchBuffers {
        &mut self.inputs
    }

    fn run(
        &mut self,
        steps: &[StepKind],
        prepare_next: &mut (dyn FnMut(&mut BatchBuffers) -> bool + Send),
    ) -> Result<&[Metrics]> {
        let &[kind] = steps else { panic!("{} steps in a block of 1", steps.len()) };
        let program = self.programs.iter_mut().find(|program| program.kind == kind).expect("a kind of the plan");
        program.session.run_binding(&program.bindings[self.state.live])?;
        self.state.live = 1 - self.state.live;
        prepare_next(&mut self.inputs);
        self.result[0].copy_from_slice(self.metrics.extract_tensor().1);
        Ok(&self.result)
    }

    fn sample(&mut self) -> Result<ArrayView2<'_, f32>> {
        self.sampler.run(self.state.live)
    }

    fn tensors(&self) -> Result<Vec<Vec<f32>>> {
        self.state.read()
    }
}
