//! What the predictor has learned: it outlives the actor, and is kept in a file between runs.
//!
//! One mutex, which the predictor holds while it works on a batch, and a save while it writes everything down in memory.
//! The predictor does not wait for that: what it is told meanwhile is not learned from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::{PredictionConfig, RuntimeConfig};
use crate::error::{Error, Result};
use crate::platform::fs::FileSystem;
use crate::policy::prediction::{Ensemble, Expert, MODELS_BYTES_MAX, PredictionStats};

/// How long the predictor waits for whoever looks at what was learned. Who saves it has it for longer.
const PATIENCE: Duration = Duration::from_millis(1);
/// The name of the file, beside the store or in the folder that the configuration names.
const FILE: &str = "models.bin";

/// The ensemble, and its file.
pub struct Learned {
    config: PredictionConfig,
    fs: Arc<dyn FileSystem>,
    file: Option<PathBuf>,
    inner: Mutex<Inner>,
    /// Held while it is being saved.
    saving: Mutex<()>,
    /// Why the file was not taken, when it was not.
    refused: Option<String>,
}

struct Inner {
    ensemble: Ensemble,
    /// Somebody began to change it and did not come to the end: it may be half of one thing and half of another.
    working: bool,
    /// Accesses that it had learned from when it was written last.
    saved_at: u64,
}

impl Learned {
    /// Takes what an earlier run has left in the folder of the configuration, or else in `store`. What is there and is
    /// no model of ours is left alone until the next save.
    pub fn open(config: &RuntimeConfig, fs: Arc<dyn FileSystem>, store: Option<&Path>) -> Self {
        let mut prediction = config.prediction.clone();
        prediction.experts.dependency &= config.prefetch_dependencies;
        let folder = prediction.models.as_deref().or(store).filter(|_| prediction.enabled);
        let file = folder.map(|folder| folder.join(FILE));
        let (ensemble, refused) = read(&prediction, &*fs, file.as_deref());
        let inner = Mutex::new(Inner { ensemble, working: false, saved_at: 0 });
        Self { config: prediction, fs, file, inner, saving: Mutex::default(), refused }
    }

    /// Why what an earlier run had left was not taken, when it was not.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Changes the ensemble; `None`, and nothing happens, where somebody else has it for long.
    pub fn work<R>(&self, work: impl FnOnce(&mut Ensemble) -> R) -> Option<R> {
        let mut inner = self.inner.try_lock_for(PATIENCE)?;
        inner.working = true;
        let result = work(&mut inner.ensemble);
        inner.working = false;
        Some(result)
    }

    /// For a predictor that starts: where its predecessor did not come to an end, it goes on from what was saved last.
    pub fn recover(&self) {
        let mut inner = self.inner.lock();
        if inner.working {
            let (ensemble, _) = read(&self.config, &*self.fs, self.file.as_deref());
            *inner = Inner { ensemble, working: false, saved_at: 0 };
        }
    }

    /// One more expert, in place of one of its kind.
    pub fn add(&self, expert: Box<dyn Expert>) {
        self.inner.lock().ensemble.add(expert);
    }

    /// Tells the network of what the program knows of itself.
    pub fn set_features(&self, features: &[f32]) {
        self.inner.lock().ensemble.set_features(features);
    }

    /// What prediction is worth so far.
    pub fn stats(&self) -> PredictionStats {
        self.inner.lock().ensemble.stats()
    }

    /// Writes what was learned, if that is more than the last time and there is a place for it. It may wait for the disk.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written; what was there before still is.
    pub fn save(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        // The later of two at once is the one that stays.
        let _saving = self.saving.lock();
        let mut inner = self.inner.lock();
        let accesses = inner.ensemble.accesses();
        if accesses == inner.saved_at || inner.working {
            return Ok(());
        }
        let bytes = inner.ensemble.save();
        inner.saved_at = accesses;
        drop(inner);
        let written = self.write(file, &bytes);
        if written.is_err() {
            // It is not saved: the next one tries again.
            self.inner.lock().saved_at = u64::MAX;
        }
        written
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> Result<()> {
        if let Some(folder) = file.parent() {
            self.fs.create_dir_all(folder).map_err(|error| Error::io("create", folder, error))?;
        }
        self.fs.write_atomic(file, bytes).map_err(|error| Error::io("write", file, error))
    }
}

/// What the file holds; an ensemble that knows nothing where it holds nothing, and why, where it should.
fn read(config: &PredictionConfig, fs: &dyn FileSystem, file: Option<&Path>) -> (Ensemble, Option<String>) {
    let fresh = || Ensemble::new(config);
    let Some(file) = file else { return (fresh(), None) };
    let refuse = |why: &dyn std::fmt::Display| Some(format!("{}: nothing was learned from it: {why}", file.display()));
    match fs.stat(file, true) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (fresh(), None),
        Err(error) => return (fresh(), refuse(&error)),
        Ok(stat) if stat.len > MODELS_BYTES_MAX as u64 => return (fresh(), refuse(&"it is longer than models are")),
        Ok(_) => {}
    }
    match fs.read(file) {
        Err(error) => (fresh(), refuse(&error)),
        Ok(bytes) => match Ensemble::restore(config, &bytes) {
            Ok(ensemble) => (ensemble, None),
            Err(why) => (fresh(), refuse(&why)),
        },
    }
}
