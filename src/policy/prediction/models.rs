//! What was learned, as bytes: versioned, checksummed, bounded. They may come from anywhere: what is not sound is refused,
//! and nothing of it can make a program fail.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest that saved models are, and that is read.
pub const MODELS_BYTES_MAX: usize = 32 << 20;
const MAGIC: &[u8; 8] = b"FLYMODEL";
const VERSION: u32 = 1;
const HASH_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + size_of::<u32>() + HASH_BYTES;

/// A value in the encoding that models have within their envelope.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Only a value that refuses to be written could fail, and none here does.
    postcard::to_allocvec(value).unwrap_or_default()
}

/// The value, if these bytes are one and nothing more.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}

/// A name, a version and a checksum before `body`.
pub fn sealed(body: &[u8]) -> Vec<u8> {
    let hash = blake3::hash(body);
    [MAGIC, &VERSION.to_le_bytes()[..], hash.as_bytes(), body].concat()
}

/// What was sealed, or why these bytes are not that.
pub fn opened(bytes: &[u8]) -> Result<&[u8], &'static str> {
    if bytes.len() > MODELS_BYTES_MAX {
        return Err("it is longer than models are");
    }
    let (head, body) = bytes.split_at_checked(HEAD_BYTES).ok_or("it is cut short")?;
    let rest = head.strip_prefix(MAGIC).ok_or("it holds no models")?;
    let hash = rest.strip_prefix(&VERSION.to_le_bytes()[..]).ok_or("it is of another version")?;
    if blake3::hash(body).as_bytes() != hash { Err("its checksum does not match") } else { Ok(body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_or_changed_anywhere_is_refused() {
        let sealed = sealed(b"some models");
        assert_eq!(opened(&sealed), Ok(&b"some models"[..]));
        for len in 0..sealed.len() {
            assert!(opened(&sealed[..len]).is_err());
            let mut changed = sealed.clone();
            changed[len] ^= 1;
            assert!(opened(&changed).is_err());
        }
        assert!(decode::<u32>(&encode(&(7u32, 1u8))).is_none(), "more than one value");
    }
}
