//! `/a/<path>`: one asset of one generation.
//!
//! What is resident is sent as it lies in memory. What is not is made resident when it is small, and streamed in
//! bounded memory when it is large or only a range of it is wanted. A client that takes Zstandard gets the asset as it
//! is stored, where that is one stream of its own; one that takes brotli or gzip gets what the transform `compress` made
//! beside it.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName,
    LOCATION, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use futures_core::Stream;
use percent_encoding::percent_decode_str;

use super::body::Reply;
use super::conditional::{Codings, Condition, Part, codings, condition, part};
use super::traffic::Encoding;
use super::{Face, failure, kind};
use crate::Asset;
use crate::bundle::BuildRecord;
use crate::error::{Error, Result};
use crate::ids::{AssetId, AssetPath, ContentHash, Generation};
use crate::runtime::{AssetReader, Chunks, Snapshot};

/// The generation that a response is of.
const GENERATION: HeaderName = HeaderName::from_static("x-flyloft-generation");
/// Headers of a response, so that the map is made in its final size.
const HEADERS: usize = 10;

/// The router's handler.
pub(super) async fn serve(
    State(face): State<Arc<Face>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> axum::response::Response {
    respond(&face, &method, &uri, &headers).await.map(Body::from)
}

/// The name of the transform that makes the assets which are sent as gzip and brotli.
const COMPRESS: &str = "compress";

/// Whether this is about an asset.
pub(super) fn is_asked_for(method: &Method, uri: &Uri) -> bool {
    (method == Method::GET || method == Method::HEAD) && uri.path().starts_with("/a/")
}

/// The response, if it can be given from memory alone. `None` says nothing of whether the asset exists.
pub(super) fn at_once<B>(face: &Face, request: &Request<B>) -> Option<Response<Reply>> {
    if !is_asked_for(request.method(), request.uri()) {
        return None;
    }
    let raw = &request.uri().path()["/a/".len()..];
    if raw.contains('%') {
        return None;
    }
    let snapshot = face.runtime.snapshot();
    let found = resident(face, &snapshot, raw, codings(request.headers()))?;
    let (method, headers) = (request.method(), request.headers());
    let asked = Asked { face, method, headers, path: raw, snapshot: &snapshot };
    let told = kind::is_told_by_bytes(raw).then(|| snapshot.get(raw));
    // What is not resident as it is would have to be read for its first bytes.
    let told = told.map_or(Some(None), |asset| asset.map(Some))?;
    match asked.weigh(&found, told.as_deref().map_or(&[], kind::first)) {
        Weighed::Answered(response) => Some(response),
        Weighed::Send(head) => match found {
            Found::Resident(asset, _) => Some(asked.with(head, asset)),
            _ => None,
        },
    }
}

/// The most wanted form that the asset has, where that is resident. `None` also where it is not known yet which it has.
fn resident(face: &Face, snapshot: &Snapshot, path: &str, wanted: Codings) -> Option<Found> {
    if !wanted.is_empty() {
        let known = face.forms.of(AssetId::of_path(path), snapshot.generation());
        if let Some(coding) = wanted.iter().find(|coding| known.has(*coding) != Some(false)) {
            let asset = match coding {
                Encoding::Zstd => snapshot.get_stored(path),
                // A file may have such a name as well.
                _ => known.has(coding).and_then(|_| snapshot.get(format!("{path}#{}", coding.name()))),
            };
            return asset.map(|asset| Found::Resident(asset, coding));
        }
    }
    Some(Found::Resident(snapshot.get(path)?, Encoding::Identity))
}

/// The response, for which an asset may have to be read first.
pub(super) async fn respond(face: &Face, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response<Reply> {
    let response = answer(face, method, uri.path(), headers).await;
    response.unwrap_or_else(|error| {
        let response = failure::response(&error).map(Reply::from);
        face.traffic.answered(response.status(), Encoding::Identity, 0);
        response
    })
}

async fn answer(face: &Face, method: &Method, uri_path: &str, headers: &HeaderMap) -> Result<Response<Reply>> {
    let snapshot = face.runtime.snapshot();
    let raw = uri_path.strip_prefix("/a/").unwrap_or_default();
    let path = path(raw)?;
    let asked = Asked { face, method, headers, path: path.as_str(), snapshot: &snapshot };
    for coding in codings(headers).iter() {
        let Some(found) = Found::coded(face, &snapshot, &path, coding).await? else { continue };
        match asked.send(found).await {
            // A kind may have less room than its assets need even compressed; it is streamed then.
            Err(Error::TooLarge { .. }) => {}
            sent => return sent,
        }
    }
    match Found::at(&snapshot, &path).await {
        Err(Error::NotFound { .. }) if has_index(&snapshot, &path).await => to_folder(raw),
        found => asked.send(found?).await,
    }
}

/// A request that names an asset of this generation.
struct Asked<'a> {
    face: &'a Face,
    method: &'a Method,
    headers: &'a HeaderMap,
    /// The asset's path. That of a handle is the same, and elsewhere in memory.
    path: &'a str,
    snapshot: &'a Snapshot,
}

/// What comes of the preconditions, the method and the range.
enum Weighed {
    /// All is said without the asset's bytes.
    Answered(Response<Reply>),
    /// Its bytes are to follow.
    Send(Head),
}

/// A response that lacks its body.
struct Head {
    status: StatusCode,
    headers: HeaderMap,
    encoding: Encoding,
    /// What is to be sent, of the representation that was chosen.
    range: Range<u64>,
}

impl Asked<'_> {
    /// Sections 13 and 14 of RFC 9110, for the representation that was found of an asset with these first bytes.
    fn weigh(&self, found: &Found, first: &[u8]) -> Weighed {
        let (len, etag, encoding) = (found.len(), Tag::of(found.hash()), found.encoding());
        let mut headers = HeaderMap::with_capacity(HEADERS);
        headers.insert(ETAG, etag.value());
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        headers.insert(GENERATION, generation(self.snapshot.generation()));
        let answered = |status: StatusCode, headers: HeaderMap, body: Reply| {
            Weighed::Answered(self.over(Head { status, headers, encoding, range: 0..0 }, body))
        };
        match condition(self.headers, etag.as_str()) {
            Condition::Proceed => {}
            Condition::NotModified => return answered(StatusCode::NOT_MODIFIED, headers, Reply::Empty),
            Condition::Failed => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
                let line = format!("'{}' has another content now\n", self.path);
                return answered(StatusCode::PRECONDITION_FAILED, headers, Bytes::from(line).into());
            }
        }
        headers.insert(CONTENT_TYPE, kind::content_type_of(self.path, first));
        if encoding != Encoding::Identity {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
        }
        if self.method == Method::HEAD {
            headers.insert(CONTENT_LENGTH, len.into());
            return answered(StatusCode::OK, headers, Reply::Empty);
        }
        let (status, range) = match part(self.headers, etag.as_str(), len) {
            Part::Whole => (StatusCode::OK, 0..len),
            Part::Bytes(range) => {
                headers.insert(CONTENT_RANGE, span(&format!("{}-{}/{len}", range.start, range.end - 1)));
                (StatusCode::PARTIAL_CONTENT, range)
            }
            Part::Beyond => {
                headers.remove(CONTENT_ENCODING);
                headers.insert(CONTENT_RANGE, span(&format!("*/{len}")));
                return answered(StatusCode::RANGE_NOT_SATISFIABLE, headers, Reply::Empty);
            }
        };
        headers.insert(CONTENT_LENGTH, (range.end - range.start).into());
        Weighed::Send(Head { status, headers, encoding, range })
    }

    async fn send(&self, found: Found) -> Result<Response<Reply>> {
        let first = kind::first_of(self.snapshot, self.path).await?;
        let head = match self.weigh(&found, &first) {
            Weighed::Answered(response) => return Ok(response),
            Weighed::Send(head) => head,
        };
        match found {
            Found::Resident(asset, _) => Ok(self.with(head, asset)),
            Found::Stored { .. } => Ok(self.with(head, self.snapshot.load_stored(self.path).await?)),
            Found::Open(reader, _) => {
                let whole = head.status == StatusCode::OK;
                if whole && reader.len() <= self.face.resident_bytes_max {
                    match self.snapshot.load(reader.path().as_str()).await {
                        Ok(asset) => return Ok(self.with(head, asset)),
                        // A kind may have a smaller budget than a quarter of all.
                        Err(Error::TooLarge { .. }) => {}
                        Err(error) => return Err(error),
                    }
                }
                let body = streamed(reader.chunks(head.range.clone())).await?;
                Ok(self.over(head, body.into()))
            }
        }
    }

    fn with(&self, head: Head, asset: Asset) -> Response<Reply> {
        let (whole, range) = (asset.len() as u64, head.range.clone());
        let bytes = asset.into_bytes();
        let bytes = if range == (0..whole) { bytes } else { bytes.slice(range.start as usize..range.end as usize) };
        self.over(head, bytes.into())
    }

    fn over(&self, head: Head, body: Reply) -> Response<Reply> {
        let Head { status, headers, encoding, range } = head;
        self.face.traffic.answered(status, encoding, range.end - range.start);
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// A strong entity tag: the hash of the very bytes, or for a stored form of their hashes, in quotes.
struct Tag([u8; 66]);

impl Tag {
    fn of(hash: ContentHash) -> Self {
        let mut text = [b'"'; 66];
        text[1..65].copy_from_slice(blake3::Hash::from_bytes(hash.0).to_hex().as_bytes());
        Self(text)
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits in quotes are ASCII")
    }

    fn value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).expect("hexadecimal digits in quotes may stand in a header")
    }
}

fn generation(generation: Generation) -> HeaderValue {
    generation.0.into()
}

fn span(range: &str) -> HeaderValue {
    HeaderValue::try_from(format!("bytes {range}")).expect("digits, '-', '/' and '*' may stand in a header")
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
fn to_folder(raw: &str) -> Result<Response<Reply>> {
    let name = raw.rsplit('/').next().unwrap_or(raw);
    // `./` keeps a name with a colon from being read as a scheme.
    let location = HeaderValue::try_from(format!("./{name}/"))
        .map_err(|error| Error::Failed { cause: format!("a redirection cannot be made: {error}") })?;
    let mut response = Response::new(Reply::Empty);
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// A representation of an asset that exists, with or without its bytes in memory.
enum Found {
    Resident(Asset, Encoding),
    /// Not in memory as it is stored.
    Stored {
        hash: ContentHash,
        len: u64,
    },
    /// Not in memory.
    Open(Box<AssetReader>, Encoding),
}

impl Found {
    async fn at(snapshot: &Snapshot, path: &AssetPath) -> Result<Self> {
        match snapshot.get(path.as_str()) {
            Some(asset) => Ok(Self::Resident(asset, Encoding::Identity)),
            None => Ok(Self::Open(Box::new(snapshot.open(path.as_str()).await?), Encoding::Identity)),
        }
    }

    /// The asset in this coding, if it has that form.
    async fn coded(face: &Face, snapshot: &Snapshot, path: &AssetPath, coding: Encoding) -> Result<Option<Self>> {
        match coding {
            Encoding::Identity => Ok(None),
            Encoding::Zstd => Self::stored(face, snapshot, path).await,
            Encoding::Gzip | Encoding::Brotli => Self::made(face, snapshot, path, coding).await,
        }
    }

    /// What the transform `compress` made of the asset in this coding.
    async fn made(face: &Face, snapshot: &Snapshot, path: &AssetPath, coding: Encoding) -> Result<Option<Self>> {
        let (id, generation) = (path.id(), snapshot.generation());
        let there = match face.forms.of(id, generation).has(coding) {
            Some(there) => there,
            None => {
                let build = snapshot.build_record(path.as_str()).await?;
                // As the last step it had the bytes that the asset has.
                let by_it = |build: &BuildRecord| build.steps.last().is_some_and(|step| step.transform == COMPRESS);
                let build = build.filter(by_it);
                let has = |coding: Encoding| build.iter().flat_map(|build| &build.labels).any(|it| it == coding.name());
                for coding in [Encoding::Gzip, Encoding::Brotli] {
                    face.forms.note(id, generation, coding, has(coding));
                }
                has(coding)
            }
        };
        if !there {
            return Ok(None);
        }
        let made = path.labelled(coding.name())?;
        Ok(Some(match snapshot.get(made.as_str()) {
            Some(asset) => Self::Resident(asset, coding),
            None => Self::Open(Box::new(snapshot.open(made.as_str()).await?), coding),
        }))
    }

    /// The asset as it is stored, if that can be sent as it is.
    async fn stored(face: &Face, snapshot: &Snapshot, path: &AssetPath) -> Result<Option<Self>> {
        let (id, generation) = (path.id(), snapshot.generation());
        if face.forms.of(id, generation).has(Encoding::Zstd) == Some(false) {
            return Ok(None);
        }
        if let Some(stored) = snapshot.get_stored(path.as_str()) {
            return Ok(Some(Self::Resident(stored, Encoding::Zstd)));
        }
        let stored = snapshot.stored(path.as_str()).await?;
        let fits = stored.filter(|(_, len)| *len <= face.resident_bytes_max);
        if fits.is_none() {
            face.forms.note(id, generation, Encoding::Zstd, false);
        }
        Ok(fits.map(|(hash, len)| Self::Stored { hash, len }))
    }

    fn encoding(&self) -> Encoding {
        match self {
            Self::Resident(_, encoding) | Self::Open(_, encoding) => *encoding,
            Self::Stored { .. } => Encoding::Zstd,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Resident(asset, _) => asset.len() as u64,
            Self::Stored { len, .. } => *len,
            Self::Open(reader, _) => reader.len(),
        }
    }

    fn hash(&self) -> ContentHash {
        match self {
            Self::Resident(asset, _) => asset.hash(),
            Self::Stored { hash, .. } => *hash,
            Self::Open(reader, _) => reader.hash(),
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
}
