//! Light and numbers: between sRGB as stored and linear light as it is averaged.
//!
//! The curves of IEC 61966-2-1, by additions, multiplications, divisions and square roots alone: those are exact by
//! IEEE 754, so that every machine makes the same bytes. A `powf` is only as good as the platform's C library.

use std::sync::LazyLock;

/// Newton's method has converged for every number asked of it here, all of which are at least 0.04.
const NEWTON_STEPS: u32 = 16;

/// From the sRGB curve to linear light; both from 0 to 1.
fn linear(stored: f64) -> f64 {
    if stored <= 0.04045 {
        return stored / 12.92;
    }
    // x^2.4 is x² · (x^(1/5))².
    let x = (stored + 0.055) / 1.055;
    let mut root = 1.0;
    for _ in 0..NEWTON_STEPS {
        let fourth = root * root * root * root;
        root -= (fourth * root - x) / (5.0 * fourth);
    }
    x * x * root * root
}

/// From linear light to the sRGB curve.
fn stored(linear: f64) -> f64 {
    if linear <= 0.003_130_8 {
        return linear * 12.92;
    }
    // x^(1/2.4) is (x^(1/12))^5, and the twelfth root is the third one of the fourth.
    let fourth = linear.sqrt().sqrt();
    let mut root = 1.0;
    for _ in 0..NEWTON_STEPS {
        root -= (root * root * root - fourth) / (3.0 * root * root);
    }
    1.055 * (root * root * root * root * root) - 0.055
}

/// The linear light of each 8-bit value.
static LINEAR_8: LazyLock<Vec<f32>> =
    LazyLock::new(|| (0..256).map(|at| linear(f64::from(at) / 255.0) as f32).collect());
/// The linear light of each 16-bit value.
static LINEAR_16: LazyLock<Vec<f32>> =
    LazyLock::new(|| (0..65536).map(|at| linear(f64::from(at) / 65535.0) as f32).collect());
/// Where each 8-bit value but the first begins in linear light.
static BEGINS_8: LazyLock<Vec<f32>> =
    LazyLock::new(|| (1..256).map(|at| linear((f64::from(at) - 0.5) / 255.0) as f32).collect());

/// How the numbers of a colour stand for light.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// On the sRGB curve, as pictures are: averaged in linear light. The default.
    #[default]
    Srgb,
    /// As they are: normal maps, masks, heights.
    Linear,
}

impl Color {
    /// The light of an 8-bit value.
    pub(super) fn light_8(self, value: u8) -> f32 {
        match self {
            Self::Srgb => LINEAR_8[usize::from(value)],
            Self::Linear => f32::from(value) / 255.0,
        }
    }

    /// The light of a 16-bit value.
    pub(super) fn light_16(self, value: u16) -> f32 {
        match self {
            Self::Srgb => LINEAR_16[usize::from(value)],
            Self::Linear => f32::from(value) / 65535.0,
        }
    }

    /// The nearest 8-bit value.
    pub(super) fn value_8(self, light: f32) -> u8 {
        match self {
            Self::Srgb => BEGINS_8.partition_point(|begin| *begin <= light) as u8,
            Self::Linear => alpha_8(light),
        }
    }

    /// The nearest 16-bit value.
    pub(super) fn value_16(self, light: f32) -> u16 {
        match self {
            Self::Srgb => (stored(f64::from(light.clamp(0.0, 1.0))) * 65535.0 + 0.5) as u16,
            Self::Linear => alpha_16(light),
        }
    }
}

/// The nearest 8-bit value of what is linear anyway.
pub(super) fn alpha_8(light: f32) -> u8 {
    (light.clamp(0.0, 1.0) * 255.0 + 0.5) as u8
}

/// The nearest 16-bit value of what is linear anyway.
pub(super) fn alpha_16(light: f32) -> u16 {
    (light.clamp(0.0, 1.0) * 65535.0 + 0.5) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_is_that_of_the_standard_and_back_again() {
        for value in 0..=65535u16 {
            let x = f64::from(value) / 65535.0;
            let expected = if x <= 0.04045 { x / 12.92 } else { ((x + 0.055) / 1.055).powf(2.4) };
            assert!((linear(x) - expected).abs() < 1e-12, "{x}");
            assert!((stored(linear(x)) - x).abs() < 1e-6, "{x}");
            assert_eq!(Color::Srgb.value_16(Color::Srgb.light_16(value)), value);
            assert_eq!(Color::Linear.value_16(Color::Linear.light_16(value)), value);
        }
        for value in 0..=255u8 {
            assert_eq!(Color::Srgb.value_8(Color::Srgb.light_8(value)), value);
            assert_eq!(Color::Linear.value_8(Color::Linear.light_8(value)), value);
        }
    }

    #[test]
    fn what_is_beyond_black_and_white_is_black_and_white() {
        for color in [Color::Srgb, Color::Linear] {
            assert_eq!((color.value_8(-1.0), color.value_8(2.0)), (0, 255));
            assert_eq!((color.value_16(-1.0), color.value_16(2.0)), (0, 65535));
        }
    }
}
