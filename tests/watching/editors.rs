//! How editors save: the system calls of each, in their order.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::common::Tree;
use crate::support::{Watched, changes};

const OLD: &[u8] = b"what was there before\n";
const NEW: &[u8] = b"what the editor saved\n";

/// A file that is new, or an error.
fn create_new(path: &Path) -> File {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path).unwrap()
}

/// Opens to write from the start; `O_TRUNC` as most do.
fn truncate(path: &Path) -> File {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path).unwrap()
}

fn write(mut file: File, bytes: &[u8]) -> File {
    // In two pieces: a reader that looks between them would see half of it.
    let (first, second) = bytes.split_at(bytes.len() / 2);
    file.write_all(first).unwrap();
    file.write_all(second).unwrap();
    file
}

/// A save must be one generation that changes that one file (and `also`), and nobody may see less than a whole version.
async fn check(name: &str, also: &[(&str, bool)], save: impl Fn(&Path, &Path)) {
    let tree = Tree::with_files(20);
    tree.write(name, OLD);
    let mut watched = Watched::new(tree).await;
    for round in 0..2 {
        let (before, bytes) = if round == 0 { (OLD, NEW) } else { (NEW, OLD) };
        let witness = watched.witness(name);
        watched.tree.write("../next", bytes);
        let published = watched.once(|root| save(&root.join(name), &root.join("../next"))).await;
        let mut expected = vec![(name, true)];
        expected.extend(also.iter().filter(|_| round == 0));
        expected.sort_unstable();
        let mut found = changes(&published);
        found.retain(|(path, _)| round == 0 || !also.iter().any(|(also, _)| also == path));
        assert_eq!(found, expected, "round {round}");
        watched.assert_bytes(name, Some(bytes)).await;
        witness.saw_only(&[before, bytes]);
        assert!(watched.runtime.status().failures.is_empty());
    }
}

fn bytes_of(next: &Path) -> Vec<u8> {
    fs::read(next).unwrap()
}

fn beside(path: &Path, change: impl FnOnce(&str) -> String) -> std::path::PathBuf {
    path.with_file_name(change(path.file_name().unwrap().to_str().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vim_moves_the_old_file_out_of_the_way_and_writes_a_new_one() {
    check("folder03/notes.txt", &[], |path, next| {
        // backupcopy=no: is the folder writable?
        let probe = path.with_file_name("4913");
        let file = create_new(&probe);
        file.set_permissions(Permissions::from_mode(0o644)).unwrap();
        drop(file);
        fs::remove_file(&probe).unwrap();
        let backup = beside(path, |name| format!("{name}~"));
        fs::rename(path, &backup).unwrap();
        let file = write(truncate(path), &bytes_of(next));
        file.sync_all().unwrap();
        drop(file);
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        fs::remove_file(&backup).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vim_copies_the_old_file_and_writes_over_it() {
    check("folder03/notes.txt", &[], |path, next| {
        // backupcopy=yes.
        let backup = beside(path, |name| format!("{name}~"));
        let file = write(create_new(&backup), &fs::read(path).unwrap());
        file.set_permissions(Permissions::from_mode(0o644)).unwrap();
        drop(file);
        let file = write(truncate(path), &bytes_of(next));
        file.sync_all().unwrap();
        drop(file);
        fs::remove_file(&backup).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visual_studio_code_empties_the_file_and_writes_it() {
    check("folder03/notes.txt", &[], |path, next| {
        let file = OpenOptions::new().write(true).truncate(true).open(path).unwrap();
        let file = write(file, &bytes_of(next));
        file.sync_data().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visual_studio_code_saves_atomically_by_a_file_beside() {
    check("folder03/notes.txt", &[], |path, next| {
        let temporary = beside(path, |name| format!("{name}.vsctmp"));
        write(truncate(&temporary), &bytes_of(next)).sync_data().unwrap();
        fs::rename(&temporary, path).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blender_keeps_the_old_file_under_another_name() {
    check("folder03/scene.blend", &[("folder03/scene.blend1", true)], |path, next| {
        let temporary = beside(path, |name| format!("{name}@"));
        drop(write(truncate(&temporary), &bytes_of(next)));
        fs::rename(path, beside(path, |name| format!("{name}1"))).unwrap();
        fs::rename(&temporary, path).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn krita_copies_a_backup_and_renames_a_file_with_a_random_name() {
    check("folder03/paint.kra", &[("folder03/paint.kra~", true)], |path, next| {
        let backup = beside(path, |name| format!("{name}~"));
        let _ = fs::remove_file(&backup);
        drop(write(create_new(&backup), &fs::read(path).unwrap()));
        let temporary = beside(path, |name| format!("{name}.qXy81Z"));
        let file = write(create_new(&temporary), &bytes_of(next));
        file.sync_data().unwrap();
        file.set_permissions(Permissions::from_mode(0o644)).unwrap();
        drop(file);
        fs::rename(&temporary, path).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jetbrains_swaps_two_files() {
    check("folder03/notes.txt", &[], |path, next| {
        let (temporary, old) =
            (beside(path, |name| format!("{name}___jb_tmp___")), beside(path, |name| format!("{name}___jb_old___")));
        drop(write(truncate(&temporary), &bytes_of(next)));
        fs::rename(path, &old).unwrap();
        fs::rename(&temporary, path).unwrap();
        fs::remove_file(&old).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gedit_renames_a_stream_over_the_file() {
    check("folder03/notes.txt", &[], |path, next| {
        let temporary = path.with_file_name(".goutputstream-K4XH71");
        let file = write(create_new(&temporary), &bytes_of(next));
        file.sync_all().unwrap();
        drop(file);
        fs::rename(&temporary, path).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sed_in_place_and_a_temporary_that_is_older_than_the_rename_are_one_change_each() {
    let tree = Tree::with_files(5);
    tree.write("notes.txt", OLD);
    let mut watched = Watched::new(tree).await;
    // The temporary stands long enough to be an asset itself.
    let published = watched.once(|root| fs::write(root.join("notes.txt.tmp"), NEW).unwrap()).await;
    assert_eq!(changes(&published), [("notes.txt.tmp", true)]);
    let witness = watched.witness("notes.txt");
    let published = watched.once(|root| fs::rename(root.join("notes.txt.tmp"), root.join("notes.txt")).unwrap()).await;
    assert_eq!(changes(&published), [("notes.txt", true), ("notes.txt.tmp", false)]);
    witness.saw_only(&[OLD, NEW]);
    let published = watched
        .once(|root| {
            let temporary = root.join("sedK3v0Qz");
            drop(write(create_new(&temporary), OLD));
            fs::set_permissions(&temporary, Permissions::from_mode(0o644)).unwrap();
            fs::rename(&temporary, root.join("notes.txt")).unwrap();
        })
        .await;
    assert_eq!(changes(&published), [("notes.txt", true)]);
    watched.assert_bytes("notes.txt", Some(OLD)).await;
}
