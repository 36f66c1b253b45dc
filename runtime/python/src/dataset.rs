//! A data set in shards, as `runtime shards` draws it.

use std::path::PathBuf;

use pyo3::prelude::*;
use runtime::Class;
use runtime::cli::{self, Precision};

use crate::error::python_error;
use crate::model::Model;

/// A data set in shards in the folder `out`, and the generator that draws it. `class_` is a number, or None if each seed chooses.
#[pyclass(frozen, module = "mnist_gan._native")]
pub struct DataSet(cli::DataSet);

#[pymethods]
impl DataSet {
    #[new]
    fn new(
        out: PathBuf,
        model: Bound<Model>,
        int8: bool,
        class_: Option<usize>,
        seed: u64,
        count: u64,
        shard_size: u64,
    ) -> PyResult<Self> {
        let model = model.get();
        let precision = if int8 { Precision::Int8 } else { Precision::F32 };
        let class = class_.and_then(|index| Class::new(index, model.classes().len()));
        let set = cli::DataSet::new(out, model.file(), precision, class, seed, count, shard_size);
        set.map(Self).map_err(python_error)
    }

    /// The number of shards.
    #[getter]
    fn shards(&self) -> u64 {
        self.0.shards()
    }

    /// The text of the manifest.
    #[getter]
    fn manifest(&self) -> String {
        self.0.manifest()
    }

    /// Creates the folders and the manifest; returns the numbers of missing shards.
    fn begin(&self, py: Python) -> PyResult<Vec<u64>> {
        py.detach(|| self.0.begin(0..self.0.shards())).map_err(python_error)
    }

    /// Draws a shard, on one thread, unless it is there; returns the number of images that were drawn.
    fn draw(&self, py: Python, index: u64) -> PyResult<u64> {
        py.detach(|| self.0.draw_shard(index)).map_err(python_error)
    }

    /// Writes SHA256SUMS if all shards are there; returns whether they are.
    fn finish(&self, py: Python) -> PyResult<bool> {
        py.detach(|| self.0.finish()).map_err(python_error)
    }
}
