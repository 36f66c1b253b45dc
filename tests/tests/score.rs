//! The judge and its score, against ONNX Runtime and NumPy.

use std::fs;
use std::path::Path;
use std::process::Command;

use ndarray::{Array1, Array2, ArrayView2, s};
use sha2::{Digest, Sha256};
use tests::{mnist, peers_python, run};
use trainer::config::Engine;
use trainer::data::Dataset;
use trainer::ort::OnnxRuntime;
use trainer::score::Score;
use trainer::score::frechet::Gaussian;
use trainer::score::judge::{FEATURES, Judge};

const SEEDS: u64 = 10_000;

#[test]
fn the_judge_tells_digits_and_its_scores_are_numpys() {
    let Some(mnist) = mnist() else { return };
    let data = Dataset::open(&mnist).unwrap();
    let runtime = OnnxRuntime::open(&Engine::cpu(2), &mut |_| ()).unwrap();
    let mut judge = Judge::shipped(&runtime).unwrap();
    let accuracy = judge.accuracy(data.test_images.view(), data.test_labels.view()).unwrap();
    println!("the judge tells {:.2} % of the test images", 100.0 * accuracy);
    assert!(accuracy >= 0.985, "{accuracy}");

    let labels: Array1<u8> = (0..SEEDS).map(|seed| runtime::Digit::of(seed).value()).collect();
    let [drawn, int8] = [runtime::generate, runtime::int8::generate]
        .map(|draw| (0..SEEDS).flat_map(|seed| draw(seed).0).collect::<Vec<u8>>())
        .map(|pixels| Array2::from_shape_vec((SEEDS as usize, 784), pixels).unwrap());
    let seed_recipe = trainer::sample::draw(&runtime, include_bytes!("../../models/seed.onnx"), false, 0).unwrap().0;
    let mut measure = |images: ArrayView2<u8>, labels| Score::measure(&mut judge, &data, images, labels).unwrap();
    let (shipped, floor) =
        (measure(drawn.view(), Some(labels.view())), measure(data.images.slice(s![..drawn.nrows(), ..]), None));
    let (int8, seed_recipe) = (measure(int8.view(), Some(labels.view())), measure(seed_recipe.view(), None));
    for (name, score) in [("shipped", &shipped), ("int8", &int8), ("seed recipe", &seed_recipe), ("training", &floor)] {
        println!("{name}: {}", serde_json::to_string(score).unwrap());
    }
    assert!(floor.frechet_distance > 0.0 && shipped.frechet_distance < 2.0 * floor.frechet_distance);
    assert!(seed_recipe.frechet_distance > 70.0 * shipped.frechet_distance);
    assert!(shipped.recall >= 0.75 && shipped.coverage >= 0.75 && shipped.digit_accuracy.unwrap() >= 0.98);
    assert!(shipped.histogram.iter().all(|share| (0.08..0.12).contains(share)) && shipped.duplicates == 0);
    // A generator that copies is found out: training images are their own nearest.
    assert!(shipped.copies <= 10 && floor.copies == 1000 && floor.nearest == 0.0);
    assert!(int8.frechet_distance <= shipped.frechet_distance + 0.15);
    assert!(int8.digit_accuracy.unwrap() >= shipped.digit_accuracy.unwrap() - 0.003);

    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: Vec<u8>| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut check = Command::new(python);
    check.arg(tests.join("peers/check_score.py")).arg(tests.join("../models/judge.onnx"));
    check.arg(file("drawn", drawn.into_iter().collect())).arg(file("real", data.test_images.into_iter().collect()));
    check
        .arg(file("labels", data.test_labels.to_vec()))
        .args([accuracy.to_string(), serde_json::to_string(&shipped).unwrap()]);
    let (output, stderr) = run(&mut check);
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn the_model_card_pins_each_file_by_its_hash() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let card = fs::read_to_string(models.join("README.md")).unwrap();
    for name in ["g.onnx", "seed.onnx", "judge.onnx"] {
        let digest = Sha256::digest(fs::read(models.join(name)).unwrap());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(card.contains(&hex), "{name} is not the file of the card: its sha256 is {hex}");
    }
}

#[test]
fn equal_gaussians_are_at_distance_zero_and_one_image_is_none() {
    let features = Array2::from_shape_fn((200, FEATURES), |(i, j)| ((i * FEATURES + j) * 7919 % 1009) as f64 / 100.0);
    let gaussian = Gaussian::fit(features.view()).unwrap();
    assert!(gaussian.frechet_distance(&gaussian).abs() < 1e-3, "{}", gaussian.frechet_distance(&gaussian));
    let one = Gaussian::fit(features.slice(s![..1, ..])).err().unwrap();
    assert_eq!(one.to_string(), "at least 2 images expected, 1 found");
}
