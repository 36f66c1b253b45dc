//! Conversion between grey levels, 0 black to 255 white, and the networks' range, -1 black to 1 white.

/// A grey level in the networks' range.
pub fn unit(pixel: u8) -> f32 {
    f32::from(pixel) / 127.5 - 1.0
}

/// A grey level as D sees it, -1 black to 1 white, with x = [`unit()`] of the level:
///
/// (1 − spread) · x + spread · clamp(atanh x, -m, m) / m, where m = atanh [`GREATEST_GREY`]
///
/// tanh, G's last operator, hardly slopes near -1 and 1, so G cannot learn there from small differences of x. A spread of 0 to 1
/// makes these differences larger.
pub fn d_view(level: u8, spread: f64) -> f32 {
    let x = f64::from(level) / 127.5 - 1.0;
    match spread {
        0.0 => unit(level),
        _ => {
            ((1.0 - spread) * x + spread * x.clamp(-GREATEST_GREY, GREATEST_GREY).atanh() / GREATEST_GREY.atanh())
                as f32
        }
    }
}

/// [`d_view`] of all 256 grey levels.
pub fn d_views(spread: f64) -> [f32; 256] {
    std::array::from_fn(|level| d_view(level as u8, spread))
}

/// The output of a network, half a grey level below 1, above which [`pixel`] is white.
pub const GREATEST_GREY: f64 = 254.0 / 255.0;

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
        let grey = GREATEST_GREY as f32;
        assert_eq!([grey - 1e-6, grey + 1e-6].map(pixel), [254, 255]);
    }

    #[test]
    fn d_sees_black_at_minus_one_white_at_one_and_spreads_what_is_near_them() {
        assert!((0..=255).all(|level| d_view(level, 0.0) == unit(level)));
        for spread in [0.25, 0.5, 1.0] {
            let views = d_views(spread);
            assert_eq!([views[0], views[255]], [-1.0, 1.0]);
            assert!(views.is_sorted());
            let steps: Vec<f32> = views.windows(2).map(|pair| pair[1] - pair[0]).collect();
            assert!(steps[0].min(steps[254]) > 5.0 * steps[127], "{steps:?}");
        }
    }
}
