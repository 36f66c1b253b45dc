//! Wrong usage, as opposed to failure.

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
