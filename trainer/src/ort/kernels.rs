//! This project's operators, registered as Rust kernels with ONNX Runtime's CPU provider.

use std::sync::{Mutex, PoisonError};

use ort::operator::{ComputeContext, Kernel, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::{TensorElementType, ValueRef};

use crate::gan::adam;
use crate::gan::dropout::{self, SLOPES_OPERATOR};

/// [`adam::kernel`] as the kernel of the operator [`adam::OPERATOR`].
pub(super) struct FusedAdam;

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
        let (theta, m, v, grad) = (theta?, m?, v?, grad?);
        let shape = theta.0.to_vec();
        for other in [m.0, v.0, grad.0] {
            require(other[..] == shape[..], || {
                format!("Adam: four tensors of shape {shape:?} expected, {other:?} found")
            })?;
        }
        let numbers = [input(4)?, input(5)?, input(6)?, input(7)?, input(8)?];
        let [a, b, c, d, e] = numbers.each_ref().map(number);
        let output = |i| ctx.output(i, shape.as_slice())?.ok_or_else(absent);
        let (mut next_theta, mut next_m, mut next_v) = (output(0)?, output(1)?, output(2)?);
        let next = [&mut next_theta, &mut next_m, &mut next_v].map(|x| x.try_extract_tensor_mut::<f32>());
        let [next_theta, next_m, next_v] = next;
        let (state, numbers) = ([theta.1, m.1, v.1, grad.1], [a?, b?, c?, d?, e?]);
        let next = [next_theta?.1, next_m?.1, next_v?.1];
        // The session's threads share large tensors in parts of 64 KiB.
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

/// [`dropout::slopes`] as the kernel of the operator [`SLOPES_OPERATOR`].
pub(super) struct FusedSlopes;

impl Operator for FusedSlopes {
    type Kernel<'attr> = Self;

    fn name(&self) -> &str {
        SLOPES_OPERATOR
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
        let absent = || ort::Error::new(format!("{SLOPES_OPERATOR}: a tensor is missing"));
        let input = |i| ctx.input(i)?.ok_or_else(absent);
        let (x, mask, negative, positive) = (input(0)?, input(1)?, input(2)?, input(3)?);
        let (shape, x) = x.try_extract_tensor()?;
        let (mask_shape, mask) = mask.try_extract_tensor()?;
        require(mask_shape == shape, || {
            format!("{SLOPES_OPERATOR}: a mask of shape {shape:?} expected, {mask_shape:?} found")
        })?;
        let (negative, positive) = (number(&negative)?, number(&positive)?);
        require(negative <= positive, || {
            format!("{SLOPES_OPERATOR}: a positive slope of at least {negative} expected, {positive} found")
        })?;
        let mut s = ctx.output(0, shape.to_vec())?.ok_or_else(absent)?;
        dropout::slopes(x, mask, negative, positive, s.try_extract_tensor_mut()?.1);
        Ok(())
    }
}

/// The only number of an input tensor.
fn number(input: &ValueRef<'_>) -> ort::Result<f32> {
    let (shape, x) = input.try_extract_tensor()?;
    require(x.len() == 1, || format!("one number expected, a tensor of shape {shape:?} found"))?;
    Ok(x[0])
}

/// An error with this sentence unless `condition` is true. A kernel must not panic: that would end the process.
fn require(condition: bool, sentence: impl FnOnce() -> String) -> ort::Result<()> {
    if condition { Ok(()) } else { Err(ort::Error::new(sentence())) }
}
