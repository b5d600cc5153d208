//! Keeping an asset in memory without a handle in hand.

use std::fmt;
use std::sync::Arc;

use super::Runtime;
use crate::actors::Shared;
use crate::error::Result;
use crate::ids::{AssetId, AssetPath};

/// Keeps an asset in memory: it is never evicted, whatever the pressure, and neither is the version that a reload puts in
/// its place. Dropping it lets go.
#[must_use = "a dropped lock holds nothing"]
pub struct Lock {
    shared: Arc<Shared>,
    path: AssetPath,
}

impl Lock {
    /// The asset's path.
    pub fn path(&self) -> &AssetPath {
        &self.path
    }

    fn id(&self) -> AssetId {
        self.path.id()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.shared.locks.remove(self.id());
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lock({})", self.path)
    }
}

impl Runtime {
    /// Loads the asset, and keeps it in memory until what this gives is dropped: [`Lock`]. It counts as pinned.
    ///
    /// ```
    /// # async fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
    /// let font = runtime.lock("ui/font.ttf").await?;
    /// assert!(runtime.get("ui/font.ttf").is_some());
    /// # drop(font);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Runtime::load`].
    pub async fn lock(&self, path: impl AsRef<str>) -> Result<Lock> {
        let path = AssetPath::new(path.as_ref())?;
        let shared = Arc::clone(self.shared());
        shared.locks.add(path.id(), &shared.table);
        // From here on what becomes resident of it is held, and no longer should this fail or be cancelled.
        let lock = Lock { shared, path };
        let asset = self.load(lock.path.as_str()).await?;
        if lock.shared.locks.refresh(lock.id(), &lock.shared.table) {
            // Another version was published meanwhile, and that is on its way.
            tracing::debug!(path = %lock.path, "locked before its new version is resident");
        }
        drop(asset);
        Ok(lock)
    }
}
