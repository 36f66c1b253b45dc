//! The judge and its scores, against torch-fidelity, prdc and scikit-learn.

use std::cmp::Reverse;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate, s};
use tests::{mnist, peers_python, peers_torch, program, run, sha256};
use trainer::config::Engine;
use trainer::data::{Dataset, read_drawn};
use trainer::graph::foreign::ForeignModel;
use trainer::ort::OnnxRuntime;
use trainer::sample::draw_foreign;
use trainer::score::classifier::FEATURES;
use trainer::score::frechet::Gaussian;
use trainer::score::full::Full;
use trainer::score::judge::Judge;
use trainer::score::judges::SHIPPED;
use trainer::score::{self, Score, Scorer, images_of};

#[test]
fn the_judge_tells_digits_and_its_scores_are_those_of_torch_fidelity_and_prdc() {
    let Some(mnist) = mnist() else { return };
    let data = Dataset::open(&mnist).unwrap();
    let runtime = OnnxRuntime::open(&Engine::cpu(2), &mut |_| ()).unwrap();
    let mut judge = Judge::load(&runtime, SHIPPED).unwrap();
    let accuracy = judge.accuracy(data.test_images.view(), data.test_labels.view()).unwrap();
    println!("the judge tells {:.2} % of the test images", 100.0 * accuracy);
    assert!(accuracy >= 0.985, "{accuracy}");

    let (drawn, labels) = drawn_digits(0..10_000, runtime::generate);
    let (int8, _) = drawn_digits(0..10_000, runtime::int8::generate);
    let seed_recipe = trainer::sample::draw(&runtime, include_bytes!("../../models/seed.onnx"), None, 0).unwrap().0;
    // Most figures take the square of the number of images in time, so 3,000 images stand for 10,000.
    let part = first(&data, 20_000, 3000);
    let mut measure = |images: ArrayView2<u8>, labels| Score::measure(&mut judge, &part, images, labels).unwrap();
    let some = drawn.slice(s![..3000, ..]);
    let (shipped, floor) = (measure(some, Some(labels.view())), measure(data.images.slice(s![..3000, ..]), None));
    let shipped_json = serde_json::to_value(&shipped).unwrap();
    println!("shipped: {shipped_json}\ntraining: {}", serde_json::to_string(&floor).unwrap());
    assert!(floor.frechet_distance > 0.0 && shipped.frechet_distance < 2.0 * floor.frechet_distance);
    assert!(shipped.recall >= 0.75 && shipped.coverage >= 0.75 && shipped.class_accuracy.unwrap() >= 0.98);
    assert!(shipped.histogram.iter().all(|share| (0.08..0.12).contains(share)) && shipped.duplicates == 0);
    // A generator that copies is found out: training images are their own nearest.
    assert!(shipped.copies <= 10 && floor.copies == 1000 && floor.nearest == 0.0);
    let [f32_accuracy, int8_accuracy] =
        [&drawn, &int8].map(|images| judge.accuracy(images.view(), labels.view()).unwrap());
    assert!(int8_accuracy >= f32_accuracy - 0.003, "{int8_accuracy} and {f32_accuracy}");
    let mut scorer = Scorer::new(judge, data.test_images.view()).unwrap();
    let [f32, int8, seed_recipe] =
        [&drawn, &int8, &seed_recipe].map(|images| scorer.frechet_distance(images.view()).unwrap());
    println!("Fréchet distance: f32 {f32}, int8 {int8}, seed recipe {seed_recipe}");
    assert!(int8 <= f32 + 0.15 && seed_recipe > 65.0 * f32);

    let Some(mut check) = peers_torch() else { return };
    let folder = tempfile::tempdir().unwrap();
    write_raw(folder.path(), "real", part.test_images.view(), &data.test_labels);
    write_raw(folder.path(), "drawn", some, &labels);
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    check.arg(tests.join("peers/check_score.py")).arg(tests.join("../models/judge.onnx"));
    check.arg(folder.path()).arg(shipped_json.to_string());
    let (output, stderr) = run(&mut check);
    assert!(output.status.success(), "{stderr}");
}

/// Digits (n, 784) of these seeds and their labels (n,).
fn drawn_digits(seeds: Range<u64>, draw: impl Fn(u64) -> runtime::Image) -> (Array2<u8>, Array1<u8>) {
    let labels = seeds.clone().map(|seed| runtime::Class::of(seed, 10).unwrap().index() as u8).collect();
    let pixels: Vec<u8> = seeds.flat_map(|seed| draw(seed).0).collect();
    (Array2::from_shape_vec((pixels.len() / 784, 784), pixels).unwrap(), labels)
}

/// The first images of a data set.
fn first(data: &Dataset, training: usize, test: usize) -> Dataset {
    Dataset {
        images: data.images.slice(s![..training, ..]).to_owned(),
        labels: data.labels.slice(s![..training]).to_owned(),
        test_images: data.test_images.slice(s![..test, ..]).to_owned(),
        test_labels: data.test_labels.slice(s![..test]).to_owned(),
        classes: data.classes.clone(),
        ..Dataset::default()
    }
}

/// Writes images and a byte for the label of each to files `name` and `name.labels`.
fn write_raw(folder: &Path, name: &str, images: ArrayView2<u8>, labels: &Array1<u8>) {
    fs::write(folder.join(name), images.iter().copied().collect::<Vec<_>>()).unwrap();
    let labels: Vec<u8> = labels.iter().copied().take(images.nrows()).collect();
    fs::write(folder.join(format!("{name}.labels")), labels).unwrap();
}

#[test]
fn planted_faults_lower_the_accuracies_of_classifiers_as_those_of_scikit_learn() {
    let (Some(mnist), Some(python)) = (mnist(), peers_python()) else { return };
    let data = first(&Dataset::open(&mnist).unwrap(), 1200, 1000);
    // "Drawn" are real images, from class 9 to class 0. The last four rows of every second one are white. The labels of classes 5 to 9
    // are wrong.
    let labels = concatenate![Axis(0), data.labels, data.test_labels.slice(s![..200])];
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by_key(|&i| Reverse(labels[i]));
    let images = concatenate![Axis(0), data.images, data.test_images.slice(s![..200, ..])];
    let (mut drawn, labels) = (images.select(Axis(0), &order), labels.select(Axis(0), &order));
    drawn.slice_mut(s![..;2, 672..]).fill(255);
    let labels = labels.mapv(|label| if label < 5 { label } else { 5 + (label + 1) % 5 });
    let runtime = OnnxRuntime::open(&Engine::cpu(2), &mut |_| ()).unwrap();
    let full =
        Full::measure(&runtime, &data, drawn.view(), Some(labels.view()), 0, &|line| println!("{line}")).unwrap();
    assert_eq!((full.classifier_images, full.two_sample_images), (1200, 200));

    let folder = tempfile::tempdir().unwrap();
    write_raw(folder.path(), "train", data.images.view(), &data.labels);
    write_raw(folder.path(), "test", data.test_images.view(), &data.test_labels);
    write_raw(folder.path(), "drawn", drawn.view(), &labels);
    let mut check = Command::new(python);
    check.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/check_classifiers.py")).arg(folder.path());
    let (output, stderr) = run(check.arg(serde_json::to_string(&full).unwrap()));
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn the_figures_of_classifiers_do_not_depend_on_the_threads_and_unfit_images_are_refused() {
    let [(images, labels), (test_images, test_labels), (drawn, drawn_labels)] =
        [0..120, 1000..1030, 2000..2140].map(|seeds| drawn_digits(seeds, runtime::generate));
    let classes = (0..10).map(|class| class.to_string()).collect();
    let data = Dataset { images, labels, test_images, test_labels, classes, ..Dataset::default() };
    let said = Mutex::new(vec![]);
    let measure = |threads, seed, drawn: ArrayView2<u8>, labels: Option<&Array1<u8>>| {
        let runtime = OnnxRuntime::open(&Engine::cpu(threads), &mut |_| ()).unwrap();
        let say = |line: &str| said.lock().unwrap().push(line.to_string());
        Full::measure(&runtime, &data, drawn, labels.map(|labels| labels.view()), seed, &say)
    };
    let labelled = measure(1, 3, drawn.view(), Some(&drawn_labels)).unwrap();
    assert_eq!((labelled.classifier_images, labelled.two_sample_images), (120, 20));
    assert_eq!(measure(3, 3, drawn.view(), Some(&drawn_labels)).unwrap(), labelled);
    let losses = || {
        let mut lines = std::mem::take(&mut *said.lock().unwrap());
        lines.retain(|line| line.contains(" | loss "));
        lines.sort(); // several threads say them
        lines
    };
    let of_seed_3 = losses();
    assert!(of_seed_3.iter().any(|line| line.starts_with("classifier of drawn images: epoch  5 of 5 | loss ")));
    measure(3, 4, drawn.view(), Some(&drawn_labels)).unwrap();
    let of_seed_4 = losses();
    assert!(of_seed_4.iter().all(|line| !of_seed_3.contains(line)), "{of_seed_4:?}");

    let unlabelled = measure(2, 3, drawn.view(), None).unwrap();
    assert_eq!(unlabelled, Full { accuracy_score: None, accuracy_score_of_real: None, ..labelled });
    let expected = "the accuracy score is left out: it needs drawn images with labels of at least two classes";
    assert!(said.lock().unwrap().iter().any(|line| line == expected));
    let error = |drawn, labels| measure(1, 0, drawn, labels).unwrap_err().to_string();
    let few = drawn.slice(s![..13, ..]);
    assert_eq!(error(few, None), "--full: at least 14 drawn images expected, 13 found");
    let wrong = Array1::from_elem(140, 10);
    assert_eq!(error(drawn.view(), Some(&wrong)), "--full: labels below 10 expected, 10 found");
}

#[test]
fn both_sides_of_a_score_have_as_many_images() {
    let runtime = OnnxRuntime::open(&Engine::cpu(1), &mut |_| ()).unwrap();
    let mut judge = Judge::load(&runtime, SHIPPED).unwrap();
    let digits = |seeds| drawn_digits(seeds, runtime::generate).0;
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
fn the_labels_beside_drawn_images_are_found_where_the_runtime_writes_them() {
    let (images, labels) = drawn_digits(0..20, runtime::generate);
    for name in
        ["train-images-idx3-ubyte", "images.gz", "images.GZ", "drawn", "drawn.idx.gz", "drawn.GZ", "drawn.gz.gz"]
    {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("drawn-labels"), "those of another file").unwrap();
        let file = folder.path().join(name);
        let mut draw = program("runtime");
        let (output, stderr) =
            run(draw.args(["gen", "--count", "20", "--format", "idx", "--force", "--out"]).arg(&file));
        assert!(output.status.success(), "{stderr}");
        assert_eq!(read_drawn(&file).unwrap(), (images.clone(), Some(labels.clone())), "{name}");
    }
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
    let images = |path: &Path| images_of(&runtime, path, 10, 10_000, 0);
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
    let error = draw_foreign(&runtime, endless, 10_000, 0, Duration::from_secs(1)).unwrap_err();
    assert_eq!(error.to_string(), "a result within 1 seconds expected, the model still runs");
    assert!(start.elapsed() < Duration::from_secs(100));
}

#[test]
fn the_model_card_pins_each_file_by_its_hash() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let card = fs::read_to_string(models.join("README.md")).unwrap();
    assert!(card.contains(&format!("`features` (N, {FEATURES})")));
    for name in ["g.onnx", "tuned.onnx", "seed.onnx", "judge.onnx"] {
        let hex = sha256(fs::read(models.join(name)).unwrap());
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
