//! Errors of the runtime as Python's.

use std::io;

use anyhow::Error;
use pyo3::PyErr;
use pyo3::exceptions::PyValueError;

/// OSError or one of its kinds, such as FileNotFoundError, for a failed operation on a file, and ValueError for the rest.
pub fn python_error(error: Error) -> PyErr {
    let sentence = format!("{error:#}");
    match error.downcast_ref::<io::Error>() {
        Some(io) => io::Error::new(io.kind(), sentence).into(),
        None => PyValueError::new_err(sentence),
    }
}
