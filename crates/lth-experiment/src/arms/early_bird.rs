//! Cut from a dense training that ended as soon as the mask had settled, and trained on from there.
//!
//! Source: You et al. 2020, "Drawing Early-Bird Tickets: Towards More Efficient Training of Deep Networks".

use lth_mask::{Scope, Selection};
use lth_runs::Address;
use lth_ticket::Settled;

use crate::plan::{Cut, EarlyBirdSearch, FitPlan, MaskFrom, Start, Target};
use crate::{Arm, ImpConfig};

pub(super) const WORDS: (&str, &str) =
    ("early-bird ticket", "the mask needs a whole training, and what settles early is not it");
/// The arm of the trainings that end early.
pub(super) const SEARCH: &str = "early-bird-search";
pub(super) const SEARCH_TITLE: &str = "dense, until its mask has settled";

/// The search for a level's mask, and the complete training of what it found, from the weights that the search ended with.
pub(super) fn fits(config: &ImpConfig, level: u32, seed: u64) -> [FitPlan; 2] {
    let target = Target::Level(level);
    let selection = Selection { scope: Scope::Global, ..config.pruning.selection.clone() };
    let found = Address::new(SEARCH, level, seed);
    let search = EarlyBirdSearch { selection: selection.clone(), target, settled: Settled::default() };
    let search = FitPlan {
        early_bird: Some(search),
        ..FitPlan::new(found.clone(), "the whole network, until its mask has settled", config.training.length)
    };
    let cut = Cut {
        scored: Start::End(found.clone()),
        within: None,
        criterion: Some("large_final".into()),
        selection: Some(selection),
        target,
    };
    let address = Address::new(Arm::EarlyBird.name(), level, seed);
    let trained = FitPlan {
        start: Start::End(found),
        mask: MaskFrom::Cut(Box::new(cut)),
        ..FitPlan::new(address, "the mask that had settled, and its weights", config.training.length)
    };
    [search, trained]
}
