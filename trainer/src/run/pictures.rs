//! Pictures of a run: grids of samples, their animation, and the plot of the losses.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use crate::config::PIXELS;
use crate::state::Epoch;

/// A grey picture, row-major, 0 black to 255 white.
pub struct Grey {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u8>,
}

/// Images (n, 784) in [-1, 1], `columns` side by side.
pub fn grid(images: &[f32], columns: usize) -> Grey {
    const SIDE: usize = 28;
    let rows = (images.len() / PIXELS).div_ceil(columns);
    let (width, height) = (columns * SIDE, rows * SIDE);
    let mut pixels = vec![0; width * height];
    for (i, image) in images.chunks_exact(PIXELS).enumerate() {
        let corner = i / columns * SIDE * width + i % columns * SIDE;
        for (y, row) in image.chunks_exact(SIDE).enumerate() {
            let line = &mut pixels[corner + y * width..][..SIDE];
            line.iter_mut().zip(row).for_each(|(pixel, x)| *pixel = (x * 127.5 + 127.5).round() as u8);
        }
    }
    Grey { width, height, pixels }
}

pub fn png(picture: &Grey) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    let mut encoder = encoder(&mut bytes, picture.width as u32, picture.height as u32);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&picture.pixels)?;
    writer.finish()?;
    Ok(bytes)
}

/// An animated PNG of grey PNG files of one size, ten frames a second, the last one held for two seconds.
pub fn animation(frames: impl Iterator<Item = PathBuf>) -> Result<Vec<u8>> {
    let frames: Vec<Grey> = frames.map(read).collect::<Result<_>>()?;
    let first = frames.first().context("an animation of no frames")?;
    let mut bytes = vec![];
    let mut encoder = encoder(&mut bytes, first.width as u32, first.height as u32);
    encoder.set_animated(frames.len() as u32, 0)?;
    encoder.set_frame_delay(1, 10)?;
    let mut writer = encoder.write_header()?;
    for (i, frame) in frames.iter().enumerate() {
        if i + 1 == frames.len() {
            writer.set_frame_delay(2, 1)?;
        }
        writer.write_image_data(&frame.pixels)?;
    }
    writer.finish()?;
    Ok(bytes)
}

fn encoder(bytes: &mut Vec<u8>, width: u32, height: u32) -> png::Encoder<'_, &mut Vec<u8>> {
    let mut encoder = png::Encoder::new(bytes, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder
}

fn read(path: PathBuf) -> Result<Grey> {
    let open = || -> Result<Grey> {
        let mut reader = png::Decoder::new(BufReader::new(File::open(&path)?)).read_info()?;
        let mut pixels = vec![0; reader.output_buffer_size().context("too large")?];
        let info = reader.next_frame(&mut pixels)?;
        Ok(Grey { width: info.width as usize, height: info.height as usize, pixels })
    };
    open().with_context(|| format!("{}: a PNG of samples expected", path.display()))
}

/// Both losses by epoch, as SVG.
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
    draw().map_err(|e| anyhow!("the plot of the losses: {e}"))?;
    Ok(svg)
}
