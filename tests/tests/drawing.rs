//! `runtime gen`: many digits, in every format, whole or not at all.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use runtime::Class;
use tests::{end_of, generator_of, letters, peers_python, program, run, send, sha256, with_signals};

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// `runtime gen` in a folder, with arguments as on a command line.
fn generate(folder: &Path, arguments: &str) -> Command {
    let mut command = program("runtime");
    command.arg("gen").args(arguments.split_whitespace()).current_dir(folder);
    command
}

fn draws(folder: &Path, arguments: &str) -> Vec<u8> {
    let (output, stderr) = run(&mut generate(folder, arguments));
    assert!(output.status.success() && stderr.is_empty(), "{arguments}: {stderr}");
    output.stdout
}

fn refuses(folder: &Path, arguments: &str, code: i32, expected: &str) {
    let before = listing(folder);
    let (output, stderr) = run(&mut generate(folder, arguments));
    assert_eq!(output.status.code(), Some(code), "{arguments}: {stderr}");
    assert!(
        stderr.starts_with("error: ") && stderr.contains(expected),
        "{arguments}: {expected:?} expected in {stderr}"
    );
    assert_eq!(listing(folder), before, "{arguments} left something");
}

/// Every file below a folder with its bytes.
fn listing(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all.into_iter().map(|path| (path.clone(), fs::read(path).ok())).collect()
}

#[test]
fn every_format_holds_the_same_images_to_those_who_read_it() {
    let Some(python) = peers_python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let ten = "--seed 5 --count 10";
    draws(at, &format!("{ten} --format idx --out ten-images-idx3-ubyte"));
    draws(at, &format!("{ten} --format raw --out ten.raw"));
    draws(at, &format!("{ten} --out png"));
    draws(at, &format!("{ten} --format pgm --out pgm"));
    draws(at, "--seed 5 --grid 2x3 --scale 3 --out sheet.png");
    draws(at, "--count 1000 --format idx --out c-images-idx3-ubyte");
    draws(at, "--count 1000 --format idx --digit 7 --out d");
    let (output, stderr) = run(Command::new(python).arg(root("tests/peers/check_drawn.py")).arg(at));
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn the_bytes_do_not_depend_on_the_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    for precision in ["f32", "int8"] {
        let many = format!("--seed 3 --count 20011 --format raw --precision {precision}");
        let one = draws(folder.path(), &format!("{many} --threads 1"));
        assert_eq!(one.len(), 20011 * 784);
        for threads in [2, 3, 16] {
            assert!(
                draws(folder.path(), &format!("{many} --threads {threads}")) == one,
                "{precision}, {threads} threads"
            );
        }
        let mut images = vec![runtime::Image::BLANK; 20011];
        let seeds: Vec<u64> = (3..20014).collect();
        match precision {
            "f32" => runtime::generate_batch(&seeds, &mut images),
            _ => runtime::int8::generate_batch(&seeds, &mut images),
        }
        assert!(
            one.chunks(784).zip(&images).all(|(bytes, image)| bytes == image.0),
            "{precision}: the library's images"
        );
    }
}

#[test]
fn a_model_file_draws_in_int8_what_the_same_model_built_in_draws() {
    let folder = tempfile::tempdir().unwrap();
    let built_in = draws(folder.path(), "--count 100 --format raw --precision int8");
    let (loaded, stderr) =
        run(generate(folder.path(), "--count 100 --format raw --precision int8 --model").arg(root("models/g.onnx")));
    assert!(loaded.stdout == built_in, "{stderr}");
}

/// The hashes are those of the release that had this generator built in.
#[test]
fn the_generator_that_was_built_in_before_draws_its_images() {
    let folder = tempfile::tempdir().unwrap();
    for (precision, expected) in [
        ("f32", "325c36ffc301b06732e95de7dd55068fd0bb4b6d299df6a403d8338b53fee3e9"),
        ("int8", "860670b606f0886c1da7115cdcb93c7f361502db8910dfaf9f2325c6bd503e49"),
    ] {
        let mut draw = generate(folder.path(), &format!("--count 1000 --format raw --precision {precision} --model"));
        let (drawn, stderr) = run(draw.arg(root("models/tuned.onnx")));
        assert!(drawn.status.success(), "{stderr}");
        assert_eq!(sha256(&drawn.stdout), expected, "{precision}");
    }
}

#[test]
fn int8_differs_from_f32_by_little() {
    let pairs = (0..1000).map(|seed| (runtime::generate(seed), runtime::int8::generate(seed)));
    let differences: Vec<u8> = pairs.flat_map(|(a, b)| a.0.into_iter().zip(b.0).map(|(a, b)| a.abs_diff(b))).collect();
    let mean = differences.iter().map(|&d| f64::from(d)).sum::<f64>() / differences.len() as f64;
    let near = differences.iter().filter(|&&d| d <= 2).count() as f64 / differences.len() as f64;
    println!("int8 against f32: {mean:.2} grey levels in the mean, {:.1} % of the pixels within 2", 100.0 * near);
    assert!(mean < 2.0 && near > 0.85, "{mean} {near}");
}

#[test]
fn what_is_there_stays_unless_force_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("digit.png"), "good").unwrap();
    fs::create_dir(at.join("digits")).unwrap();
    draws(at, "--count 2 --out digits"); // an empty folder is as good as none
    refuses(at, "--out digit.png", 1, "--out: digit.png: exists already; --force overwrites it");
    refuses(at, "--count 2 --out digits", 1, "--out: digits: contains files already; --force");
    refuses(at, "--count 2 --out digit.png", 1, "--out: digit.png: a folder expected, a file found");
    refuses(at, "--out digits", 1, "--out: digits: a file expected, a folder found");
    fs::write(at.join("digits/other"), "mine").unwrap();
    draws(at, "--count 3 --out digits --force");
    draws(at, "--out digit.png --force");
    assert_eq!(fs::read(at.join("digits/other")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(at.join("digits")).unwrap().count(), 4);
    assert_eq!(fs::read(at.join("digit.png")).unwrap(), fs::read(at.join("digits/0.png")).unwrap());
    assert_eq!(fs::read_dir(at).unwrap().count(), 2, "temporary files are gone");
}

#[test]
fn what_cannot_be_drawn_is_refused_with_what_was_expected_and_found() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code, expected) in [
        ("--count 0", 2, "'0' for '--count <N>'"),
        ("--scale 0", 2, "'0' for '--scale <K>'"),
        ("--scale 4294967296", 2, "1 to 1170 expected"),
        ("--threads 4294967297", 2, "1 to 1024 expected"),
        ("--seed 18446744073709551616", 2, "0 to 18446744073709551615 expected"),
        ("--grid 0x4", 2, "rows and columns expected, such as 4x8"),
        ("--grid four", 2, "rows and columns expected, such as 4x8"),
        ("--grid 4294967296x1", 2, "at most 1369568 images"),
        ("--grid 60000x60000", 2, "--grid and --scale: at most"),
        ("--grid 2x2 --count 4", 2, "cannot be used with"),
        ("--grid 2x2 --format idx --out x", 2, "--grid: a sheet as png, pgm or raw expected"),
        ("--count 2", 2, "--count 2: --out FOLDER expected"),
        ("--seed 18446744073709551615 --count 2 --out x", 2, "at most 18446744073709551614 expected with 2 images"),
        ("--count 4294967296 --format idx --out x", 2, "at most 4294967295 images fit an idx file"),
        ("--count 1000000000000000 --format raw --out x", 1, "MB free expected"),
        ("--count 1000000000000000 --out x", 1, "MB free expected"),
        ("--count 2 --out /proc/x", 1, "--out: /proc/x: "),
        ("--out /proc/x", 1, "--out: /proc/x: "),
        ("--out no/such/x", 1, "--out: no/such/x: cannot be written"),
        ("--out /dev/full", 1, "--out: /dev/full: cannot be written: No space left"),
        ("--digit 10", 2, "10"),
        ("--class 10", 2, "--class 10: one of the generator's classes expected: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        ("--class seven", 2, "--class seven: one of the generator's classes expected"),
        ("--class 7 --digit 7", 2, "cannot be used with"),
        ("--by-class --count 2", 2, "--out <PATH>"),
        ("--by-class --grid 2x2 --out x", 2, "cannot be used with"),
        ("--by-class --count 2 --format idx --out x", 2, "--by-class: --format png or pgm expected"),
        ("--classes 1 --model no.onnx", 2, "0 or 2 to 64 expected"),
        ("--classes 65 --model no.onnx", 2, "0 or 2 to 64 expected"),
        ("--digit 3 --model no.onnx", 1, "--model: no.onnx"),
    ] {
        refuses(folder.path(), arguments, code, expected);
    }
    fs::copy(root("models/seed.onnx"), folder.path().join("seed.onnx")).unwrap();
    for flags in ["--digit 3", "--class 3", "--by-class --out x"] {
        let flag = flags.trim_end_matches(" --out x");
        let expected = format!("{flag}: a class-conditional generator expected, an unconditional one found");
        refuses(folder.path(), &format!("{flags} --model seed.onnx"), 2, &expected);
    }
    fs::write(folder.path().join("letters.onnx"), letters()).unwrap();
    let expected = "--digit 3: one of the generator's classes expected: A, B, C, ";
    refuses(folder.path(), "--digit 3 --model letters.onnx", 2, expected);
}

#[test]
fn a_class_is_chosen_by_its_name_or_number_and_labels_are_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("letters.onnx"), letters()).unwrap();
    fs::write(at.join("dropped.onnx"), generator_of("one-hot:00", "")).unwrap();
    for precision in ["f32", "int8"] {
        let draw = |flags: &str| draws(at, &format!("--seed 5 --format raw --precision {precision} {flags}"));
        let q = draw("--model letters.onnx --class Q");
        assert!(q == draw("--model letters.onnx --class 16"));
        assert!(q == draw("--model dropped.onnx --classes 26 --class 16"));
        assert!(q != draw("--model letters.onnx --class P"));
        assert!(draw("--digit 7") == draw("--class 7"));
    }
    let labels = |flags: &str| {
        draws(at, &format!("--model letters.onnx --count 1000 --format idx --out x-images --force {flags}"));
        fs::read(at.join("x-labels")).unwrap()[8..].to_vec()
    };
    let of_seeds: Vec<u8> = (0..1000).map(|seed| Class::of(seed, 26).unwrap().index() as u8).collect();
    assert_eq!(labels(""), of_seeds);
    assert_eq!(labels("--class Q"), [16; 1000]);
}

#[test]
fn images_are_sorted_into_folders_by_class() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::write(at.join("letters.onnx"), letters()).unwrap();
    draws(at, "--model letters.onnx --count 300 --out flat");
    let is_sorted = |count: u64| {
        for seed in 0..count {
            let class = b'A' + Class::of(seed, 26).unwrap().index() as u8;
            let [sorted, flat] = [format!("sorted/{}/{seed:03}.png", class as char), format!("flat/{seed:03}.png")];
            assert_eq!(fs::read(at.join(&sorted)).unwrap(), fs::read(at.join(flat)).unwrap(), "{sorted}");
        }
        let folders: Vec<_> = fs::read_dir(at.join("sorted")).unwrap().map(|entry| entry.unwrap().path()).collect();
        let files: usize = folders.iter().map(|folder| fs::read_dir(folder).unwrap().count()).sum();
        assert_eq!(files as u64, count, "{folders:?}");
    };
    draws(at, "--model letters.onnx --seed 100 --count 200 --by-class --out sorted");
    draws(at, "--model letters.onnx --count 101 --by-class --out sorted --force"); // the last one is there already
    is_sorted(300);
    fs::remove_dir_all(at.join("sorted")).unwrap();
    draws(at, "--model letters.onnx --count 2 --class B --by-class --out sorted");
    assert_eq!(listing(&at.join("sorted")).len(), 1, "no folder without an image");
    fs::write(at.join("sorted/C"), "mine").unwrap();
    let existing = "--model letters.onnx --count 2 --class C --by-class --out sorted --force";
    refuses(at, existing, 1, "--out: sorted/C: a folder expected, a file found");
    assert_eq!(fs::read(at.join("sorted/C")).unwrap(), b"mine");

    fs::write(at.join("odd.onnx"), generator_of("one-hot:03", r#"["T-shirt/top", "..", "t-SHIRT/top"]"#)).unwrap();
    draws(at, "--model odd.onnx --count 20 --by-class --out odd");
    let names: Vec<_> = listing(&at.join("odd")).into_iter().map(|(path, _)| path).collect();
    let folders = ["%2E%2E", "%74%2D%53%48%49%52%54%2F%74%6F%70", "T-shirt%2Ftop"];
    assert_eq!(names, folders.map(|folder| at.join("odd").join(folder)));
}

#[test]
fn who_closes_the_pipe_has_seen_enough() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = generate(folder.path(), "--count 1000000 --format raw");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 784];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(first, runtime::generate(0).0);
}

#[test]
fn a_result_that_cannot_be_written_is_an_error_and_a_warning_is_dropped() {
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for arguments in [
        "--help",
        "gen --help",
        "--version",
        "gen",
        "gen --grid 2x2 --format raw",
        "inspect models/g.onnx",
        "completions bash",
        "man",
    ] {
        let mut command = program("runtime");
        let (output, stderr) = run(command.args(arguments.split(' ')).current_dir(root(".")).stdout(full()));
        assert_eq!(output.status.code(), Some(1), "{arguments}: {stderr}");
        assert!(stderr.starts_with("error: stdout: cannot be written: No space left"), "{arguments}: {stderr}");
    }
    let folder = tempfile::tempdir().unwrap();
    let status = |command: &mut Command| command.stderr(full()).status().unwrap().code();
    assert_eq!(status(&mut generate(folder.path(), "--count 100000 --format raw --out x")), Some(0));
    assert_eq!(status(&mut generate(folder.path(), "--count 3")), Some(2));
    assert_eq!(fs::metadata(folder.path().join("x")).unwrap().len(), 78_400_000);
}

#[test]
fn a_device_a_pipe_and_stdout_are_written_into() {
    let folder = tempfile::tempdir().unwrap();
    let (at, digit) = (folder.path(), draws(folder.path(), ""));
    assert!(Command::new("mkfifo").arg(at.join("fifo")).status().unwrap().success());
    let reader = thread::spawn({
        let fifo = at.join("fifo");
        move || fs::read(fifo).unwrap()
    });
    draws(at, "--out fifo");
    assert_eq!(reader.join().unwrap(), digit);
    assert!(fs::metadata(at.join("fifo")).unwrap().file_type().is_fifo());

    symlink("/dev/stdout", at.join("stdout")).unwrap();
    for out in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "stdout"] {
        assert_eq!(draws(at, &format!("--out {out}")), digit, "{out}");
        fs::write(at.join("log"), "before ").unwrap();
        let log = File::options().append(true).open(at.join("log")).unwrap();
        assert!(generate(at, &format!("--out {out}")).stdout(log).status().unwrap().success());
        assert_eq!(fs::read(at.join("log")).unwrap(), [b"before ", &digit[..]].concat(), "{out}");
    }
    assert!(fs::symlink_metadata(at.join("stdout")).unwrap().is_symlink());
    let conditional = draws(at, "--count 3 --format idx --out /dev/stdout");
    assert_eq!(conditional.len(), 16 + 3 * 784);
    assert!(!Path::new("/dev/stdout-labels").exists());

    let made = Command::new("mknod").args(["null", "c", "1", "3"]).current_dir(at).output().unwrap();
    match made.status.success() {
        true => draws(at, "--out null"),
        false => return eprintln!("half skipped: root may make device nodes"),
    };
    assert!(fs::metadata(at.join("null")).unwrap().file_type().is_char_device());
}

#[test]
fn a_link_stays_a_link_and_a_replaced_file_keeps_its_mode_and_owner() {
    let folder = tempfile::tempdir().unwrap();
    let (at, digit) = (folder.path(), draws(folder.path(), ""));
    fs::create_dir(at.join("far")).unwrap();
    fs::write(at.join("far/digit.png"), "old").unwrap();
    fs::set_permissions(at.join("far/digit.png"), fs::Permissions::from_mode(0o604)).unwrap();
    let owned = chown(at.join("far/digit.png"), Some(12), Some(34)).is_ok(); // by root only
    symlink("far/digit.png", at.join("link")).unwrap();
    symlink("link", at.join("link to link")).unwrap();
    symlink("far/new.png", at.join("link to nothing")).unwrap();
    let write = |name: &str, force: &[&str]| run(generate(at, "--out").arg(name).args(force));
    let (output, stderr) = write("link to link", &[]);
    assert!(!output.status.success() && stderr.contains("exists already"), "{stderr}");
    let (output, stderr) = write("link to link", &["--force"]);
    assert!(output.status.success(), "{stderr}");
    let found = fs::metadata(at.join("far/digit.png")).unwrap();
    assert_eq!(found.mode() & 0o777, 0o604);
    assert!(!owned || (found.uid(), found.gid()) == (12, 34));
    assert_eq!(fs::read(at.join("far/digit.png")).unwrap(), digit);
    let (output, stderr) = write("link to nothing", &[]);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(fs::read(at.join("far/new.png")).unwrap(), digit);
    assert!(["link", "link to link", "link to nothing"].iter().all(|name| at.join(name).is_symlink()));

    // In a folder of files too.
    symlink("../far/digit.png", at.join("far/1.png")).unwrap();
    fs::write(at.join("far/2.png"), "old").unwrap();
    fs::set_permissions(at.join("far/2.png"), fs::Permissions::from_mode(0o640)).unwrap();
    draws(at, "--count 3 --out far --force");
    assert!(at.join("far/1.png").is_symlink());
    assert_eq!(fs::read(at.join("far/digit.png")).unwrap(), draws(at, "--seed 1"));
    assert_eq!(fs::read(at.join("far/2.png")).unwrap(), draws(at, "--seed 2"));
    assert_eq!(fs::metadata(at.join("far/2.png")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(at.join("far")).unwrap().count(), 5);
}

#[test]
fn a_mount_point_is_written_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let (at, digit) = (folder.path(), draws(folder.path(), ""));
    fs::create_dir_all(at.join("ro")).unwrap();
    ["digit.png", "file", "ro/file"].iter().for_each(|name| fs::write(at.join(name), [7; 1000]).unwrap());
    fs::create_dir(at.join("volume")).unwrap();
    // As containers do: files mounted one by one, one of them into a read-only system, and an empty folder.
    let script = "mount --bind digit.png file && mount --bind ro ro && mount -o remount,bind,ro ro || exit 77; \
        mount --bind digit.png ro/file && mount -t tmpfs none volume && chmod 750 volume || exit 77; \
        \"$0\" gen --out file --force && \"$0\" gen --seed 1 --out ro/file --force && \"$0\" gen --count 3 --out volume \
        && stat -c %a volume && ls -A volume | wc -l && cat volume/0.png";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(program("runtime").get_program());
    let (output, stderr) = run(command.current_dir(at));
    if output.status.code() == Some(77) || stderr.contains("unshare") {
        return eprintln!("skipped: this system does not let its users mount: {stderr}");
    }
    assert!(output.status.success(), "{stderr}");
    assert_eq!(output.stdout, [b"750\n3\n", &digit[..]].concat());
    assert_eq!(fs::read(at.join("digit.png")).unwrap(), draws(at, "--seed 1"), "the rest of the longer file is gone");
}

#[test]
fn an_existing_folder_keeps_its_mode_and_identity() {
    let folder = tempfile::tempdir().unwrap();
    let digits = folder.path().join("digits");
    fs::create_dir(&digits).unwrap();
    fs::set_permissions(&digits, fs::Permissions::from_mode(0o751)).unwrap();
    let before = fs::metadata(&digits).unwrap();
    draws(folder.path(), "--count 2 --out digits");
    let after = fs::metadata(&digits).unwrap();
    assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
    assert_eq!(fs::read_dir(&digits).unwrap().count(), 2);
}

#[test]
fn the_model_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    fs::copy(root("models/g.onnx"), at.join("g.onnx")).unwrap();
    fs::hard_link(at.join("g.onnx"), at.join("same")).unwrap();
    symlink("g.onnx", at.join("link")).unwrap();
    fs::hard_link(at.join("g.onnx"), at.join("x-labels")).unwrap();
    for out in ["g.onnx", "./g.onnx", "same", "link"] {
        let expected = format!("--out: {out}: another file than --model expected, the same one found");
        refuses(at, &format!("--model g.onnx --force --out {out}"), 1, &expected);
    }
    refuses(
        at,
        "--model g.onnx --force --count 2 --format idx --out x",
        1,
        "--out: x-labels: another file than --model",
    );
}

#[test]
fn a_name_that_ends_with_gz_is_a_gzip_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    draws(at, "--count 1000 --format idx --out train-images-idx3-ubyte");
    draws(at, "--count 1000 --format idx --out train-images-idx3-ubyte.gz");
    for name in ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"] {
        let (unpacked, stderr) = run(Command::new("gzip").args(["-dc", &format!("{name}.gz")]).current_dir(at));
        assert!(unpacked.status.success() && unpacked.stdout == fs::read(at.join(name)).unwrap(), "{name}: {stderr}");
    }
    assert_eq!(fs::read_dir(at).unwrap().count(), 4);
}

#[test]
fn names_of_255_bytes_and_names_that_are_not_utf8_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join(OsStr::from_bytes(b"folder \xff"));
    fs::create_dir(&at).unwrap();
    fs::copy(root("models/g.onnx"), at.join(OsStr::from_bytes(b"\xfe.onnx"))).unwrap();
    for name in [&[b'x'; 255][..], b"\xff\xfe.png"] {
        for _ in 0..2 {
            let mut command = generate(&at, "--force --out");
            command.arg(OsStr::from_bytes(name)).arg("--model").arg(OsStr::from_bytes(b"\xfe.onnx"));
            let (output, stderr) = run(&mut command);
            assert!(output.status.success(), "{stderr}");
        }
        assert_eq!(fs::read(at.join(OsStr::from_bytes(name))).unwrap(), draws(&at, ""));
    }
    let (output, stderr) = run(generate(&at, "--count 2 --out").arg(OsStr::from_bytes(&[0xff; 255])));
    assert!(output.status.success(), "{stderr}");
    let (output, stderr) = run(generate(&at, "--count 2 --format idx --out").arg(OsStr::from_bytes(b"\xff")));
    assert!(output.status.success() && at.join(OsStr::from_bytes(b"\xff-labels")).exists(), "{stderr}");
}

#[test]
fn a_thread_that_cannot_be_started_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["raw", "png"] {
        let mut command = generate(folder.path(), "--threads 1024 --count 20000 --out x --format");
        // No address space holds a stack of this size.
        let (output, stderr) = run(command.arg(format).env("RUST_MIN_STACK", "1000000000000000"));
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        let expected = "error: --threads: 1024 threads expected, the system does not start as many; choose fewer: ";
        assert!(stderr.starts_with(expected) && stderr.lines().count() == 1, "{stderr}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
    let mut few = generate(folder.path(), "--count 5 --out few");
    let (output, stderr) = run(few.env("RUST_MIN_STACK", "1000000000000000"));
    assert!(output.status.success(), "few images need no second thread: {stderr}");
}

/// Starts a program that draws for seconds, with the signals' default effect or ignoring some, and waits until its file has begun.
fn begins(folder: &Path, env: &str, arguments: &str) -> Child {
    let mut command = program("runtime");
    command.args(["gen", "--count", "2000000", "--threads", "2"]).args(arguments.split(' ')).current_dir(folder);
    let mut child = with_signals(env, &command).spawn().unwrap();
    let start = Instant::now();
    while fs::read_dir(folder).unwrap().count() == 0 {
        assert!(
            child.try_wait().unwrap().is_none() && start.elapsed() < Duration::from_secs(60),
            "{arguments}: no file"
        );
        thread::sleep(Duration::from_millis(5));
    }
    child
}

/// The exit code of a program as a shell shows it, and its standard error.
fn ends(child: Child) -> (i32, String) {
    let (status, stderr) = end_of(child);
    (status.code().or(status.signal().map(|signal| 128 + signal)).unwrap(), stderr)
}

#[test]
fn a_signal_removes_what_gen_had_begun() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        for arguments in ["--format raw --out x", "--format idx --out x.gz", "--format png --out x"] {
            let folder = tempfile::tempdir().unwrap();
            let child = begins(folder.path(), "--default-signal", arguments);
            thread::sleep(Duration::from_millis(50));
            send(signal, child.id());
            assert_eq!(ends(child), (code, String::new()), "SIG{signal}: {arguments}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "SIG{signal}: {arguments}");
        }
    }
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let child = begins(folder.path(), "--ignore-signal=HUP,INT", "--format raw --out x");
    ["HUP", "INT"].iter().for_each(|signal| send(signal, child.id()));
    thread::sleep(Duration::from_millis(100));
    send("TERM", child.id());
    assert_eq!(ends(child).0, 143);
}

#[test]
fn process_1_of_a_container_ends_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"])
        .arg(program("runtime").get_program());
    command
        .args(["gen", "--count", "2000000", "--threads", "2", "--format", "raw", "--out", "x"])
        .current_dir(folder.path());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while fs::read_dir(folder.path()).unwrap().count() == 0 {
        if child.try_wait().unwrap().is_some() {
            return eprintln!("skipped: this system has no containers for its users: {}", ends(child).1);
        }
        assert!(start.elapsed() < Duration::from_secs(60));
        thread::sleep(Duration::from_millis(5));
    }
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
    assert!(Command::new("kill").arg(children.trim()).status().unwrap().success());
    assert_eq!(ends(child), (143, String::new()));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_next_start_removes_what_a_killed_program_left_but_not_what_another_one_writes() {
    for (arguments, next) in [("--format raw --out x", "--out y"), ("--format png --out x", "--count 2 --out y")] {
        let folder = tempfile::tempdir().unwrap();
        let child = begins(folder.path(), "--default-signal", arguments);
        draws(folder.path(), next);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "{next} beside a running program");
        send("KILL", child.id());
        assert_eq!(ends(child).0, 137);
        draws(folder.path(), &format!("{next} --force"));
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["y"]);
    }
}

#[test]
fn inspect_and_bench_say_it_to_people_and_to_programs() {
    let model = root("models/g.onnx");
    let (text, stderr) = run(program("runtime").arg("inspect").arg(&model));
    assert!(text.status.success(), "{stderr}");
    let text = String::from_utf8(text.stdout).unwrap();
    let (json, _) = run(program("runtime").arg("inspect").arg("--json").arg(&model));
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["parameters"], 114_800);
    assert_eq!(json["layers"][3]["outputs"], 784);
    let shown = ["sha256", "producer"].map(|key| json[key].as_str().unwrap().to_string());
    shown.iter().chain(&["114800".into()]).for_each(|fact| assert!(text.contains(fact.as_str()), "{fact} in {text}"));
    let (bench, _) = run(program("runtime").args(["bench", "--json"]));
    let bench: serde_json::Value = serde_json::from_slice(&bench.stdout).unwrap();
    let images = bench["images"].as_array().unwrap();
    assert!(
        images.iter().all(|row| row["single_us"].as_f64().unwrap() > 0.0 && row["batch_us"].as_f64().unwrap() > 0.0)
    );
    assert!(images.iter().any(|row| row["kernel"] == bench["kernel"] && row["precision"] == "int8"), "{bench}");
    let read = ["read_int8_weights_us", "read_weights_us"].map(|key| bench[key].as_f64().unwrap());
    assert!(0.0 < read[0] && read[0] < read[1], "{read:?} µs for 121,920 and 459,200 bytes");
}
