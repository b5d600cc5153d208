//! What all extractors share: from a reference as written to a path of the tree, each once, with its line.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::{memchr, memchr_iter, memchr2, memrchr};

use super::Reference;
use super::memo::Memo;
use crate::ids::AssetPath;
use crate::limits;

/// Most references of one file; what comes after is dropped.
const REFERENCES_MAX: usize = 64 << 10;
/// References that most files stay below.
const REFERENCES_USUAL: usize = 16;
/// Up to so many references are compared one by one; beyond, an index is kept.
const COMPARED_MAX: usize = 24;

/// The references found in one file so far.
pub(super) struct Found<'a> {
    path: &'a AssetPath,
    folder: &'a str,
    bytes: &'a [u8],
    /// What relative references start from, if the file says so itself; `None` is the file's own folder.
    base: Option<Base>,
    references: Vec<Reference>,
    index: HashMap<AssetPath, usize>,
    /// A place whose line is known: places mostly come in order, so that each byte is counted once.
    line_at: usize,
    line: u32,
    memo: &'a mut Memo,
    /// Room for the path that is resolved now.
    resolved: String,
}

/// What a page's `<base>` says.
enum Base {
    /// A path whose folder is meant.
    Folder(AssetPath),
    /// Another host: no relative reference is in the tree.
    Outside,
}

impl<'a> Found<'a> {
    pub(super) fn new(path: &'a AssetPath, bytes: &'a [u8], memo: &'a mut Memo) -> Self {
        memo.enter(path.folder());
        Self {
            path,
            folder: path.folder(),
            bytes,
            base: None,
            references: Vec::new(),
            index: HashMap::new(),
            line_at: 0,
            line: 1,
            memo,
            resolved: String::new(),
        }
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(super) fn finish(self) -> Vec<Reference> {
        self.references
    }

    /// A reference as web formats write it: percent-encoded, perhaps with a query and a fragment. `at` is where it
    /// stands in the file, if it stands there.
    pub(super) fn url(&mut self, url: &[u8], at: Option<usize>) {
        // What is remembered was resolved against the folder.
        let remembers = self.base.is_none();
        if remembers && let Some(target) = self.memo.find(url) {
            return self.add(target, at, true);
        }
        if let Some(path) = local_part(url)
            && let Some(target) = self.target(&percent_decoded(path))
        {
            if remembers {
                self.memo.remember(url, &target);
            }
            self.add(target, at, true);
        }
    }

    /// A reference as a file name: nothing in it is encoded, and a backslash separates as a slash does.
    pub(super) fn file(&mut self, name: &str, at: Option<usize>, required: bool) {
        if names_a_scheme(name.as_bytes()) || name.starts_with("//") || name.starts_with("\\\\") {
            return;
        }
        let name = if name.contains('\\') { Cow::Owned(name.replace('\\', "/")) } else { Cow::Borrowed(name) };
        if let Some(target) = self.target(name.as_bytes()) {
            self.add(target, at, required);
        }
    }

    /// What relative references start from is the folder of `url`.
    pub(super) fn set_base(&mut self, url: &[u8]) {
        let trimmed = url.trim_ascii();
        if names_a_scheme(trimmed) || trimmed.starts_with(b"//") {
            self.base = Some(Base::Outside);
        } else if let Some(path) = local_part(trimmed) {
            let decoded = percent_decoded(path);
            let folder = decoded.iter().rposition(|byte| *byte == b'/').map_or(&b""[..], |slash| &decoded[..=slash]);
            let resolved = std::str::from_utf8(folder).ok().and_then(|folder| self.path.resolve(&format!("{folder}_")));
            self.base = Some(resolved.map_or(Base::Outside, Base::Folder));
        }
    }

    /// The path that a reference stands for, if it stands for a file of the tree.
    fn target(&mut self, reference: &[u8]) -> Option<AssetPath> {
        // A folder is no asset.
        let last = reference.rsplit(|byte| *byte == b'/').next()?;
        if matches!(last, b"" | b"." | b"..") || reference.len() > limits::PATH_BYTES_MAX {
            return None;
        }
        let text = std::str::from_utf8(reference).ok()?;
        let (from, folder) = match &self.base {
            None => (self.path, self.folder),
            Some(Base::Folder(base)) => (base, base.folder()),
            Some(Base::Outside) if !text.starts_with('/') => return None,
            Some(Base::Outside) => (self.path, self.folder),
        };
        resolve(from, folder, text, &mut self.resolved).then(|| AssetPath::new(&self.resolved).ok()).flatten()
    }

    /// Adds a target, once; a file does not depend on itself.
    fn add(&mut self, target: AssetPath, at: Option<usize>, required: bool) {
        if self.references.len() >= REFERENCES_MAX || target == *self.path {
            return;
        }
        let known = if self.references.len() <= COMPARED_MAX {
            self.references.iter().position(|reference| reference.target == target)
        } else {
            if self.index.is_empty() {
                let all = self.references.iter().enumerate();
                self.index = all.map(|(index, reference)| (reference.target.clone(), index)).collect();
            }
            self.index.get(&target).copied()
        };
        if let Some(known) = known {
            self.references[known].required |= required;
            return;
        }
        if !self.index.is_empty() {
            self.index.insert(target.clone(), self.references.len());
        }
        if self.references.is_empty() {
            self.references.reserve(REFERENCES_USUAL);
        }
        let line = at.map(|at| self.line_of(at));
        self.references.push(Reference { target, line, required });
    }

    /// The line of a place in the file, counted from 1.
    fn line_of(&mut self, at: usize) -> u32 {
        let at = at.min(self.bytes.len());
        if at < self.line_at {
            (self.line_at, self.line) = (0, 1);
        }
        let lines = memchr_iter(b'\n', &self.bytes[self.line_at..at]).count();
        self.line = self.line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX));
        self.line_at = at;
        self.line
    }
}

/// [`AssetPath::resolve`] into a text that is used again and again; `false` when the reference leaves the tree.
fn resolve(from: &AssetPath, mut folder: &str, reference: &str, into: &mut String) -> bool {
    into.clear();
    let mut rest = reference;
    if let Some(from_top) = reference.strip_prefix('/') {
        (folder, rest) = ("", from_top);
    }
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../")
            && !folder.is_empty()
        {
            folder = &folder[..memrchr(b'/', folder.as_bytes()).unwrap_or(0)];
            rest = after;
        } else {
            break;
        }
    }
    // What is not simple is left to the path itself: empty, `.` and `..` parts further on, and the way out.
    let simple = !rest.starts_with(['/', '.']) && !rest.as_bytes().windows(2).any(|two| matches!(two, b"//" | b"/."));
    if simple {
        into.push_str(folder);
        if !folder.is_empty() {
            into.push('/');
        }
        into.push_str(rest);
        return true;
    }
    let resolved = from.resolve(reference);
    into.push_str(resolved.as_ref().map_or("", AssetPath::as_str));
    resolved.is_some()
}

/// The path of a reference, if it may be one within the tree: not to another host, not only to a place on the page.
pub(super) fn local_part(url: &[u8]) -> Option<&[u8]> {
    let url = url.trim_ascii();
    if url.starts_with(b"//") || names_a_scheme(url) {
        return None;
    }
    let path = memchr2(b'?', b'#', url).map_or(url, |end| &url[..end]);
    (!path.is_empty()).then_some(path)
}

/// Whether it starts with a scheme, such as `https:`, `data:` or, for that matter, `C:`.
fn names_a_scheme(reference: &[u8]) -> bool {
    // No scheme is long, and a data URI is.
    const SCHEME_BYTES_MAX: usize = 32;
    let head = &reference[..reference.len().min(SCHEME_BYTES_MAX)];
    let Some(colon) = memchr(b':', head) else { return false };
    let scheme = &head[..colon];
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

pub(in crate::build) fn percent_decoded(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr(b'%', text) else { return Cow::Borrowed(text) };
    let digit = |byte: Option<&u8>| byte.and_then(|byte| (*byte as char).to_digit(16));
    let mut decoded = text[..first].to_vec();
    let mut at = first;
    while at < text.len() {
        match (text[at], digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(decoded)
}

/// What tests of extractors check: the targets, each with its line, and `?` after what is not required.
#[cfg(test)]
pub(super) fn shown(path: &str, text: &str) -> Vec<String> {
    let path = AssetPath::new(path).unwrap();
    let show = |reference: Reference| {
        let line = reference.line.map_or_else(|| "-".to_owned(), |line| line.to_string());
        format!("{line} {}{}", reference.target, if reference.required { "" } else { "?" })
    };
    super::references(&path, text.as_bytes()).into_iter().map(show).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_quick_way_resolves_as_the_path_itself_does(
            from in "[ab]{1,2}(/[ab.]{1,2}x){0,3}",
            reference in "(/|\\./|\\.\\./){0,4}([ab.]{1,3}/{0,2}){0,4}[ab\\\\]?",
        ) {
            let from = AssetPath::new(&from).unwrap();
            let mut into = String::new();
            let quick = resolve(&from, from.folder(), &reference, &mut into).then(|| AssetPath::new(&into).ok()).flatten();
            // A reference to a folder names no asset; `add` leaves it out before.
            if !reference.is_empty() && !reference.ends_with('/') {
                prop_assert_eq!(quick, from.resolve(&reference));
            }
        }
    }

    fn urls(path: &str, urls: &[&str]) -> Vec<String> {
        let path = AssetPath::new(path).unwrap();
        let mut memo = Memo::default();
        let mut found = Found::new(&path, b"", &mut memo);
        for url in urls {
            found.url(url.as_bytes(), None);
        }
        found.finish().into_iter().map(|reference| reference.target.as_str().to_owned()).collect()
    }

    #[test]
    fn what_is_outside_the_tree_is_no_reference() {
        let outside = [
            "https://a.b/c.png",
            "//a.b/c.png",
            "data:image/png;base64,AAAA",
            "#top",
            "?q=1",
            "",
            " ",
            "../../../etc/passwd",
            "mailto:a@b",
            "C:/x.png",
            ".",
            "..",
            "folder/",
            "%2e%2e/%2e%2e/%2e%2e/x",
            "a%00b",
            "a%5cb",
            "page.html#self",
        ];
        assert_eq!(urls("docs/page.html", &outside), [""; 0]);
    }

    #[test]
    fn a_reference_is_decoded_cut_and_resolved_and_named_once() {
        let inside = ["a%20b.png?v=1#x", "../css/./x.css", "/top.js", "a b.png", "100%.png", "%c3%a9.png", "x:y/z"];
        let expected = ["docs/a b.png", "css/x.css", "top.js", "docs/100%.png", "docs/é.png"];
        assert_eq!(urls("docs/page.html", &inside), expected);
    }

    #[test]
    fn many_references_are_still_named_once() {
        let all: Vec<String> = (0..200).map(|index| format!("{}.png", index % 100)).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        assert_eq!(urls("page.html", &all).len(), 100);
    }
}
