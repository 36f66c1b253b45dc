//! Times the runtime and its peers in Rust, in turns: `peers MODEL INT8_MODEL [KERNEL]`. For each line on stdin it takes one
//! round of all of them, and answers with a line of `name=microseconds an image`. One thread; the peers stop at f32 images, the
//! runtime goes on to pixels. With KERNEL it also times the runtime with that kernel instead of the CPU's fastest.

use std::hint::black_box;
use std::io::{self, BufRead};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use candle_core::{Device, Tensor};
use nalgebra::{DMatrix, SMatrix, SVector};
use ort::environment::Environment;
use ort::session::{IoBinding, Session};
use runtime::{GENERATOR, Generate, Image, Kernel, Latent, int8, latent_of};
use tract_onnx::prelude::*;

/// Images of a batch.
const BATCH: usize = 256;
/// Time spent on each figure of a round.
const EACH: Duration = Duration::from_millis(40);

struct Peer {
    name: &'static str,
    images: usize,
    draw: Box<dyn FnMut()>,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("peers MODEL INT8_MODEL [KERNEL]");
    let (model, int8_model) = (argument()?, argument()?);
    let kernel = arguments.next();
    let latents: Vec<Latent> = (0..BATCH as u64).map(latent_of).collect();
    let z: Vec<f32> = latents.iter().flat_map(Latent::numbers).collect();

    let mut peers = vec![];
    let mut add = |name, images, draw: Box<dyn FnMut()>| peers.push(Peer { name, images, draw });
    add("runtime", 1, Box::new(|| touch(GENERATOR.draw(black_box(&latents_of_one())))));
    add("runtime int8", 1, Box::new(|| touch(int8::GENERATOR.draw(black_box(&latents_of_one())))));
    let (batch, mut images) = (latents.clone(), vec![Image::BLANK; BATCH]);
    add("runtime", BATCH, Box::new(move || GENERATOR.draw_batch(&mut batch.iter().copied(), black_box(&mut images))));
    let (batch, mut images) = (latents.clone(), vec![Image::BLANK; BATCH]);
    add(
        "runtime int8",
        BATCH,
        Box::new(move || int8::GENERATOR.draw_batch(&mut batch.iter().copied(), black_box(&mut images))),
    );
    if let Some(name) = kernel {
        let available = Kernel::all().map(Kernel::name).collect::<Vec<_>>().join(", ");
        let kernel = Kernel::all().find(|kernel| kernel.name() == name);
        let kernel = kernel.with_context(|| format!("kernel: one of {available} expected, {name:?} found"))?;
        let precisions: [(_, &'static dyn Generate); 2] =
            [("runtime, chosen kernel", &GENERATOR), ("runtime int8, chosen kernel", &int8::GENERATOR)];
        for (name, generator) in precisions {
            add(name, 1, Box::new(move || touch(generator.draw_with(kernel, black_box(&latents_of_one())))));
            let (batch, mut images) = (latents.clone(), vec![Image::BLANK; BATCH]);
            let draw = move || generator.draw_batch_with(kernel, &mut batch.iter().copied(), black_box(&mut images));
            add(name, BATCH, Box::new(draw));
        }
    }
    let library = std::env::var("ORT_DYLIB_PATH").context("ORT_DYLIB_PATH")?;
    let environment = ort::init_from(library)?.with_name("peers").with_telemetry(false).build()?;
    for n in [1, BATCH] {
        add("ONNX Runtime", n, onnx_runtime(&environment, &model, &z[..100 * n])?);
        add("ONNX Runtime int8", n, onnx_runtime(&environment, &int8_model, &z[..100 * n])?);
        add("tract", n, tract(&model, &z[..100 * n])?);
        add("candle", n, candle(&z[..100 * n])?);
        add("nalgebra", n, if n == 1 { nalgebra_one(&z) } else { nalgebra_batch(&z) });
    }
    for line in io::stdin().lock().lines() {
        line?;
        let figures = peers.iter_mut().map(|peer| (time(peer), &*peer));
        let round: Vec<String> = figures.map(|(us, peer)| format!("{}/{}={us}", peer.name, peer.images)).collect();
        println!("{}", round.join("\t"));
    }
    Ok(())
}

fn latents_of_one() -> Latent {
    Latent::from_numbers(&[0.5; 100])
}

fn touch(image: Image) {
    black_box(image);
}

fn time(peer: &mut Peer) -> f64 {
    (peer.draw)();
    let (start, mut calls) = (Instant::now(), 0);
    while start.elapsed() < EACH {
        (0..10).for_each(|_| (peer.draw)());
        calls += 10;
    }
    start.elapsed().as_secs_f64() * 1e6 / (calls * peer.images) as f64
}

/// Inputs and outputs bound once, as fast as it goes.
fn onnx_runtime(environment: &Environment, model: &str, z: &[f32]) -> Result<Box<dyn FnMut()>> {
    let plain = |e: ort::Error<ort::session::builder::SessionBuilder>| anyhow!("{e}");
    let builder = Session::builder(environment)?.with_intra_threads(1).map_err(plain)?;
    let mut session = builder.with_intra_op_spinning(false).map_err(plain)?.commit_from_file(model)?;
    let mut binding: IoBinding = session.create_binding()?;
    let n = z.len() / 100;
    let input = ort::value::Tensor::from_array(([n, 100], z.to_vec()))?;
    let output = ort::value::Tensor::<f32>::new(&ort::memory::Allocator::default(), [n, 784])?;
    binding.bind_input("z", &input)?;
    binding.bind_output("image", output)?;
    Ok(Box::new(move || {
        let _ = &input;
        drop(black_box(session.run_binding(&binding).expect("it ran before")));
    }))
}

fn tract(model: &str, z: &[f32]) -> Result<Box<dyn FnMut()>> {
    let n = z.len() / 100;
    let plan = tract_onnx::onnx()
        .model_for_path(model)?
        .with_input_fact(0, f32::fact([n, 100]).into())?
        .into_optimized()?
        .into_runnable()?;
    let z: TValue = tract_ndarray::Array2::from_shape_vec((n, 100), z.to_vec())?.into_tensor().into();
    Ok(Box::new(move || drop(black_box(plan.run(tvec!(z.clone())).expect("it ran before")))))
}

/// The layers' weights (I, O) and biases.
fn layers() -> Vec<(usize, usize, Vec<f32>, Vec<f32>)> {
    let mut values = GENERATOR.as_bytes().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    let sizes = [100, 32, 64, 128, 784];
    let mut take = |n| values.by_ref().take(n).collect::<Vec<f32>>();
    sizes.windows(2).map(|s| (s[0], s[1], take(s[0] * s[1]), take(s[1]))).collect()
}

fn candle(z: &[f32]) -> Result<Box<dyn FnMut()>> {
    let cpu = Device::Cpu;
    let layers: Vec<(Tensor, Tensor)> = layers()
        .into_iter()
        .map(|(i, o, w, b)| Ok((Tensor::from_vec(w, (i, o), &cpu)?, Tensor::from_vec(b, (1, o), &cpu)?)))
        .collect::<Result<_>>()?;
    let z = Tensor::from_slice(z, (z.len() / 100, 100), &cpu)?;
    let forward = move || -> Result<Tensor> {
        let mut x = z.clone();
        for (n, (w, b)) in layers.iter().enumerate() {
            let a = x.matmul(w)?.broadcast_add(b)?;
            x = if n < 3 { a.maximum(&(&a * 0.2)?)? } else { a.tanh()? };
        }
        Ok(x)
    };
    Ok(Box::new(move || drop(black_box(forward().expect("it ran before")))))
}

type Layer<const I: usize, const O: usize> = (Box<SMatrix<f32, O, I>>, SVector<f32, O>);

fn nalgebra_one(z: &[f32]) -> Box<dyn FnMut()> {
    fn layer<const I: usize, const O: usize>((_, _, w, b): &(usize, usize, Vec<f32>, Vec<f32>)) -> Layer<I, O> {
        (Box::new(SMatrix::from_column_slice(w)), SVector::from_column_slice(b))
    }
    fn leaky(a: f32) -> f32 {
        a.max(0.2 * a)
    }
    let layers = layers();
    let (w1, b1) = layer::<100, 32>(&layers[0]);
    let (w2, b2) = layer::<32, 64>(&layers[1]);
    let (w3, b3) = layer::<64, 128>(&layers[2]);
    let (w4, b4) = layer::<128, 784>(&layers[3]);
    let z = SVector::<f32, 100>::from_column_slice(&z[..100]);
    Box::new(move || {
        let h = (&*w1 * black_box(&z) + b1).map(leaky);
        let h = (&*w2 * h + b2).map(leaky);
        let h = (&*w3 * h + b3).map(leaky);
        black_box((&*w4 * h + b4).map(f32::tanh));
    })
}

fn nalgebra_batch(z: &[f32]) -> Box<dyn FnMut()> {
    let layers: Vec<(DMatrix<f32>, Vec<f32>)> =
        layers().into_iter().map(|(i, o, w, b)| (DMatrix::from_column_slice(o, i, &w), b)).collect();
    let z = DMatrix::from_column_slice(100, z.len() / 100, z);
    Box::new(move || {
        let mut x = black_box(&z).clone();
        for (n, (w, b)) in layers.iter().enumerate() {
            x = w * x;
            x.column_iter_mut().for_each(|mut column| column.iter_mut().zip(b).for_each(|(a, b)| *a += b));
            x.apply(|a| *a = if n < 3 { a.max(0.2 * *a) } else { a.tanh() });
        }
        black_box(x);
    })
}
