//! Paths that differ only in Unicode normalisation: two names on this file system, one on another.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use unicode_normalization::{UnicodeNormalization, is_nfc};

use crate::ids::AssetPath;

/// The path in composed form. Only what is not ASCII can differ from it.
fn composed(path: &str) -> Cow<'_, str> {
    if path.is_ascii() || is_nfc(path) { Cow::Borrowed(path) } else { Cow::Owned(path.nfc().collect()) }
}

/// The paths of a tree that are not ASCII, by their composed form. Plain ASCII costs nothing here.
#[derive(Clone, Debug, Default)]
pub(in crate::build) struct Twins {
    by_composed: HashMap<String, BTreeSet<AssetPath>>,
}

impl Twins {
    pub fn insert(&mut self, path: &AssetPath) {
        if !path.as_str().is_ascii() {
            self.by_composed.entry(composed(path.as_str()).into_owned()).or_default().insert(path.clone());
        }
    }

    pub fn remove(&mut self, path: &AssetPath) {
        if !path.as_str().is_ascii() {
            let key = composed(path.as_str());
            if let Some(paths) = self.by_composed.get_mut(&*key) {
                paths.remove(path);
                if paths.is_empty() {
                    self.by_composed.remove(&*key);
                }
            }
        }
    }

    /// All paths with the same composed form as `path`, itself included if it was inserted.
    pub fn alike(&self, path: &AssetPath) -> impl Iterator<Item = &AssetPath> {
        let alike = if path.as_str().is_ascii() { None } else { self.by_composed.get(&*composed(path.as_str())) };
        alike.into_iter().flatten()
    }

    /// Another path that differs from this one only in normalisation.
    pub fn twin(&self, path: &AssetPath) -> Option<&AssetPath> {
        self.alike(path).find(|other| *other != path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_spellings_of_one_name_are_twins_until_one_goes() {
        let one = AssetPath::new("caf\u{e9}.png").unwrap();
        let other = AssetPath::new("cafe\u{301}.png").unwrap();
        let mut twins = Twins::default();
        twins.insert(&one);
        assert_eq!(twins.twin(&one), None);
        twins.insert(&other);
        assert_eq!(twins.twin(&one), Some(&other));
        assert_eq!(twins.twin(&other), Some(&one));
        twins.remove(&other);
        assert_eq!(twins.twin(&one), None);
    }
}
