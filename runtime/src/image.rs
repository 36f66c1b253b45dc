/// A digit: 28 × 28 grey levels, row-major, 0 black (paper) to 255 white (ink), as MNIST has them.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Image(pub [u8; Image::PIXELS]);

impl Image {
    /// Pixels in a row, and rows.
    pub const SIDE: usize = 28;
    /// Pixels in an image.
    pub const PIXELS: usize = 784;
    /// All paper.
    pub const BLANK: Self = Self([0; Self::PIXELS]);

    /// Row `y`, 0 at the top. Rows below the last are empty.
    pub fn row(&self, y: usize) -> &[u8] {
        self.0.chunks_exact(Self::SIDE).nth(y).unwrap_or(&[])
    }
}

impl core::fmt::Debug for Image {
    /// The digit in characters, two for each pixel.
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
