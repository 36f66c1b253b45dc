//! Downloads the four files of a data set into the cache: from the first mirror that has them, resumed, checked.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};

use crate::files::hex;

/// A file as its mirrors have it: its name and its SHA-256 in hexadecimal.
pub type Pin = (&'static str, &'static str);

/// How patient a download is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, and for the answer's head.
    pub connect: Duration,
    /// For one answer's body; what came until then is kept and asked for no more.
    pub body: Duration,
    /// Tries in a row that bring nothing, before the next mirror's turn.
    pub tries: u32,
    /// Before the second try; twice as long before each one after it.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(15), body: seconds(60), tries: 3, pause: seconds(1) }
    }
}

/// Puts the files into `folder`, those that are not there yet. A file appears under its name only whole and checked; what
/// broke off is gone on with, by this call or a later one. A second process that wants the same files waits for them.
///
/// # Errors
/// When no mirror gave a file: what was wrong with each.
pub fn fetch(
    folder: &Path,
    mirrors: &[String],
    pins: &[Pin],
    patience: &Patience,
    say: &mut dyn FnMut(&str),
) -> Result<()> {
    if pins.iter().all(|(name, _)| folder.join(name).exists()) {
        return Ok(());
    }
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    let lock = folder.join("lock");
    let lock = File::create(&lock).with_context(|| format!("{}: cannot be written", lock.display()))?;
    let _ = lock.lock(); // some network file systems know no locks; the digests hold without
    for (name, digest) in pins {
        let path = folder.join(name);
        if path.exists() {
            continue;
        }
        let mut problems = vec![];
        let fetched = mirrors.iter().any(|mirror| {
            let url = format!("{}/{name}", mirror.trim_end_matches('/'));
            say(&format!("downloading {url}"));
            match fetch_file(&path, &url, digest, patience) {
                Ok(()) => true,
                Err(problem) => {
                    problems.push(format!("{url}: {problem:#}"));
                    false
                }
            }
        });
        ensure!(fetched, "{name} could not be downloaded: {}", problems.join("; "));
    }
    Ok(())
}

fn fetch_file(path: &Path, url: &str, digest: &str, patience: &Patience) -> Result<()> {
    let part = path.with_added_extension("part");
    let begun_before = length(&part) > 0;
    get_all(url, &part, patience)?;
    let bytes = fs::read(&part).with_context(|| format!("{}: cannot be read", part.display()))?;
    let found = hex(&Sha256::digest(&bytes));
    if found != digest {
        fs::remove_file(&part).with_context(|| format!("{}: cannot be removed", part.display()))?;
        if begun_before {
            // What another mirror began, or an earlier call, need not be the beginning of this file.
            return fetch_file(path, url, digest, patience);
        }
        bail!("a file of digest {digest} expected, one of {} bytes and {found} found", bytes.len());
    }
    fs::rename(&part, path).with_context(|| format!("{}: cannot be written", path.display()))
}

/// Asks until the answers end by themselves, from where the last one broke off.
fn get_all(url: &str, part: &Path, patience: &Patience) -> Result<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.connect))
        .timeout_recv_body(Some(patience.body))
        .http_status_as_error(false)
        .build()
        .into();
    let (mut fruitless, mut pause, mut longest) = (0, patience.pause, length(part));
    loop {
        match get(&agent, url, part) {
            Ok(()) => return Ok(()),
            Err(Failure::Final(problem)) => return Err(problem),
            // A server that knows no ranges starts again each time: only what is longer than ever is progress.
            Err(Failure::Passing(_)) if length(part) > longest => {
                (fruitless, pause, longest) = (0, patience.pause, length(part));
            }
            Err(Failure::Passing(problem)) => {
                fruitless += 1;
                if fruitless == patience.tries {
                    return Err(problem);
                }
                std::thread::sleep(pause);
                pause *= 2;
            }
        }
    }
}

/// Whether another try may help.
enum Failure {
    Passing(anyhow::Error),
    Final(anyhow::Error),
}

/// Appends to `part` what of the file is not in it yet.
fn get(agent: &ureq::Agent, url: &str, part: &Path) -> Result<(), Failure> {
    let have = length(part);
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|e| Failure::Passing(anyhow!("{e}")))?;
    let status = response.status().as_u16();
    match status {
        200 | 206 => {}
        // The part is as long as the file or longer: if it is the file, its digest will tell.
        416 if have > 0 => return Ok(()),
        408 | 429 | 500..=599 => return Err(Failure::Passing(anyhow!("status 200 expected, {status} found"))),
        _ => return Err(Failure::Final(anyhow!("status 200 expected, {status} found"))),
    }
    let cannot_write = |e: std::io::Error| Failure::Final(anyhow!("{}: cannot be written: {e}", part.display()));
    let mut file = (OpenOptions::new().create(true).append(status == 206).write(true).truncate(status == 200))
        .open(part)
        .map_err(cannot_write)?;
    let expected = response.body().content_length();
    let mut body = response.body_mut().as_reader();
    let (mut buffer, mut got) = (vec![0; 1 << 16], 0);
    loop {
        let n = body.read(&mut buffer).map_err(|e| Failure::Passing(anyhow!("the answer broke off: {e}")))?;
        if n == 0 {
            break;
        }
        file.write_all(&buffer[..n]).map_err(cannot_write)?;
        got += n as u64;
    }
    file.sync_all().map_err(cannot_write)?;
    match expected {
        Some(expected) if got < expected => {
            Err(Failure::Passing(anyhow!("{expected} bytes expected, {got} found before the answer ended")))
        }
        _ => Ok(()),
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use super::*;

    const CONTENT: &[u8] = b"four bytes and some more, to be cut in the middle";

    /// How the server answers a request for the bytes from `from` on.
    type Answer = fn(&mut TcpStream, from: Option<usize>);

    /// A server of these answers, one a connection, the last one again and again; with it the ranges it was asked for.
    fn serve(answers: &'static [Answer]) -> (String, Arc<Mutex<Vec<Option<usize>>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(vec![]));
        let log = asked.clone();
        std::thread::spawn(move || {
            for (i, stream) in listener.incoming().flatten().enumerate() {
                let mut stream = stream;
                let mut from = None;
                for line in std::io::BufReader::new(stream.try_clone().unwrap()).lines() {
                    let line = line.unwrap_or_default().to_lowercase();
                    if let Some(range) = line.strip_prefix("range: bytes=") {
                        from = range.trim_end_matches('-').parse().ok();
                    }
                    if line.is_empty() {
                        break;
                    }
                }
                log.lock().unwrap().push(from);
                // Apart, for a slow answer must not hold up the next.
                std::thread::spawn(move || answers[i.min(answers.len() - 1)](&mut stream, from));
            }
        });
        (url, asked)
    }

    fn reply(stream: &mut TcpStream, status: &str, length: usize, body: &[u8]) {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(&[head.as_bytes(), body].concat());
    }

    fn good(stream: &mut TcpStream, from: Option<usize>) {
        match from {
            None => reply(stream, "200 OK", CONTENT.len(), CONTENT),
            Some(from) => reply(stream, "206 Partial Content", CONTENT.len() - from, &CONTENT[from..]),
        }
    }

    fn truncated(stream: &mut TcpStream, _: Option<usize>) {
        reply(stream, "200 OK", CONTENT.len(), &CONTENT[..10]);
    }

    fn no_ranges(stream: &mut TcpStream, _: Option<usize>) {
        reply(stream, "200 OK", CONTENT.len(), CONTENT);
    }

    fn wrong(stream: &mut TcpStream, _: Option<usize>) {
        reply(stream, "200 OK", 5, b"wrong");
    }

    fn forbidden(stream: &mut TcpStream, _: Option<usize>) {
        reply(stream, "403 Forbidden", 0, b"");
    }

    fn busy(stream: &mut TcpStream, _: Option<usize>) {
        reply(stream, "503 Service Unavailable", 0, b"");
    }

    fn slow(stream: &mut TcpStream, _: Option<usize>) {
        std::thread::sleep(Duration::from_secs(5));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    }

    /// Ten bytes, and then silence.
    fn stalling(stream: &mut TcpStream, from: Option<usize>) {
        truncated(stream, from);
        std::thread::sleep(Duration::from_secs(5));
    }

    /// The file's bytes but the first, in an answer that breaks off.
    fn another_files_start(stream: &mut TcpStream, _: Option<usize>) {
        reply(stream, "200 OK", CONTENT.len(), &CONTENT[1..20]);
    }

    fn no_such_range(stream: &mut TcpStream, from: Option<usize>) {
        reply(stream, if from.is_some() { "416 Range Not Satisfiable" } else { "404 Not Found" }, 0, b"");
    }

    fn gone() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap()) // closed again at the end of this line
    }

    /// Fetches `file` from these mirrors into `folder`.
    fn fetch_into(folder: &Path, mirrors: &[String]) -> Result<()> {
        let ms = Duration::from_millis;
        let patience = Patience { connect: ms(600), body: ms(600), tries: 2, pause: ms(1) };
        let digest: &'static str = hex(&Sha256::digest(CONTENT)).leak();
        let result = fetch(folder, mirrors, &[("file", digest)], &patience, &mut |_| ());
        assert_eq!(folder.join("file").exists(), result.is_ok());
        if result.is_ok() {
            assert_eq!(fs::read(folder.join("file")).unwrap(), CONTENT);
            assert!(!folder.join("file.part").exists());
        }
        result
    }

    /// Fetches `file` from these mirrors into a new folder.
    fn fetched(mirrors: &[String]) -> (tempfile::TempDir, Result<()>) {
        let folder = tempfile::tempdir().unwrap();
        let result = fetch_into(folder.path(), mirrors);
        (folder, result)
    }

    #[test]
    fn a_good_answer_is_a_file_and_a_broken_one_is_gone_on_with() {
        fetched(&[serve(&[good]).0]).1.unwrap();
        let (url, asked) = serve(&[truncated, good]);
        fetched(&[url]).1.unwrap();
        assert_eq!(*asked.lock().unwrap(), [None, Some(10)]);
        fetched(&[serve(&[truncated, no_ranges]).0]).1.unwrap();
        fetched(&[serve(&[busy, good]).0]).1.unwrap();
        let (url, asked) = serve(&[stalling, good]);
        fetched(&[url]).1.unwrap();
        assert_eq!(*asked.lock().unwrap(), [None, Some(10)]);
    }

    #[test]
    fn a_part_of_an_earlier_call_is_gone_on_with_or_begun_anew() {
        let check = |part: &[u8], answers: &'static [Answer], expected: &[Option<usize>]| {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("file.part"), part).unwrap();
            let (url, asked) = serve(answers);
            fetch_into(folder.path(), &[url]).unwrap();
            assert_eq!(*asked.lock().unwrap(), expected);
        };
        check(&CONTENT[..20], &[good], &[Some(20)]);
        check(CONTENT, &[no_such_range], &[Some(CONTENT.len())]);
        check(b"not the beginning", &[good], &[Some(17), None]);
        check(&[0; 100], &[no_such_range, good], &[Some(100), None]);
        fetched(&[serve(&[another_files_start, forbidden]).0, serve(&[good]).0]).1.unwrap();
    }

    #[test]
    fn files_that_are_there_are_not_asked_for_and_two_processes_fetch_them_once() {
        let folder = tempfile::tempdir().unwrap();
        let (url, asked) = serve(&[good]);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| fetch_into(folder.path(), std::slice::from_ref(&url)).unwrap());
            }
        });
        assert_eq!(*asked.lock().unwrap(), [None]);
        fetch_into(folder.path(), &[gone()]).unwrap();
    }

    #[test]
    fn the_next_mirror_has_its_turn_after_one_that_fails() {
        for bad in [&[wrong as Answer] as &[Answer], &[forbidden], &[busy], &[slow], &[stalling], &[truncated]] {
            fetched(&[serve(bad).0, serve(&[good]).0]).1.unwrap();
        }
        fetched(&[gone(), serve(&[good]).0]).1.unwrap();
    }

    #[test]
    fn no_good_mirror_is_an_error_that_says_what_was_wrong_with_each() {
        let cases: [(String, &str); 5] = [
            (serve(&[wrong]).0, "expected, one of 5 bytes and "),
            (serve(&[forbidden]).0, "status 200 expected, 403 found"),
            (serve(&[busy]).0, "status 200 expected, 503 found"),
            (serve(&[slow]).0, "timeout"),
            (gone(), "refused"),
        ];
        for (url, expected) in cases {
            let (folder, result) = fetched(std::slice::from_ref(&url));
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.starts_with("file could not be downloaded: ") && error.contains(&url), "{error}");
            assert!(error.to_lowercase().contains(expected), "{expected:?} is missing from {error}");
            assert!(!folder.path().join("file").exists());
        }
    }
}
