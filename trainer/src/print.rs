//! Lines for the user: the only place that writes to standard output and standard error, but for the help of clap, the
//! progress bars of indicatif and the bar of pip.

use std::io::{self, ErrorKind, Write, stderr, stdout};

use anyhow::{Context, Result};

/// Writes a line of progress, a warning or an error to standard error. A line that cannot be written is dropped.
pub fn note(line: &str) {
    let _ = stderr().write_all(format!("{}\n", printable(line, MOST)).as_bytes());
}

/// Writes a result and a line break to standard output.
///
/// # Errors
/// When it cannot be written. A reader that has closed the pipe is no error.
pub fn result(text: &str) -> Result<()> {
    written(stdout().write_all(format!("{text}\n").as_bytes()))
}

/// Flushes standard output after a `write` of a result.
///
/// # Errors
/// As [`result`].
pub fn written(write: io::Result<()>) -> Result<()> {
    match write.and_then(|()| stdout().flush()) {
        Err(why) if why.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("standard output: a result cannot be written"),
    }
}

/// The text on one line, safe for a terminal: characters that are not printable are escaped as in Rust (`\u{1b}`), and a
/// text of more than `most` characters is cut. For text from files and other programs.
pub fn printable(text: &str, most: usize) -> String {
    const KEPT: [char; 3] = ['\'', '"', '\\']; // printable, but Rust escapes them
    let cut = text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end]);
    let mut line = String::with_capacity(cut.len());
    for part in cut.replace(['\n', '\r', '\t'], " ").split_inclusive(KEPT) {
        let plain = part.trim_end_matches(KEPT);
        line.extend(plain.escape_debug());
        line.push_str(&part[plain.len()..]);
    }
    if cut.len() < text.len() {
        line.push_str(&format!("… ({} characters)", text.chars().count()));
    }
    line
}

/// Longest line for the user, in characters.
pub const MOST: usize = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_file_cannot_control_the_terminal() {
        let cases = [
            ("\x1b]0;owned\x07\x1b[2J", r"\u{1b}]0;owned\u{7}\u{1b}[2J"),
            ("c1 \u{9b}2J, del \u{7f}, nul \0", r"c1 \u{9b}2J, del \u{7f}, nul \0"),
            ("right to left \u{202e}gnp.exe", r"right to left \u{202e}gnp.exe"),
            ("three\r\nlines\nin one", "three  lines in one"),
            (r#"C:\runs\7: "it's", β₁ = ½, é, e"#, r#"C:\runs\7: "it's", β₁ = ½, é, e"#),
            ("'\u{1b}'\u{1b}", r"'\u{1b}'\u{1b}"),
            ("", ""),
        ];
        cases.iter().for_each(|(text, line)| assert_eq!(printable(text, 100), *line));
    }

    #[test]
    fn a_long_text_is_cut_and_its_length_told() {
        assert_eq!(printable("ααα", 3), "ααα");
        assert_eq!(printable("αααα", 3), "ααα… (4 characters)");
        assert_eq!(printable(&"x".repeat(1_000_000), 5), "xxxxx… (1000000 characters)");
    }
}
