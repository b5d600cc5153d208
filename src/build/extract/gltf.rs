//! glTF, as JSON and as GLB: `buffers[].uri` and `images[].uri`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use memchr::memmem;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::found::Found;

/// `glTF`, version, length; then per chunk its length and type.
const GLB_HEADER_BYTES: usize = 12;
const GLB_CHUNK_HEADER_BYTES: usize = 8;

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, default)]
    buffers: Items<'a>,
    #[serde(borrow, default)]
    images: Items<'a>,
    /// glTF 1 named shaders too.
    #[serde(borrow, default)]
    shaders: Items<'a>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow, default)]
    uri: Option<Cow<'a, str>>,
}

/// An array of items, as glTF 2 has it, or a map of them, as glTF 1 did.
#[derive(Default)]
struct Items<'a>(Vec<Item<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Items<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each<'a>(PhantomData<Item<'a>>);

        impl<'de: 'a, 'a> Visitor<'de> for Each<'a> {
            type Value = Items<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array or a map of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Items<'a>, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    all.push(item);
                }
                Ok(Items(all))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Items<'a>, A::Error> {
                let mut all = Vec::new();
                while let Some((_, item)) = items.next_entry::<IgnoredAny, _>()? {
                    all.push(item);
                }
                Ok(Items(all))
            }
        }

        deserializer.deserialize_any(Each(PhantomData))
    }
}

pub(super) fn extract(found: &mut Found<'_>) {
    let bytes = found.bytes();
    let Some(json) = (if bytes.starts_with(b"glTF") { glb_json(bytes) } else { Some(bytes) }) else { return };
    // Lines mean something only in a file of text.
    let is_text = json.len() == bytes.len();
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let Ok(document) = serde_json::from_slice::<Document<'_>>(json) else { return };
    for items in [document.buffers, document.images, document.shaders] {
        // The items of one list stand in the file in their order: each search goes on from the last, up to one
        // that finds nothing.
        let mut from = is_text.then_some(0);
        for uri in items.0.into_iter().filter_map(|item| item.uri) {
            let at = if uri.starts_with("data:") { None } else { place(bytes, &uri, &mut from) };
            found.url(uri.as_bytes(), at);
        }
    }
}

/// Where a string stands in the file at or after `from`, if it is written there without escapes.
fn place(bytes: &[u8], uri: &str, from: &mut Option<usize>) -> Option<usize> {
    let quoted = format!("\"{uri}\"");
    let start = from.take()?;
    let at = start + memmem::find(&bytes[start..], quoted.as_bytes())?;
    *from = Some(at + quoted.len());
    Some(at)
}

/// The JSON of a GLB: its first chunk in version 2, what follows the header in version 1.
fn glb_json(bytes: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| {
        let four = bytes.get(at..at + 4)?;
        usize::try_from(u32::from_le_bytes(four.try_into().ok()?)).ok()
    };
    let (version, len, kind) = (number(4)?, number(GLB_HEADER_BYTES)?, number(GLB_HEADER_BYTES + 4)?);
    let is_json = match version {
        1 => kind == 0,
        _ => kind == u32::from_le_bytes(*b"JSON") as usize,
    };
    let start = GLB_HEADER_BYTES + GLB_CHUNK_HEADER_BYTES;
    is_json.then(|| bytes.get(start..start.checked_add(len)?)).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::found::shown;
    use super::super::references;
    use crate::ids::AssetPath;

    const SCENE: &str = r#"{
  "asset": {"version": "2.0"},
  "buffers": [
    {"uri": "mesh.bin", "byteLength": 4},
    {"uri": "data:application/octet-stream;base64,AAAA"},
    {"byteLength": 4}
  ],
  "images": [
    {"uri": "../textures/a%20b.png"}, {"bufferView": 0},
    {"uri": "mesh.bin"}
  ],
  "nodes": [{"extras": {"uri": "not.png"}}]
}"#;

    #[test]
    fn buffers_and_images_are_named_with_their_lines() {
        assert_eq!(shown("models/a.gltf", SCENE), ["4 models/mesh.bin", "9 textures/a b.png"]);
    }

    #[test]
    fn lists_in_any_order_and_uris_with_escapes_are_read() {
        let text = "{\"images\": [\n{\"uri\": \"a.png\"},\n{\"uri\": \"b\\u002epng\"},\n{\"uri\": \"c.png\"}],\n\
            \"buffers\": [{\"uri\": \"a.bin\"}]}";
        assert_eq!(shown("a.gltf", text), ["5 a.bin", "2 a.png", "- b.png", "- c.png"]);
    }

    #[test]
    fn a_map_of_items_as_in_version_1_is_read_too() {
        let text = r#"{"buffers": {"b": {"uri": "a.bin"}}, "shaders": {"s": {"uri": "a.glsl"}}}"#;
        assert_eq!(shown("a.gltf", text), ["1 a.bin", "1 a.glsl"]);
    }

    #[test]
    fn what_does_not_parse_names_nothing() {
        for text in ["", "{", "[]", r#"{"buffers": 3}"#, r#"{"images": [{"uri": 3}]}"#] {
            assert_eq!(shown("a.gltf", text), [""; 0], "{text}");
        }
    }

    fn glb(json: &[u8], len: u32) -> Vec<u8> {
        let mut bytes = b"glTF".to_vec();
        bytes.extend_from_slice(&2u32.to_le_bytes());
        bytes.extend_from_slice(&0u32.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(b"JSON");
        bytes.extend_from_slice(json);
        bytes.extend_from_slice(b"\x04\0\0\0BIN\0\xff\xff\xff\xff");
        bytes
    }

    #[test]
    fn the_json_chunk_of_a_glb_is_read_and_a_lying_length_is_not_believed() {
        let path = AssetPath::new("models/a.glb").unwrap();
        let len = u32::try_from(SCENE.len()).unwrap();
        let found = references(&path, &glb(SCENE.as_bytes(), len));
        let targets: Vec<&str> = found.iter().map(|reference| reference.target.as_str()).collect();
        assert_eq!(targets, ["models/mesh.bin", "textures/a b.png"]);
        assert_eq!(found[0].line, None);
        for lie in [0, 1, len + 1, len + 100, u32::MAX] {
            assert_eq!(references(&path, &glb(SCENE.as_bytes(), lie)), [], "{lie}");
        }
    }
}
