//! The memory budget while a runtime runs: changing it, and what it is.

use std::collections::BTreeMap;

use super::Runtime;
use crate::error::Result;
use crate::event::{PressureCause, PressureLevel};
use crate::ids::AssetKind;
use crate::residency::Sizes;

/// What is to be different about a budget. What is not named stays as it is.
///
/// ```
/// use flyloft::{AssetKind, runtime::BudgetChange};
/// # fn example(runtime: &flyloft::Runtime) -> flyloft::Result<()> {
/// // A level of the game that is mostly textures.
/// runtime.set_budget(BudgetChange::total(768 << 20).kind(AssetKind::Texture, Some(512 << 20)))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetChange {
    /// All of it, in bytes.
    pub total_bytes: Option<u64>,
    /// The part of what may be resident that only critical requests may have.
    pub critical_reserve_bytes: Option<u64>,
    /// The most of a kind; `None` for no other bound than the total.
    pub kinds: BTreeMap<AssetKind, Option<u64>>,
}

impl BudgetChange {
    /// Another size of all of it.
    pub fn total(bytes: u64) -> Self {
        Self { total_bytes: Some(bytes), ..Self::default() }
    }

    /// Another part for critical requests.
    pub fn critical_reserve(mut self, bytes: u64) -> Self {
        self.critical_reserve_bytes = Some(bytes);
        self
    }

    /// Another bound of a kind, or none.
    pub fn kind(mut self, kind: AssetKind, bytes: Option<u64>) -> Self {
        self.kinds.insert(kind, bytes);
        self
    }
}

impl Runtime {
    /// Changes the memory budget, at any time; it holds from this call on. Where more is charged than the new one has,
    /// nothing more is, and what nobody holds is evicted until it fits; what is held stays, and is evicted once it is let
    /// go of. Loads wait for memory, or fail, as they do when a budget is full.
    ///
    /// While memory is short outside of this program the budget may be less than what is set here:
    /// [`crate::config::BudgetConfig::outside`].
    ///
    /// # Errors
    /// [`crate::Error::Config`] with the field that cannot hold; nothing changes then.
    pub fn set_budget(&self, change: BudgetChange) -> Result<()> {
        let shared = self.shared();
        shared.change_budget(PressureCause::Budget, |config, asked| {
            // Checked as at the start: by the same rules, under the same names.
            let mut config = config.clone();
            config.budget_bytes = change.total_bytes.unwrap_or(asked.total);
            config.budget.critical_reserve_bytes = change.critical_reserve_bytes.unwrap_or(asked.critical_reserve);
            config.kind_budget_bytes.clone_from(&asked.kinds);
            for (kind, bytes) in change.kinds {
                match bytes {
                    Some(bytes) => config.kind_budget_bytes.insert(kind, bytes),
                    None => config.kind_budget_bytes.remove(&kind),
                };
            }
            config.validate()?;
            Ok(Sizes::of(&config))
        })
    }

    /// How short memory is. One load.
    pub fn pressure(&self) -> PressureLevel {
        self.shared().budget.level()
    }
}
