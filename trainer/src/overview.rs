//! What a data set holds: counts, the mean image, and contact sheets, as text, JSON and pictures.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, s};
use serde::Serialize;

use crate::config::{PIXELS, SIDE, Source, UsageError};
use crate::data::Dataset;
use crate::files;
use crate::print::printable;
use crate::run::pictures::{png, tile};

/// The figures of a data set.
#[derive(Debug, Serialize)]
pub struct Overview {
    /// Name of the data set.
    pub name: String,
    /// SHA-256 of the data set.
    pub sha256: String,
    /// Number of training images.
    pub training_images: usize,
    /// Number of test images.
    pub test_images: usize,
    /// Mean grey level of the training images, 0 black to 255 white.
    pub mean: f64,
    /// The classes in the order of their labels.
    pub classes: Vec<Class>,
}

/// A class of a data set.
#[derive(Debug, Serialize)]
pub struct Class {
    /// Name of the class.
    pub name: String,
    /// Number of training images of the class.
    pub training_images: usize,
    /// Number of test images of the class.
    pub test_images: usize,
}

impl Overview {
    /// The figures of `data`.
    pub fn of(data: &Dataset) -> Self {
        let count =
            |labels: &Array1<u8>, class: usize| labels.iter().filter(|label| usize::from(**label) == class).count();
        let class = |(class, name): (usize, &String)| Class {
            name: name.clone(),
            training_images: count(&data.labels, class),
            test_images: count(&data.test_labels, class),
        };
        let sum: u64 = data.images.iter().map(|&level| u64::from(level)).sum();
        Self {
            name: data.name.clone(),
            sha256: data.sha256.clone(),
            training_images: data.n(),
            test_images: data.test_images.nrows(),
            mean: sum as f64 / data.images.len().max(1) as f64,
            classes: data.classes.iter().enumerate().map(class).collect(),
        }
    }

    /// The figures as lines of text.
    pub fn table(&self) -> String {
        let Self { name, sha256, training_images, test_images, mean, classes } = self;
        let mut lines = vec![
            format!("data      {} (sha256 {sha256})", printable(name, 100)),
            format!("images    {training_images} for training, {test_images} for tests"),
            format!("mean      {mean:.1} of 255"),
            format!("classes   {}, with images for training and for tests:", classes.len()),
        ];
        lines.extend((0..).zip(classes).map(|(label, class)| {
            let Class { name, training_images, test_images } = class;
            format!("{label:>7}   {:<20} {training_images:>7} {test_images:>7}", printable(name, 20))
        }));
        lines.join("\n")
    }
}

/// Mean of images (N, 784), (784,). Black without images.
fn mean_image<'a>(images: impl Iterator<Item = ArrayView1<'a, u8>>) -> Array1<u8> {
    let (mut sum, mut n) = (Array1::<u64>::zeros(PIXELS), 0);
    for image in images {
        sum.zip_mut_with(&image, |sum, &level| *sum += u64::from(level));
        n += 1;
    }
    sum.mapv(|sum| ((sum + n / 2) / n.max(1)) as u8)
}

/// Training images of a class.
fn of_class(data: &Dataset, class: usize) -> impl Iterator<Item = ArrayView1<'_, u8>> {
    let images = data.images.rows().into_iter().zip(&data.labels);
    images.filter(move |(_, label)| usize::from(**label) == class).map(|(image, _)| image)
}

/// Checks, before the images are read, that pictures in `out` would not be images of the data set themselves.
///
/// # Errors
/// When `out` is in a folder of the data set, directly or by links.
pub fn check_out(out: &Path, data: &Source) -> Result<()> {
    let Source::Folder(data) = data else { return Ok(()) };
    let existing = out.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let place = existing.filter_map(|path| fs::canonicalize(path).ok()).next();
    let is_in_data = place.is_some_and(|place| holds(data, &place, 2));
    let shown = out.display();
    ensure!(!is_in_data, UsageError(format!("--out: {shown} is in a folder of the data set; choose another folder")));
    Ok(())
}

/// Whether `place`, a path without links, is `folder`, or is below it or below a folder at most `depth` folders down, which may be a link.
fn holds(folder: &Path, place: &Path, depth: u32) -> bool {
    let is_below = folder.is_dir() && fs::canonicalize(folder).is_ok_and(|folder| place.starts_with(folder));
    let mut below = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    is_below || depth > 0 && below.any(|folder| holds(&folder, place, depth - 1))
}

/// Writes `mean.png`, the mean training image, and a contact sheet for each class, such as `07-trouser.png`: the first hundred
/// training images in rows of ten. The folder is created if it is missing. Gives back the paths of the files.
///
/// # Errors
/// When a file exists, unless `force`, or cannot be written.
pub fn write_pictures(data: &Dataset, folder: &Path, force: bool) -> Result<Vec<PathBuf>> {
    const COLUMNS: usize = 10;
    let mut pictures = vec![(folder.join("mean.png"), tile(&[mean_image(data.images.rows().into_iter()).view()], 1))];
    for (class, name) in data.classes.iter().enumerate() {
        let images: Vec<_> = of_class(data, class).take(COLUMNS * COLUMNS).collect();
        let name: String = name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).take(40).collect();
        pictures.push((folder.join(format!("{class:02}-{name}.png")), tile(&images, COLUMNS)));
    }
    let existing = pictures.iter().map(|(path, _)| path).find(|path| path.symlink_metadata().is_ok());
    if let Some(path) = existing.filter(|_| !force) {
        bail!(UsageError(format!("--out: {} exists; --force overwrites it", path.display())));
    }
    fs::create_dir_all(folder).with_context(|| format!("{}: cannot be created", folder.display()))?;
    for (path, picture) in &pictures {
        files::write(path, &png(picture)?)?;
    }
    Ok(pictures.into_iter().map(|(path, _)| path).collect())
}

/// The mean training image, and below it a row for each class at half size: its mean image and its first four images. As half
/// blocks for a terminal of 80 columns with colours.
pub fn half_blocks(data: &Dataset) -> String {
    let mean = mean_image(data.images.rows().into_iter());
    let mut lines = vec!["mean image".to_string()];
    lines.extend(lines_of(square(mean.view()).view()));
    for (class, name) in data.classes.iter().enumerate() {
        lines.push(printable(name, 70));
        let mean = mean_image(of_class(data, class));
        let images = [mean.view()].into_iter().chain(of_class(data, class).take(4));
        let cells: Vec<Vec<String>> = images.map(|image| lines_of(half(image).view())).collect();
        let row = |row: usize| cells.iter().map(|cell| cell[row].as_str()).collect::<Vec<_>>().join(" ");
        lines.extend((0..SIDE / 4).map(row));
    }
    lines.join("\n")
}

fn square(image: ArrayView1<u8>) -> Array2<u8> {
    image.to_shape((SIDE, SIDE)).expect("784 pixels").into_owned()
}

/// The image (14, 14) of the means of four pixels each.
fn half(image: ArrayView1<u8>) -> Array2<u8> {
    let image = square(image);
    Array2::from_shape_fn((SIDE / 2, SIDE / 2), |(row, column)| {
        let four = image.slice(s![2 * row..2 * row + 2, 2 * column..2 * column + 2]);
        (four.iter().map(|&level| u32::from(level)).sum::<u32>() / 4) as u8
    })
}

/// An image as lines of the character ▀, whose colour is the upper pixel and whose background is the lower one.
fn lines_of(image: ArrayView2<u8>) -> Vec<String> {
    let pairs = image.exact_chunks((2, image.ncols()));
    let line = |rows: ArrayView2<u8>| {
        let cells = rows.columns().into_iter().map(|pixels| {
            let [top, bottom] = [pixels[0], pixels[1]];
            format!("\x1b[38;2;{top};{top};{top};48;2;{bottom};{bottom};{bottom}m▀")
        });
        cells.collect::<String>() + "\x1b[0m"
    };
    pairs.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Dataset {
        let images = Array2::from_shape_fn((5, PIXELS), |(n, i)| if i == 28 { 200 } else { 10 * n as u8 });
        Dataset {
            name: "small".into(),
            classes: vec!["a/b".into(), "c".into()],
            images,
            labels: Array1::from(vec![0, 1, 0, 0, 1]),
            test_images: Array2::zeros((1, PIXELS)),
            test_labels: Array1::from(vec![1]),
            ..Dataset::default()
        }
    }

    #[test]
    fn an_overview_counts_the_images_of_each_class() {
        let overview = Overview::of(&data());
        let counts: Vec<_> = overview.classes.iter().map(|class| (class.training_images, class.test_images)).collect();
        assert_eq!((overview.training_images, overview.test_images, counts), (5, 1, vec![(3, 0), (2, 1)]));
        assert!((overview.mean - (20.0 * 783.0 + 200.0) / 784.0).abs() < 1e-9, "{}", overview.mean);
    }

    #[test]
    fn pictures_are_written_for_each_class_and_never_over_a_file_without_force() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("new");
        let paths = write_pictures(&data(), &out, false).unwrap();
        assert_eq!(paths, ["mean.png", "00-a-b.png", "01-c.png"].map(|name| out.join(name)));
        let mut reader = png::Decoder::new(std::io::Cursor::new(fs::read(&paths[1]).unwrap())).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        // The third image of class 0 is the data set's fourth.
        assert_eq!(
            (reader.info().width, reader.info().height, pixels[0], pixels[56], pixels[280]),
            (280, 28, 0, 30, 200)
        );
        fs::write(&paths[2], "mine").unwrap();
        let error = write_pictures(&data(), &out, false).unwrap_err();
        assert!(
            error.is::<UsageError>() && error.to_string().ends_with("mean.png exists; --force overwrites it"),
            "{error}"
        );
        assert_eq!(fs::read(&paths[2]).unwrap(), b"mine");
        write_pictures(&data(), &out, true).unwrap();
    }

    #[test]
    fn a_terminal_shows_two_pixels_in_a_character() {
        let text = half_blocks(&data());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1 + 14 + 2 * (1 + 7));
        assert!(lines[1].starts_with("\x1b[38;2;20;20;20;48;2;200;200;200m▀"), "{:?}", lines[1]);
        // The mean of 14 columns and three images of class 0; the mean and two images of class 1.
        let widths = [1, 16, 24].map(|line| lines[line].matches('▀').count());
        assert_eq!((widths, lines[15], lines[23]), ([28, 14 * 4, 14 * 3], "a/b", "c"));
    }
}
