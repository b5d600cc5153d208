//! Flyloft's own traces: docs/trace.md.

use std::io::BufRead;

use super::super::trace::{Gathering, Object};
use crate::error::{Error, Result};
use crate::telemetry::accesses::{TraceEnd, TraceReader};

/// What such a file begins with.
pub(super) const MAGIC: &[u8] = b"FLYTRACE";

/// Reads all of it: requests, not what became of prefetches. What a load took is what loading it again costs.
pub(super) fn read(source: &mut dyn BufRead, into: &mut Gathering) -> Result<()> {
    let name = into.name().to_owned();
    let mut reader = TraceReader::new(source, &name)?;
    let mut kinds = std::collections::HashMap::new();
    let mut known = 0;
    while let Some(access) = reader.next() {
        let access = access?;
        for asset in &reader.assets()[known..] {
            kinds.insert((asset.id, asset.stored), (asset.kind, asset.bytes));
        }
        known = reader.assets().len();
        if !access.level.is_access() {
            continue;
        }
        let Some((kind, bytes)) = kinds.get(&(access.id, access.stored)).copied() else { continue };
        let object = Object {
            id: access.resident_id().0,
            size: if access.weight > 0 { access.weight } else { bytes },
            kind,
            cost_us: access.latency_us as f32,
        };
        into.request_of(object).map_err(|why| Error::trace(&name, format!("access {}", into.len() + 1), why))?;
    }
    if let Some(TraceEnd::Cut { .. }) = reader.end() {
        into.cut_short();
    }
    Ok(())
}
