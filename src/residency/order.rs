//! Every asset of a generation in path order: what sequential prediction goes along.
//!
//! It is a hint of what there is: of an older generation than the current one it is still good. 16 bytes an asset.

use std::sync::Arc;

use crate::error::Result;
use crate::ids::{AssetId, Generation};
use crate::residency::Live;

/// Of a bundle with more assets there is no order: it would take too much memory that no budget counts.
pub const ORDER_ASSETS_MAX: u64 = 1 << 20;
/// Assets that are read at once.
const AT_ONCE: usize = 2048;

/// The order.
#[derive(Debug)]
pub struct Order {
    generation: Generation,
    ids: Vec<AssetId>,
    /// Sizes, by rank; what is larger counts as this large.
    sizes: Vec<u32>,
    /// Ranks, in the order of their ids.
    by_id: Vec<u32>,
}

impl Order {
    /// The generation that it was made of.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The asset's place.
    pub fn rank(&self, id: AssetId) -> Option<u32> {
        let place = self.by_id.binary_search_by_key(&id, |rank| self.ids[*rank as usize]).ok()?;
        Some(self.by_id[place])
    }

    /// The asset in this place.
    pub fn at(&self, rank: u64) -> Option<AssetId> {
        self.ids.get(usize::try_from(rank).ok()?).copied()
    }

    /// Its size when the order was made.
    pub fn bytes(&self, id: AssetId) -> Option<u64> {
        self.rank(id).map(|rank| u64::from(self.sizes[rank as usize]))
    }
}

/// An order that is being made, piece by piece: the tables may have to be paged in, and others have use for the thread.
pub struct Ordering {
    live: Arc<Live>,
    ids: Vec<AssetId>,
    sizes: Vec<u32>,
    /// The last path that was read.
    last: Option<String>,
}

impl Ordering {
    /// Begins; `None` when there are too many assets.
    pub fn begin(live: &Arc<Live>) -> Option<Self> {
        let assets = live.bundle().info().assets;
        let room = (assets <= ORDER_ASSETS_MAX).then_some(assets as usize)?;
        let (ids, sizes) = (Vec::with_capacity(room), Vec::with_capacity(room));
        Some(Self { live: Arc::clone(live), ids, sizes, last: None })
    }

    /// Reads one more piece; whether there is more.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when the tables are.
    pub fn go_on(&mut self) -> Result<bool> {
        let last = self.last.take();
        let from = last.as_deref().unwrap_or_default();
        let mut read = 0;
        let mut next = None;
        for record in self.live.bundle().assets_from(from) {
            let record = record?;
            read += 1;
            if Some(record.path.as_str()) == last.as_deref() {
                continue;
            }
            self.ids.push(record.id);
            self.sizes.push(u32::try_from(record.len).unwrap_or(u32::MAX));
            if read > AT_ONCE || self.ids.len() as u64 >= ORDER_ASSETS_MAX {
                next = Some(record.path.as_str().to_owned());
                break;
            }
        }
        self.last = next;
        Ok(self.last.is_some() && (self.ids.len() as u64) < ORDER_ASSETS_MAX)
    }

    /// The order of what was read.
    pub fn finish(self) -> Order {
        let mut by_id: Vec<u32> = (0..self.ids.len() as u32).collect();
        by_id.sort_unstable_by_key(|rank| self.ids[*rank as usize]);
        Order { generation: self.live.generation(), ids: self.ids, sizes: self.sizes, by_id }
    }
}
