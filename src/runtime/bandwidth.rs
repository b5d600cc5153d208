//! How fast a runtime may read, set and fed back while it runs.

use std::time::Duration;

use super::Runtime;
use crate::config::BandwidthConfig;
use crate::error::Result;
use crate::messages::DispatcherMessage;

impl Runtime {
    /// Says that a frame took `dt`, which an adaptive bandwidth goes by: call it once for each. While frames are more than
    /// 10 % slower than [`BandwidthConfig::target_frame`] less is read per second, while they have 10 % to spare more is.
    /// Without [`BandwidthConfig::adaptive`] it does nothing.
    ///
    /// ```
    /// # fn example(runtime: &flyloft::Runtime, dt: std::time::Duration) {
    /// // Once in each turn of the frame loop, with the time since the turn before.
    /// runtime.frame(dt);
    /// # }
    /// ```
    pub fn frame(&self, dt: Duration) {
        let shared = self.shared();
        let changed = shared.bandwidth.lock().frame(dt, shared.clock.now());
        if changed {
            shared.addresses.dispatcher.hint(DispatcherMessage::Credit);
        }
    }

    /// Another bandwidth from now on, for what is not sent to be read yet.
    ///
    /// # Errors
    /// [`crate::Error::Config`] with the name of the field that cannot be used; nothing has changed then.
    pub fn set_bandwidth(&self, bandwidth: BandwidthConfig) -> Result<()> {
        bandwidth.validate()?;
        let shared = self.shared();
        shared.bandwidth.lock().set(bandwidth);
        shared.addresses.dispatcher.hint(DispatcherMessage::Credit);
        Ok(())
    }
}
