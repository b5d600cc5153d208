//! Why an asset was built the last time, for those who ask.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::ids::{AssetPath, Generation};

/// Assets of which it is remembered; of more the one that was first built longest ago is forgotten.
const REMEMBERED_MAX: usize = 1 << 16;

/// The last build of an asset in this run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The generation that it was built for; where nothing that readers see came of it, the one that stood already.
    pub generation: Generation,
    /// What made it be built.
    pub because: Because,
    /// Whether what it was built to came from the action cache, no transform having run.
    pub from_action_cache: bool,
    /// Microseconds of its transforms; 0 where there are none.
    pub build_us: u64,
}

/// What made an asset be built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Because {
    /// It was not there before, or did not build.
    New,
    /// The bytes of its source are others.
    SourceChanged,
    /// A file that was read for it is another one now.
    InputChanged {
        /// The file.
        path: AssetPath,
    },
    /// A file that was asked for and not there is there now.
    InputAppeared {
        /// The file.
        path: AssetPath,
    },
    /// A file that was read for it, or was there, is gone.
    InputGone {
        /// The file.
        path: AssetPath,
    },
    /// Other names stand in a folder that was listed for it.
    ListingChanged {
        /// The folder; empty for the top of the tree.
        folder: String,
    },
    /// Another transform is to make it, or another version of the one that did.
    TransformChanged,
    /// The parameters of its transform are others.
    ParametersChanged,
    /// Its source is gone: so is what was made of it.
    SourceGone,
    /// It failed before, or something may have been missed.
    Forced,
}

/// The last build of each asset, as far as it is remembered.
#[derive(Default)]
pub(super) struct Whys {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    by_path: HashMap<AssetPath, Why>,
    /// In the order in which they came.
    order: VecDeque<AssetPath>,
}

impl Whys {
    pub fn get(&self, path: &AssetPath) -> Option<Why> {
        self.inner.lock().by_path.get(path).cloned()
    }

    pub fn remember(&self, all: impl IntoIterator<Item = (AssetPath, Why)>) {
        let mut inner = self.inner.lock();
        for (path, why) in all {
            if inner.by_path.insert(path.clone(), why).is_none() {
                inner.order.push_back(path);
            }
            if inner.order.len() > REMEMBERED_MAX
                && let Some(oldest) = inner.order.pop_front()
            {
                inner.by_path.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_build_of_a_bounded_number_of_assets_is_remembered() {
        let whys = Whys::default();
        let path = |number: usize| AssetPath::new(&format!("a/{number}")).unwrap();
        let why =
            |build_us| Why { generation: Generation(1), because: Because::New, from_action_cache: false, build_us };
        whys.remember((0..REMEMBERED_MAX + 10).map(|number| (path(number), why(1))));
        whys.remember([(path(20), why(2))]);
        assert_eq!((whys.get(&path(9)), whys.get(&path(10)), whys.get(&path(20))), (None, Some(why(1)), Some(why(2))));
        assert_eq!(whys.inner.lock().by_path.len(), REMEMBERED_MAX);
    }

    #[test]
    fn a_reason_is_one_json_object() {
        let because = Because::InputAppeared { path: AssetPath::new("a.txt").unwrap() };
        assert_eq!(serde_json::to_string(&because).unwrap(), r#"{"reason":"input_appeared","path":"a.txt"}"#);
    }
}
