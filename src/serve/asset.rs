//! `/a/<path>`: one asset of one generation.
//!
//! What is resident is sent as it lies in memory. What is not is made resident when it is small, and streamed in
//! bounded memory when it is large or only a range of it is wanted.

use std::borrow::Cow;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, LOCATION,
};
use axum::http::response::Builder;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use futures_core::Stream;
use percent_encoding::percent_decode_str;

use super::conditional::{Condition, Part, condition, part};
use super::{Face, failure};
use crate::Asset;
use crate::error::{Error, Result};
use crate::ids::{AssetPath, ContentHash};
use crate::runtime::{AssetReader, Chunks, Snapshot};

/// The generation that a response is of.
const GENERATION: HeaderName = HeaderName::from_static("x-flyloft-generation");

pub(super) async fn serve(State(face): State<Arc<Face>>, method: Method, uri: Uri, headers: HeaderMap) -> Response {
    answer(&face, &method, uri.path(), &headers).await.unwrap_or_else(|error| failure::response(&error))
}

async fn answer(face: &Face, method: &Method, uri_path: &str, headers: &HeaderMap) -> Result<Response> {
    let snapshot = face.runtime.snapshot();
    let raw = uri_path.strip_prefix("/a/").unwrap_or_default();
    let path = path(raw)?;
    let found = match Found::at(&snapshot, &path).await {
        Err(Error::NotFound { .. }) if has_index(&snapshot, &path).await => return to_folder(raw),
        found => found?,
    };
    let (len, etag) = (found.len(), format!("\"{}\"", found.hash()));
    let response = Response::builder()
        .header(ETAG, &etag)
        .header(CACHE_CONTROL, "no-cache")
        .header(ACCEPT_RANGES, "bytes")
        .header(GENERATION, snapshot.generation().0);
    match condition(headers, &etag) {
        Condition::Proceed => {}
        Condition::NotModified => return finish(response.status(StatusCode::NOT_MODIFIED), Body::empty()),
        Condition::Failed => {
            let status = response.status(StatusCode::PRECONDITION_FAILED);
            let line = format!("'{path}' has another content now\n");
            return finish(status.header(CONTENT_TYPE, "text/plain; charset=utf-8"), line.into());
        }
    }
    let typed = response.header(CONTENT_TYPE, content_type(&path).as_ref());
    if method == Method::HEAD {
        return finish(typed.header(CONTENT_LENGTH, len), Body::empty());
    }
    match part(headers, &etag, len) {
        Part::Whole => {
            let body = found.whole(&snapshot, face.resident_bytes_max).await?;
            finish(typed.header(CONTENT_LENGTH, len), body)
        }
        Part::Bytes(range) => {
            let partial = typed
                .status(StatusCode::PARTIAL_CONTENT)
                .header(CONTENT_RANGE, format!("bytes {}-{}/{len}", range.start, range.end - 1))
                .header(CONTENT_LENGTH, range.end - range.start);
            finish(partial, found.range(range).await?)
        }
        Part::Beyond => {
            let beyond = typed.status(StatusCode::RANGE_NOT_SATISFIABLE);
            finish(beyond.header(CONTENT_RANGE, format!("bytes */{len}")), Body::empty())
        }
    }
}

/// The asset path that the rest of a URL names; a folder stands for its index.
fn path(raw: &str) -> Result<AssetPath> {
    let refused = |_| Error::InvalidPath { path: raw.chars().take(200).collect(), why: "it is not UTF-8" };
    let mut path = percent_decode_str(raw).decode_utf8().map_err(refused)?.into_owned();
    if path.is_empty() || path.ends_with('/') {
        path.push_str("index.html");
    }
    AssetPath::new(&path)
}

async fn has_index(snapshot: &Snapshot, folder: &AssetPath) -> bool {
    snapshot.record(format!("{folder}/index.html")).await.is_ok()
}

/// Sends the client to the folder with its slash, so that what the index refers to resolves.
fn to_folder(raw: &str) -> Result<Response> {
    let name = raw.rsplit('/').next().unwrap_or(raw);
    // `./` keeps a name with a colon from being read as a scheme.
    let redirect = Response::builder().status(StatusCode::TEMPORARY_REDIRECT).header(LOCATION, format!("./{name}/"));
    finish(redirect, Body::empty())
}

fn finish(response: Builder, body: Body) -> Result<Response> {
    response.body(body).map_err(|error| Error::Failed { cause: format!("a response cannot be made: {error}") })
}

/// An asset that exists, with or without its bytes in memory.
enum Found {
    Resident(Asset),
    Stored(Box<AssetReader>),
}

impl Found {
    async fn at(snapshot: &Snapshot, path: &AssetPath) -> Result<Self> {
        match snapshot.get(path.as_str()) {
            Some(asset) => Ok(Self::Resident(asset)),
            None => Ok(Self::Stored(Box::new(snapshot.open(path.as_str()).await?))),
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Resident(asset) => asset.len() as u64,
            Self::Stored(reader) => reader.len(),
        }
    }

    fn hash(&self) -> ContentHash {
        match self {
            Self::Resident(asset) => asset.hash(),
            Self::Stored(reader) => reader.hash(),
        }
    }

    async fn whole(self, snapshot: &Snapshot, resident_bytes_max: u64) -> Result<Body> {
        let reader = match self {
            Self::Resident(asset) => return Ok(asset.into_bytes().into()),
            Self::Stored(reader) => reader,
        };
        if reader.len() <= resident_bytes_max {
            match snapshot.load(reader.path().as_str()).await {
                Ok(asset) => return Ok(asset.into_bytes().into()),
                // A kind may have a smaller budget than a quarter of all.
                Err(Error::TooLarge { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        streamed(reader.chunks(0..u64::MAX)).await
    }

    async fn range(self, range: Range<u64>) -> Result<Body> {
        match self {
            Self::Resident(asset) => Ok(asset.into_bytes().slice(range.start as usize..range.end as usize).into()),
            Self::Stored(reader) => streamed(reader.chunks(range)).await,
        }
    }
}

/// A body that reads as it is sent. The first chunk is read here: an asset that cannot be read is still an error
/// response then. A later failure breaks the connection off, which the client sees, since the length was announced.
async fn streamed(mut chunks: Chunks) -> Result<Body> {
    let first = chunks.next().await.transpose()?;
    Ok(Body::from_stream(Rest { first, chunks }))
}

struct Rest {
    first: Option<Bytes>,
    chunks: Chunks,
}

impl Stream for Rest {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let next = Pin::new(&mut self.chunks).poll_next(context);
        if let Poll::Ready(Some(Err(error))) = &next {
            tracing::warn!(%error, "a response was broken off");
        }
        next
    }
}

/// By extension. Text is UTF-8, and sources that browsers do not know are text, so that they can be looked at.
fn content_type(path: &AssetPath) -> Cow<'static, str> {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    match extension.as_str() {
        "glsl" | "vert" | "frag" | "geom" | "comp" | "tesc" | "tese" | "wgsl" | "hlsl" | "metal" | "obj" | "mtl"
        | "ron" | "toml" | "ini" | "cfg" | "po" | "lua" | "md" | "yaml" | "yml" => "text/plain; charset=utf-8".into(),
        "ktx2" => "image/ktx2".into(),
        "gltf" => "model/gltf+json".into(),
        "glb" => "model/gltf-binary".into(),
        _ => {
            let guess = mime_guess::from_ext(&extension).first_raw().unwrap_or("application/octet-stream");
            if guess.starts_with("text/") { format!("{guess}; charset=utf-8").into() } else { guess.into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_asset_or_a_folders_index_and_never_leaves_the_tree() {
        let check = |raw: &str, expected: Option<&str>| {
            let found = path(raw).ok();
            assert_eq!(found.as_ref().map(AssetPath::as_str), expected, "{raw}");
        };
        check("a/b.png", Some("a/b.png"));
        check("a%20b/%C3%A4.txt", Some("a b/ä.txt"));
        check("", Some("index.html"));
        check("docs/", Some("docs/index.html"));
        check("100%", Some("100%"));
        for bad in ["../x", "%2e%2e/x", "a/%2e%2e/%2e%2e/x", "/etc/passwd", "%2Fetc", "a%00b", "%FF", "a//b", "a%5Cb"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_type_follows_the_extension() {
        let check = |name: &str, expected: &str| {
            assert_eq!(content_type(&AssetPath::new(name).unwrap()), expected, "{name}");
        };
        check("a.html", "text/html; charset=utf-8");
        check("a.CSS", "text/css; charset=utf-8");
        check("a.js", "text/javascript; charset=utf-8");
        check("a.json", "application/json");
        check("a.png", "image/png");
        check("a.svg", "image/svg+xml");
        check("a.wasm", "application/wasm");
        check("a.wgsl", "text/plain; charset=utf-8");
        check("a.glb", "model/gltf-binary");
        check("Makefile", "application/octet-stream");
    }
}
