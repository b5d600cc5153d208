//! What makes a value of bytes: the trait, and the types that have it without being asked.

use std::ops::Deref;

use serde::de::DeserializeOwned;

use crate::ids::{AssetKind, AssetPath, ContentHash};

/// Why bytes could not be decoded.
pub type DecodeError = Box<dyn std::error::Error + Send + Sync>;

/// A type that is made of an asset's bytes, for [`crate::Runtime::load_as`].
///
/// It is decoded once for each content and type, whatever the content is called and however many ask for it, on the
/// threads that decode: never on the host's async workers. A panic is an error of this asset alone. What fails
/// [`crate::limits::ATTEMPTS_MAX`] times is refused until the content changes.
///
/// ```
/// use flyloft::{Decode, DecodeContext, DecodeError};
///
/// /// A mesh of triangles, as little-endian coordinates.
/// struct Mesh {
///     corners: Vec<[f32; 3]>,
/// }
///
/// impl Decode for Mesh {
///     fn decode(bytes: &[u8], context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
///         let (corners, rest) = bytes.as_chunks::<12>();
///         if !rest.is_empty() {
///             return Err(format!("{} has {} bytes too many", context.path, rest.len()).into());
///         }
///         let number = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
///         let corner = |at: &[u8; 12]| [number(&at[..4]), number(&at[4..8]), number(&at[8..])];
///         Ok(Self { corners: corners.iter().map(corner).collect() })
///     }
///
///     fn weight_bytes(&self) -> usize {
///         size_of::<Self>() + self.corners.capacity() * size_of::<[f32; 3]>()
///     }
/// }
///
/// # async fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
/// let rock = runtime.load_as::<Mesh>("rock.mesh").await?;
/// println!("{} corners of {} in {} bytes", rock.corners.len(), rock.path(), rock.weight_bytes());
/// # Ok(())
/// # }
/// ```
pub trait Decode: Sized + Send + Sync + 'static {
    /// Makes the value. The bytes are what they are for every asset with this content, and so must the value be: the
    /// path is that of the asset that was asked for first, for messages.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes. It is told as [`crate::Error::Decode`] with the path and the type.
    fn decode(bytes: &[u8], context: &DecodeContext<'_>) -> Result<Self, DecodeError>;

    /// The memory that the value takes, itself included: what the budget is charged. Default its own size, which is
    /// right for what owns nothing.
    fn weight_bytes(&self) -> usize {
        size_of_val(self)
    }

    /// What to charge before it is decoded from `len` bytes; the difference is charged after. Default `len`.
    fn estimate_bytes(len: usize) -> usize {
        len
    }
}

/// What a decoder may know besides the bytes.
#[derive(Clone, Copy, Debug)]
pub struct DecodeContext<'a> {
    /// The asset that was asked for first.
    pub path: &'a AssetPath,
    /// Its kind.
    pub kind: AssetKind,
    /// The hash of the bytes.
    pub hash: ContentHash,
}

impl Decode for String {
    fn decode(bytes: &[u8], _context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }

    fn weight_bytes(&self) -> usize {
        size_of::<Self>() + self.capacity()
    }
}

impl Decode for serde_json::Value {
    fn decode(bytes: &[u8], _context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    fn weight_bytes(&self) -> usize {
        size_of::<Self>() + owned_by(self)
    }

    fn estimate_bytes(len: usize) -> usize {
        // A number of one digit and its comma become a whole value.
        len.saturating_mul(4)
    }
}

/// What a JSON value owns on the heap, without what its maps' nodes have to spare.
fn owned_by(value: &serde_json::Value) -> usize {
    use serde_json::Value;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.capacity(),
        Value::Array(items) => items.capacity() * size_of::<Value>() + items.iter().map(owned_by).sum::<usize>(),
        Value::Object(entries) => {
            entries.iter().map(|(name, value)| size_of::<(String, Value)>() + name.capacity() + owned_by(value)).sum()
        }
    }
}

/// A type of the program's own, read from JSON. Derefs to it.
///
/// What it is charged is the size of the type and the length of the text: what it owns cannot be known.
#[derive(Debug)]
pub struct Json<T> {
    value: T,
    source_bytes: usize,
}

impl<T> Deref for Json<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> Decode for Json<T> {
    fn decode(bytes: &[u8], _context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
        Ok(Self { value: serde_json::from_slice(bytes)?, source_bytes: bytes.len() })
    }

    fn weight_bytes(&self) -> usize {
        size_of::<Self>() + self.source_bytes
    }
}

/// A type of the program's own, read from postcard's binary form, every byte of it. Derefs to it.
///
/// What it is charged is the size of the type and the length of the form: what it owns cannot be known.
#[derive(Debug)]
pub struct Postcard<T> {
    value: T,
    source_bytes: usize,
}

impl<T> Deref for Postcard<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> Decode for Postcard<T> {
    fn decode(bytes: &[u8], _context: &DecodeContext<'_>) -> Result<Self, DecodeError> {
        let (value, rest) = postcard::take_from_bytes(bytes)?;
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the value", rest.len()).into());
        }
        Ok(Self { value, source_bytes: bytes.len() })
    }

    fn weight_bytes(&self) -> usize {
        size_of::<Self>() + self.source_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode<T: Decode>(bytes: &[u8]) -> Result<T, String> {
        let path = AssetPath::new("a").unwrap();
        let context = DecodeContext { path: &path, kind: AssetKind::Text, hash: ContentHash::of(bytes) };
        T::decode(bytes, &context).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_built_in_checks_its_bytes_and_says_what_it_weighs() {
        assert_eq!(decode::<String>("söme".as_bytes()).as_deref(), Ok("söme"));
        assert!(decode::<String>(&[0xff]).is_err());
        assert!(decode::<String>(&[b'x'; 100]).unwrap().weight_bytes() >= 100);
        let value = decode::<serde_json::Value>(br#"{"a": ["long enough to be counted", 1]}"#).unwrap();
        assert_eq!(value["a"][1], 1);
        assert!(value.weight_bytes() > 25 + 3 * size_of::<serde_json::Value>());
        assert!(decode::<serde_json::Value>(b"{").unwrap_err().contains("line 1"));
        let pair = decode::<Json<(u8, String)>>(br#"[7, "x"]"#).unwrap();
        assert_eq!((pair.0, pair.1.as_str()), (7, "x"));
        let bytes = postcard::to_stdvec(&(7u8, "x")).unwrap();
        assert_eq!(decode::<Postcard<(u8, String)>>(&bytes).unwrap().1, "x");
        let longer: Vec<u8> = bytes.into_iter().chain([0]).collect();
        assert_eq!(decode::<Postcard<(u8, String)>>(&longer).unwrap_err(), "1 bytes follow the value");
    }
}
