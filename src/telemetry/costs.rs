//! What reading and decoding took lately: moving averages that any thread adds to.
//!
//! Who adds at the same moment as another may lose one of the two: an average of many does not mind.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A new measurement counts as one part in so many.
const PART: f32 = 16.0;
/// A read of so many bytes takes about as long as the least one.
const SMALL_READ_BYTES: u64 = 64 << 10;
/// Codecs, by their numbers in a bundle.
const CODECS: usize = 3;

/// A moving average; the bits of a number.
struct Average(AtomicU32);

impl Average {
    fn new(first: f32) -> Self {
        Self(AtomicU32::new(first.to_bits()))
    }

    fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn add(&self, value: f32) {
        if value.is_finite() && value > 0.0 {
            let before = self.get();
            self.0.store((before + (value - before) / PART).to_bits(), Ordering::Relaxed);
        }
    }
}

/// The averages. Before anything is measured they are those of a common solid-state disk and processor.
pub struct Costs {
    read_latency_us: Average,
    read_us_per_byte: Average,
    decode_us_per_byte: [Average; CODECS],
}

/// The averages at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Microseconds that a small read takes, from its hand-over to its end.
    pub read_latency_us: f32,
    /// Microseconds that each further byte of a large read takes.
    pub read_us_per_byte: f32,
    /// Microseconds that checking and decoding takes for each decoded byte, by the codec's number.
    pub decode_us_per_byte: [f32; CODECS],
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            read_latency_us: Average::new(100.0),
            read_us_per_byte: Average::new(1.0 / 1000.0),
            decode_us_per_byte: [1.0 / 4000.0, 1.0 / 2000.0, 1.0 / 800.0].map(Average::new),
        }
    }
}

impl Costs {
    /// A read took so long.
    pub fn read(&self, bytes: u64, took: Duration) {
        let us = took.as_secs_f32() * 1e6;
        if bytes <= SMALL_READ_BYTES {
            self.read_latency_us.add(us);
        } else {
            let beyond = us - self.read_latency_us.get();
            self.read_us_per_byte.add(beyond / (bytes - SMALL_READ_BYTES) as f32);
        }
    }

    /// A frame of this codec, by its number, was checked and decoded.
    pub fn decoded(&self, codec: usize, decoded_bytes: u64, took: Duration) {
        if let Some(average) = self.decode_us_per_byte.get(codec) {
            average.add(took.as_secs_f32() * 1e6 / decoded_bytes as f32);
        }
    }

    /// The averages now.
    pub fn rates(&self) -> Rates {
        Rates {
            read_latency_us: self.read_latency_us.get(),
            read_us_per_byte: self.read_us_per_byte.get(),
            decode_us_per_byte: self.decode_us_per_byte.each_ref().map(Average::get),
        }
    }
}

impl Rates {
    /// About how long one read of so many bytes takes.
    pub fn read_us(&self, bytes: u64) -> f32 {
        self.read_latency_us + bytes.saturating_sub(SMALL_READ_BYTES) as f32 * self.read_us_per_byte
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_go_to_what_is_measured_and_nonsense_does_not_count() {
        let costs = Costs::default();
        for _ in 0..200 {
            costs.read(4096, Duration::from_micros(40));
            costs.read(SMALL_READ_BYTES + 1000, Duration::from_micros(540));
            costs.decoded(2, 1000, Duration::from_micros(10));
            costs.decoded(2, 0, Duration::from_micros(10));
            costs.decoded(1, 1000, Duration::ZERO);
            costs.decoded(9, 1000, Duration::from_secs(1));
        }
        let rates = costs.rates();
        assert!((39.9..40.1).contains(&rates.read_latency_us), "{rates:?}");
        assert!((0.49..0.51).contains(&rates.read_us_per_byte), "{rates:?}");
        assert!((0.0099..0.0101).contains(&rates.decode_us_per_byte[2]), "{rates:?}");
        assert_eq!(rates.decode_us_per_byte[1], Costs::default().rates().decode_us_per_byte[1]);
        assert!((539.0..541.0).contains(&rates.read_us(SMALL_READ_BYTES + 1000)), "{rates:?}");
    }
}
