//! Pictures of a run: grids of samples, their animation, and the plot of the losses.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use ndarray::{Array2, ArrayView2};
use plotters::prelude::*;

use crate::config::SIDE;
use crate::pixel::pixel;
use crate::state::Epoch;

/// Images (N, 784) in [-1, 1] as one grey picture (height, width), four side by side.
pub fn grid(images: ArrayView2<f32>) -> Array2<u8> {
    const COLUMNS: usize = 4;
    let mut picture = Array2::zeros((images.nrows().div_ceil(COLUMNS) * SIDE, COLUMNS * SIDE));
    for (mut cell, image) in picture.exact_chunks_mut((SIDE, SIDE)).into_iter().zip(images.rows()) {
        cell.iter_mut().zip(image).for_each(|(level, &x)| *level = pixel(x));
    }
    picture
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

/// Both losses by epoch, as an SVG file.
///
/// # Errors
/// When the plot cannot be drawn.
pub fn losses(history: &[Epoch]) -> Result<String> {
    let mut svg = String::new();
    let epochs = history.last().map_or(1, |e| e.epoch).max(2);
    let top = history.iter().flat_map(|e| [e.d_loss, e.g_loss]).fold(1f32, f32::max) * 1.05;
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
        let curve = |loss: fn(&Epoch) -> f32| history.iter().map(move |e| (e.epoch, loss(e)));
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
}
