//! What went over the wire, counted, and what is remembered of assets from one request to the next.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::StatusCode;
use dashmap::DashMap;

use crate::ids::{AssetId, Generation};
use crate::telemetry::Counter;

/// Assets that are remembered to have no stored form. When there are more, all are forgotten: that costs a look each.
const PLAIN_MAX: usize = 64 << 10;

/// How the bytes of an asset are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As they are.
    Identity,
    /// As they are stored.
    Zstd,
}

impl Encoding {
    pub const ALL: [Self; 2] = [Self::Identity, Self::Zstd];

    /// The coding's name in HTTP.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Zstd => "zstd",
        }
    }
}

/// Counters of the responses about assets.
#[derive(Default)]
pub(super) struct Traffic {
    /// By encoding.
    sent: [Sent; 2],
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

/// Assets that are known to have no stored form that could be sent, in the generation that was looked at last.
#[derive(Default)]
pub(super) struct Plain {
    known: DashMap<AssetId, Generation>,
}

impl Plain {
    pub fn knows(&self, id: AssetId, generation: Generation) -> bool {
        self.known.get(&id).is_some_and(|known| *known == generation)
    }

    pub fn note(&self, id: AssetId, generation: Generation) {
        if self.known.len() >= PLAIN_MAX {
            self.known.clear();
        }
        self.known.insert(id, generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_of_one_generation_and_bounded() {
        let plain = Plain::default();
        plain.note(AssetId(1), Generation(1));
        assert!(plain.knows(AssetId(1), Generation(1)));
        assert!(!plain.knows(AssetId(1), Generation(2)) && !plain.knows(AssetId(2), Generation(1)));
        for id in 0..3 * PLAIN_MAX as u64 {
            plain.note(AssetId(id), Generation(2));
            assert!(plain.known.len() <= PLAIN_MAX);
        }
    }
}
