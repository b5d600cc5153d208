//! Our own output, when it stands in the tree that it is made from.

use std::path::Path;

use crate::platform::fs::FileSystem;

/// The files that we write ourselves, with the temporary files beside them and what is below those that are folders, by
/// their places in the tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::build) struct Exclude {
    /// Folder (empty for the top) and name.
    files: Vec<(String, String)>,
}

impl Exclude {
    /// Those of `outputs` that stand below `real_root`, which has no links in it.
    pub fn new<'a>(fs: &dyn FileSystem, real_root: &Path, outputs: impl IntoIterator<Item = &'a Path>) -> Self {
        let mut files = Vec::new();
        for output in outputs {
            let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let Ok(folder) = fs.canonicalize(folder) else { continue };
            let Ok(folder) = folder.strip_prefix(real_root) else { continue };
            if let (Some(folder), Some(name)) = (folder.to_str(), output.file_name().and_then(|name| name.to_str())) {
                files.push((folder.replace('\\', "/"), name.to_owned()));
            }
        }
        Self { files }
    }

    /// Whether this is one of them, or a temporary file of one: `.NAME.….tmp`.
    pub fn excludes(&self, path: &str) -> bool {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.files.iter().any(|(in_folder, own)| {
            let temporary = || {
                let rest = name.strip_prefix('.').and_then(|name| name.strip_prefix(own.as_str()));
                rest.is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".tmp"))
            };
            folder == in_folder && (name == own || temporary()) || is_below(folder, in_folder, own)
        })
    }
}

/// Whether a folder is the one of this name in `in_folder`, or below it.
fn is_below(folder: &str, in_folder: &str, name: &str) -> bool {
    let rest = match in_folder {
        "" => Some(folder),
        _ => folder.strip_prefix(in_folder).and_then(|rest| rest.strip_prefix('/')),
    };
    rest.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_and_its_temporary_files_are_not_packed() {
        let exclude = Exclude { files: vec![("out".into(), "a.loft".into())] };
        for own in ["out/a.loft", "out/.a.loft.new.tmp", "out/.a.loft.12-3.tmp", "out/a.loft/x", "out/a.loft/x/y"] {
            assert!(exclude.excludes(own), "{own}");
        }
        for other in ["a.loft", "out/b.loft", "out/.a.loft.new", "out/a.loft.tmp", "out/x/a.loft", "out/.a.loftx.tmp"] {
            assert!(!exclude.excludes(other), "{other}");
        }
        let exclude = Exclude { files: vec![(String::new(), "actions".into())] };
        assert!(exclude.excludes("actions") && exclude.excludes("actions/ab/cd"));
        assert!(!exclude.excludes("actions2/a") && !exclude.excludes("x/actions/a"));
    }
}
