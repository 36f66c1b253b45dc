//! The web page, in Node and in a browser, against the library.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use runtime::{Class, Digit, GENERATOR, Generate, Image, Latent, latent_of};
use tests::{build_library, device_target, device_tools, generator_of, program, run};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A folder `name` of the page with its modules, as README builds them, of the shipped generator; or with runtime.wasm alone, of
/// another one. `None`, with a word why, without a compiler for it.
fn page(name: &str, generator: Option<&Path>) -> Option<PathBuf> {
    static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let tools = device_tools()?;
    let folder = root("target/web").join(name);
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner); // one build at a time
    if built.insert(name.into()) {
        fs::create_dir_all(&folder).unwrap();
        for name in ["index.html", "digit.js"] {
            fs::copy(root("runtime/web").join(name), folder.join(name)).unwrap();
        }
        let vectors: &[&str] = &["--", "-Ctarget-feature=+simd128"];
        let modules = [("runtime.wasm", &[][..]), ("runtime.simd128.wasm", vectors)];
        for (name, flags) in modules.into_iter().take(if generator.is_some() { 1 } else { 2 }) {
            let (output, stderr) = run(build_library(Some((&tools, "wasm32-unknown-unknown")), generator).args(flags));
            assert!(output.status.success(), "{stderr}");
            fs::copy(device_target().join("wasm32-unknown-unknown/release/runtime.wasm"), folder.join(name)).unwrap();
        }
    }
    Some(folder)
}

/// Half way between the latents of two seeds.
fn between(a: u64, b: u64) -> Image {
    let (a, b) = (latent_of(a).numbers(), latent_of(b).numbers());
    let z = std::array::from_fn(|i| ((f64::from(a[i]) + f64::from(b[i])) / 2.0) as f32);
    GENERATOR.draw(&Latent::from_numbers(&z))
}

#[test]
fn the_pages_code_draws_the_librarys_digits_in_node() {
    const DRAW: &str = "
        import { readFileSync } from 'fs';
        import { pathToFileURL } from 'url';
        const folder = process.argv[1];
        const { load, walk } = await import(pathToFileURL(folder + '/digit.js'));
        const generator = await load(new Uint8Array(readFileSync(folder + '/' + process.argv[2])));
        const images = [];
        for (let seed = 0n; seed < 1000n; seed++) images.push(generator.generate(seed));
        for (let digit = 0; digit < 10; digit++) images.push(generator.generate(18446744073709551615n, digit));
        images.push(generator.draw(walk(generator.latent(1n), generator.latent(2n), 0.5)));
        process.stdout.write(Buffer.concat(images));";
    let Some(folder) = page("shipped", None) else { return };
    let digits = (0..10).map(|digit| runtime::generate_digit(u64::MAX, Digit::new(digit).unwrap()).unwrap());
    let expected = (0..1000).map(runtime::generate).chain(digits).chain([between(1, 2)]);
    let expected: Vec<u8> = expected.flat_map(|image| image.0).collect();
    for module in ["runtime.wasm", "runtime.simd128.wasm"] {
        let mut node = Command::new("node");
        let (output, stderr) =
            run(node.args(["--no-warnings", "--input-type=module", "-e", DRAW]).arg(&folder).arg(module));
        assert!(output.status.success(), "{module}: {stderr}");
        assert!(output.stdout == expected, "{module}: other pixels than the library's");
    }
}

#[test]
fn the_module_with_vectors_is_preferred_and_draws_the_same_in_less_time() {
    /// Prints the times of the module without vectors as multiples of those of the other one.
    const COMPARE: &str = "
        import assert from 'node:assert';
        import { readFileSync } from 'node:fs';
        import { pathToFileURL } from 'node:url';
        const folder = process.argv[1], digit = pathToFileURL(folder + '/digit.js');
        const { MODULE } = await import(digit);
        WebAssembly.validate = () => false;
        assert.deepEqual([MODULE, (await import(digit + '?again')).MODULE], ['runtime.simd128.wasm', 'runtime.wasm']);
        const modules = ['runtime.wasm', MODULE].map((name) => {
          const { exports: c } = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(folder + '/' + name)));
          const at = 65536 * c.memory.grow(1);
          const draw = (f) => (seed) => c[f](seed, at) || new Uint8Array(c.memory.buffer, at, 784);
          return [draw('mnist_gan_generate'), draw('mnist_gan_generate_int8')];
        });
        for (const i of [0, 1]) {
          const [plain, vectors] = [modules[0][i], modules[1][i]];
          for (let seed = 0n; seed < 1000n; seed++) assert.deepEqual(plain(seed), vectors(seed));
          const times = [plain, vectors].map((draw) => Math.min(...Array.from({ length: 20 }, () => {
            const start = performance.now();
            for (let seed = 0n; seed < 50n; seed++) draw(seed);
            return performance.now() - start;
          })));
          console.log((times[0] / times[1]).toFixed(2));
        }";
    let Some(folder) = page("shipped", None) else { return };
    let (output, stderr) =
        run(Command::new("node").args(["--no-warnings", "--input-type=module", "-e", COMPARE]).arg(folder));
    assert!(output.status.success(), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    let ratios: Vec<f64> = text.lines().map(|line| line.parse().unwrap()).collect();
    println!("with vectors {} times as fast in f32, {} times in int8", ratios[0], ratios[1]);
    assert!(ratios[0] > 1.5 && ratios[1] > 2.5, "1.5 and 2.5 times as fast expected, {ratios:?} found");
}

#[test]
fn the_pages_code_takes_a_module_in_every_form_and_refuses_odd_arguments() {
    const CHECK: &str = r#"
        import assert from 'node:assert';
        import { createServer } from 'node:http';
        import { readFileSync } from 'node:fs';
        import { pathToFileURL } from 'node:url';
        const folder = process.argv[1];
        const { load, walk } = await import(pathToFileURL(folder + '/digit.js'));
        const bytes = readFileSync(folder + '/runtime.wasm'), view = new Uint8Array(bytes), buffer = view.buffer;
        const server = createServer((request, response) => {
          if (request.url === '/no') response.statusCode = 404;
          response.end(request.url === '/no' ? '<html>' : bytes);
        }).listen(0, '127.0.0.1');
        await new Promise((ready) => server.on('listening', ready));
        const at = (path) => `http://127.0.0.1:${server.address().port}${path}`;
        const expected = (await load(view)).generate(42n);
        const forms = [bytes, buffer, Promise.resolve(view), Promise.resolve(buffer), new Blob([bytes]), fetch(at('/')), await fetch(at('/'))];
        for (const form of forms) assert.deepEqual((await load(form)).generate(42n), expected);
        await assert.rejects(load(fetch(at('/no'))), { message: /\/no: 404 Not Found; runtime.wasm expected/ });
        for (const odd of ['runtime.wasm', undefined, null, 7]) await assert.rejects(load(odd), /a Response expected/);
        server.close();

        const g = await load(bytes), z = g.latent(42n);
        const refused = (call, message) => assert.throws(call, { message });
        for (const seed of [-1n, 2n ** 64n, 42, '42', undefined]) {
          refused(() => g.generate(seed), /^seed: a BigInt from 0n to 2n \*\* 64n - 1n expected, .* found$/);
          refused(() => g.latent(seed), /^seed: /);
        }
        for (const odd of [10, -1, 263, -249, 7.9, NaN, '10', 'seven', 7n, '', false]) {
          refused(() => g.generate(42n, odd), /^class: one of 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, or null expected, .* found$/);
        }
        assert.deepEqual(g.generate(42n, '7'), g.generate(42n, 7));
        refused(() => g.draw(z.slice(0, 10)), 'z: 100 numbers expected, 10 found');
        refused(() => g.draw(new Float32Array(101)), 'z: 100 numbers expected, 101 found');
        refused(() => g.draw(), 'z: 100 numbers expected, undefined found');
        for (const odd of [NaN, '0', 0n, null]) refused(() => g.draw([...z].with(99, odd)), /^z: 100 numbers expected, .* at 99$/);
        refused(() => walk(z, z.slice(0, 50), 0.5), 'z: 100 numbers expected, 50 found');
        refused(() => walk(z, z, '0.5'), /^t: a number expected/);
        for (const same of [z, [...z], Float64Array.from(z), walk([...z], z, 0.25)]) assert.deepEqual(g.draw(same), expected);
        assert.deepEqual(g.generate(42n, undefined), expected);
        assert.deepEqual(g.draw(new Float32Array(100).fill(1e9)), g.draw(new Float32Array(100).fill(1)));
    "#;
    let Some(folder) = page("shipped", None) else { return };
    let (output, stderr) =
        run(Command::new("node").args(["--no-warnings", "--input-type=module", "-e", CHECK]).arg(folder));
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn the_page_shows_the_librarys_digits_in_chromium() {
    let Some(folder) = page("shipped", None) else { return };
    let seven = runtime::generate_digit(6, Digit::new(7).unwrap()).unwrap();
    for (link, image) in [
        ("", runtime::generate(42)),
        ("#seed=5", runtime::generate(5)),
        ("#seed=6&class=7", seven),
        ("#seed=6&digit=7", seven),
        ("#seed=1&to=2&t=0.5", between(1, 2)),
    ] {
        let dom = dom(&folder, link);
        assert!(dom.contains(&shown(&image)), "{link}: other pixels than the library's: {dom}");
        assert!(dom.contains("data-menu=\"block\""), "{link}: a menu of classes expected: {dom}");
        assert!(
            dom.contains("data-modules=\"runtime.simd128.wasm\""),
            "{link}: the module with vectors expected: {dom}"
        );
    }
}

#[test]
fn a_class_can_be_chosen_on_the_page_whatever_its_name() {
    let model = tempfile::NamedTempFile::new().unwrap();
    let names = ["a", "b", " c", "d  e", "f ", "digit=7", "&", "<i>", "%20", "z"];
    fs::write(model.path(), generator_of("one-hot:10", &format!("{names:?}"))).unwrap();
    let Some(folder) = page("names", Some(model.path())) else { return };
    for (link, class) in [("%20c", 2), ("d++e", 3), ("digit=7", 5)] {
        let image = runtime::generate_class(6, Class::new(class, 10).unwrap()).unwrap();
        let dom = dom(&folder, &format!("#seed=6&class={link}"));
        assert!(dom.contains(&shown(&image)), "{:?}: another image: {dom}", names[class]);
    }
}

#[test]
fn an_unconditional_generator_has_no_menu_and_refuses_classes() {
    const REFUSE: &str = "
        import assert from 'node:assert';
        import { readFileSync } from 'node:fs';
        import { pathToFileURL } from 'node:url';
        const folder = process.argv[1], bytes = readFileSync(folder + '/runtime.wasm');
        const { load } = await import(pathToFileURL(folder + '/digit.js'));
        const generator = await load(bytes), c = (await WebAssembly.instantiate(bytes)).instance.exports;
        const message = 'class: a class-conditional generator expected, an unconditional one found';
        for (const wanted of [0, '0', 'A']) assert.throws(() => generator.generate(1n, wanted), { message });
        assert.deepEqual(generator.classes, []);
        const at = 65536 * c.memory.grow(1), UNCONDITIONAL = -2;
        for (const kind of ['class', 'digit', 'class_int8', 'digit_int8']) {
          assert.equal(c[`mnist_gan_generate_${kind}`](1n, 0, at), UNCONDITIONAL);
        }
        assert.deepEqual([c.mnist_gan_conditional(), c.mnist_gan_classes(), c.mnist_gan_class_name(0)], [0, 0, 0]);
        process.stdout.write(generator.generate(42n));";
    let model = root("models/seed.onnx");
    let Some(folder) = page("unconditional", Some(&model)) else { return };
    let (output, stderr) =
        run(Command::new("node").args(["--no-warnings", "--input-type=module", "-e", REFUSE]).arg(&folder));
    assert!(output.status.success(), "{stderr}");
    let (drawn, stderr) =
        run(program("runtime").args(["gen", "--seed", "42", "--format", "raw", "--model"]).arg(model));
    assert!(output.stdout == drawn.stdout && drawn.stdout.len() == Image::PIXELS, "{stderr}");
    let dom = dom(&folder, "");
    assert!(dom.contains(&shown(&Image(drawn.stdout.try_into().unwrap()))), "other pixels than the program's: {dom}");
    assert!(dom.contains("data-menu=\"none\""), "no menu of classes expected: {dom}");
}

/// The page at `link` in Chromium, as HTML. A script that only the test adds writes into `data-menu` how the label of the classes'
/// menu is displayed, and into `data-modules` which modules the page has fetched.
fn dom(folder: &Path, link: &str) -> String {
    const WATCH: &[u8] = b"<script>setInterval(() => Object.assign(document.body.dataset, {
        menu: getComputedStyle(document.getElementById('class').parentElement).display,
        modules: performance.getEntriesByType('resource').map((entry) => entry.name.split('/').pop())
            .filter((name) => name.endsWith('wasm')) }), 50)</script>";
    let tool = PathBuf::from(env::var_os("DEVICE_TOOLS").unwrap()).join("chromium");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let mut request = String::new();
            let _ = BufReader::new(&stream).read_line(&mut request);
            let name = match request.split(' ').nth(1) {
                Some("/") => "index.html",
                Some(path) => path.trim_start_matches('/'),
                None => continue,
            };
            let file = fs::read(folder.join(name));
            let status = if file.is_ok() { "200 OK" } else { "404 Not Found" };
            let mut body = file.unwrap_or_default();
            let kind = match name.rsplit('.').next() {
                Some("html") => {
                    body.extend(WATCH);
                    "text/html"
                }
                Some("js") => "text/javascript",
                _ => "application/wasm",
            };
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    let profile = tempfile::tempdir().unwrap();
    let mut chromium = Command::new("timeout");
    chromium.arg("600").arg(&tool);
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000"]);
    chromium.arg(format!("--user-data-dir={}", profile.path().display())).arg("--dump-dom");
    let (output, stderr) = run(chromium.arg(format!("http://{address}/{link}")));
    assert!(!output.stdout.is_empty(), "{stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How the page says that it shows an image.
fn shown(image: &Image) -> String {
    let hex: String = image.0.iter().map(|grey| format!("{grey:02x}")).collect();
    format!("data-pixels=\"{hex}\"")
}
