use crate::{
    BatchNormScale, Criterion, EmpiricalFisher, Error, Grasp, Lamp, LargeFinal, LargeInit, LargeInitLargeFinal,
    MagnitudeIncrease, Movement, Movmag, Random, SmallFinal, SmallInit, SmallInitSmallFinal, Snip, SquaredFinal,
    SynFlow, Taylor, UpdatingMagnitudeIncrease, UpdatingMovement, UpdatingMovmag, Wanda,
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
/// ```
/// use lth_criteria::{Input, by_name};
///
/// let criterion = by_name("movement", 0)?;
/// assert!(criterion.requires().contains(Input::Initial));
/// assert!(by_name("moovement", 0).is_err());
/// # Ok::<(), lth_criteria::Error>(())
/// ```
/// # Errors
/// if there is none; the message lists those there are.
pub fn by_name(name: &str, seed: u64) -> Result<Box<dyn Criterion>, Error> {
    let mut criteria = all(seed);
    let names: Vec<String> = criteria.iter().map(|criterion| criterion.name().to_owned()).collect();
    match names.iter().position(|other| other == name.trim()) {
        Some(idx) => Ok(criteria.swap_remove(idx)),
        None => Err(Error::Spelling { got: name.to_owned(), expected: names.join(", ") }),
    }
}
