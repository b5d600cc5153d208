//! After an asset is used, what it depends on is needed next: known from the bundle, before anybody has learned anything.

use super::{Access, Due, Expert, ExpertKind, Guess, World};

/// Dependencies guessed of one asset.
const FAN_OUT_MAX: usize = 256;

/// Guesses the dependencies of what was used, and theirs as far as the [`World`] names them.
#[derive(Debug, Default)]
pub struct Dependency {
    uses: Vec<crate::ids::AssetId>,
}

impl Expert for Dependency {
    fn kind(&self) -> ExpertKind {
        ExpertKind::Dependency
    }

    fn accessed(&mut self, access: &Access, world: &dyn World, _distance: u8, into: &mut Vec<Guess>) {
        self.uses.clear();
        world.dependencies(access.id, &mut self.uses);
        for (place, id) in self.uses.iter().take(FAN_OUT_MAX).enumerate() {
            // The first of them is wanted at once more often than the two-hundredth.
            let confidence = 1.0 - place as f32 / FAN_OUT_MAX as f32;
            into.push(Guess { id: *id, confidence, due: Due::Requests(place as u32 + 1) });
        }
    }
}
