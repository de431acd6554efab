//! Scores from magnitudes: of the weight now, at initialisation, or both.

use crate::Input::Initial;
use crate::define::criteria;

criteria! {
    /// |w|: the large weights stay.
    ///
    /// The notebook's `l1_norm` and fasterai's `large_final`. Source: Han et al. 2015, "Learning both Weights and
    /// Connections"; Frankle & Carbin 2019, §2.
    LargeFinal, "large_final", [], |checked| checked.weight()?.abs()?;

    /// w²: the order of [`LargeFinal`], but a group's mean is its mean square.
    ///
    /// Source: fasterai `squared_final`; Li et al. 2017, "Pruning Filters for Efficient ConvNets", with the L2 norm.
    SquaredFinal, "squared_final", [], |checked| checked.weight()?.sqr()?;

    /// −|w|: the small weights stay. A control.
    ///
    /// Source: Zhou et al. 2019, "Deconstructing Lottery Tickets", §2.
    SmallFinal, "small_final", [], |checked| checked.weight()?.abs()?.neg()?;

    /// |w₀|: the weights that began large stay.
    ///
    /// Source: Zhou et al. 2019, §2.
    LargeInit, "large_init", [Initial], |checked| checked.like_weight(Initial)?.abs()?;

    /// −|w₀|: the weights that began small stay. A control.
    ///
    /// Source: Zhou et al. 2019, §2.
    SmallInit, "small_init", [Initial], |checked| checked.like_weight(Initial)?.abs()?.neg()?;

    /// min(|w₀|, |w|): the weights that began large and are large stay.
    ///
    /// Source: Zhou et al. 2019, §2, with its α = 1.
    LargeInitLargeFinal, "large_init_large_final", [Initial],
        |checked| checked.like_weight(Initial)?.abs()?.minimum(&checked.weight()?.abs()?)?;

    /// −max(|w₀|, |w|): the weights that began small and are small stay. A control.
    ///
    /// Source: Zhou et al. 2019, §2.
    SmallInitSmallFinal, "small_init_small_final", [Initial],
        |checked| checked.like_weight(Initial)?.abs()?.maximum(&checked.weight()?.abs()?)?.neg()?;
}
