//! What is in memory, and who waits for what. No actor in it.
//!
//! - [`Budget`] decides who may have memory; [`Content`] and [`Chunk`] are memory with its charge; [`Reaper`] frees
//!   what is large.
//! - [`ResidentTable`] finds resident [`Asset`]s by id, in the generation that [`Generations`] says readers see.
//! - [`Values`] knows what was decoded from contents, by type; the values themselves are kept beside the bytes.
//! - [`Surroundings`] knows where assets are and who looks at them.
//! - [`Ledger`] holds every request that is not answered yet. Actors do the work; the ledger knows what is owed.
//!
//! Invariant 5: all of it outlives every actor. What an actor holds of it (a [`Charge`], a [`Lease`]) gives itself back
//! when the actor dies with it.

pub mod asset;
pub mod budget;
pub mod content;
pub mod followers;
pub mod generations;
pub mod history;
pub mod holders;
pub mod ledger;
pub mod locks;
pub mod order;
pub mod reaper;
pub mod surroundings;
pub mod table;
pub mod typed;

pub use asset::{Asset, Name};
pub use budget::{Budget, BudgetStats, Charge, IoCharge, Shortfall, SizeClass, Sizes};
pub use content::{Chunk, Content, ContentBuilder};
pub use followers::Followers;
pub use generations::{Generations, Live};
pub use history::History;
pub use holders::{Holder, Holders, Holding};
pub use ledger::{
    Answer, Ask, Change, Joined, Key, Lease, Ledger, LedgerStats, Located, Merge, Ticket, Wakers, Want, Working,
};
pub use locks::{LockStats, Locks};
pub use order::{Order, Ordering};
pub use reaper::Reaper;
pub use surroundings::Surroundings;
pub use table::{Candidate, ResidentTable, TableStats, TableTally};
pub use typed::{Flight, Value, ValueStats, Values, Waiting, Wanted};

mod hold;
#[cfg(test)]
mod testing;
