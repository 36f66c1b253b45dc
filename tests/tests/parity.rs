//! The training step against PyTorch's, from the same parameters, images, z and dropout masks.

use std::io::Read;

use flate2::read::GzDecoder;
use rand_mt::Mt;
use trainer::gan::{D_SIZES, G_SIZES, LATENT, Recipe, StepGraph, state_specs};
use trainer::mnist::Dataset;
use trainer::session::{Device, OnnxRuntime, Stepper, TrainState};

const B: usize = 64;

#[test]
fn the_first_steps_agree_with_pytorch() {
    let Some(mnist) = tests::mnist() else { return };
    let data = Dataset::open(&mnist).unwrap();
    let n = data.images.len() / 784;
    let golden: serde_json::Value = serde_json::from_str(include_str!("../golden/parity.json")).unwrap();
    let mut moved = vec![];
    GzDecoder::new(&include_bytes!("../golden/parity.i16.gz")[..]).read_to_end(&mut moved).unwrap();
    let mut moved = moved.chunks(2).map(|b| i16::from_le_bytes([b[0], b[1]]) as f64 * 1e-7);

    let mut torch = Torch(Mt::new(golden["seed"].as_u64().unwrap() as u32));
    let params: Vec<Vec<f32>> = [&D_SIZES, &G_SIZES].iter().flat_map(|sizes| torch.init(*sizes)).collect();
    let zeros = params.iter().chain(&params).map(|p| vec![0.0; p.len()]);
    let start =
        TrainState { tensors: params.iter().cloned().chain(zeros).collect(), step: 0, sums: Default::default() };
    let runtime = OnnxRuntime::open(Some(Device::Cpu), 1, false, &mut |_| ()).unwrap();
    let graph = StepGraph::new(&Recipe::seed(), B, n);
    let mut stepper = Stepper::new(&runtime, &[graph], &start, &data.images, &[0.0; LATENT]).unwrap();
    let order = torch.randperm(n);

    for step in 0..20 {
        let feed = stepper.feed(0);
        feed.pick.copy_from_slice(&order[step * B..][..B]);
        torch.uniform(feed.z); // z for D's update, then z for G's
        assert_eq!(feed.z.len(), 2 * B * LATENT);
        torch.masks(feed.keep);
        let [d_loss, g_loss, ..] = stepper.step(0).unwrap();
        for (name, ours) in [("d_loss", d_loss), ("g_loss", g_loss)] {
            let theirs = golden[name][step].as_f64().unwrap();
            let error = (ours as f64 - theirs).abs();
            assert!(error <= 1e-5, "step {step}, {name}: {ours} against PyTorch's {theirs}");
            assert!(step > 0 || error <= 2e-6, "step 0, {name}: {ours} against PyTorch's {theirs}");
        }
        if step == 0 {
            let after = stepper.state(Default::default()).unwrap();
            let mut worst = 0f64;
            for (spec, (before, after)) in state_specs().iter().zip(start.tensors.iter().zip(&after.tensors)).take(16) {
                let columns = *spec.shape.last().unwrap();
                let rows = spec.len() / columns;
                for i in 0..spec.len() {
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

    /// The masks of D on reals, on fakes and on G's fakes, then of G for D and for G; `keep` wants the layers of
    /// reals and fakes together.
    fn masks(&mut self, keep: &mut [u8]) {
        let mut draw = |sizes: &[usize]| -> Vec<Vec<u8>> {
            sizes[1..4].iter().map(|units| (0..B * units).map(|_| (self.rand() >= 0.2) as u8).collect()).collect()
        };
        let [real, fake, gen_, g_d, g_g] = [&D_SIZES, &D_SIZES, &D_SIZES, &G_SIZES, &G_SIZES].map(|s| draw(s));
        let both = real.into_iter().zip(fake).flat_map(|(r, f)| [r, f]);
        let all: Vec<u8> = both.chain(gen_).chain(g_d).chain(g_g).flatten().collect();
        keep.copy_from_slice(&all);
    }
}
