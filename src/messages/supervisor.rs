//! What a supervisor is told. Its children's ends reach it as ractor supervision events, not as messages.

use ractor::RpcReplyPort;

/// Sent by the runtime (`Shutdown`, `Revive`) and by the supervisor to itself (`Start`).
pub enum SupervisorMessage {
    /// Start the child with this number, and those after it that a rest-for-one restart stopped.
    /// Sent to itself after a backoff; a number of an older restart is ignored.
    Start {
        /// Which child.
        index: usize,
        /// The restart that this belongs to.
        attempt: u64,
    },
    /// Start a parked child again, with a fresh restart window. Unknown names are ignored.
    Revive {
        /// The child's name.
        name: String,
    },
    /// Stop every child in reverse order, answer, and stop. Call it with a deadline.
    Shutdown {
        /// Answered when every child has stopped.
        reply: RpcReplyPort<()>,
    },
}
