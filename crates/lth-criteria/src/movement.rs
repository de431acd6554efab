//! Scores from the way a weight has gone: since initialisation, or since the previous pruning step (`updating`).
//!
//! The previous weight is what the caller kept from the step before; at the first step give the initial weight, as
//! fasterai does by itself.

use crate::Input::{Initial, Previous};
use crate::define::criteria;

criteria! {
    /// |w| − |w₀|: the weights that have grown stay. May be negative.
    ///
    /// Source: Zhou et al. 2019, "Deconstructing Lottery Tickets", §2.
    MagnitudeIncrease, "magnitude_increase", [Initial],
        |checked| (checked.weight()?.abs()? - checked.like_weight(Initial)?.abs()?)?;

    /// |w − w₀|: the weights that have moved stay.
    ///
    /// Source: Zhou et al. 2019, §2. Not the movement pruning of Sanh et al. 2020, which is −w·g summed over steps.
    Movement, "movement", [Initial], |checked| (checked.weight()? - checked.like_weight(Initial)?)?.abs()?;

    /// |w · (w − w₀)|: the weights that have moved and are large stay.
    ///
    /// Source: fasterai names `movmag` in its list and does not define it; this is its `updating_movmag` with the
    /// initial weight, as its list describes it ("movement * magnitude from init").
    Movmag, "movmag", [Initial], |checked| {
        let weight = checked.weight()?;
        (&weight * (&weight - checked.like_weight(Initial)?)?)?.abs()?
    };

    /// |w| − |previous w|: the weights that are growing stay. May be negative.
    ///
    /// Source: fasterai `updating_magnitude_increase`.
    UpdatingMagnitudeIncrease, "updating_magnitude_increase", [Previous],
        |checked| (checked.weight()?.abs()? - checked.like_weight(Previous)?.abs()?)?;

    /// |w − previous w|: the weights that are moving stay.
    ///
    /// Source: fasterai `updating_movement`.
    UpdatingMovement, "updating_movement", [Previous],
        |checked| (checked.weight()? - checked.like_weight(Previous)?)?.abs()?;

    /// |w · (w − previous w)|: the weights that are moving and are large stay.
    ///
    /// Source: fasterai `updating_movmag`.
    UpdatingMovmag, "updating_movmag", [Previous], |checked| {
        let weight = checked.weight()?;
        (&weight * (&weight - checked.like_weight(Previous)?)?)?.abs()?
    };
}
