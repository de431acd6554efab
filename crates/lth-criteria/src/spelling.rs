use crate::{
    BatchNormScale, Criterion, EmpiricalFisher, Error, Grasp, Lamp, LargeFinal, LargeInit, LargeInitLargeFinal,
    MagnitudeIncrease, Movement, Movmag, Normalization, Normalized, Random, SmallFinal, SmallInit, SmallInitSmallFinal,
    Snip, SquaredFinal, SynFlow, Taylor, TaylorGate, UpdatingMagnitudeIncrease, UpdatingMovement, UpdatingMovmag,
    Wanda,
};

/// Every criterion of this crate, [`Random`] with the given seed, in the order of the documentation.
pub fn all(seed: u64) -> Vec<Box<dyn Criterion>> {
    vec![
        Box::new(Random { seed }),
        Box::new(LargeFinal),
        Box::new(SquaredFinal),
        Box::new(SmallFinal),
        Box::new(LargeInit),
        Box::new(SmallInit),
        Box::new(LargeInitLargeFinal),
        Box::new(SmallInitSmallFinal),
        Box::new(MagnitudeIncrease),
        Box::new(Movement),
        Box::new(Movmag),
        Box::new(UpdatingMagnitudeIncrease),
        Box::new(UpdatingMovement),
        Box::new(UpdatingMovmag),
        Box::new(Taylor),
        Box::new(TaylorGate),
        Box::new(Snip),
        Box::new(Grasp),
        Box::new(EmpiricalFisher),
        Box::new(SynFlow),
        Box::new(Wanda),
        Box::new(BatchNormScale),
        Box::new(Lamp),
    ]
}

/// The criterion of this crate with the given name, as records and command lines spell it; `seed` is for [`Random`].
///
/// `large_final/sum` is [`Normalized`].
///
/// ```
/// use lth_criteria::{Input, by_name};
///
/// let criterion = by_name("movement", 0)?;
/// assert!(criterion.requires().contains(Input::Initial));
/// assert!(by_name("moovement", 0).is_err());
/// assert_eq!(by_name("large_final/max", 0)?.name(), "large_final/max");
/// # Ok::<(), lth_criteria::Error>(())
/// ```
/// # Errors
/// If there is none; the message lists those there are.
pub fn by_name(name: &str, seed: u64) -> Result<Box<dyn Criterion>, Error> {
    let mut criteria = all(seed);
    let (plain, normalization) = match name.trim().split_once('/') {
        Some((plain, form)) => (plain, Some(Normalization::ALL.into_iter().find(|other| other.to_string() == form))),
        None => (name.trim(), None),
    };
    let found = criteria.iter().position(|other| other.name() == plain);
    match (found, normalization) {
        (Some(idx), None) => Ok(criteria.swap_remove(idx)),
        (Some(idx), Some(Some(normalization))) => {
            Ok(Box::new(Normalized::new(criteria.swap_remove(idx), normalization)))
        }
        _ => {
            let names: Vec<&str> = criteria.iter().map(Criterion::name).collect();
            let forms = Normalization::ALL.map(|form| format!("/{form}"));
            let expected = format!("{}, alone or with {}", names.join(", "), forms.join(", "));
            Err(Error::Spelling { got: name.to_owned(), expected })
        }
    }
}
