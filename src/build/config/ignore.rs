//! What of a tree is no asset: the patterns of `flyloft.toml`, the `.flyloftignore` files at any depth, the folders of
//! version controls, and our own output.
//!
//! Patterns mean what they mean in a `.gitignore`. Of several files the nearest one that says something about a path
//! counts, and `flyloft.toml` stands behind all of them; within one file it is the last line that matches. What is in
//! an ignored folder is ignored: nothing brings it back.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ::ignore::Match;
use ::ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::{FILE_NAME, VERSION_CONTROL};
use crate::build::scan::{Exclude, place_of};
use crate::build::transform::one_line;

/// The name of the file that says what is ignored in the folder it stands in and below.
pub const IGNORE_FILE_NAME: &str = ".flyloftignore";

/// The patterns of one file. Paths are relative to the folder that it stands in.
#[derive(Clone, Debug)]
pub(in crate::build) struct Patterns {
    lines: Vec<String>,
    matcher: Gitignore,
}

impl Default for Patterns {
    fn default() -> Self {
        Self { lines: Vec::new(), matcher: Gitignore::empty() }
    }
}

/// What is written in the same way means the same.
impl PartialEq for Patterns {
    fn eq(&self, other: &Self) -> bool {
        self.lines == other.lines
    }
}

impl Patterns {
    /// What a file says, and which of its lines cannot be understood, with why.
    pub(in crate::build) fn parse(text: &str) -> (Self, Vec<(u32, String)>) {
        let mut builder = PatternsBuilder::default();
        let mut wrong = Vec::new();
        for (line, text) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
            if let Err(why) = builder.line(text) {
                wrong.push((line, why));
            }
        }
        let patterns = builder.build().unwrap_or_else(|why| {
            wrong.push((1, why));
            Self::default()
        });
        (patterns, wrong)
    }

    /// Whether the path is ignored, or kept by a pattern with `!`; `None` when no pattern is about it.
    fn verdict(&self, path: &str, is_folder: bool) -> Option<bool> {
        match self.matcher.matched(path, is_folder) {
            Match::None => None,
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
        }
    }
}

/// Collects patterns; each is checked when it is added, so that an error has its place.
pub(super) struct PatternsBuilder {
    lines: Vec<String>,
    builder: GitignoreBuilder,
}

impl Default for PatternsBuilder {
    fn default() -> Self {
        let mut builder = GitignoreBuilder::new("");
        builder.allow_unclosed_class(false);
        Self { lines: Vec::new(), builder }
    }
}

impl PatternsBuilder {
    /// Adds a line of a file: a pattern, a comment, or nothing.
    fn line(&mut self, text: &str) -> Result<(), String> {
        self.builder.add_line(None, text).map_err(|error| why(&error))?;
        self.lines.push(text.to_owned());
        Ok(())
    }

    /// Adds a pattern; the error says what is wrong with it.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        if text.strip_prefix('!').unwrap_or(text).trim_matches(['/', ' ']).is_empty() {
            return Err("it is empty".into());
        }
        if text.starts_with('#') {
            return Err("it is a comment; a name that begins with '#' is written '\\#'".into());
        }
        self.line(text)
    }

    pub(super) fn build(&self) -> Result<Patterns, String> {
        let matcher = self.builder.build().map_err(|error| why(&error))?;
        Ok(Patterns { lines: self.lines.clone(), matcher })
    }
}

fn why(error: &::ignore::Error) -> String {
    match error {
        ::ignore::Error::Glob { err, .. } => one_line(err.clone()),
        other => one_line(other.to_string()),
    }
}

/// The ignore files that count for one folder, nearest first.
#[derive(Clone, Debug, Default)]
pub(in crate::build) struct Nearest(Option<Arc<Standing>>);

#[derive(Debug)]
struct Standing {
    /// The bytes of the path up to and with the slash behind the folder that the file stands in.
    prefix: usize,
    patterns: Arc<Patterns>,
    above: Nearest,
}

impl Nearest {
    /// Those that count in the folder at `place`, where `patterns` stands.
    pub(in crate::build) fn with(&self, place: &str, patterns: Arc<Patterns>) -> Self {
        let prefix = if place.is_empty() { 0 } else { place.len() + 1 };
        Self(Some(Arc::new(Standing { prefix, patterns, above: self.clone() })))
    }

    fn verdict(&self, path: &str, is_folder: bool) -> Option<bool> {
        let mut next = &self.0;
        while let Some(standing) = next {
            let verdict = path.get(standing.prefix..).and_then(|inner| standing.patterns.verdict(inner, is_folder));
            if verdict.is_some() {
                return verdict;
            }
            next = &standing.above.0;
        }
        None
    }
}

/// Everything that says what of one tree is ignored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ignoring {
    /// `ignore` in `flyloft.toml`.
    configured: Patterns,
    /// The ignore files, by the folders that they stand in; the top is empty.
    files: BTreeMap<String, Arc<Patterns>>,
    exclude: Exclude,
}

impl Ignoring {
    pub(in crate::build) fn new(configured: Patterns, exclude: Exclude) -> Self {
        Self { configured, files: BTreeMap::new(), exclude }
    }

    /// The same with the ignore files that a scan of the whole tree found.
    pub(in crate::build) fn with_files(&self, files: impl IntoIterator<Item = (String, Arc<Patterns>)>) -> Self {
        Self { files: files.into_iter().collect(), ..self.clone() }
    }

    /// Whether no pattern can bring it in: a version control's own, or our own output.
    pub(in crate::build) fn is_never_packed(&self, path: &str) -> bool {
        is_version_control(path) || self.exclude.excludes(path)
    }

    /// Whether the file or folder at this place, `/`-separated, is ignored, or a folder that it is in.
    pub fn ignores(&self, path: &str, is_folder: bool) -> bool {
        if self.is_never_packed(path) {
            return true;
        }
        if self.configured.matcher.is_empty() && self.files.is_empty() {
            return false;
        }
        let mut nearest = self.standing_in("", &Nearest::default());
        for slash in memchr::memchr_iter(b'/', path.as_bytes()) {
            let folder = &path[..slash];
            if self.verdict(folder, true, &nearest) {
                return true;
            }
            nearest = self.standing_in(folder, &nearest);
        }
        self.verdict(path, is_folder, &nearest)
    }

    /// Whether what stands at a path that the operating system names, below the top of the tree, is of no interest.
    /// Ignore files are, and `flyloft.toml`, unless the folder is ignored that they stand in.
    pub fn is_of_no_interest(&self, inside: &Path, is_folder: bool) -> bool {
        // What is no text is a problem to be told.
        let Some(place) = place_of(inside) else { return false };
        let (folder, name) = place.rsplit_once('/').unwrap_or(("", &place));
        if name == IGNORE_FILE_NAME || &*place == FILE_NAME {
            return !folder.is_empty() && self.ignores(folder, true);
        }
        self.ignores(&place, is_folder)
    }

    /// Whether a scan found an ignore file in this folder or below it.
    pub(in crate::build) fn has_files_in(&self, place: &str) -> bool {
        let below =
            |folder: &str| folder.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        self.files
            .range(place.to_owned()..)
            .take_while(|(folder, _)| folder.starts_with(place))
            .any(|(at, _)| below(at))
    }

    /// Whether what is in a folder that is not ignored is: its own name decides, and the ignore files around it.
    pub(in crate::build) fn ignores_within(&self, path: &str, is_folder: bool, nearest: &Nearest) -> bool {
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        VERSION_CONTROL.contains(&name) || self.exclude.excludes(path) || self.verdict(path, is_folder, nearest)
    }

    /// The ignore files that count in the folder `place`, as they are known.
    pub(in crate::build) fn nearest_to(&self, place: &str) -> Nearest {
        let mut nearest = self.standing_in("", &Nearest::default());
        if !self.files.is_empty() && !place.is_empty() {
            for (slash, _) in place.match_indices('/').chain([(place.len(), "")]) {
                nearest = self.standing_in(&place[..slash], &nearest);
            }
        }
        nearest
    }

    fn standing_in(&self, place: &str, above: &Nearest) -> Nearest {
        self.files.get(place).map_or_else(|| above.clone(), |patterns| above.with(place, Arc::clone(patterns)))
    }

    fn verdict(&self, path: &str, is_folder: bool, nearest: &Nearest) -> bool {
        nearest.verdict(path, is_folder).or_else(|| self.configured.verdict(path, is_folder)).unwrap_or(false)
    }
}

/// Whether a version control's own folder (or the file that stands for it) is named, or is above.
fn is_version_control(path: &str) -> bool {
    path.split('/').any(|part| VERSION_CONTROL.contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(text: &str) -> Arc<Patterns> {
        let (patterns, wrong) = Patterns::parse(text);
        assert_eq!(wrong, [], "{text}");
        Arc::new(patterns)
    }

    fn ignoring(configured: &str, files: &[(&str, &str)]) -> Ignoring {
        let configured = Patterns::clone(&patterns(configured));
        Ignoring::new(configured, Exclude::default())
            .with_files(files.iter().map(|(folder, text)| ((*folder).to_owned(), patterns(text))))
    }

    #[test]
    fn a_pattern_means_what_it_means_in_a_gitignore() {
        let check = |pattern: &str, path: &str, expected: bool| {
            assert_eq!(ignoring(pattern, &[]).ignores(path, false), expected, "{pattern} over {path}");
        };
        check("*.tmp", "a.tmp", true);
        check("*.tmp", "deep/er/a.tmp", true);
        check("/*.tmp", "a.tmp", true);
        check("/*.tmp", "deep/a.tmp", false);
        check("data/*.json", "data/a.json", true);
        check("data/*.json", "data/deep/a.json", false);
        check("data/**/*.json", "data/deep/er/a.json", true);
        check("data/**/*.json", "data/a.json", true);
        check("*.{png,jpg}", "x/y.jpg", true);
        check("[ab].txt", "b.txt", true);
        check("build/", "build", false);
        check("build/", "x/build/deep/a.png", true);
        check("*\n!keep.txt", "keep.txt", false);
        check("*\n!keep.txt", "other.txt", true);
        check("# *.txt\n\n\\#x", "a.txt", false);
        check("# *.txt\n\n\\#x", "#x", true);
        check("kept/\n!kept/a.txt", "kept/a.txt", true);
    }

    #[test]
    fn the_nearest_file_that_says_something_counts() {
        let tree = ignoring("*.png\n*.raw", &[("", "!*.png\n/only-top"), ("a/b", "*.png\n!x.raw\n/here")]);
        let check = |path: &str, expected: bool| assert_eq!(tree.ignores(path, false), expected, "{path}");
        check("x.png", false);
        check("a/x.png", false);
        check("a/b/x.png", true);
        check("a/b/c/x.png", true);
        check("a/x.raw", true);
        check("a/b/x.raw", false);
        check("only-top", true);
        check("a/only-top", false);
        check("a/b/here", true);
        check("a/b/c/here", false);
        check("a/bb/here", false);
        for path in ["a/b/x.png", "a/x.raw", "a/b/x.raw", "a/b/here", "x.png"] {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let nearest = tree.nearest_to(folder);
            assert_eq!(tree.ignores_within(path, false, &nearest), tree.ignores(path, false), "{path}");
        }
        assert!(tree.has_files_in("a") && tree.has_files_in("a/b") && !tree.has_files_in("a/bb"));
        assert!(!tree.has_files_in("a/b/c") && ignoring("", &[("ab", "x")]).has_files_in("ab"));
        assert!(!ignoring("", &[("ab", "x"), ("a.b", "x")]).has_files_in("a"));
    }

    #[test]
    fn the_files_that_say_what_is_ignored_are_of_interest_unless_they_are_in_an_ignored_folder() {
        let tree = ignoring("*\n!/in/", &[]);
        let check = |path: &str, expected: bool| {
            assert_eq!(!tree.is_of_no_interest(Path::new(path), false), expected, "{path}");
        };
        check("flyloft.toml", true);
        check(".flyloftignore", true);
        check("in/.flyloftignore", true);
        check("in/flyloft.toml", false);
        check("out/.flyloftignore", false);
        check("a.txt", false);
        check(".git/HEAD", false);
    }

    #[test]
    fn a_pattern_that_cannot_be_read_is_named_with_its_line() {
        let (kept, wrong) = Patterns::parse("*.a\n[b\n\n{c\n*.d");
        assert_eq!(wrong.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4], "{wrong:?}");
        assert_eq!((kept.verdict("x.d", false), kept.verdict("x.e", false)), (Some(true), None));
        for bad in ["", "/", "!", "#a", "[a", "{a"] {
            assert!(PatternsBuilder::default().add(bad).is_err(), "{bad:?}");
        }
    }
}
