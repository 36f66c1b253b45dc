//! PNG and JPEG files as 28 × 28 grey images, as `Image.open(file).convert("L").resize((28, 28), Image.BILINEAR)` of Pillow
//! gives them, but of 16 bits the upper eight are taken. Transparency and the orientation in EXIF data are ignored, as Pillow does.

use std::io::Cursor;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use png::{ColorType, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::data::resize::resize;

/// The pixels (784,) of a PNG or JPEG file, told by its content.
///
/// # Errors
/// When the file is neither, damaged, cut off, or has more than [`MAX_PIXELS`]. The caller adds the file's name.
pub fn decode(file: &[u8]) -> Result<Vec<u8>> {
    ensure!(is_image(file), "a PNG or JPEG file expected, another format found");
    let (pixels, width, channels, _turn) = match file.starts_with(&PNG) {
        true => decode_png(file).context("a whole PNG file expected")?,
        false => decode_jpeg(file).context("a whole JPEG file expected")?,
    };
    let grey = grey(pixels, channels)?;
    let height = grey.len() / width;
    Ok(resize(grey, width, height))
}

/// Whether a file begins as a PNG or JPEG file.
pub fn is_image(start: &[u8]) -> bool {
    start.starts_with(&PNG) || start.starts_with(&JPEG)
}

const PNG: [u8; 4] = [0x89, b'P', b'N', b'G'];
const JPEG: [u8; 3] = [0xff, 0xd8, 0xff];

/// The largest number of pixels of an image.
pub const MAX_PIXELS: usize = 1 << 26;

/// The largest width and height of an image, as JPEG has it.
const MAX_SIDE: usize = 65_535;

/// Grey levels of pixels with 1 (grey), 2 (grey, alpha), 3 (red, green, blue) or 4 (and alpha) channels.
///
/// Source: ITU-R BT.601 in the fixed-point form of Pillow's `convert("L")`.
///
/// # Errors
/// For another number of channels.
pub fn grey(pixels: Vec<u8>, channels: usize) -> Result<Vec<u8>> {
    let luma = |rgb: &[u8]| {
        let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(u32::from);
        ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
    };
    Ok(match channels {
        1 => pixels,
        2 => pixels.into_iter().step_by(2).collect(),
        3 | 4 => pixels.chunks_exact(channels).map(luma).collect(),
        _ => bail!("1 to 4 channels expected, {channels} found"),
    })
}

/// Pixels, width, number of channels, and the turn of a large image.
type Decoded = (Vec<u8>, usize, usize, Option<Turn>);

fn decode_png(file: &[u8]) -> Result<Decoded> {
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info()?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    let turn = check_size(width, height)?;
    let mut pixels = vec![0; reader.output_buffer_size().context("the size does not fit in memory")?];
    let info = reader.next_frame(&mut pixels)?;
    pixels.truncate(info.buffer_size());
    let channels = match info.color_type {
        ColorType::Grayscale => 1,
        ColorType::GrayscaleAlpha => 2,
        ColorType::Rgb => 3,
        ColorType::Rgba => 4,
        ColorType::Indexed => bail!("the palette cannot be expanded"),
    };
    Ok((pixels, width, channels, turn))
}

fn decode_jpeg(file: &[u8]) -> Result<Decoded> {
    let options = DecoderOptions::default().set_strict_mode(true).set_max_width(MAX_SIDE).set_max_height(MAX_SIDE);
    let mut decoder = JpegDecoder::new_with_options(Cursor::new(file), options);
    decoder.decode_headers()?;
    let info = decoder.info().context("no header found")?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    let turn = check_size(width, height)?;
    let is_grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let (colours, channels) = if is_grey { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    decoder.set_options(options.jpeg_set_out_colorspace(colours));
    let pixels = decoder.decode()?;
    ensure!(pixels.len() == width * height * channels, "another number of pixels found than its header says");
    Ok((pixels, width, channels, turn))
}

/// A large image's turn. Ends when it is dropped.
type Turn = MutexGuard<'static, ()>;

/// The turn of an image of this size, if it is large. Large images are decoded one at a time, so that the memory they take does not
/// grow with the number of threads.
fn check_size(width: usize, height: usize) -> Result<Option<Turn>> {
    const LARGE: usize = 1 << 22; // pixels
    static TURN: Mutex<()> = Mutex::new(());
    let sides = 1..=MAX_SIDE;
    ensure!(
        sides.contains(&width) && sides.contains(&height) && width * height <= MAX_PIXELS,
        "1 to {MAX_PIXELS} pixels in at most {MAX_SIDE} rows and columns expected, {width} × {height} found"
    );
    Ok((width * height > LARGE).then(|| TURN.lock().unwrap_or_else(PoisonError::into_inner)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(width: u32, height: u32, pixels: &[u8]) -> Vec<u8> {
        let mut bytes = vec![];
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(ColorType::Grayscale);
        encoder.write_header().unwrap().write_image_data(pixels).unwrap();
        bytes
    }

    #[test]
    fn a_png_that_is_cut_off_is_an_error() {
        let whole = png(28, 28, &[9; 784]);
        assert_eq!(decode(&whole).unwrap(), [9; 784]);
        let end = whole.len() - 12; // the last chunk has no content
        assert!((0..end).all(|n| decode(&whole[..n]).is_err()));
    }

    #[test]
    fn a_png_that_claims_too_many_pixels_is_refused_before_they_are_unpacked() {
        for (width, height) in [(1u32 << 16, 1u32 << 16), (1 << 26, 1)] {
            let mut bomb = png(1, 1, &[0]);
            bomb[16..20].copy_from_slice(&width.to_be_bytes());
            bomb[20..24].copy_from_slice(&height.to_be_bytes());
            let mut crc = flate2::Crc::new();
            crc.update(&bomb[12..29]);
            bomb[29..33].copy_from_slice(&crc.sum().to_be_bytes());
            let error = format!("{:#}", decode(&bomb).unwrap_err());
            let expected = "a whole PNG file expected: 1 to 67108864 pixels in at most 65535 rows and columns expected";
            assert_eq!(error, format!("{expected}, {width} × {height} found"));
        }
    }
}
