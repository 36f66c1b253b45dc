//! The judge and its score, against ONNX Runtime and NumPy.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ndarray::{Array1, Array2, ArrayView2, s};
use sha2::{Digest, Sha256};
use tests::{mnist, peers_python, run};
use trainer::config::Engine;
use trainer::data::Dataset;
use trainer::graph::foreign::ForeignModel;
use trainer::ort::OnnxRuntime;
use trainer::sample::draw_foreign;
use trainer::score::frechet::Gaussian;
use trainer::score::judge::{FEATURES, Judge};
use trainer::score::judges::SHIPPED;
use trainer::score::{self, Score, Scorer, images_of};

const SEEDS: u64 = 10_000;

#[test]
fn the_judge_tells_digits_and_its_scores_are_numpys() {
    let Some(mnist) = mnist() else { return };
    let data = Dataset::open(&mnist).unwrap();
    let runtime = OnnxRuntime::open(&Engine::cpu(2), &mut |_| ()).unwrap();
    let mut judge = Judge::load(&runtime, SHIPPED).unwrap();
    let accuracy = judge.accuracy(data.test_images.view(), data.test_labels.view()).unwrap();
    println!("the judge tells {:.2} % of the test images", 100.0 * accuracy);
    assert!(accuracy >= 0.985, "{accuracy}");

    let labels: Array1<u8> = (0..SEEDS).map(|seed| runtime::Class::of(seed, 10).unwrap().index() as u8).collect();
    let [drawn, int8] = [runtime::generate, runtime::int8::generate]
        .map(|draw| (0..SEEDS).flat_map(|seed| draw(seed).0).collect::<Vec<u8>>())
        .map(|pixels| Array2::from_shape_vec((SEEDS as usize, 784), pixels).unwrap());
    let seed_recipe = trainer::sample::draw(&runtime, include_bytes!("../../models/seed.onnx"), None, 0).unwrap().0;
    let mut measure = |images: ArrayView2<u8>, labels| Score::measure(&mut judge, &data, images, labels).unwrap();
    let (shipped, floor) =
        (measure(drawn.view(), Some(labels.view())), measure(data.images.slice(s![..drawn.nrows(), ..]), None));
    println!("shipped: {}", serde_json::to_string(&shipped).unwrap());
    println!("training: {}", serde_json::to_string(&floor).unwrap());
    let int8_accuracy = judge.accuracy(int8.view(), labels.view()).unwrap();
    let mut scorer = Scorer::new(judge, data.test_images.view()).unwrap();
    let [int8, seed_recipe] = [int8, seed_recipe].map(|images| scorer.frechet_distance(images.view()).unwrap());
    println!("Fréchet distance: int8 {int8}, seed recipe {seed_recipe}");
    assert!(floor.frechet_distance > 0.0 && shipped.frechet_distance < 2.0 * floor.frechet_distance);
    assert!(seed_recipe > 70.0 * shipped.frechet_distance);
    assert!(shipped.recall >= 0.75 && shipped.coverage >= 0.75 && shipped.class_accuracy.unwrap() >= 0.98);
    assert!(shipped.histogram.iter().all(|share| (0.08..0.12).contains(share)) && shipped.duplicates == 0);
    // A generator that copies is found out: training images are their own nearest.
    assert!(shipped.copies <= 10 && floor.copies == 1000 && floor.nearest == 0.0);
    assert!(int8 <= shipped.frechet_distance + 0.15);
    assert!(int8_accuracy >= shipped.class_accuracy.unwrap() - 0.003);

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
fn both_sides_of_a_score_have_as_many_images() {
    let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
    let mut judge = Judge::load(&runtime, SHIPPED).unwrap();
    let digits = |seeds: std::ops::Range<u64>| {
        let pixels: Vec<u8> = seeds.flat_map(|seed| runtime::generate(seed).0).collect();
        Array2::from_shape_vec((pixels.len() / 784, 784), pixels).unwrap()
    };
    let data = |train, test| Dataset { images: digits(train), test_images: digits(test), ..Dataset::default() };
    let mut measure = |data: &Dataset, drawn| Score::measure(&mut judge, data, digits(drawn).view(), None);
    let equal = measure(&data(0..500, 1000..1200), 2000..2200).unwrap();
    assert_eq!((equal.images, equal.drawn_images, equal.test_images), (200, 200, 200));
    assert!(score::warning(200).unwrap().starts_with("warning: scores compare 200 drawn images with 200 test images;"));
    assert_eq!(score::warning(10_000), None);
    let more_test = measure(&data(0..500, 1000..1700), 2000..2200).unwrap();
    assert_eq!(more_test, Score { test_images: 700, ..equal.clone() });
    let more_drawn = measure(&data(0..500, 1000..1200), 2000..2700).unwrap();
    assert_eq!(more_drawn, Score { drawn_images: 700, ..equal.clone() });
    assert!(equal.table().contains("200 of 200 drawn, 200 of 200 test images"), "{}", equal.table());

    // JSON has no number for NaN or infinity: it would write null.
    let json = serde_json::to_value(&equal).unwrap();
    let nulls: Vec<_> = json.as_object().unwrap().iter().filter(|(_, value)| value.is_null()).collect();
    assert!(matches!(nulls[..], [(name, _)] if name == "class_accuracy"), "{nulls:?}");
    let mut error = |data: &Dataset, drawn| measure(data, drawn).unwrap_err().to_string();
    let copied = error(&data(0..200, 0..200), 2000..2200);
    assert_eq!(copied, "test images other than the training images expected, most are equal to one");
    assert_eq!(error(&data(0..0, 0..200), 0..9), "training images expected for a score, none found");
    assert_eq!(error(&data(0..9, 0..0), 0..9), "more than 5 test images expected for a score, 0 found");
    assert_eq!(error(&data(0..9, 0..9), 0..5), "more than 5 drawn images expected for a score, 5 found");

    // A run's score is the same figure.
    let mut scorer = Scorer::new(judge, digits(1000..1200).view()).unwrap();
    assert_eq!(scorer.frechet_distance(digits(2000..2700).view()).unwrap(), equal.frechet_distance);
    assert!(scorer.frechet_distance(digits(0..199).view()).is_err());
}

#[test]
fn a_foreign_model_is_scored_or_refused_in_a_sentence() {
    let Some(python) = peers_python() else { return };
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("models");
    fs::create_dir(&folder).unwrap();
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let seed = tests.join("../models/seed.onnx");
    let (output, stderr) = run(Command::new(python).arg(tests.join("peers/foreign.py")).arg(&seed).arg(&folder));
    assert!(output.status.success(), "{stderr}");
    let runtime = OnnxRuntime::open(&Engine::cpu(2), &mut |_| ()).unwrap();
    let images = |path: &Path| images_of(&runtime, path, 10, 0);
    assert_eq!(images(&folder.join("good.onnx")).unwrap().0.dim(), (10_000, 784));
    assert_eq!(images(&folder.join("external_beside.onnx")).unwrap(), images(&seed).unwrap());

    let refused = [
        ("attribute", "Unrecognized attribute: bogus for operator Tanh"),
        ("domain", "node last: a standard operator expected, QuickGelu of domain com.microsoft found"),
        ("external_absolute", "tensor fc1.weight: external data in a file beside the model expected, the path /"),
        ("external_link", "external data in a file beside the model expected, link.data is none"),
        ("external_missing", "tensor fc1.weight: external data none.data: No such file"),
        ("external_parent", "external data in a file beside the model expected, the path ../above.data found"),
        ("external_truncated", "12800 bytes of external data in few.data expected, 100 found: it is truncated"),
        ("function", "no functions of the file's own expected, F found"),
        ("kernel", "node last: a standard operator expected, LeakyReluDropoutSlope of domain trainer found"),
        ("nan", "finite pixels expected, NaN or infinity found in image 0"),
        ("short", "'fc1.weight': raw_data size (12796 bytes) does not match"),
        ("surplus", "'fc1.weight': raw_data size (12804 bytes) does not match"),
        ("twice", "tensor fc1.weight: one definition expected, two found"),
    ];
    for (name, expected) in refused {
        let path = folder.join(name).with_extension("onnx");
        let error = format!("{:#}", images(&path).unwrap_err());
        assert!(error.starts_with(&format!("{}: ", path.display())) && error.contains(expected), "{name}: {error}");
    }

    let start = Instant::now();
    let endless = ForeignModel::read(&folder.join("endless.onnx")).unwrap();
    let error = draw_foreign(&runtime, endless, 0, Duration::from_secs(1)).unwrap_err();
    assert_eq!(error.to_string(), "a result within 1 seconds expected, the model still runs");
    assert!(start.elapsed() < Duration::from_secs(100));
}

#[test]
fn the_model_card_pins_each_file_by_its_hash() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let card = fs::read_to_string(models.join("README.md")).unwrap();
    assert!(card.contains(&format!("`features` (N, {FEATURES})")));
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
