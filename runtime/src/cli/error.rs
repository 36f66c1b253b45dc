//! Errors: wrong usage as opposed to failure, and how text from files is shown.

use std::fmt;

/// A flag contradicts another one or the generator. Holds the sentence to print.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error of wrong usage with this sentence.
pub fn usage<T>(sentence: String) -> anyhow::Result<T> {
    Err(Usage(sentence).into())
}

/// Text that may come from a file, on one line. Characters that control a terminal are escaped.
pub fn printable(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\'' | '\\' => c.to_string(),
        c => c.escape_debug().to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_a_file_cannot_control_the_terminal() {
        assert_eq!(printable("fc1 → 'é'\u{1b}[2J\n\u{202e}"), "fc1 → 'é'\\u{1b}[2J\\n\\u{202e}");
    }
}
