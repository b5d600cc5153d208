//! Symbolic links: packed as the content they point to, as long as that is in the tree.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Listing, Scan, Scanner, SourceFile};
use crate::ids::AssetPath;
use crate::platform::fs::FileKind;

/// How many links to folders may lead to one file, each inside the folder that the one before points to.
const DEPTH_MAX: usize = 8;
/// How many links to folders one scan follows: nested ones multiply.
const FOLDERS_MAX: usize = 10_000;

/// A link of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its place in the tree.
    pub path: AssetPath,
    /// What it points to, without links and dots; `None` when it points to nothing, or out of the tree.
    pub target: Option<PathBuf>,
}

/// How a folder was reached that is not at its own place.
#[derive(Debug)]
pub(super) struct Through {
    /// The real folders that the links stood in, outermost first: a link to one of them or above it is a loop.
    folders: Vec<PathBuf>,
}

impl Scanner<'_> {
    /// Resolves `links` in path order, and those that turn up in the folders they point to.
    pub(super) fn follow(&self, mut links: Vec<Listing>, scan: &mut Scan) {
        let mut followed = 0;
        while !links.is_empty() {
            links.sort_by(|a, b| b.path.cmp(&a.path));
            let mut found = Vec::new();
            while let Some(link) = links.pop() {
                if let Some(folder) = self.resolve(link, &mut followed, scan) {
                    let mut below = Vec::new();
                    self.folder(folder, scan, &mut below);
                    found.append(&mut self.walk(below, scan));
                }
            }
            links = found;
        }
    }

    /// Adds the file that a link points to, or returns the folder.
    fn resolve(&self, link: Listing, followed: &mut usize, scan: &mut Scan) -> Option<Listing> {
        let path = match AssetPath::new(&link.path) {
            Ok(path) => path,
            Err(error) => {
                scan.problem(super::one_line(&link.at), error.to_string());
                return None;
            }
        };
        let mut refuse = |target, why: &str| {
            scan.warnings.push(format!("{path}: a link {why}; it is not followed"));
            scan.links.push(Link { path: path.clone(), target });
            None
        };
        let target = match self.fs.canonicalize(&link.at) {
            Ok(target) => target,
            Err(error) if super::is_gone(&error) => return refuse(None, "to nothing"),
            Err(error) => return refuse(None, &format!("that leads nowhere ({error})")),
        };
        let Ok(inside) = target.strip_prefix(self.real_root) else { return refuse(None, "out of the tree") };
        let Some(inside) = super::place_of(inside) else { return refuse(None, "to a name that is not UTF-8") };
        if self.ignoring.is_never_packed(&inside) {
            return refuse(None, "to what is never packed");
        }
        let stat = match self.fs.stat(&target, true) {
            Ok(stat) => stat,
            Err(error) => return refuse(None, &format!("that leads nowhere ({error})")),
        };
        match stat.kind {
            FileKind::File => {
                let at: Arc<Path> = target.as_path().into();
                scan.links.push(Link { path: path.clone(), target: Some(target) });
                scan.files.push(SourceFile { path, at: Some(at), stat });
                None
            }
            FileKind::Dir => {
                let stands_in = link.at.parent().and_then(|folder| self.fs.canonicalize(folder).ok());
                let mut folders = link.through.as_ref().map_or_else(Vec::new, |through| through.folders.clone());
                folders.extend(stands_in);
                if folders.iter().any(|folder| folder.starts_with(&target)) {
                    return refuse(Some(target), "to a folder that it stands in (a loop)");
                }
                *followed += 1;
                if folders.len() > DEPTH_MAX || *followed > FOLDERS_MAX {
                    return refuse(Some(target), "behind too many other links");
                }
                scan.links.push(Link { path, target: Some(target.clone()) });
                Some(Listing { at: target, through: Some(Arc::new(Through { folders })), ..link })
            }
            FileKind::Symlink | FileKind::Other => refuse(None, "to neither a file nor a folder"),
        }
    }
}
