//! What kind of thing an asset is, in the words of HTTP.
//!
//! The extension says it, but for what transforms make: a picture keeps its path in another format, and parts of a file
//! have no extension. There the first bytes say it.

use axum::body::Bytes;
use axum::http::HeaderValue;

use crate::error::Result;
use crate::ids::AssetKind;
use crate::runtime::Snapshot;

const UNKNOWN: &str = "application/octet-stream";
/// Longer extensions are of no known type.
const EXTENSION_BYTES_MAX: usize = 16;

/// So many bytes tell what a file is.
const FIRST_BYTES: usize = 16;

/// What files start with whose type is told by that.
const STARTS: [(&[u8], &str); 8] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"qoif", "image/qoi"),
    (b"GIF8", "image/gif"),
    (b"RGBA8\0\0\0", UNKNOWN),
    (b"LOFTARR1", UNKNOWN),
    // SPIR-V, whose numbers may be either way round.
    (b"\x03\x02\x23\x07", UNKNOWN),
    (b"\x07\x23\x02\x03", UNKNOWN),
];

/// Whether the first bytes of the asset are asked for its type: where transforms make something else of it.
pub(super) fn is_told_by_bytes(path: &str) -> bool {
    let by_name = content_type(path);
    let is_picture = by_name.as_bytes().starts_with(b"image/") && by_name != "image/svg+xml";
    is_picture || path.contains('#') || AssetKind::of_path(path) == AssetKind::Shader
}

/// The first bytes of an asset.
pub(super) fn first(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(FIRST_BYTES)]
}

/// The first bytes of an asset if they are asked for its type, and nothing otherwise.
pub(super) async fn first_of(snapshot: &Snapshot, path: &str) -> Result<Bytes> {
    if !is_told_by_bytes(path) {
        return Ok(Bytes::new());
    }
    if let Some(asset) = snapshot.get(path) {
        return Ok(Bytes::copy_from_slice(first(&asset)));
    }
    let reader = snapshot.open(path).await?;
    let mut chunks = reader.chunks(0..reader.len().min(FIRST_BYTES as u64));
    Ok(chunks.next().await.transpose()?.unwrap_or_default())
}

/// By the first bytes, where they tell, or by extension.
pub(super) fn content_type_of(path: &str, first: &[u8]) -> HeaderValue {
    if !is_told_by_bytes(path) {
        return content_type(path);
    }
    let told = STARTS.iter().find(|(start, _)| first.starts_with(start)).map(|(_, kind)| *kind);
    let told =
        told.or_else(|| (first.starts_with(b"RIFF") && first.get(8..12) == Some(b"WEBP")).then_some("image/webp"));
    let told = told.or_else(|| (path.contains('#') && first.starts_with(b"{")).then_some("application/json"));
    told.map_or_else(|| content_type(path), HeaderValue::from_static)
}

/// By extension. Text is UTF-8, and sources that browsers do not know are text, so that they can be looked at.
fn content_type(path: &str) -> HeaderValue {
    let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
    let extension = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map_or("", |(_, extension)| extension);
    let extension = extension.as_bytes();
    let mut lower = [0; EXTENSION_BYTES_MAX];
    let Some(lower) = lower.get_mut(..extension.len()) else { return HeaderValue::from_static(UNKNOWN) };
    lower.copy_from_slice(extension);
    lower.make_ascii_lowercase();
    let lower = std::str::from_utf8(lower).unwrap_or_default();
    // The first ones are what a web page is made of; to find them in the registry takes longer.
    let known = match lower {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "json" => "application/json",
        "glsl" | "vert" | "frag" | "geom" | "comp" | "tesc" | "tese" | "wgsl" | "hlsl" | "metal" | "obj" | "mtl"
        | "ron" | "toml" | "ini" | "cfg" | "po" | "lua" | "md" | "yaml" | "yml" | "txt" => "text/plain; charset=utf-8",
        "ktx2" => "image/ktx2",
        "gltf" => "model/gltf+json",
        "glb" => "model/gltf-binary",
        _ => {
            let guess = mime_guess::from_ext(lower).first_raw().unwrap_or(UNKNOWN);
            if !guess.starts_with("text/") {
                guess
            } else {
                let text = HeaderValue::try_from(format!("{guess}; charset=utf-8"));
                return text.unwrap_or_else(|_| HeaderValue::from_static(UNKNOWN));
            }
        }
    };
    HeaderValue::from_static(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_follows_the_extension() {
        let check = |name: &str, expected: &str| {
            assert_eq!(content_type(name), expected, "{name}");
        };
        check("a.html", "text/html; charset=utf-8");
        check("a.CSS", "text/css; charset=utf-8");
        check("a.js", "text/javascript; charset=utf-8");
        // By RFC 9239, section 6; the registry that is asked for the rest still says "application/javascript".
        check("a.mjs", "text/javascript; charset=utf-8");
        check("a.json", "application/json");
        check("a.png", "image/png");
        check("a.svg", "image/svg+xml");
        check("a.wasm", "application/wasm");
        check("a.csv", "text/csv; charset=utf-8");
        check("a.wgsl", "text/plain; charset=utf-8");
        check("a.glb", "model/gltf-binary");
        check("a.css/b", "application/octet-stream");
        check(".css", "application/octet-stream");
        check("Makefile", "application/octet-stream");
        check("a.an-extension-that-is-none", "application/octet-stream");
        check("a.ä", "application/octet-stream");
    }

    #[test]
    fn the_first_bytes_tell_what_a_transform_made() {
        let check = |name: &str, bytes: &[u8], expected: &str| {
            assert_eq!(content_type_of(name, first(bytes)), expected, "{name}");
        };
        check("a.png", b"RIFF\x10\0\0\0WEBPVP8L", "image/webp");
        check("a.png", b"\xff\xd8\xff\xe0 and so on and on", "image/jpeg");
        check("a.bmp", b"\x89PNG\r\n\x1a\n", "image/png");
        check("a.tga", b"qoif", "image/qoi");
        check("a.png", b"RGBA8\0\0\0\x01", "application/octet-stream");
        check("a.png", b"RIFF", "image/png");
        check("a.png", b"", "image/png");
        check("a.wgsl", b"\x03\x02\x23\x07\0\0\x01\0", "application/octet-stream");
        check("a.wgsl", b"fn main() {}", "text/plain; charset=utf-8");
        check("a.gltf#mesh/0", b"LOFTARR1", "application/octet-stream");
        check("a.gltf#material/0", b"{\"name\":1}", "application/json");
        check("a.png#mip/1", b"\x89PNG\r\n\x1a\n", "image/png");
        // Nothing is made of a page that is none, and nothing is read to be sure.
        check("a.html", b"\x89PNG\r\n\x1a\n", "text/html; charset=utf-8");
        for name in ["a.html", "a.css", "a.bin", "a.txt", "a.svg"] {
            assert!(!is_told_by_bytes(name), "{name}");
        }
    }

    #[test]
    fn what_is_known_here_is_what_the_registry_says() {
        for extension in ["html", "htm", "css", "js", "svg", "png", "jpg", "jpeg", "json", "txt"] {
            let registry = mime_guess::from_ext(extension).first_raw().unwrap();
            let known = content_type(&format!("a.{extension}"));
            assert_eq!(known.to_str().unwrap().trim_end_matches("; charset=utf-8"), registry, "{extension}");
        }
    }
}
