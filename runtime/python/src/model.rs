//! A generator of both precisions, and what it draws into numpy arrays.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::slice;
use std::sync::OnceLock;

use numpy::ndarray::aview2;
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray3, ToPyArray};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use runtime::cli::{self, ModelFile};
use runtime::latent::LATENT;
use runtime::{CLASSES, Class, GENERATOR, Generate, Generator, Image, Latent, METADATA, WEIGHTS_SHA256, int8};

use crate::error::python_error;

/// Images that a thread draws before Python may handle Ctrl-C: 20 ms.
const BLOCK: usize = 4096;

/// A generator: the built-in one, or one from an ONNX file.
#[pyclass(frozen, module = "mnist_gan._native")]
pub struct Model {
    name: String,
    /// The names of the classes; empty if the generator is unconditional.
    classes: Vec<String>,
    /// None for the built-in generator.
    loaded: Option<Loaded>,
}

struct Loaded {
    file: ModelFile,
    f32: Box<Generator>,
    /// Made when it is first asked for, because quantising takes as long as drawing thousands of images.
    int8: OnceLock<Box<int8::Generator>>,
}

/// The number of one class for all seeds, or of one per seed.
#[derive(FromPyObject)]
enum Classes<'py> {
    One(u8),
    Each(PyReadonlyArray1<'py, u8>),
}

#[pymethods]
impl Model {
    /// The generator in the bytes of an ONNX file and of its data files, or the built-in one. `classes`, their number, counts
    /// more than the file's metadata.
    #[new]
    #[pyo3(
        signature = (onnx=None, name="built in".to_owned(), data=BTreeMap::new(), classes=None),
        text_signature = "(onnx=None, name='built in', data={}, classes=None)"
    )]
    fn new(
        onnx: Option<Vec<u8>>,
        name: String,
        data: BTreeMap<String, Vec<u8>>,
        classes: Option<usize>,
    ) -> PyResult<Self> {
        let Some(onnx) = onnx else {
            return Ok(Self { name, classes: CLASSES.iter().map(|name| name.to_string()).collect(), loaded: None });
        };
        let file = ModelFile::parse(onnx, &data, &name, classes).map_err(python_error)?;
        Ok(Self::loaded(file, name))
    }

    #[staticmethod]
    #[pyo3(signature = (path, classes=None))]
    fn read(path: PathBuf, classes: Option<usize>) -> PyResult<Self> {
        let file = ModelFile::read(&path, classes).map_err(python_error)?;
        Ok(Self::loaded(file, path.display().to_string()))
    }

    /// For pickle.
    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let arguments = match &slf.get().loaded {
            None => PyTuple::empty(py),
            Some(loaded) => {
                let data = PyDict::new(py);
                for (path, bytes) in loaded.file.data() {
                    data.set_item(path, PyBytes::new(py, bytes))?;
                }
                let model = slf.get();
                (PyBytes::new(py, loaded.file.bytes()), &model.name, data, model.classes.len()).into_pyobject(py)?
            }
        };
        Ok((slf.get_type().into_any(), arguments))
    }

    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    /// The names of the classes, in the order of their numbers; empty if the generator is unconditional.
    #[getter]
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// About how many classes the weights suggest, if the generator has none.
    #[getter]
    fn likely_classes(&self) -> Option<usize> {
        self.loaded.as_ref().and_then(|loaded| loaded.file.likely_classes())
    }

    #[getter]
    fn metadata<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        match &self.loaded {
            None => METADATA.iter().try_for_each(|(key, value)| dict.set_item(key, value))?,
            Some(loaded) => loaded.file.metadata().iter().try_for_each(|(key, value)| dict.set_item(key, value))?,
        }
        Ok(dict)
    }

    /// The SHA-256 of the f32 weights, which names the generator.
    #[getter]
    fn weights_sha256(&self, py: Python) -> String {
        match &self.loaded {
            None => WEIGHTS_SHA256.to_owned(),
            Some(loaded) => py.detach(|| cli::weights_sha256(&loaded.f32)),
        }
    }

    /// Draws one image into `out` (28, 28) or a new array, and returns it. Keeps the GIL, because getting it back takes longer
    /// than the image.
    #[pyo3(signature = (seed, label, int8, out=None))]
    fn generate_one<'py>(
        &self,
        py: Python<'py>,
        seed: u64,
        label: Option<usize>,
        int8: bool,
        out: Option<Bound<'py, PyArray2<u8>>>,
    ) -> PyResult<Bound<'py, PyArray2<u8>>> {
        let z = self.latent_of(seed, label);
        let image = self.generator(int8).draw(&z);
        let Some(out) = out else {
            return Ok(aview2(image.0.as_chunks::<{ Image::SIDE }>().0).to_pyarray(py));
        };
        out.try_readwrite()?.as_slice_mut()?.copy_from_slice(&image.0);
        Ok(out)
    }

    /// Draws the images of `seeds` (N,) into `out` (N, 28, 28).
    fn generate(
        &self,
        py: Python,
        seeds: PyReadonlyArray1<u64>,
        classes: Option<Classes>,
        int8: bool,
        threads: Option<NonZeroUsize>,
        mut out: PyReadwriteArray3<u8>,
    ) -> PyResult<()> {
        let (seeds, class_of) = (seeds.as_slice()?, class_of(&classes)?);
        let latent = |i: usize| self.latent_of(seeds[i], class_of(i));
        self.draw_all(py, int8, threads, &latent, out.as_slice_mut()?)
    }

    /// Draws the images of `z` (N, 100) into `out` (N, 28, 28).
    fn draw(
        &self,
        py: Python,
        z: PyReadonlyArray2<f32>,
        int8: bool,
        threads: Option<NonZeroUsize>,
        mut out: PyReadwriteArray3<u8>,
    ) -> PyResult<()> {
        let z = z.as_slice()?.as_chunks::<LATENT>().0;
        self.draw_all(py, int8, threads, &|i| Latent::from_numbers(&z[i]), out.as_slice_mut()?)
    }

    /// The latents of `seeds` (N,), as float32 (N, 100).
    fn latent<'py>(
        &self,
        py: Python<'py>,
        seeds: PyReadonlyArray1<u64>,
        classes: Option<Classes>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let (seeds, class_of) = (seeds.as_slice()?, class_of(&classes)?);
        let array = PyArray2::zeros(py, (seeds.len(), LATENT), false);
        let mut out = array.readwrite();
        let z = out.as_slice_mut()?.as_chunks_mut::<LATENT>().0;
        py.detach(|| {
            for (i, (z, &seed)) in z.iter_mut().zip(seeds).enumerate() {
                *z = self.latent_of(seed, class_of(i)).numbers();
            }
        });
        drop(out);
        Ok(array)
    }

    /// The numbers of the classes that `seeds` (N,) choose, as uint8 (N,). The generator must be class-conditional.
    fn labels<'py>(&self, py: Python<'py>, seeds: PyReadonlyArray1<u64>) -> PyResult<Bound<'py, PyArray1<u8>>> {
        let seeds = seeds.as_slice()?;
        let label = |&seed| Class::of(seed, self.classes.len()).map(|class| class.index() as u8);
        let labels = py.detach(|| seeds.iter().filter_map(label).collect());
        Ok(PyArray1::from_vec(py, labels))
    }
}

impl Model {
    /// The ONNX file; none for the built-in generator.
    pub fn file(&self) -> Option<&ModelFile> {
        self.loaded.as_ref().map(|loaded| &loaded.file)
    }

    fn loaded(file: ModelFile, name: String) -> Self {
        let loaded = Loaded { f32: file.f32(), int8: OnceLock::new(), file };
        Self { name, classes: loaded.file.classes().to_vec(), loaded: Some(loaded) }
    }

    fn generator(&self, int8: bool) -> &dyn Generate {
        match (&self.loaded, int8) {
            (None, false) => &GENERATOR,
            (None, true) => &int8::GENERATOR,
            (Some(loaded), false) => &*loaded.f32,
            (Some(loaded), true) => &**loaded.int8.get_or_init(|| loaded.file.int8()),
        }
    }

    fn latent_of(&self, seed: u64, class: Option<usize>) -> Latent {
        match class.and_then(|index| Class::new(index, self.classes.len())) {
            Some(class) => Latent::with_class(seed, class),
            None => Latent::of_seed(seed, self.classes.len()),
        }
    }

    /// Draws image i of `latent(i)`, without the GIL.
    ///
    /// # Errors
    /// KeyboardInterrupt, with whole images up to some point of `out`. OSError if the system does not start as many threads.
    fn draw_all(
        &self,
        py: Python,
        int8: bool,
        threads: Option<NonZeroUsize>,
        latent: &(dyn Fn(usize) -> Latent + Sync),
        out: &mut [u8],
    ) -> PyResult<()> {
        let images = images_of(out);
        let threads = cli::threads(threads, images.len() as u64);
        let generator = py.detach(|| self.generator(int8));
        for (block, images) in images.chunks_mut(threads * BLOCK).enumerate() {
            py.detach(|| cli::draw_on_threads(generator, threads, &|i| latent(block * threads * BLOCK + i), images))?;
            py.check_signals()?;
        }
        Ok(())
    }
}

/// The number of the class of image i.
fn class_of<'a>(classes: &'a Option<Classes>) -> PyResult<impl Fn(usize) -> Option<usize> + Sync + use<'a>> {
    let (one, each) = match classes {
        None => (None, None),
        Some(Classes::One(class)) => (Some(usize::from(*class)), None),
        Some(Classes::Each(classes)) => (None, Some(classes.as_slice()?)),
    };
    Ok(move |i| each.map_or(one, |classes: &[u8]| Some(usize::from(classes[i]))))
}

/// Pixels (N, 28, 28) as N images.
fn images_of(pixels: &mut [u8]) -> &mut [Image] {
    // SAFETY: `Image` is repr(transparent) over `[u8; Image::PIXELS]`, and the length is rounded down.
    unsafe { slice::from_raw_parts_mut(pixels.as_mut_ptr().cast(), pixels.len() / Image::PIXELS) }
}
