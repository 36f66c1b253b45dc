//! This project's operators, registered as Rust kernels with ONNX Runtime's CPU provider.

use std::sync::{Mutex, PoisonError};

use ort::operator::{ComputeContext, KernelContext, Operator, OperatorInput, OperatorOutput};
use ort::value::TensorElementType::{self, Float32, Int64, Uint8};
use ort::value::ValueRef;

use crate::config::PATCH_PIXELS;
use crate::gan::adam;
use crate::gan::convolution::{self, PATCHES_OPERATOR, SUM_PATCHES_OPERATOR};
use crate::gan::dropout::{self, SLOPES_OPERATOR};
use crate::gan::pixels::{self, REAL_OPERATOR, TANH_GRADIENT_OPERATOR};

/// The operators.
pub(super) const OPERATORS: [RustOperator; 6] = [
    RustOperator { name: adam::OPERATOR, inputs: &[Float32; 9], outputs: 3, compute: compute_adam },
    RustOperator {
        name: SLOPES_OPERATOR,
        inputs: &[Float32, Uint8, Float32, Float32],
        outputs: 1,
        compute: compute_slopes,
    },
    RustOperator { name: REAL_OPERATOR, inputs: &[Float32, Uint8, Int64], outputs: 1, compute: compute_real_images },
    RustOperator { name: TANH_GRADIENT_OPERATOR, inputs: &[Float32; 2], outputs: 1, compute: compute_tanh_gradient },
    RustOperator { name: PATCHES_OPERATOR, inputs: &[Float32], outputs: 1, compute: compute_patches },
    RustOperator { name: SUM_PATCHES_OPERATOR, inputs: &[Float32], outputs: 1, compute: compute_sum_of_patches },
];

/// An operator with f32 outputs.
pub(super) struct RustOperator {
    name: &'static str,
    inputs: &'static [TensorElementType],
    outputs: usize,
    compute: Compute,
}

type Compute = fn(&ComputeContext) -> ort::Result<()>;

impl Operator for RustOperator {
    type Kernel<'attr> = Compute;

    fn name(&self) -> &str {
        self.name
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        self.inputs.iter().copied().map(OperatorInput::required)
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        (0..self.outputs).map(|_| OperatorOutput::required(Float32))
    }

    fn create_kernel<'attr>(&self, _: &KernelContext<'attr>) -> ort::Result<Compute> {
        Ok(self.compute)
    }
}

/// [`adam::kernel`] as the kernel of [`adam::OPERATOR`].
fn compute_adam(ctx: &ComputeContext) -> ort::Result<()> {
    let input = |i| input(ctx, i);
    let tensors = [input(0)?, input(1)?, input(2)?, input(3)?];
    let [theta, m, v, grad] = tensors.each_ref().map(|x| x.try_extract_tensor::<f32>());
    let (theta, m, v, grad) = (theta?, m?, v?, grad?);
    let shape = theta.0.to_vec();
    for other in [m.0, v.0, grad.0] {
        require(other[..] == shape[..], || format!("Adam: four tensors of shape {shape:?} expected, {other:?} found"))?;
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

/// [`dropout::slopes`] as the kernel of [`SLOPES_OPERATOR`].
fn compute_slopes(ctx: &ComputeContext) -> ort::Result<()> {
    let (x, mask, negative, positive) = (input(ctx, 0)?, input(ctx, 1)?, input(ctx, 2)?, input(ctx, 3)?);
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

/// [`pixels::write_real_images`] as the kernel of [`REAL_OPERATOR`].
fn compute_real_images(ctx: &ComputeContext) -> ort::Result<()> {
    let (levels, images, indices) = (input(ctx, 0)?, input(ctx, 1)?, input(ctx, 2)?);
    let (levels_shape, levels) = levels.try_extract_tensor()?;
    require(levels.len() == 256, || {
        format!("{REAL_OPERATOR}: 256 grey levels expected, a tensor of shape {levels_shape:?} found")
    })?;
    let (shape, images) = images.try_extract_tensor()?;
    let (_, indices) = indices.try_extract_tensor()?;
    let &[n, width] = &shape[..] else {
        return Err(ort::Error::new(format!("{REAL_OPERATOR}: images (N, pixels) expected, shape {shape:?} found")));
    };
    if let Some(wrong) = indices.iter().find(|&i| !(0..n).contains(i)) {
        return Err(ort::Error::new(format!("{REAL_OPERATOR}: indices below {n} expected, {wrong} found")));
    }
    let mut real = ctx.output(0, vec![indices.len() as i64, width])?.ok_or_else(absent)?;
    pixels::write_real_images(levels, images, width as usize, indices, real.try_extract_tensor_mut()?.1);
    Ok(())
}

/// [`pixels::tanh_gradient`] as the kernel of [`TANH_GRADIENT_OPERATOR`].
fn compute_tanh_gradient(ctx: &ComputeContext) -> ort::Result<()> {
    let (y, dy) = (input(ctx, 0)?, input(ctx, 1)?);
    let ((shape, y), (other, dy)) = (y.try_extract_tensor()?, dy.try_extract_tensor()?);
    require(other == shape, || {
        format!("{TANH_GRADIENT_OPERATOR}: two tensors of shape {shape:?} expected, {other:?} found")
    })?;
    let mut dx = ctx.output(0, shape.to_vec())?.ok_or_else(absent)?;
    pixels::tanh_gradient(y, dy, dx.try_extract_tensor_mut()?.1);
    Ok(())
}

/// [`convolution::write_patches`] of each image as the kernel of [`PATCHES_OPERATOR`].
fn compute_patches(ctx: &ComputeContext) -> ort::Result<()> {
    let x = input(ctx, 0)?;
    let (shape, x) = x.try_extract_tensor::<f32>()?;
    let sizes = |shape: &[i64]| <[i64; 4]>::try_from(shape).ok().filter(|[_, h, w, _]| h % 2 == 0 && w % 2 == 0);
    let [b, h, w, maps] = sizes(shape).ok_or_else(|| {
        ort::Error::new(format!(
            "{PATCHES_OPERATOR}: images (B, H, W, I) of even H and W expected, shape {shape:?} found"
        ))
    })?;
    let mut y = ctx.output(0, vec![b, h / 2, w / 2, PATCH_PIXELS as i64 * maps])?.ok_or_else(absent)?;
    let image = [h, w, maps].map(|n| n as usize);
    for_each_image(ctx, b as usize, x, y.try_extract_tensor_mut()?.1, |x, y| convolution::write_patches(x, image, y))
}

/// [`convolution::write_sum_of_patches`] of each image as the kernel of [`SUM_PATCHES_OPERATOR`].
fn compute_sum_of_patches(ctx: &ComputeContext) -> ort::Result<()> {
    let x = input(ctx, 0)?;
    let (shape, x) = x.try_extract_tensor::<f32>()?;
    let sizes = |shape: &[i64]| <[i64; 4]>::try_from(shape).ok().filter(|sizes| sizes[3] % PATCH_PIXELS as i64 == 0);
    let [b, h, w, len] = sizes(shape).ok_or_else(|| {
        ort::Error::new(format!(
            "{SUM_PATCHES_OPERATOR}: patches (B, H, W, {PATCH_PIXELS} I) expected, shape {shape:?} found"
        ))
    })?;
    let image = [2 * h, 2 * w, len / PATCH_PIXELS as i64];
    let mut y = ctx.output(0, vec![b, image[0], image[1], image[2]])?.ok_or_else(absent)?;
    let image = image.map(|n| n as usize);
    let y = y.try_extract_tensor_mut()?.1;
    for_each_image(ctx, b as usize, x, y, |x, y| convolution::write_sum_of_patches(x, image, y))
}

/// Calls `compute` for each image, with its part of x and of y. The session's threads share the images.
fn for_each_image(
    ctx: &ComputeContext,
    images: usize,
    x: &[f32],
    y: &mut [f32],
    compute: impl Fn(&[f32], &mut [f32]) + Sync,
) -> ort::Result<()> {
    if y.is_empty() {
        return Ok(());
    }
    let len = x.len() / images;
    let parts: Vec<_> = y.chunks_exact_mut(y.len() / images).map(Mutex::new).collect();
    ctx.par_for(images, 0, |i| {
        compute(&x[i * len..][..len], &mut parts[i].lock().unwrap_or_else(PoisonError::into_inner));
    })
}

fn input<'ctx>(ctx: &'ctx ComputeContext, i: usize) -> ort::Result<ValueRef<'ctx>> {
    ctx.input(i)?.ok_or_else(absent)
}

fn absent() -> ort::Error {
    ort::Error::new("a tensor is missing")
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
