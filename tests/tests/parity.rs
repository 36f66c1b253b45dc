//! The training steps against PyTorch's, from the same parameters, images, z and dropout masks.

use std::io::Read;

use flate2::read::GzDecoder;
use ndarray::{Array1, Array2, ArrayView1, s};
use rand_mt::Mt;
use trainer::config::{Engine, G_SIZES, LATENT, Plan, Recipe};
use trainer::data::Dataset;
use trainer::gan::inputs::StepKind;
use trainer::ort::OnnxRuntime;
use trainer::ort::cpu::CpuStepper;
use trainer::ort::stepper::Stepper;
use trainer::state::{TrainState, state_specs};

const B: usize = 64;

#[test]
fn the_first_steps_agree_with_pytorch() {
    let Some(mnist) = tests::mnist() else { return };
    let data = Dataset::open(&mnist).unwrap();
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/parity.json")).unwrap();
    let mut moved = vec![];
    GzDecoder::new(&include_bytes!("../golden/parity.i16.gz")[..]).read_to_end(&mut moved).unwrap();
    let mut moved = moved.chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]]) as f64 * 1e-7);

    let mut torch = Torch(Mt::new(golden["seed"].as_u64().unwrap() as u32));
    let recipe = Recipe::seed();
    let params: Vec<Vec<f32>> = [&recipe.d_sizes()[..], &G_SIZES].iter().flat_map(|sizes| torch.init(sizes)).collect();
    let zeros = params.iter().chain(&params).map(|p| vec![0.0; p.len()]);
    let start =
        TrainState { tensors: params.iter().cloned().chain(zeros).collect(), step: 0, sums: Default::default() };
    let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
    let kind = StepKind { batch: B, with_r1: false };
    let plan = Plan { recipe: recipe.clone(), batch: B, ..Plan::seed_recipe() };
    let mut stepper = CpuStepper::new(&runtime, &plan, &start, &data).unwrap();
    let order = torch.randperm(data.n());

    for step in 0..20 {
        let mut inputs = stepper.inputs().step(0, B);
        *inputs.rates = recipe.rates(step as u64, 20);
        inputs.indices.assign(&ArrayView1::from(&order[step * B..][..B]));
        assert_eq!(inputs.z.dim(), (2 * B, LATENT), "z for D's update, then z for G's");
        torch.uniform(inputs.z.as_slice_mut().unwrap());
        torch.masks(inputs.dropout_mask);
        let [d_loss, g_loss, ..] = stepper.run(&[kind], &mut |_| false).unwrap()[0];
        for (name, ours) in [("d_loss", d_loss), ("g_loss", g_loss)] {
            let theirs = golden[name][step].as_f64().unwrap();
            let error = (ours as f64 - theirs).abs();
            assert!(error <= 1e-5, "step {step}, {name}: {ours} against PyTorch's {theirs}");
            assert!(step > 0 || error <= 2e-6, "step 0, {name}: {ours} against PyTorch's {theirs}");
        }
        if step == 0 {
            let after = stepper.tensors().unwrap();
            let mut worst = 0f64;
            for (spec, (before, after)) in state_specs(&recipe).iter().zip(start.tensors.iter().zip(&after)).take(16) {
                let columns = *spec.shape.last().unwrap();
                let rows = spec.elements() / columns;
                for i in 0..spec.elements() {
                    let ours = if spec.shape.len() == 2 { i % rows * columns + i / rows } else { i }; // theirs: (O, I)
                    let theirs = before[ours] as f64 + moved.next().unwrap();
                    worst = worst.max((after[ours] as f64 - theirs).abs());
                }
            }
            assert!(moved.next().is_none());
            assert!(worst <= 2e-6, "a parameter is {worst:e} from PyTorch's after one step");
            println!("after one step no parameter is further than {worst:.1e} from PyTorch's");
        }
    }
}

/// PyTorch's random numbers on the CPU, in the order in which seed_gan.py draws them.
struct Torch(Mt);

impl Torch {
    /// torch.rand: 24 bits.
    fn rand(&mut self) -> f32 {
        (self.0.next_u32() & 0xff_ffff) as f32 * 2f32.powi(-24)
    }

    /// Weights and biases of a network as `init` draws them, (O, I), turned into our (I, O).
    fn init(&mut self, sizes: &[usize]) -> Vec<Vec<f32>> {
        let mut params = vec![];
        for (i, o) in sizes.windows(2).map(|w| (w[0], w[1])) {
            let bound = 1.0 / (i as f64).sqrt();
            let (from, range) = (-bound as f32, bound as f32 - (-bound as f32));
            let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| self.rand().mul_add(range, from)).collect() };
            let weight = draw(o * i);
            params.push((0..i * o).map(|at| weight[at % o * i + at / o]).collect());
            params.push(draw(o));
        }
        params
    }

    fn randperm(&mut self, n: usize) -> Vec<i64> {
        let mut order: Vec<i64> = (0..n as i64).collect();
        for i in 0..n - 1 {
            let j = i + self.0.next_u32() as usize % (n - i);
            order.swap(i, j);
        }
        order
    }

    /// torch.rand * 2 - 1.
    fn uniform(&mut self, out: &mut [f32]) {
        out.iter_mut().for_each(|x| *x = self.rand() * 2.0 - 1.0);
    }

    /// The masks of D on reals, on fakes and on G's fakes, then of G for D and for G. `dropout_mask` has each layer's masks of reals
    /// and fakes side by side.
    fn masks(&mut self, dropout_mask: &mut [u8]) {
        let mut draw = |sizes: &[usize]| -> Vec<Vec<u8>> {
            sizes[1..4].iter().map(|units| (0..B * units).map(|_| (self.rand() >= 0.2) as u8).collect()).collect()
        };
        let [real, fake, gen_, g_d, g_g] = {
            let d = Recipe::seed().d_sizes();
            [&d[..], &d, &d, &G_SIZES, &G_SIZES].map(&mut draw)
        };
        let both = real.into_iter().zip(fake).flat_map(|(r, f)| [r, f]);
        let all: Vec<u8> = both.chain(gen_).chain(g_d).chain(g_g).flatten().collect();
        dropout_mask.copy_from_slice(&all);
    }
}

/// R1's gradient goes through a gradient; PyTorch's double backward is in tests/golden/gradients.py.
#[test]
fn the_gradients_of_a_step_are_pytorchs() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/gradients.json")).unwrap();
    let tuned = Recipe::tuned();
    let convolutional = Recipe { d_conv: vec![8, 12], d_hidden: vec![32], ..tuned.clone() };
    gradients_are_those_of(&golden["tuned"], &tuned);
    gradients_are_those_of(&golden["convolutional"], &convolutional);
    gradients_are_those_of(&golden["spread"], &Recipe { d_spread: 0.4, ..convolutional });
}

fn gradients_are_those_of(golden: &serde_json::Value, recipe: &Recipe) {
    const B: usize = 8;
    let noise = |j: i64, n: usize| -> Vec<f32> {
        let x = (0..n as i64).map(|i| (i * 40503 + j * 9973 + (i * i % 65521) * 31) % 65536);
        x.map(|x| x as f32 / 32768.0 - 1.0).collect()
    };
    let (mut fan_in, mut made, mut tensors) = (0, [100, 200], Vec::<Vec<f32>>::new());
    let specs = state_specs(recipe);
    for spec in &specs {
        if spec.shape.len() == 2 {
            fan_in = spec.shape[0];
        }
        tensors.push(match &spec.name[..2] {
            net @ ("d." | "g.") => {
                let at = &mut made[usize::from(net == "g.")];
                *at += 1;
                noise(*at - 1, spec.elements()).iter().map(|x| x / (fan_in as f32).sqrt()).collect()
            }
            _ => vec![0.0; spec.elements()],
        });
    }
    let start = TrainState { tensors, step: 0, sums: Default::default() };
    let images = noise(1, B * 784).iter().map(|x| ((x + 1.0) * 127.0).round_ties_even() as u8).collect();
    let images = Array2::from_shape_vec((B, 784), images).unwrap();
    let data = Dataset { images, labels: (0..B as u8).collect(), ..Dataset::default() };
    let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
    let kind = StepKind { batch: B, with_r1: true };
    let plan = Plan { recipe: recipe.clone(), batch: B, ..Plan::seed_recipe() };
    let mut stepper = CpuStepper::new(&runtime, &plan, &start, &data).unwrap();
    let mut inputs = stepper.inputs().step(0, B);
    *inputs.rates = recipe.rates(0, 1000);
    inputs.indices.assign(&Array1::from_iter(0..B as i64));
    inputs.z.assign(&Array2::from_shape_vec((B, LATENT), noise(2, B * LATENT)).unwrap());
    inputs.z.slice_mut(s![.., ..10]).assign(&Array2::eye(10).slice(s![..B, ..]));
    let [d_loss, g_loss, ..] = stepper.run(&[kind], &mut |_| false).unwrap()[0];
    for (name, ours) in [("d_loss", d_loss), ("g_loss", g_loss)] {
        let theirs = golden[name].as_f64().unwrap();
        assert!((f64::from(ours) - theirs).abs() < 1e-5, "{name}: {ours} against {theirs}");
    }

    // After one step from zero, m is (1 − β₁) times the gradient.
    let after = stepper.tensors().unwrap();
    let scale = 1.0 / (1.0 - recipe.adam.beta1);
    for network in ["d", "g"] {
        let theirs = golden[format!("{network}_grad")].as_array().unwrap();
        let moments = specs.iter().zip(&after).filter(|(spec, _)| spec.name.starts_with(&format!("m.{network}.")));
        assert_eq!(moments.clone().count(), theirs.len());
        for ((spec, m), golden) in moments.zip(theirs) {
            let gradient: Vec<f64> = m.iter().map(|&m| f64::from(m) * scale).collect();
            let norm = gradient.iter().map(|x| x * x).sum::<f64>().sqrt();
            let theirs = golden["norm"].as_f64().unwrap();
            assert!((norm / theirs - 1.0).abs() < 1e-5, "{}: |gradient| {norm} against {theirs}", spec.name);
            let stride = (gradient.len() / 16).max(1);
            let some = golden["some"].as_array().unwrap();
            assert_eq!(gradient.iter().step_by(stride).take(16).count(), some.len());
            for (ours, theirs) in gradient.iter().step_by(stride).zip(some) {
                let theirs = theirs.as_f64().unwrap();
                assert!((ours - theirs).abs() < 1e-5 * norm, "{}: {ours} against {theirs}", spec.name);
            }
        }
    }
    // The moving average has gone all of the first steps' way: (1 − 1/10) towards the parameters.
    let of = |name: &str| &after[specs.iter().position(|s| s.name == name).unwrap()];
    let (average, bias) = (of("ema.g.fc4.bias"), of("g.fc4.bias"));
    assert!(average.iter().zip(bias).all(|(a, b)| (a - 0.9 * b).abs() < 1e-6));
}
