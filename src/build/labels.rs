//! Which assets of a bundle transforms made beside others.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::bundle::{AssetRecord, Bundle};
use crate::error::Result;
use crate::ids::AssetPath;

/// What was made beside other assets, of these assets of a bundle: no files of their own.
pub(super) fn labelled<'a>(
    bundle: &Bundle,
    assets: impl IntoIterator<Item = &'a AssetRecord>,
) -> Result<HashSet<AssetPath>> {
    let mut labels: HashMap<AssetPath, HashSet<String>> = HashMap::new();
    let mut found = HashSet::new();
    for asset in assets {
        // Of a file's name alone it is not seen: what made it says so.
        let Some((source, label)) = asset.path.source_and_label() else { continue };
        if !labels.contains_key(&source) {
            let record = bundle.build_record(source.id())?;
            labels.insert(source.clone(), record.into_iter().flat_map(|record| record.labels).collect());
        }
        if labels.get(&source).is_some_and(|labels| labels.contains(label)) {
            found.insert(asset.path.clone());
        }
    }
    Ok(found)
}

/// The folders in paths of what was made beside others that are no folders of the tree.
pub(super) fn folders<'a>(labelled: impl IntoIterator<Item = &'a AssetPath>) -> BTreeSet<AssetPath> {
    let mut found = BTreeSet::new();
    for path in labelled {
        let Some((source, _)) = path.source_and_label() else { continue };
        let mut folder = AssetPath::new(path.folder()).ok();
        while let Some(at) = folder.filter(|at| at.as_str().len() > source.as_str().len()) {
            folder = AssetPath::new(at.folder()).ok();
            if !found.insert(at) {
                break;
            }
        }
    }
    found
}
