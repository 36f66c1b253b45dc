//! The judge and its score, against ONNX Runtime and NumPy.

use std::fs;
use std::path::Path;
use std::process::Command;

use tests::{mnist, peers_python, run};
use trainer::judge::Judge;
use trainer::mnist::Dataset;
use trainer::score::{Gaussian, Scorer};
use trainer::session::{Device, OnnxRuntime};

#[test]
fn the_judge_tells_digits_and_its_distance_is_numpys() {
    let Some(mnist) = mnist() else { return };
    let data = Dataset::open(&mnist).unwrap();
    let runtime = OnnxRuntime::open(Some(Device::Cpu), 2, false, &mut |_| ()).unwrap();
    let mut judge = Judge::shipped(&runtime).unwrap();
    let accuracy = judge.accuracy(&data.test_images, &data.test_labels).unwrap();
    println!("the judge tells {:.2} % of the test images", 100.0 * accuracy);
    assert!(accuracy >= 0.985, "{accuracy}");

    let drawn: Vec<u8> = (0..5000).flat_map(|seed| runtime::generate(seed).0).collect();
    let train = &data.images[..drawn.len()];
    let mut scorer = Scorer::new(judge, &data.test_images).unwrap();
    let (distance, floor) = (scorer.frechet_distance(&drawn).unwrap(), scorer.frechet_distance(train).unwrap());
    println!("5,000 digits of the shipped generator: {distance:.1}; 5,000 training images: {floor:.1}");
    assert!(floor > 0.0 && distance > 10.0 * floor, "{distance} against {floor}");

    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut check = Command::new(python);
    check.arg(tests.join("peers/check_score.py")).arg(tests.join("../models/judge.onnx"));
    check.arg(file("drawn", &drawn)).arg(file("real", &data.test_images));
    check.args([distance.to_string(), accuracy.to_string()]).arg(file("labels", &data.test_labels));
    let (output, stderr) = run(&mut check);
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn equal_gaussians_are_at_distance_zero_and_one_image_is_none() {
    let features: Vec<f32> = (0..200 * 32).map(|i| (i * 7919 % 1009) as f32 / 100.0).collect();
    let gaussian = Gaussian::of(&features).unwrap();
    assert!(gaussian.frechet_distance(&gaussian).abs() < 1e-3, "{}", gaussian.frechet_distance(&gaussian));
    assert_eq!(Gaussian::of(&features[..32]).err().unwrap().to_string(), "at least 2 images expected, 1 found");
}
