//! New versions of what is resident, made before the generation is published: from the bytes that the build has at hand,
//! and from what it wrote where it has not.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::actors::Shared;
use crate::build::{Built, ContentReader, Keeper};
use crate::bundle::Bundle;
use crate::error::Result;
use crate::event::ChangedAsset;
use crate::ids::{AssetId, AssetKind, ContentHash};
use crate::residency::followers::Became;
use crate::residency::{Asset, Content, Name};

/// Takes the new contents of what is resident while a build has their bytes in memory.
pub(super) struct AtHand {
    shared: Arc<Shared>,
    contents: Mutex<HashMap<ContentHash, Arc<Content>>>,
}

impl AtHand {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), contents: Mutex::default() }
    }

    /// New versions of what is resident, the hottest first, as far as the budget allows without waiting.
    pub(super) fn versions(&self, built: &Built) -> Vec<(AssetId, Option<Asset>)> {
        let Some(bundle) = &built.bundle else { return Vec::new() };
        let mut changes: Vec<(AssetId, Option<Asset>)> =
            built.changed.iter().map(|changed| (changed.id, None)).collect();
        // Made when it is needed, since its decoder is large.
        let mut reader = None;
        for index in hottest(&self.shared, &built.changed) {
            match self.version(bundle, &built.changed[index], &mut reader) {
                Ok(asset) => changes[index].1 = asset,
                // It is loaded when somebody asks, and fails there with its own error.
                Err(error) => {
                    tracing::warn!(path = %built.changed[index].path, %error, "not resident in the new generation")
                }
            }
        }
        let became = built.changed.iter().zip(&changes).map(|(changed, (id, asset))| {
            let became = match (changed.new, asset) {
                (None, _) => Became::Gone,
                (Some(_), Some(asset)) => Became::Resident(asset.clone()),
                (Some(_), None) => Became::Elsewhere,
            };
            (*id, became)
        });
        self.shared.followers.prepare(bundle.generation(), became, self.shared.config.watched_wait);
        changes
    }

    /// The new version of one asset, or `None` when it is gone or the budget has no room for it now.
    fn version(
        &self,
        bundle: &Bundle,
        changed: &ChangedAsset,
        reader: &mut Option<ContentReader>,
    ) -> Result<Option<Asset>> {
        let shared = &*self.shared;
        let Some(record) = changed.new.map(|_| bundle.asset(changed.id)).transpose()?.flatten() else {
            return Ok(None);
        };
        let named = |content| Asset::new(Name::from(&record), bundle.generation(), content);
        let at_hand = self.contents.lock().get(&record.content).cloned();
        if let Some(content) = at_hand.or_else(|| shared.table.content(&record.content)) {
            return Ok(Some(named(content)));
        }
        let reader = reader.get_or_insert_with(|| ContentReader::new(bundle));
        let mut fill = |into: &mut Fill<'_>| reader.content(&record.content, 0..record.len, into);
        Ok(content(shared, changed.id, record.kind, record.content, record.len, &mut fill)?.map(named))
    }
}

impl Keeper for AtHand {
    fn keep<'b>(&self, changed: &[ChangedAsset], bytes: &dyn Fn(&ContentHash) -> Option<&'b [u8]>) {
        let mut contents = self.contents.lock();
        for index in hottest(&self.shared, changed) {
            let ChangedAsset { id, path, new: Some(hash), .. } = &changed[index] else { continue };
            if contents.contains_key(hash) || self.shared.table.content(hash).is_some() {
                continue;
            }
            let Some(bytes) = bytes(hash) else { continue };
            let kind = self.shared.table.candidate(*id).map_or_else(|| path.kind(), |old| old.kind);
            let made = content(&self.shared, *id, kind, *hash, bytes.len() as u64, &mut |into| into(bytes));
            // Without memory for it, it is read when it is asked for.
            if let Ok(Some(content)) = made {
                contents.insert(*hash, content);
            }
        }
    }
}

/// Takes the next bytes of a content.
type Fill<'f> = dyn FnMut(&[u8]) -> Result<()> + 'f;

/// Memory for one content, filled; `None` when the budget has no room for it now, or not all of it came.
fn content(
    shared: &Shared,
    id: AssetId,
    kind: AssetKind,
    hash: ContentHash,
    len: u64,
    bytes: &mut dyn FnMut(&mut Fill<'_>) -> Result<()>,
) -> Result<Option<Arc<Content>>> {
    let Ok(charge) = shared.budget.try_charge(kind, len) else { return Ok(None) };
    // Where the old version is, since somebody may have wanted it there.
    let charge = charge.at(shared.table.peek(id).map_or(0, |old| old.content().place()));
    let Ok(target) = Content::build(len as usize, charge) else { return Ok(None) };
    let mut to = 0;
    bytes(&mut |part| {
        target.fill(to, part.len(), |into| {
            into.copy_from_slice(part);
            Ok(())
        })?;
        to += part.len();
        Ok(())
    })?;
    Ok(target.finish(hash))
}

/// Which of them are resident, the one that was used last first; last of all those that somebody follows.
fn hottest(shared: &Shared, changed: &[ChangedAsset]) -> Vec<usize> {
    let candidates =
        changed.iter().enumerate().filter_map(|(index, changed)| match shared.table.candidate(changed.id) {
            Some(candidate) => Some((candidate.usage.tick(), index)),
            None => shared.followers.follows(changed.id).then_some((0, index)),
        });
    let mut hot: Vec<(u32, usize)> = candidates.collect();
    hot.sort_unstable_by(|one, other| other.cmp(one));
    hot.into_iter().map(|(_, index)| index).collect()
}
