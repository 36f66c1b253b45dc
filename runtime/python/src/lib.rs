//! The compiled half of the Python package `mnist_gan`: draws images and data sets, encodes PNG and runs the `runtime` program.
//!
//! The Python half checks all arguments before it calls this one.

mod dataset;
mod error;
mod model;

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::TryFromIntError;

use numpy::{PyArray1, PyReadonlyArray2, PyReadonlyArray3, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use runtime::{Image, cli};

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::dataset::DataSet;
    #[pymodule_export]
    use super::model::Model;
    #[pymodule_export]
    use super::{main, png, pngs};
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python gives this name")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

/// The bytes of a PNG file. pixels: uint8 of shape (H, W).
#[pyfunction]
fn png<'py>(py: Python<'py>, pixels: PyReadonlyArray2<u8>) -> PyResult<Bound<'py, PyBytes>> {
    let (height, width) = (u32::try_from(pixels.shape()[0])?, u32::try_from(pixels.shape()[1])?);
    let file = cli::png(width, height, pixels.as_slice()?);
    Ok(PyBytes::new(py, &file.map_err(|e| PyValueError::new_err(format!("pixels: {e:#}")))?))
}

/// The bytes of a PNG file for each image, one after another, and where they begin and end: int32 (N + 1,).
/// images: uint8 of shape (N, 28, 28).
#[pyfunction]
fn pngs<'py>(
    py: Python<'py>,
    images: PyReadonlyArray3<u8>,
) -> PyResult<(Bound<'py, PyBytes>, Bound<'py, PyArray1<i32>>)> {
    let pixels = images.as_slice()?.as_chunks::<{ Image::PIXELS }>().0;
    let (files, ends) = py.detach(|| {
        let (mut files, mut ends) = (vec![], vec![0]);
        for pixels in pixels {
            files.extend_from_slice(&runtime::png::encode(&Image(*pixels)));
            ends.push(i32::try_from(files.len())?);
        }
        Ok::<_, TryFromIntError>((files, ends))
    })?;
    Ok((PyBytes::new(py, &files), PyArray1::from_vec(py, ends)))
}

/// Runs the `runtime` program and returns its exit code. args: the program's name and its arguments. SIGINT, SIGTERM and SIGHUP end
/// the process from now on.
#[pyfunction]
fn main(py: Python, args: Vec<OsString>) -> u8 {
    py.detach(|| {
        cli::remove_on_signals();
        let code = cli::main(args);
        let _ = io::stdout().flush(); // Rust flushes it at the end of Rust programs only
        code
    })
}
