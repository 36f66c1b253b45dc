//! Conversion between grey levels, 0 black to 255 white, and the networks' range, -1 black to 1 white.

/// A grey level in the networks' range.
pub fn unit(pixel: u8) -> f32 {
    f32::from(pixel) / 127.5 - 1.0
}

/// A grey level as D sees it, -1 black to 1 white: (1 − spread) · x + spread · atanh x / atanh [`MOST`], with x = [`unit`] of the level,
/// at most [`MOST`] from 0. A spread of 0 to 1 moves the levels near black and white apart, because G's last operator, tanh,
/// brings them together.
pub fn seen(level: u8, spread: f64) -> f32 {
    if spread == 0.0 {
        return unit(level);
    }
    let x = f64::from(level) / 127.5 - 1.0;
    ((1.0 - spread) * x + spread * x.clamp(-MOST, MOST).atanh() / MOST.atanh()) as f32
}

/// The greatest output of a network that is not rounded to white: half a grey level from 1.
pub const MOST: f64 = 254.0 / 255.0;

/// The grey level of a network's output: 127.5·x + 127.5, rounded to the nearest integer, ties to even.
pub fn pixel(x: f32) -> u8 {
    (x * 127.5 + 127.5).round_ties_even() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grey_level_survives_both_conversions() {
        assert!((0..=255).all(|level| pixel(unit(level)) == level));
        assert_eq!([-2.0, -1.0, 0.0, 1.0, 2.0].map(pixel), [0, 0, 128, 255, 255]);
        assert_eq!(pixel(1.0 / 127.5), 128, "128.5 is a tie");
    }
}
