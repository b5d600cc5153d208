//! Which folders are watched.
//!
//! Where the operating system watches folder by folder (Linux), each one that is wanted is watched by itself, so that what
//! is not wanted costs no watch and no event. A folder is watched before it is listed, and listed before it is announced:
//! whoever scans an announced folder misses nothing. Elsewhere one watch is for a whole tree, and what is not wanted is
//! dropped when it is told.

use notify::{Config, ErrorKind, RecursiveMode, Watcher};

use super::*;

/// Whether a watch is for one folder rather than for all that is below it.
const BY_FOLDER: bool = cfg!(any(target_os = "linux", target_os = "android"));

impl Watching {
    /// Asks the operating system for a watcher that watches nothing yet, in place of the one before.
    pub(super) fn renew(&mut self) {
        let (tell, shared) = (self.tell.clone(), Arc::clone(&self.shared));
        let handler = move |event: notify::Result<Event>| {
            if event.as_ref().is_ok_and(is_noise) {
                return;
            }
            if tell.try_send(Message::Event(event)).is_err() {
                shared.lost.store(true, Ordering::SeqCst);
            }
        };
        // The one before goes first: there may be no room for both.
        self.watcher = None;
        self.watched.clear();
        match RecommendedWatcher::new(handler, Config::default().with_follow_symlinks(false)) {
            Ok(watcher) => (self.watcher, self.refused) = (Some(watcher), None),
            Err(error) => {
                let error = to_io(&error);
                let raise = if cfg!(target_os = "linux") { "; raise fs.inotify.max_user_instances" } else { "" };
                self.refused = Some(format!("the operating system refuses another watcher ({error}){raise}"));
            }
        }
    }

    /// Watches the folder that stands at the root's path, and the folders that name it.
    pub(super) fn settle_root(&mut self) -> notify::Result<()> {
        if self.place.take().is_some() {
            // Folders that moved away keep their watches otherwise, under names that they no longer have.
            self.renew();
        }
        let found = self.find_root();
        let above = [Some(self.root.as_path()), found.as_ref().map(|found| found.real.as_path())];
        let mut around: Vec<PathBuf> =
            above.into_iter().flatten().filter_map(Path::parent).map(Path::to_owned).collect();
        around.dedup();
        around.extend(self.beside.iter().cloned());
        for folder in around {
            // Without it the root is still looked at from time to time. Watching it anew is harmless where it stands,
            // and needed where it was made again.
            if let Err(error) = self.watch_one(&folder, RecursiveMode::NonRecursive) {
                tracing::debug!(folder = %folder.display(), %error, "it is not watched");
            }
        }
        let found = found.ok_or_else(|| notify::Error::new(ErrorKind::PathNotFound))?;
        self.blind.why = self.refused.clone().or_else(|| {
            let kind = dead::file_system(&found.real)?;
            Some(format!("it is on {kind}, where others make changes that this machine is not told of"))
        });
        if BY_FOLDER {
            self.watch_below(&found.real, Path::new(""));
        } else {
            self.watch_one(&found.real, RecursiveMode::Recursive)?;
        }
        // It may have been replaced while it was being watched.
        if self.find_root().as_ref() != Some(&found) {
            self.renew();
            return Err(notify::Error::new(ErrorKind::PathNotFound));
        }
        self.place = Some(found);
        Ok(())
    }

    fn watch_one(&mut self, folder: &Path, mode: RecursiveMode) -> notify::Result<()> {
        let Some(watcher) = &mut self.watcher else { return Ok(()) };
        if self.watches_max < usize::MAX && !self.watched.contains(folder) {
            if self.watched.len() >= self.watches_max {
                return Err(notify::Error::new(ErrorKind::MaxFilesWatch));
            }
            self.watched.insert(folder.to_owned());
        }
        watcher.watch(folder, mode)
    }

    /// Watches a folder, `inside` below the root, and every folder below it that is wanted.
    fn watch_below(&mut self, folder: &Path, inside: &Path) {
        if self.watcher.is_none() {
            return;
        }
        let mut folders = vec![(folder.to_owned(), inside.to_owned())];
        while let Some((folder, inside)) = folders.pop() {
            match self.watch_one(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {}
                Err(error) if matches!(error.kind, ErrorKind::MaxFilesWatch) => {
                    // All that follow would be refused too.
                    self.blind.why = Some(to_io(&error).to_string());
                    return;
                }
                // Gone, or not ours to look into; what a scan says of it is told there.
                Err(error) => tracing::debug!(folder = %folder.display(), %error, "it is not watched"),
            }
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let inside = inside.join(entry.file_name());
                    if self.scope.wants(&inside, true) {
                        folders.push((entry.path(), inside));
                    }
                }
            }
        }
    }

    /// Watches the folders that are about to be announced.
    pub(super) fn watch_announced(&mut self, out: &[RawEvent]) {
        let announces_folder = |event: &RawEvent| {
            event.is_dir == Some(true)
                && matches!(event.kind, RawKind::Created | RawKind::MovedTo | RawKind::Moved { .. })
        };
        if !out.iter().any(announces_folder) {
            return;
        }
        if !BY_FOLDER {
            // The watcher tells of a folder before it watches it. It answers this only after it does: what is made
            // in the folder from here on is told, and what was made before is found by scanning it.
            if let Some(watcher) = &mut self.watcher {
                let _ = watcher.configure(Config::default());
            }
            return;
        }
        let Some(place) = self.place.clone() else { return };
        for event in out.iter().filter(|event| announces_folder(event)) {
            if let Ok(inside) = event.path.strip_prefix(&self.root) {
                let inside = inside.to_owned();
                self.watch_below(&place.real.join(&inside), &inside);
            }
        }
    }

    /// The scope wants something else: watches what is wanted now, and no longer what is not.
    pub(super) fn watch_again(&mut self) {
        let Some(place) = self.place.clone().filter(|_| BY_FOLDER) else { return };
        self.watch_below(&place.real, Path::new(""));
        let mut folders = vec![PathBuf::new()];
        while let Some(inside) = folders.pop() {
            let Ok(entries) = fs::read_dir(place.real.join(&inside)) else { continue };
            for entry in entries.flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let inside = inside.join(entry.file_name());
                    match self.scope.wants(&inside, true) {
                        true => folders.push(inside),
                        false => self.forget(&entry.path()),
                    }
                }
            }
        }
    }

    /// Ends the watches of a folder and of what is below it.
    fn forget(&mut self, folder: &Path) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            // What is not watched has nothing below it that is.
            if watcher.unwatch(&folder).is_err() {
                continue;
            }
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            folders.extend(
                entries
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
    }

    /// Tries from time to time to watch what could not be watched.
    pub(super) fn look_for_sight(&mut self) {
        self.blind.looks += 1;
        if self.blind.why.is_none() || self.blind.looks < BLIND_CHECKS {
            return;
        }
        self.blind.looks = 0;
        let Some(place) = self.place.clone() else { return };
        if self.watcher.is_some() && BY_FOLDER && dead::file_system(&place.real).is_none() {
            self.blind.why = None;
            // Counted anew: some may be gone.
            self.watched.clear();
            self.watch_below(&place.real, Path::new(""));
        }
    }

    /// Says what is news about being blind.
    pub(super) fn tell_blindness(&mut self, out: &mut Vec<RawEvent>) {
        if self.blind.why == self.blind.told {
            return;
        }
        self.blind.told.clone_from(&self.blind.why);
        match self.blind.why.clone() {
            Some(why) => out.push(self.about_root(RawKind::Blind(why))),
            None => {
                out.push(self.about_root(RawKind::Sighted));
                out.push(self.about_root(RawKind::Overflow("there are watches for all folders again".to_owned())));
            }
        }
    }
}
