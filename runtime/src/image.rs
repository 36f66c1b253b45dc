//! The image of a digit.

/// An image: 28 × 28 grey levels, row by row from the top, from 0 (black, the paper) to 255 (white, the ink), as in MNIST.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Image(pub [u8; Image::PIXELS]);

impl Image {
    /// Pixels of a row, and rows of an image.
    pub const SIDE: usize = 28;
    /// Pixels of an image.
    pub const PIXELS: usize = 784;
    /// The image without ink.
    pub const BLANK: Self = Self([0; Self::PIXELS]);

    /// The 28 pixels of row `y`, with 0 at the top; empty beyond the last row.
    pub fn row(&self, y: usize) -> &[u8] {
        self.0.chunks_exact(Self::SIDE).nth(y).unwrap_or(&[])
    }
}

impl core::fmt::Debug for Image {
    /// The image as text: two characters for each pixel.
    fn fmt(&self, f: &mut core::fmt::Formatter) -> core::fmt::Result {
        for row in self.0.chunks_exact(Self::SIDE) {
            for &pixel in row {
                f.write_str([" .", "::", "oo", "##"][usize::from(pixel / 64)])?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}
