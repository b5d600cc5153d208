//! What went over the wire, counted, and what is remembered of assets from one request to the next.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;
use dashmap::DashMap;

use crate::ids::{AssetId, Generation};
use crate::telemetry::Counter;

/// Assets of which it is remembered which forms they have. When there are more, all are forgotten: that costs a look
/// each.
const KNOWN_MAX: usize = 64 << 10;

/// How the bytes of an asset are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As they are.
    Identity,
    /// As they are stored.
    Zstd,
    /// As the transform `compress` made them once more.
    Gzip,
    /// The same.
    Brotli,
}

impl Encoding {
    pub const ALL: [Self; 4] = [Self::Identity, Self::Zstd, Self::Gzip, Self::Brotli];
    /// All but the bytes as they are, the one first that a client gets which takes several as gladly: what was made for
    /// it before what is there anyway, and the one that saves less last.
    pub const CODED: [Self; 3] = [Self::Brotli, Self::Zstd, Self::Gzip];

    /// The coding's name in HTTP, and the label of an asset that has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }
}

/// Counters of the responses about assets.
#[derive(Default)]
pub(super) struct Traffic {
    /// By encoding.
    sent: [Sent; 4],
    /// Statuses from 100 on, by hundreds.
    statuses: [Counter; 5],
    connections: AtomicU64,
}

#[derive(Default)]
struct Sent {
    responses: Counter,
    bytes: Counter,
}

/// An open connection. Dropping it counts it out.
pub(super) struct Connected<'a>(&'a AtomicU64);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Traffic {
    /// Counts a response of `bytes` bytes of an asset.
    pub fn answered(&self, status: StatusCode, encoding: Encoding, bytes: u64) {
        let hundreds = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.statuses[hundreds - 1].one();
        let sent = &self.sent[encoding as usize];
        sent.responses.one();
        sent.bytes.add(bytes);
    }

    /// Counts a connection in, until what comes back is dropped.
    pub fn connected(&self) -> Connected<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(&self.connections)
    }

    /// Open connections.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Responses by the first digit of their status.
    pub fn statuses(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(self.statuses.iter().map(Counter::get))
    }

    /// Responses and bytes of assets by encoding.
    pub fn encodings(&self) -> impl Iterator<Item = (&'static str, u64, u64)> + '_ {
        Encoding::ALL.into_iter().map(|encoding| {
            let sent = &self.sent[encoding as usize];
            (encoding.name(), sent.responses.get(), sent.bytes.get())
        })
    }
}

/// Which forms assets are known to have or not to have, in the generation that was looked at last.
#[derive(Default)]
pub(super) struct Forms {
    known: DashMap<AssetId, Known>,
}

/// What is known of one asset. A bit for each encoding.
#[derive(Clone, Copy)]
pub(super) struct Known {
    generation: Generation,
    looked: u8,
    there: u8,
}

impl Known {
    /// Whether the asset has this form; `None` when nobody has looked.
    pub fn has(self, encoding: Encoding) -> Option<bool> {
        let bit = 1 << encoding as u8;
        (self.looked & bit != 0).then_some(self.there & bit != 0)
    }
}

impl Forms {
    /// What is known of an asset in this generation.
    pub fn of(&self, id: AssetId, generation: Generation) -> Known {
        let known = self.known.get(&id).map(|known| *known).filter(|known| known.generation == generation);
        known.unwrap_or(Known { generation, looked: 0, there: 0 })
    }

    pub fn note(&self, id: AssetId, generation: Generation, encoding: Encoding, there: bool) {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&id) {
            self.known.clear();
        }
        let unknown = Known { generation, looked: 0, there: 0 };
        let mut known = self.known.entry(id).or_insert(unknown);
        if known.generation != generation {
            *known = unknown;
        }
        let bit = 1 << encoding as u8;
        known.looked |= bit;
        known.there = if there { known.there | bit } else { known.there & !bit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_of_one_generation_and_bounded() {
        let forms = Forms::default();
        let has = |id: u64, generation: u64, encoding| forms.of(AssetId(id), Generation(generation)).has(encoding);
        forms.note(AssetId(1), Generation(1), Encoding::Zstd, false);
        forms.note(AssetId(1), Generation(1), Encoding::Gzip, true);
        assert_eq!((has(1, 1, Encoding::Zstd), has(1, 1, Encoding::Gzip)), (Some(false), Some(true)));
        assert_eq!(
            (has(1, 1, Encoding::Brotli), has(1, 2, Encoding::Zstd), has(2, 1, Encoding::Zstd)),
            (None, None, None)
        );
        forms.note(AssetId(1), Generation(2), Encoding::Brotli, true);
        assert_eq!((has(1, 2, Encoding::Brotli), has(1, 2, Encoding::Zstd)), (Some(true), None));
        for id in 0..3 * KNOWN_MAX as u64 {
            forms.note(AssetId(id), Generation(2), Encoding::Zstd, false);
            assert!(forms.known.len() <= KNOWN_MAX);
        }
    }
}
