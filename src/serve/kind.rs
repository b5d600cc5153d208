//! What kind of thing an asset is, in the words of HTTP.

use axum::http::HeaderValue;

const UNKNOWN: &str = "application/octet-stream";
/// Longer extensions are of no known type.
const EXTENSION_BYTES_MAX: usize = 16;

/// By extension. Text is UTF-8, and sources that browsers do not know are text, so that they can be looked at.
pub(super) fn content_type(path: &str) -> HeaderValue {
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
    fn what_is_known_here_is_what_the_registry_says() {
        for extension in ["html", "htm", "css", "js", "svg", "png", "jpg", "jpeg", "json", "txt"] {
            let registry = mime_guess::from_ext(extension).first_raw().unwrap();
            let known = content_type(&format!("a.{extension}"));
            assert_eq!(known.to_str().unwrap().trim_end_matches("; charset=utf-8"), registry, "{extension}");
        }
    }
}
