//! Where version controls keep the locks that they hold while they rewrite a tree.
//!
//! Git: `index.lock` in the folder of the work tree's own data: `.git`, or where a file `.git` points (linked work trees,
//! submodules: `.git/modules/…` of the repository around them). Mercurial: `.hg/wlock`. Jujutsu:
//! `.jj/working_copy/working_copy.lock`. The tree may be a folder within a repository: then the lock stands above it.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Folders of submodules' data that are looked for, and how deep.
const MODULES_MAX: usize = 256;
const MODULES_DEPTH_MAX: usize = 8;
/// The longest `.git` file that is read.
const POINTER_BYTES_MAX: u64 = 64 << 10;
/// The locks, as they are called in the folders that they stand in.
const NAMES: [&str; 3] = ["index.lock", "wlock", "working_copy.lock"];
/// Folders with version controls' own data.
const FOLDERS: [&str; 5] = [".git", ".hg", ".jj", ".svn", ".bzr"];
/// What is in the data of a submodule, and no submodule.
const WITHIN_GIT: [&str; 12] = [
    "objects",
    "refs",
    "logs",
    "hooks",
    "info",
    "lfs",
    "branches",
    "annex",
    "worktrees",
    "rebase-merge",
    "rebase-apply",
    "reftable",
];

/// The locks of one tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locks {
    /// Folders outside the tree in which one may stand.
    beside: Vec<PathBuf>,
    /// All the places that are known.
    places: Vec<PathBuf>,
}

impl Locks {
    /// Looks for them: in the tree's top folder, else in the nearest one above that is under version control.
    pub fn of(root: &Path) -> Self {
        let mut locks = Self::default();
        for folder in root.ancestors() {
            let git = git_folder(&folder.join(".git"));
            let (hg, jj) = (folder.join(".hg"), folder.join(".jj/working_copy"));
            let found = [git, hg.is_dir().then_some(hg), jj.is_dir().then_some(jj)];
            if found.iter().all(Option::is_none) {
                continue;
            }
            for (folder, name) in found.into_iter().zip(NAMES) {
                let Some(folder) = folder else { continue };
                locks.places.push(folder.join(name));
                if !folder.starts_with(root) {
                    let modules = folder.join("modules");
                    locks.beside.push(folder);
                    locks.add_modules(&modules, 0);
                }
            }
            break;
        }
        locks
    }

    fn add_modules(&mut self, folder: &Path, depth: usize) {
        let Ok(entries) = fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let is_module =
                |name: &str| !WITHIN_GIT.contains(&name) && entry.file_type().is_ok_and(|kind| kind.is_dir());
            if !entry.file_name().to_str().is_none_or(is_module) || self.places.len() >= MODULES_MAX {
                continue;
            }
            let path = entry.path();
            if path.join("HEAD").is_file() {
                self.places.push(path.join(NAMES[0]));
                self.beside.push(path.clone());
            }
            if depth < MODULES_DEPTH_MAX {
                self.add_modules(&path, depth + 1);
            }
        }
    }

    /// Folders outside the tree in which one may stand.
    pub fn beside(&self) -> &[PathBuf] {
        &self.beside
    }

    /// All the places that are known, with whether a lock stands there now. Asks the operating system.
    pub fn standing(&self) -> impl Iterator<Item = (&Path, bool)> {
        // Mercurial's is a link that leads nowhere.
        self.places.iter().map(|place| (place.as_path(), fs::symlink_metadata(place).is_ok()))
    }

    /// Whether a path that is watched, within the tree or beside it, is that of a lock.
    pub fn is_lock(&self, root: &Path, path: &Path) -> bool {
        match path.strip_prefix(root) {
            Ok(inside) => is_lock(inside),
            Err(_) => path.file_name().is_some_and(|name| NAMES.iter().any(|lock| name == *lock)),
        }
    }
}

/// The folder that `.git` is or points to.
fn git_folder(git: &Path) -> Option<PathBuf> {
    let about = fs::metadata(git).ok()?;
    if about.is_dir() {
        return Some(git.to_owned());
    }
    if about.len() > POINTER_BYTES_MAX {
        return None;
    }
    let text = fs::read_to_string(git).ok()?;
    let to = git.parent()?.join(text.strip_prefix("gitdir:")?.trim());
    fs::canonicalize(to).ok().filter(|folder| folder.is_dir())
}

/// The part of a path in a tree from a version control's own folder on, and what is before it.
fn own_part(inside: &Path) -> Option<(PathBuf, Vec<&str>)> {
    let is_own = |part: &Component<'_>| FOLDERS.iter().any(|folder| part.as_os_str() == *folder);
    let at = inside.components().position(|part| is_own(&part))?;
    // A part that is no text is none that is looked for.
    let own = inside.components().skip(at).map(|part| part.as_os_str().to_str().unwrap_or("?")).collect();
    Some((inside.components().take(at).collect(), own))
}

/// Whether it is a lock, by its place in a tree.
fn is_lock(inside: &Path) -> bool {
    let Some((_, own)) = own_part(inside) else { return false };
    match own.as_slice() {
        [".git", "index.lock"] | [".hg", "wlock"] | [".jj", "working_copy", "working_copy.lock"] => true,
        [".git", "modules", .., name] => *name == "index.lock",
        _ => false,
    }
}

/// Whether a path belongs to a version control, and then whether locks stand there or below: `Some(true)` for a lock, and
/// for a folder that must be watched to be told of one. With the path of the folder whose version control it is.
pub fn concern(inside: &Path, is_dir: bool) -> Option<(PathBuf, bool)> {
    let (above, own) = own_part(inside)?;
    let concerned = match own.as_slice() {
        _ if !is_dir => is_lock(inside),
        [".git"] | [".hg"] | [".jj"] | [".jj", "working_copy"] | [".git", "modules"] => true,
        [".git", "modules", within @ ..] => !within.iter().any(|part| WITHIN_GIT.contains(part)),
        _ => false,
    };
    Some((above, concerned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_known_by_their_places_in_a_tree() {
        let check = |inside: &str, is_dir: bool, expected: Option<(&str, bool)>| {
            let expected = expected.map(|(above, concerned)| (PathBuf::from(above), concerned));
            assert_eq!(concern(Path::new(inside), is_dir), expected, "{inside}");
        };
        check("a/b.txt", false, None);
        check("a/index.lock", false, None);
        check(".git", true, Some(("", true)));
        check(".git", false, Some(("", false)));
        check(".git/index.lock", false, Some(("", true)));
        check(".git/index", false, Some(("", false)));
        check(".git/objects", true, Some(("", false)));
        check(".git/refs/index.lock", false, Some(("", false)));
        check("a/sub/.git/index.lock", false, Some(("a/sub", true)));
        check(".git/modules", true, Some(("", true)));
        check(".git/modules/x/y", true, Some(("", true)));
        check(".git/modules/x/objects/ab", true, Some(("", false)));
        check(".git/modules/x/y/index.lock", false, Some(("", true)));
        check(".git/worktrees/x", true, Some(("", false)));
        check(".hg/wlock", false, Some(("", true)));
        check(".hg/store", true, Some(("", false)));
        check(".jj/working_copy", true, Some(("", true)));
        check(".jj/working_copy/working_copy.lock", false, Some(("", true)));
        check(".jj/repo", true, Some(("", false)));
        check(".svn", true, Some(("", false)));
    }

    #[test]
    fn locks_are_found_above_the_tree_and_where_a_file_points() {
        let folder = tempfile::tempdir().unwrap();
        let top = fs::canonicalize(folder.path()).unwrap();
        let root = top.join("repo/assets/deep");
        fs::create_dir_all(&root).unwrap();
        fs::create_dir_all(top.join("repo/.git/modules/one/modules/two/objects")).unwrap();
        for head in ["modules/one/HEAD", "modules/one/modules/two/HEAD", "modules/one/modules/two/objects/HEAD"] {
            fs::write(top.join("repo/.git").join(head), b"").unwrap();
        }
        let locks = Locks::of(&root);
        let modules = [top.join("repo/.git/modules/one"), top.join("repo/.git/modules/one/modules/two")];
        assert_eq!(locks.beside(), [top.join("repo/.git"), modules[0].clone(), modules[1].clone()]);
        assert!(locks.is_lock(&root, &top.join("repo/.git/index.lock")));
        assert!(!locks.is_lock(&root, &top.join("repo/.git/HEAD")) && !locks.is_lock(&root, &root.join("index.lock")));
        assert!(locks.standing().all(|(_, stands)| !stands));
        fs::write(top.join("repo/.git/index.lock"), b"").unwrap();
        let standing: Vec<&Path> = locks.standing().filter(|(_, stands)| *stands).map(|(place, _)| place).collect();
        assert_eq!(standing, [top.join("repo/.git/index.lock")]);
        // The top of a work tree that is linked.
        fs::create_dir_all(top.join("repo/.git/worktrees/other")).unwrap();
        fs::create_dir_all(top.join("other")).unwrap();
        fs::write(top.join("other/.git"), b"gitdir: ../repo/.git/worktrees/other\n").unwrap();
        assert_eq!(Locks::of(&top.join("other")).beside(), [top.join("repo/.git/worktrees/other")]);
        // Its own repository stands inside the tree, and is watched with it.
        fs::create_dir(root.join(".git")).unwrap();
        let own = Locks::of(&root);
        assert_eq!((own.beside(), own.places.len()), (&[] as &[PathBuf], 1));
        fs::create_dir_all(top.join("hg/.hg")).unwrap();
        fs::create_dir_all(top.join("hg/.jj/working_copy")).unwrap();
        fs::create_dir_all(top.join("hg/in")).unwrap();
        assert_eq!(Locks::of(&top.join("hg/in")).beside(), [top.join("hg/.hg"), top.join("hg/.jj/working_copy")]);
    }
}
