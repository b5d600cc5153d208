//! The search for any of a few short texts: vectorised where the processor can, an automaton elsewhere.

use std::ops::Range;

use aho_corasick::packed::{Config, MatchKind, Searcher};
use aho_corasick::{AhoCorasick, Input};

/// A set of texts to look for. At one place the first of the set counts.
pub(super) enum Marks {
    Packed(Searcher),
    Automaton(AhoCorasick),
    Nothing,
}

impl Marks {
    pub(super) fn new<T: AsRef<[u8]>>(texts: &[T]) -> Self {
        let mut builder = Config::new().match_kind(MatchKind::LeftmostFirst).builder();
        if let Some(packed) = builder.extend(texts).build() {
            return Self::Packed(packed);
        }
        let kind = aho_corasick::MatchKind::LeftmostFirst;
        AhoCorasick::builder().match_kind(kind).build(texts).map_or(Self::Nothing, Self::Automaton)
    }

    /// The first of the texts in `bytes` at or after `from`.
    pub(super) fn find(&self, bytes: &[u8], from: usize) -> Option<Range<usize>> {
        if from >= bytes.len() {
            return None;
        }
        match self {
            Self::Packed(packed) => packed.find_in(bytes, (from..bytes.len()).into()).map(|hit| hit.start()..hit.end()),
            Self::Automaton(automaton) => automaton.find(Input::new(bytes).range(from..)).map(|hit| hit.range()),
            Self::Nothing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_searches_find_the_same(text in "[a-d<]{0,80}", from in 0usize..90) {
            let texts = ["<ab", "ab", "ca", "<d", "bbb"];
            let kind = aho_corasick::MatchKind::LeftmostFirst;
            let automaton = Marks::Automaton(AhoCorasick::builder().match_kind(kind).build(texts).unwrap());
            prop_assert_eq!(Marks::new(&texts).find(text.as_bytes(), from), automaton.find(text.as_bytes(), from));
        }
    }
}
