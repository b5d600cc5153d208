//! `/tree`: what a folder holds, or which assets match a search, a page at a time.
//!
//! The table of contents is walked for each listing, and the latest listings are kept: bounded memory for a tree of any
//! size. The walk may wait for the disk, so it runs on a thread that may block.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Face, failure};
use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::ids::{AssetKind, ContentHash, Generation};

/// Most entries of one answer, and how many there are when the request does not say.
const ENTRIES_MAX: usize = 500;
/// Listings that are kept.
const KEPT_MAX: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// The folder, with or without its last slash; empty for the top.
    prefix: String,
    /// Only what comes after this name: the `more` of the page before.
    after: String,
    /// Assets below `prefix` whose path holds this, whatever the case, instead of what the folder holds.
    search: String,
    limit: Option<usize>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Listing {
    generation: Generation,
    prefix: String,
    entries: Vec<Entry>,
    /// What to send as `after` for the next page; absent on the last one.
    more: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Entry {
    Folder { name: String, assets: u64, bytes: u64 },
    Asset { name: String, kind: AssetKind, bytes: u64, hash: ContentHash },
}

/// The latest listings, as they were sent.
#[derive(Default)]
pub(super) struct Listings {
    kept: Mutex<VecDeque<(Generation, Asked, Bytes)>>,
}

impl Listings {
    fn get(&self, generation: Generation, asked: &Asked) -> Option<Bytes> {
        let kept = self.kept.lock();
        kept.iter().find(|(of, what, _)| *of == generation && what == asked).map(|(_, _, body)| body.clone())
    }

    fn keep(&self, generation: Generation, asked: Asked, body: Bytes) {
        let mut kept = self.kept.lock();
        kept.retain(|(of, _, _)| *of >= generation);
        kept.truncate(KEPT_MAX - 1);
        kept.push_front((generation, asked, body));
    }
}

pub(super) async fn list(State(face): State<Arc<Face>>, Query(mut asked): Query<Asked>) -> Response {
    let snapshot = face.runtime.snapshot();
    let generation = snapshot.generation();
    if !asked.prefix.is_empty() && !asked.prefix.ends_with('/') {
        asked.prefix.push('/');
    }
    asked.search = asked.search.to_lowercase();
    let body = match face.listings.get(generation, &asked) {
        Some(body) => body,
        None => {
            let wanted = asked.clone();
            let walk = tokio::task::spawn_blocking(move || render(snapshot.bundle(), &wanted));
            let walked = walk.await.unwrap_or_else(|error| Err(Error::Failed { cause: error.to_string() }));
            match walked {
                Ok(body) => {
                    face.listings.keep(generation, asked, body.clone());
                    body
                }
                Err(error) => return failure::response(&error),
            }
        }
    };
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}

fn render(bundle: &Bundle, asked: &Asked) -> Result<Bytes> {
    let mut page = Page::new(asked);
    if asked.search.is_empty() {
        for folder in bundle.folders() {
            page.folder(folder?.as_str());
        }
    }
    let mut from = Some([asked.prefix.as_str(), asked.after.as_str()].concat());
    while let Some(start) = from.take() {
        for record in bundle.assets_from(&start) {
            let record = record?;
            match page.asset(record.path.as_str(), || (record.kind, record.len, record.content)) {
                Next::Asset => {}
                Next::From(path) => {
                    from = Some(path);
                    break;
                }
                Next::Nothing => break,
            }
        }
    }
    let listing = page.finish(bundle.generation());
    serde_json::to_vec(&listing).map(Bytes::from).map_err(|error| Error::Failed { cause: error.to_string() })
}

/// Where the walk goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// With the next asset.
    Asset,
    /// With the first asset whose path is at least this.
    From(String),
    /// Nothing that comes is on this page.
    Nothing,
}

/// The first entries by name after the one asked for; never more than one too many.
struct Page<'a> {
    asked: &'a Asked,
    limit: usize,
    entries: BTreeMap<String, Entry>,
}

impl<'a> Page<'a> {
    fn new(asked: &'a Asked) -> Self {
        let limit = asked.limit.unwrap_or(ENTRIES_MAX).clamp(1, ENTRIES_MAX);
        Self { asked, limit, entries: BTreeMap::new() }
    }

    /// Takes the next asset in path order. Assets whose path is less than the prefix with `after` need not be given.
    fn asset(&mut self, path: &str, about: impl FnOnce() -> (AssetKind, u64, ContentHash)) -> Next {
        let Some(rest) = path.strip_prefix(self.asked.prefix.as_str()) else {
            return if path < self.asked.prefix.as_str() { Next::Asset } else { Next::Nothing };
        };
        let searching = !self.asked.search.is_empty();
        if searching && !path.to_lowercase().contains(&self.asked.search) {
            return Next::Asset;
        }
        match rest.split_once('/') {
            Some((folder, _)) if !searching => {
                let (_, len, _) = about();
                let Some(Entry::Folder { assets, bytes, .. }) = self.slot(folder, empty_folder) else {
                    // All that this folder holds is not on this page either; '0' comes after '/'.
                    return self.is_over(rest).unwrap_or_else(|| Next::From(format!("{}{folder}0", self.asked.prefix)));
                };
                *assets += 1;
                *bytes += len;
                Next::Asset
            }
            _ => {
                let entry = self.slot(rest, |name| {
                    let (kind, bytes, hash) = about();
                    Entry::Asset { name, kind, bytes, hash }
                });
                if entry.is_some() { Next::Asset } else { self.is_over(rest).unwrap_or(Next::Asset) }
            }
        }
    }

    /// Whether the page is full and nothing at or after `rest` in path order can come before its last entry. A folder
    /// comes before `name-old` as a name, but what it holds comes after it as a path, since '-' is less than '/'.
    fn is_over(&self, rest: &str) -> Option<Next> {
        let (last, _) = self.entries.last_key_value()?;
        if self.entries.len() <= self.limit || rest <= last.as_str() {
            return None;
        }
        let folder_comes = |(end, _): (usize, char)| format!("{}0", &last[..end]).as_str() > rest;
        let open = self.asked.search.is_empty() && last.char_indices().skip(1).any(folder_comes);
        (!open).then_some(Next::Nothing)
    }

    fn folder(&mut self, path: &str) {
        if let Some(name) = path.strip_prefix(self.asked.prefix.as_str())
            && !name.contains('/')
        {
            self.slot(name, empty_folder);
        }
    }

    /// The entry of that name, made by `new` if there is none; `None` when it is not on this page.
    fn slot(&mut self, name: &str, new: impl FnOnce(String) -> Entry) -> Option<&mut Entry> {
        let full = self.entries.len() > self.limit;
        let beyond = full && self.entries.last_key_value().is_some_and(|(last, _)| name > last.as_str());
        if name <= self.asked.after.as_str() || beyond {
            return None;
        }
        if !self.entries.contains_key(name) {
            self.entries.insert(name.to_owned(), new(name.to_owned()));
            if self.entries.len() > self.limit + 1 {
                self.entries.pop_last();
            }
        }
        self.entries.get_mut(name)
    }

    fn finish(mut self, generation: Generation) -> Listing {
        let mut more = None;
        if self.entries.len() > self.limit {
            self.entries.pop_last();
            more = self.entries.last_key_value().map(|(name, _)| name.clone());
        }
        let entries = self.entries.into_values().collect();
        Listing { generation, prefix: self.asked.prefix.clone(), entries, more }
    }
}

fn empty_folder(name: String) -> Entry {
    Entry::Folder { name, assets: 0, bytes: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: [&str; 6] = ["a.txt", "docs/guide/one.html", "docs/two.html", "docs-old.txt", "img/Logo.png", "z"];

    #[test]
    fn a_page_ends_its_walk_once_nothing_more_can_be_on_it() {
        let about = || (AssetKind::Other, 10, ContentHash([0; 32]));
        let asked = Asked { limit: Some(1), ..Asked::default() };
        let mut page = Page::new(&asked);
        assert_eq!(page.asset("docs-old.txt", about), Next::Asset);
        assert_eq!(page.asset("docs-older.txt", about), Next::Asset);
        // `docs` is still to come.
        assert_eq!(page.asset("docs.txt", about), Next::Asset);
        assert_eq!(page.asset("docs/one.html", about), Next::Asset);
        assert_eq!(page.asset("e/one.html", about), Next::Nothing);
        let asked = Asked { after: "docs".into(), ..Asked::default() };
        assert_eq!(Page::new(&asked).asset("docs/one.html", about), Next::From("docs0".into()));
    }

    fn list(asked: &Asked) -> (Vec<String>, Option<String>) {
        let mut page = Page::new(asked);
        for folder in ["docs", "docs/guide", "empty", "img"] {
            if asked.search.is_empty() {
                page.folder(folder);
            }
        }
        // As the walk does: from where the page begins, over what it does not need.
        let mut paths = TREE;
        paths.sort_unstable();
        let mut from = Some([asked.prefix.as_str(), asked.after.as_str()].concat());
        while let Some(start) = from.take() {
            for path in paths.iter().filter(|path| **path >= start.as_str()) {
                match page.asset(path, || (AssetKind::of_path(path), 10, ContentHash([0; 32]))) {
                    Next::Asset => {}
                    Next::From(path) => {
                        from = Some(path);
                        break;
                    }
                    Next::Nothing => break,
                }
            }
        }
        let listing = page.finish(Generation(1));
        let name = |entry: &Entry| match entry {
            Entry::Folder { name, assets, bytes } => format!("{name}/ {assets} {bytes}"),
            Entry::Asset { name, .. } => name.clone(),
        };
        (listing.entries.iter().map(name).collect(), listing.more)
    }

    #[test]
    fn a_folder_lists_its_own_and_sums_what_lies_deeper() {
        let (entries, more) = list(&Asked::default());
        assert_eq!(entries, ["a.txt", "docs/ 2 20", "docs-old.txt", "empty/ 0 0", "img/ 1 10", "z"]);
        assert_eq!(more, None);
        let (entries, _) = list(&Asked { prefix: "docs/".into(), ..Asked::default() });
        assert_eq!(entries, ["guide/ 1 10", "two.html"]);
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let whole = list(&Asked::default()).0;
        let mut asked = Asked { limit: Some(2), ..Asked::default() };
        let mut pages = Vec::new();
        loop {
            let (entries, more) = list(&asked);
            assert!(entries.len() <= 2);
            pages.extend(entries);
            match more {
                Some(more) => asked.after = more,
                None => break,
            }
        }
        assert_eq!(pages, whole);
    }

    #[test]
    fn a_search_looks_below_the_folder_whatever_the_case() {
        let search = |prefix: &str, text: &str| {
            list(&Asked { prefix: prefix.into(), search: text.into(), ..Asked::default() }).0
        };
        assert_eq!(search("", "logo"), ["img/Logo.png"]);
        assert_eq!(search("docs/", "html"), ["guide/one.html", "two.html"]);
    }
}
