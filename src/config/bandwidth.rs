//! How much is read per second: the limit, each priority's share of it, and how it follows the time of frames.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ids::Priority;

/// The least that a limit may be, and that it adapts down to unless another value is set: 10 MB/s.
pub const BANDWIDTH_MIN: u64 = 10_000_000;
/// The most that it adapts up to, unless another value is set: 1 GB/s.
pub const BANDWIDTH_MAX: u64 = 1_000_000_000;

/// How much is read per second. By default there is no limit.
///
/// Under a limit each priority has its share. What a priority leaves unused a more urgent one may take, never a less
/// urgent one: the share of critical loads is always there for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BandwidthConfig {
    /// Bytes read per second at most. `None`: as fast as the disk goes, unless `adaptive`. Default `None`.
    pub bytes_per_second: Option<u64>,
    /// The share of each priority, in percent.
    pub shares: SharesConfig,
    /// Whether the limit follows the frame times that [`crate::Runtime::frame`] is told: a mean frame more than 10 % over
    /// `target_frame` lowers it by three tenths, one more than 10 % below it raises it by a step when more than 80 % of it
    /// was used. It begins at `bytes_per_second`, or else at `max_bytes_per_second`. Default `false`.
    pub adaptive: bool,
    /// The least that it adapts to. Default 10 MB/s.
    pub min_bytes_per_second: u64,
    /// The most that it adapts to. Default 1 GB/s.
    pub max_bytes_per_second: u64,
    /// The time that a frame should take. Default 16.667 ms.
    pub target_frame: Duration,
}

/// The share of each priority, in percent of the limit; together 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharesConfig {
    /// Of critical loads. Default 40.
    pub critical: u8,
    /// Of high ones. Default 30.
    pub high: u8,
    /// Of medium ones. Default 20.
    pub medium: u8,
    /// Of low ones. Default 10.
    pub low: u8,
}

impl Default for BandwidthConfig {
    fn default() -> Self {
        Self {
            bytes_per_second: None,
            shares: SharesConfig::default(),
            adaptive: false,
            min_bytes_per_second: BANDWIDTH_MIN,
            max_bytes_per_second: BANDWIDTH_MAX,
            target_frame: Duration::from_micros(16_667),
        }
    }
}

impl Default for SharesConfig {
    fn default() -> Self {
        Self { critical: 40, high: 30, medium: 20, low: 10 }
    }
}

impl SharesConfig {
    /// The share of each priority as a fraction, the most urgent first.
    pub fn fractions(&self) -> [f64; 4] {
        [self.critical, self.high, self.medium, self.low].map(|percent| f64::from(percent) / 100.0)
    }
}

impl BandwidthConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first field that cannot be used.
    pub fn validate(&self) -> Result<()> {
        let shares = [self.shares.critical, self.shares.high, self.shares.medium, self.shares.low];
        for (priority, percent) in Priority::ALL.into_iter().zip(shares) {
            if !(1..=97).contains(&percent) {
                let why = format!("{percent} is not within 1 to 97 percent: without any, nothing of it could be read");
                return Err(Error::config(format!("bandwidth.shares.{}", priority.name()), why));
            }
        }
        let together: u32 = shares.into_iter().map(u32::from).sum();
        if together != 100 {
            return Err(Error::config("bandwidth.shares", format!("together they are {together} percent, not 100")));
        }
        if self.min_bytes_per_second < 1_000_000 {
            let why = format!("{} is below 1,000,000", self.min_bytes_per_second);
            return Err(Error::config("bandwidth.min_bytes_per_second", why));
        }
        if self.max_bytes_per_second < self.min_bytes_per_second {
            let why = format!("{} is below bandwidth.min_bytes_per_second", self.max_bytes_per_second);
            return Err(Error::config("bandwidth.max_bytes_per_second", why));
        }
        if let Some(bytes) = self.bytes_per_second {
            let least = if self.adaptive { self.min_bytes_per_second } else { 1_000_000 };
            let most = if self.adaptive { self.max_bytes_per_second } else { u64::MAX >> 1 };
            if !(least..=most).contains(&bytes) {
                return Err(Error::config(
                    "bandwidth.bytes_per_second",
                    format!("{bytes} is not within {least} to {most}"),
                ));
            }
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(1)).contains(&self.target_frame) {
            return Err(Error::config("bandwidth.target_frame", "it is not within 1 ms to 1 s"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_each_bad_value_is_refused_by_name() {
        BandwidthConfig::default().validate().unwrap();
        let check = |field: &str, change: fn(&mut BandwidthConfig)| {
            let mut config = BandwidthConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{field}:")) || error.starts_with(&format!("{field} ")), "{error}");
        };
        check("bandwidth.shares.low", |config| config.shares.low = 0);
        check("bandwidth.shares.critical", |config| config.shares.critical = 200);
        check("bandwidth.shares", |config| config.shares.high = 31);
        check("bandwidth.min_bytes_per_second", |config| config.min_bytes_per_second = 0);
        check("bandwidth.max_bytes_per_second", |config| config.max_bytes_per_second = 9_999_999);
        check("bandwidth.bytes_per_second", |config| config.bytes_per_second = Some(0));
        check("bandwidth.bytes_per_second", |config| {
            (config.adaptive, config.bytes_per_second) = (true, Some(2_000_000_000));
        });
        check("bandwidth.target_frame", |config| config.target_frame = Duration::ZERO);
    }
}
