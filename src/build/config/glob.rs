//! Globs over the paths of a tree, with the meaning that `.gitignore` gave them.
//!
//! A glob without a slash matches a name at any depth; one with a slash starts at the top of the tree; one that ends
//! in a slash matches folders only. `*` and `?` stay within a part, `**` crosses parts, `{a,b}` and `[a-z]` choose.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// A set of globs.
#[derive(Clone, Debug, Default)]
pub(super) struct Globs {
    any: GlobSet,
    folders: GlobSet,
}

impl Globs {
    pub(super) fn is_empty(&self) -> bool {
        self.any.is_empty() && self.folders.is_empty()
    }

    pub(super) fn matches(&self, path: &str, is_folder: bool) -> bool {
        self.any.is_match(path) || (is_folder && self.folders.is_match(path))
    }
}

/// Collects globs; each is checked when it is added, so that an error has its place.
#[derive(Debug)]
pub(super) struct GlobsBuilder {
    any: GlobSetBuilder,
    folders: GlobSetBuilder,
}

impl Default for GlobsBuilder {
    fn default() -> Self {
        Self { any: GlobSetBuilder::new(), folders: GlobSetBuilder::new() }
    }
}

impl GlobsBuilder {
    /// Adds one glob; the error says what is wrong with it.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        let (body, folders_only) = match text.strip_suffix('/') {
            Some(body) => (body, true),
            None => (text, false),
        };
        let anchored = body.contains('/');
        let body = body.strip_prefix('/').unwrap_or(body);
        if body.is_empty() {
            return Err("it is empty".into());
        }
        let whole = if anchored { body.to_owned() } else { format!("**/{body}") };
        let glob = GlobBuilder::new(&whole)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| error.kind().to_string())?;
        if folders_only { &mut self.folders } else { &mut self.any }.add(glob);
        Ok(())
    }

    pub(super) fn build(&self) -> Result<Globs, String> {
        let build = |builder: &GlobSetBuilder| builder.build().map_err(|error| error.kind().to_string());
        Ok(Globs { any: build(&self.any)?, folders: build(&self.folders)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(glob: &str, path: &str, is_folder: bool) -> bool {
        let mut builder = GlobsBuilder::default();
        builder.add(glob).unwrap();
        builder.build().unwrap().matches(path, is_folder)
    }

    #[test]
    fn a_glob_means_what_it_means_in_a_gitignore() {
        let check = |glob: &str, path: &str, expected: bool| {
            assert_eq!(matches(glob, path, false), expected, "{glob} over {path}");
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
    }

    #[test]
    fn a_trailing_slash_matches_folders_only() {
        assert!(matches("build/", "x/build", true));
        assert!(!matches("build/", "x/build", false));
        assert!(matches("/build/", "build", true));
        assert!(!matches("/build/", "x/build", true));
    }

    #[test]
    fn a_glob_that_cannot_be_read_is_refused() {
        for bad in ["", "/", "[a", "{a", "a\\"] {
            assert!(GlobsBuilder::default().add(bad).is_err(), "{bad:?}");
        }
    }
}
