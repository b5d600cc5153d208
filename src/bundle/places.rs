//! The section `PLAC`: where assets are. A reader may skip it; what it says are hints.

use super::bytes::Fields;
use super::reader::Bundle;
use crate::config::{LEVELS_MAX, Level, PLACES_MAX, Place};
use crate::error::Result;
use crate::ids::AssetId;

/// The section's tag.
pub const PLACES_TAG: [u8; 4] = *b"PLAC";
/// What stands at its beginning. A later one that cannot be read as this is another number.
const VERSION: u8 = 1;
/// Bytes of a place without levels, and of each level.
const PLACE_BYTES: usize = 8 + 5 * 4 + 1;
const LEVEL_BYTES: usize = 4 + 8;

/// The bytes of the section, in the order given; `None` where there is no place.
pub fn encode_places(places: &[(AssetId, Place)]) -> Option<Vec<u8>> {
    if places.is_empty() {
        return None;
    }
    let levels: usize = places.iter().map(|(_, place)| place.levels.len()).sum();
    let mut out = Vec::with_capacity(5 + places.len() * PLACE_BYTES + levels * LEVEL_BYTES);
    out.push(VERSION);
    out.extend_from_slice(&(places.len() as u32).to_le_bytes());
    for (id, place) in places {
        out.extend_from_slice(&id.0.to_le_bytes());
        for number in place.at.iter().chain([&place.radius_m, &place.importance]) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(place.levels.len() as u8);
        for Level { distance_m, asset } in &place.levels {
            out.extend_from_slice(&distance_m.to_le_bytes());
            out.extend_from_slice(&asset.0.to_le_bytes());
        }
    }
    Some(out)
}

/// What the section says, or what is wrong with it. One of another version says nothing.
fn decode(bytes: &[u8]) -> std::result::Result<Vec<(AssetId, Place)>, String> {
    let mut fields = Fields(bytes);
    if fields.u8() != Some(VERSION) {
        return Ok(Vec::new());
    }
    let short = || "it is cut off".to_owned();
    let count = fields.u32().ok_or_else(short)? as usize;
    // Each takes so many bytes: a count that promises more is not believed, and nothing is allocated for it.
    if count > PLACES_MAX || fields.0.len() / PLACE_BYTES < count {
        return Err(format!("it counts {count} places"));
    }
    let mut places = Vec::with_capacity(count);
    for number in 0..count {
        let mut read = || {
            let id = AssetId(fields.u64()?);
            let mut float = || fields.u32().map(f32::from_bits);
            let at = [float()?, float()?, float()?];
            let (radius_m, importance) = (float()?, float()?);
            let levels = usize::from(fields.u8()?).min(LEVELS_MAX + 1);
            let levels = (0..levels).map(|_| {
                let distance_m = f32::from_bits(fields.u32()?);
                Some(Level { distance_m, asset: AssetId(fields.u64()?) })
            });
            Some((id, Place { at, radius_m, importance, levels: levels.collect::<Option<_>>()? }))
        };
        let (id, place) = read().ok_or_else(short)?;
        if let Some((field, why)) = place.fault() {
            return Err(format!("place {number}: {field}: {why}"));
        }
        places.push((id, place));
    }
    if fields.0.is_empty() { Ok(places) } else { Err("bytes are left over".into()) }
}

impl Bundle {
    /// Where assets are in this generation, as its tree said; nothing where that said nothing.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when it does not match its hash or contradicts itself.
    pub fn places(&self) -> Result<Vec<(AssetId, Place)>> {
        let Some(bytes) = self.section(PLACES_TAG)? else { return Ok(Vec::new()) };
        decode(&bytes).map_err(|what| self.inner.corrupt(format!("the section of places: {what}")))
    }

    /// Whether the places are the same as those of `other`, by their hashes alone.
    pub fn has_places_of(&self, other: &Bundle) -> bool {
        let hash = |bundle: &Bundle| {
            bundle.inner.root.sections.iter().find(|section| section.tag == PLACES_TAG).map(|section| section.at.hash)
        };
        hash(self) == hash(other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> impl Strategy<Value = (AssetId, Place)> {
        let levels = prop::collection::vec((0.5f32..10.0, any::<u64>()), 0..LEVELS_MAX);
        let at = prop::array::uniform3(-1e9f32..1e9);
        (any::<u64>(), at, 0f32..1e9, 0f32..=1.0, levels).prop_map(|(id, at, radius, importance, levels)| {
            let mut place = Place::at(at).radius_m(radius).importance(importance);
            let mut distance = 0.0;
            for (more, asset) in levels {
                distance += more;
                place.levels.push(Level { distance_m: distance, asset: AssetId(asset) });
            }
            (AssetId(id), place)
        })
    }

    proptest! {
        #[test]
        fn places_come_back(places in prop::collection::vec(place(), 1..40)) {
            prop_assert_eq!(decode(&encode_places(&places).unwrap()), Ok(places));
        }

        #[test]
        fn hostile_bytes_are_refused_or_make_places(
            places in prop::collection::vec(place(), 1..8),
            at in any::<prop::sample::Index>(),
            with in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = encode_places(&places).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = with;
            bytes.truncate(cut.index(bytes.len() + 1).max(1));
            if let Ok(places) = decode(&bytes) {
                prop_assert!(places.iter().all(|(_, place)| place.fault().is_none()));
            }
        }
    }

    #[test]
    fn a_count_of_too_many_is_refused_before_anything_is_allocated() {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode(&bytes).unwrap_err().contains("4294967295 places"));
        assert_eq!(decode(&[VERSION + 1, 0]), Ok(Vec::new()), "another version says nothing");
        assert_eq!(encode_places(&[]), None);
    }
}
