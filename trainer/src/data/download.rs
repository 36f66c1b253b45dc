//! Downloads one file from a mirror, resuming a broken download; keeps only the pinned content.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::cache;
use crate::clients;
use crate::data::pin::Pin;
use crate::data::progress::Progress;
use crate::files;

/// Waiting time that is left to a source. Waiting uses it up; every 8 kB that arrive give a second back, up to the time at
/// the start. So a silent source ends soon, and a long download may go on.
pub struct Patience {
    full: Duration,
    left: Duration,
    since: Instant,
}

impl Patience {
    /// `full` at the start.
    pub fn new(full: Duration) -> Self {
        Self { full, left: full, since: Instant::now() }
    }

    /// The waiting time that is left.
    pub fn left(&mut self) -> Duration {
        let now = Instant::now();
        self.left = self.left.saturating_sub(now - self.since);
        self.since = now;
        self.left
    }

    /// Counts bytes that arrived.
    pub fn refill(&mut self, bytes: u64) {
        self.left = (self.left() + Duration::from_secs_f64(bytes as f64 / 8e3)).min(self.full);
    }
}

/// Tries in a row that bring nothing before a mirror is given up.
const TRIES: u32 = 3;
/// Pause before the second try. Each later pause is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// Downloads `mirror/name.gz` into `folder`. Until the content is checked the file's name ends in `.part`. A part that is there
/// already is continued.
///
/// # Errors
/// When the mirror does not give the whole file in time (the part stays), or gives another file (the part is removed).
pub fn fetch(
    mirror: &str,
    pin: &Pin,
    folder: &Path,
    patience: &mut Patience,
    progress: &mut dyn FnMut(Progress),
) -> Result<()> {
    let name = format!("{}.gz", pin.name);
    let (url, path) = (format!("{}/{name}", mirror.trim_end_matches('/')), folder.join(&name));
    let part = path.with_added_extension("part");
    cache::check_no_link(&part)?;
    let resumed = length(&part) > 0;
    progress(Progress::Line(&format!("downloading {url}")));
    let mut download = Download { url: &url, part: &part, limit: pin.len + (1 << 16), patience, progress };
    download.get_all().with_context(|| url.clone())?;
    match pin.read(cache::open(&part)?).context(url) {
        Ok(_) => fs::rename(&part, &path).with_context(|| files::cannot_write(&path)),
        Err(problem) => {
            fs::remove_file(&part).with_context(|| format!("{}: cannot be removed", part.display()))?;
            // The part may have been the beginning of another mirror's file.
            if resumed { fetch(mirror, pin, folder, patience, progress) } else { Err(problem) }
        }
    }
}

struct Download<'a> {
    url: &'a str,
    part: &'a Path,
    /// Most bytes that are accepted.
    limit: u64,
    patience: &'a mut Patience,
    progress: &'a mut dyn FnMut(Progress),
}

/// A problem, and whether another try may help.
struct Failure {
    retry: bool,
    problem: anyhow::Error,
}

impl Download<'_> {
    /// Sends requests until the file is complete, each for the bytes that are missing.
    fn get_all(&mut self) -> Result<()> {
        let start = length(self.part);
        let (mut fruitless, mut pause, mut longest) = (0, PAUSE, start);
        loop {
            let Err(Failure { retry, problem }) = self.get(longest, longest > start) else { return Ok(()) };
            // A server that ignores ranges starts again each time: only a longer file than before is progress.
            let now = length(self.part);
            (fruitless, pause) = if now > longest { (0, PAUSE) } else { (fruitless + 1, pause * 2) };
            longest = longest.max(now);
            let left = self.patience.left();
            if !retry || fruitless == TRIES || left.is_zero() {
                return Err(problem);
            }
            if fruitless > 0 {
                thread::sleep((pause / 2).min(left));
            }
        }
    }

    /// Sends one request and adds its answer to the part. `longest`: length of the longest part so far. `answered`: whether
    /// an earlier request was answered, so that this one deserves another try if it is not.
    fn get(&mut self, longest: u64, answered: bool) -> Result<(), Failure> {
        let again = |problem| Failure { retry: true, problem };
        let never = |problem| Failure { retry: false, problem };
        let have = length(self.part);
        let answer = request(self.url, have);
        let wait = self.patience.left();
        let head = match answer.recv_timeout(wait) {
            Ok(Ok(Answer::Head(200, length))) => Ok((0, length)),
            Ok(Ok(Answer::Head(206, length))) => Ok((have, length)),
            // The part has the file's length or more: its digest tells whether it is the file.
            Ok(Ok(Answer::Head(416, _))) if have > 0 => return Ok(()),
            Ok(Ok(Answer::Head(status, _))) => {
                let problem = anyhow!("status 200 expected, {status} found");
                return Err(Failure { retry: matches!(status, 408 | 429 | 500..=599), problem });
            }
            Ok(Ok(Answer::Bytes(_))) | Err(RecvTimeoutError::Disconnected) => Err(anyhow!("no answer")),
            Ok(Err(problem)) => Err(match clients::certificate_advice(&problem) {
                Some(advice) => anyhow!("{problem} ({advice})"),
                None => anyhow!(problem),
            }),
            Err(RecvTimeoutError::Timeout) => Err(anyhow!("no answer within {:.0} s", wait.as_secs_f64())),
        };
        let (from, length) = head.map_err(|problem| Failure { retry: answered, problem })?;
        let (mut done, total) = (from, length.map(|length| from + length));
        let cannot_write = |e: std::io::Error| never(anyhow!("{}: {e}", files::cannot_write(self.part)));
        let mut options = OpenOptions::new();
        options.create(true).append(from > 0).write(true).truncate(from == 0);
        let mut file = options.open(self.part).map_err(cannot_write)?;
        let name = self.url.rsplit('/').next().unwrap_or_default();
        loop {
            match answer.recv_timeout(self.patience.left().min(self.patience.full / 2)) {
                Ok(Ok(Answer::Bytes(bytes))) => {
                    file.write_all(&bytes).map_err(cannot_write)?;
                    self.patience.refill((done + bytes.len() as u64).saturating_sub(done.max(longest)));
                    done += bytes.len() as u64;
                    (self.progress)(Progress::Bytes { file: name, done, total });
                    if done > self.limit {
                        file.set_len(0).map_err(cannot_write)?; // it is not the beginning of the file
                        return Err(never(anyhow!("at most {} bytes expected, more found", self.limit)));
                    }
                }
                Ok(Ok(Answer::Head(..))) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(Err(problem)) => return Err(again(anyhow!("the answer broke off after {done} bytes: {problem}"))),
                Err(RecvTimeoutError::Timeout) => return Err(again(anyhow!("the answer stopped after {done} bytes"))),
            }
        }
        file.sync_all().map_err(cannot_write)?;
        match total {
            Some(total) if done < total => Err(again(anyhow!("{total} bytes expected, {done} found"))),
            _ => {
                (self.progress)(Progress::Bytes { file: name, done, total: Some(done) });
                Ok(())
            }
        }
    }
}

/// A piece of a server's answer.
enum Answer {
    /// Status, and number of bytes that follow if the server tells it.
    Head(u16, Option<u64>),
    Bytes(Vec<u8>),
}

/// The pieces of the answer to a GET request for the bytes from `from` on. Another thread reads them, because a look-up of the
/// server's name cannot be stopped. The thread ends when the receiver is dropped or after 30 s of silence.
fn request(url: &str, from: u64) -> Receiver<Result<Answer, String>> {
    let (sender, receiver) = sync_channel(16);
    let failed = sender.clone();
    let silence = Some(Duration::from_secs(30));
    let agent: ureq::Agent = (ureq::Agent::config_builder().http_status_as_error(false))
        .timeout_connect(silence)
        .timeout_recv_response(silence)
        .timeout_per_read(silence)
        .tls_config(TlsConfig::builder().root_certs(certificates()).build())
        .build()
        .into();
    let mut request = agent.get(url);
    if from > 0 {
        request = request.header("Range", format!("bytes={from}-"));
    }
    let thread = thread::Builder::new().spawn(move || {
        let read = || -> Result<(), String> {
            let mut response = request.call().map_err(|e| e.to_string())?;
            let head = Answer::Head(response.status().as_u16(), response.body().content_length());
            let mut receiving = sender.send(Ok(head)).is_ok();
            let mut body = response.body_mut().as_reader();
            let mut buffer = vec![0; 1 << 16];
            while receiving {
                let n = body.read(&mut buffer).map_err(|e| e.to_string())?;
                receiving = n > 0 && sender.send(Ok(Answer::Bytes(buffer[..n].to_vec()))).is_ok();
            }
            Ok(())
        };
        if let Err(problem) = read() {
            let _ = sender.send(Err(problem)); // nobody waits for the answer any more
        }
    });
    if let Err(why) = thread {
        let _ = failed.send(Err(format!("a thread cannot be started: {why}")));
    }
    receiver
}

/// The certificates that the platform trusts, or those in the file that `SSL_CERT_FILE` names. Where the platform has none, as
/// in small containers, Mozilla's.
fn certificates() -> RootCerts {
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() && env::var_os("SSL_CERT_FILE").is_none() {
        return RootCerts::WebPki;
    }
    found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).into()
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::net::{TcpListener, TcpStream};
    use std::sync::{Arc, Mutex};

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::data::idx::Kind;
    use crate::data::pin::Sha256Of;
    use crate::files::hex;

    /// An IDX file of 41 labels.
    const CONTENT: &[u8] = b"\0\0\x08\x01\0\0\0\x29more labels of digits, cut in the middle.";

    /// The bytes at which requests began, `None` for whole files.
    type Asked = [Option<usize>];

    /// Answers a request for the bytes from `from` on.
    type Answer = fn(&mut TcpStream, from: Option<usize>);

    /// URL of a server that gives one of these answers to each connection, and repeats the last; and the ranges of the requests.
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
        reply(stream, "200 OK", 6, b"<html>");
    }

    fn forbidden(stream: &mut TcpStream, _: Option<usize>) {
        reply(stream, "403 Forbidden", 0, b"");
    }

    fn busy(stream: &mut TcpStream, _: Option<usize>) {
        reply(stream, "503 Service Unavailable", 0, b"");
    }

    fn slow(stream: &mut TcpStream, _: Option<usize>) {
        std::thread::sleep(Duration::from_secs(20));
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
    }

    /// Ten bytes, and then silence.
    fn stalling(stream: &mut TcpStream, from: Option<usize>) {
        truncated(stream, from);
        std::thread::sleep(Duration::from_secs(20));
    }

    /// Bytes without end.
    fn endless(stream: &mut TcpStream, _: Option<usize>) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[0; 1 << 16]).is_ok() {}
    }

    /// Some bytes of the file from its second on, in an answer that breaks off.
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

    /// Fetches `file` from a mirror into `folder`.
    fn fetch_into(folder: &Path, mirror: &str) -> Result<()> {
        let sha256 = Sha256Of::Content(hex(&Sha256::digest(CONTENT)).leak());
        let pin = Pin { name: "file", kind: Kind::Labels, len: CONTENT.len() as u64, sha256 };
        let mut patience = Patience::new(Duration::from_secs(4));
        let result = fetch(mirror, &pin, folder, &mut patience, &mut |_| ());
        assert_eq!(folder.join("file.gz").exists(), result.is_ok());
        if result.is_ok() {
            assert_eq!(fs::read(folder.join("file.gz")).unwrap(), CONTENT);
            assert!(!folder.join("file.gz.part").exists());
        }
        result
    }

    /// What is wrong with a mirror, and the length of the part that it leaves.
    fn problem(mirror: &str) -> (String, u64) {
        let folder = tempfile::tempdir().unwrap();
        let error = fetch_into(folder.path(), mirror).unwrap_err();
        (format!("{error:#}"), length(&folder.path().join("file.gz.part")))
    }

    #[test]
    fn an_answer_that_breaks_off_is_resumed() {
        let cases: [(&'static [Answer], &Asked); 5] = [
            (&[good], &[None]),
            (&[truncated, good], &[None, Some(10)]),
            (&[stalling, good], &[None, Some(10)]),
            (&[busy, good], &[None, None]),
            (&[truncated, no_ranges], &[None, Some(10)]),
        ];
        for (answers, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let (url, asked) = serve(answers);
            fetch_into(folder.path(), &url).unwrap();
            assert_eq!(*asked.lock().unwrap(), expected);
        }
    }

    #[test]
    fn a_part_of_an_earlier_run_is_resumed_or_replaced() {
        let cases: [(&[u8], &'static [Answer], &Asked); 4] = [
            (&CONTENT[..20], &[good], &[Some(20)]),
            (CONTENT, &[no_such_range], &[Some(CONTENT.len())]),
            (b"not the beginning", &[good], &[Some(17), None]),
            (&[0; 100], &[no_such_range, good], &[Some(100), None]),
        ];
        for (part, answers, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join("file.gz.part"), part).unwrap();
            let (url, asked) = serve(answers);
            fetch_into(folder.path(), &url).unwrap();
            assert_eq!(*asked.lock().unwrap(), expected);
        }
    }

    #[test]
    fn a_part_that_another_mirror_began_wrongly_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        fetch_into(folder.path(), &serve(&[another_files_start, forbidden]).0).unwrap_err();
        assert_eq!(length(&folder.path().join("file.gz.part")), 19);
        fetch_into(folder.path(), &serve(&[good]).0).unwrap();
    }

    #[test]
    fn a_mirror_that_fails_is_told_with_its_url_and_leaves_only_a_part_of_the_file() {
        let cases: [(String, &str, u64); 8] = [
            (serve(&[wrong]).0, "an IDX file expected, a web page found", 0),
            (serve(&[forbidden]).0, "status 200 expected, 403 found", 0),
            (serve(&[busy]).0, "status 200 expected, 503 found", 0),
            (serve(&[truncated, forbidden]).0, "status 200 expected, 403 found", 10),
            (serve(&[stalling]).0, "the answer stopped after 10 bytes", 10),
            (serve(&[endless]).0, "at most 65585 bytes expected, more found", 0),
            (serve(&[slow]).0, "no answer within ", 0),
            (gone(), "refused", 0),
        ];
        for (url, expected, part) in cases {
            let (error, left) = problem(&url);
            assert!(error.starts_with(&format!("{url}/file.gz: ")), "{error}");
            assert!(
                error.contains(expected) && left == part,
                "{expected:?} and {part} expected, {error} and {left} found"
            );
        }
    }

    #[test]
    fn patience_ends_in_silence_and_comes_back_with_bytes_but_not_beyond_its_start() {
        let mut patience = Patience::new(Duration::from_millis(100));
        patience.refill(1 << 30);
        assert!(patience.left() <= Duration::from_millis(100));
        thread::sleep(Duration::from_millis(101));
        assert!(patience.left().is_zero());
        let mut patience = Patience { full: Duration::from_secs(100), ..patience };
        patience.refill(400_000); // half as much again
        assert!(patience.left() > Duration::from_secs(20) && patience.left() <= Duration::from_secs(50));
    }
}
