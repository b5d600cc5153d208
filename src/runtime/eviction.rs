//! Which assets make room, changed while the runtime runs.

use super::Runtime;
use crate::config::EvictionConfig;
use crate::error::Result;
use crate::messages::EvictorMessage;

impl Runtime {
    /// Has another policy name the assets that make room from now on. It begins with what is resident, in the order of the
    /// last uses; nothing is evicted by the change itself. What it says of itself is in [`super::Stats::eviction`].
    ///
    /// ```
    /// use flyloft::config::{EvictionConfig, EvictionPolicy};
    /// # fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
    /// runtime.set_eviction(EvictionConfig { policy: EvictionPolicy::S3Fifo, ..EvictionConfig::default() })?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`crate::Error::Config`] with the name of the first field that cannot be used; nothing changes then.
    pub fn set_eviction(&self, config: EvictionConfig) -> Result<()> {
        config.validate()?;
        self.shared().eviction.set(config);
        // An evictor that is down, or parked, begins with it when it is back.
        self.shared().addresses.evictor.hint(EvictorMessage::Switch);
        Ok(())
    }

    /// The policy that names the assets that make room.
    pub fn eviction(&self) -> EvictionConfig {
        self.shared().eviction.config()
    }
}
