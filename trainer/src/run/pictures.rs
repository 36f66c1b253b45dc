//! Pictures of a run: grids of samples, their animation, and the plot of the losses.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use ndarray::{Array2, ArrayView1, ArrayView2};
use plotters::prelude::*;

use crate::config::SIDE;
use crate::pixel::pixel;
use crate::state::Epoch;

/// Images (784,) side by side as one grey picture (height, width).
pub fn tile(images: &[ArrayView1<u8>], columns: usize) -> Array2<u8> {
    let mut picture = Array2::zeros((images.len().div_ceil(columns) * SIDE, columns * SIDE));
    for (mut cell, image) in picture.exact_chunks_mut((SIDE, SIDE)).into_iter().zip(images) {
        cell.iter_mut().zip(image).for_each(|(level, &x)| *level = x);
    }
    picture
}

/// Images (N, 784) in [-1, 1] as one grey picture (height, width), four side by side.
pub fn grid(images: ArrayView2<f32>) -> Array2<u8> {
    let images = images.mapv(pixel);
    tile(&images.rows().into_iter().collect::<Vec<_>>(), 4)
}

/// A grey picture (height, width) as a PNG file.
///
/// # Errors
/// When the picture has no pixels.
pub fn png(picture: &Array2<u8>) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    let mut encoder = encoder(&mut bytes, picture);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels(picture)?)?;
    writer.finish()?;
    Ok(bytes)
}

/// An animated PNG of grey PNG files of equal size: ten frames a second, the last one for two seconds.
///
/// # Errors
/// When there is no file, or a file is not a grey PNG of the first one's size.
pub fn animation(frames: impl Iterator<Item = PathBuf>) -> Result<Vec<u8>> {
    let frames: Vec<Array2<u8>> = frames.map(read).collect::<Result<_>>()?;
    let first = frames.first().context("at least one frame expected for an animation, none found")?;
    let mut bytes = vec![];
    let mut encoder = encoder(&mut bytes, first);
    encoder.set_animated(frames.len() as u32, 0)?;
    encoder.set_frame_delay(1, 10)?;
    let mut writer = encoder.write_header()?;
    for (i, frame) in frames.iter().enumerate() {
        if i + 1 == frames.len() {
            writer.set_frame_delay(2, 1)?;
        }
        writer.write_image_data(pixels(frame)?)?;
    }
    writer.finish()?;
    Ok(bytes)
}

/// Whether the picture of `epoch` is a frame of the animation after the epoch `newest`: every n-th epoch is, and the newest,
/// where n is the smallest power of two that gives at most [`MOST_FRAMES`].
pub fn is_frame(epoch: u64, newest: u64) -> bool {
    let every = newest.div_ceil(MOST_FRAMES).next_power_of_two();
    epoch == newest || epoch.is_multiple_of(every)
}

/// Most frames of an animation.
pub const MOST_FRAMES: u64 = 200;

/// Both losses by epoch, as an SVG file. Of a long history, about a thousand epochs are drawn.
///
/// # Errors
/// When the plot cannot be drawn.
pub fn losses(history: &[Epoch]) -> Result<String> {
    let mut svg = String::new();
    let every = history.len().div_ceil(1000).max(1);
    let is_drawn = |i: usize| i.is_multiple_of(every) || i + 1 == history.len();
    let drawn: Vec<&Epoch> = (0..history.len()).filter(|i| is_drawn(*i)).map(|i| &history[i]).collect();
    let epochs = history.last().map_or(1, |e| e.epoch).max(2);
    let top = drawn.iter().flat_map(|e| [e.d_loss, e.g_loss]).fold(1f32, f32::max) * 1.05;
    let mut draw = || -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        let area = SVGBackend::with_string(&mut svg, (800, 480)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption("Losses", ("sans-serif", 22))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d(1..epochs, 0f32..top)?;
        chart.configure_mesh().x_desc("epoch").y_desc("mean binary cross-entropy").draw()?;
        let curve = |loss: fn(&Epoch) -> f32| drawn.iter().map(move |e| (e.epoch, loss(e)));
        let curves = [
            ("discriminator", RGBColor(31, 119, 180), curve(|e| e.d_loss)),
            ("generator", RGBColor(214, 90, 30), curve(|e| e.g_loss)),
        ];
        for (name, colour, points) in curves {
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
        chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
        area.present()
    };
    draw().map_err(|e| anyhow!("the plot of the losses cannot be drawn: {e}"))?;
    Ok(svg)
}

fn encoder<'a>(bytes: &'a mut Vec<u8>, picture: &Array2<u8>) -> png::Encoder<'a, &'a mut Vec<u8>> {
    let mut encoder = png::Encoder::new(bytes, picture.ncols() as u32, picture.nrows() as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder
}

fn pixels(picture: &Array2<u8>) -> Result<&[u8]> {
    picture.as_slice().context("a picture in row-major order expected")
}

fn read(path: PathBuf) -> Result<Array2<u8>> {
    let open = || -> Result<Array2<u8>> {
        let mut reader = png::Decoder::new(BufReader::new(File::open(&path)?)).read_info()?;
        let mut pixels = vec![0; reader.output_buffer_size().context("too large")?];
        let info = reader.next_frame(&mut pixels)?;
        Ok(Array2::from_shape_vec((info.height as usize, info.width as usize), pixels)?)
    };
    open().with_context(|| format!("{}: a PNG of samples expected", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_is_read_line_by_line() {
        let mut images = Array2::from_elem((6, 784), -1.0);
        images[[1, 1]] = 1.0; // second pixel of the second image
        images[[4, 28]] = 1.0; // second row of the fifth image
        let picture = grid(images.view());
        assert_eq!(picture.dim(), (56, 112));
        let white: Vec<_> = picture.indexed_iter().filter(|(_, level)| **level == 255).map(|(at, _)| at).collect();
        assert_eq!(white, [(0, 29), (29, 0)]);
    }

    #[test]
    fn a_long_run_has_at_most_200_frames_and_keeps_some_of_those_that_it_had() {
        let frames = |newest: u64| (1..=newest).filter(|epoch| is_frame(*epoch, newest)).collect::<Vec<_>>();
        assert_eq!(frames(200), (1..=200).collect::<Vec<_>>());
        for newest in [201, 400, 401, 20_001] {
            let (now, before) = (frames(newest), frames(newest - 1));
            assert!((100..=200).contains(&now.len()) && now.last() == Some(&newest), "{newest}: {}", now.len());
            assert!(now.iter().all(|epoch| *epoch == newest || before.contains(epoch)), "{newest}: {now:?}");
        }
    }

    #[test]
    fn the_plot_of_a_long_history_is_no_larger_than_that_of_1000_epochs() {
        let epoch = |epoch: u64| Epoch {
            epoch,
            step: epoch,
            d_loss: 1.0,
            g_loss: 1.0 + (epoch % 7) as f32,
            d_real: 0.5,
            d_fake: 0.5,
            steps_per_second: 1.0,
            variety: 1.0,
            frechet_distance: None,
            collapse: false,
        };
        let size = |n: u64| losses(&(1..=n).map(epoch).collect::<Vec<_>>()).unwrap().len();
        assert!(size(20_001) < size(1000) + 2000, "{} {}", size(20_001), size(1000));
    }
}
