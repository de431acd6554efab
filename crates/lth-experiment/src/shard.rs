//! What of a plan can be done apart from the rest: its replicates, and shares of them for machines that know nothing of
//! each other.

use std::fmt;

use lth_runs::Address;
use serde::Serialize;

use crate::{Error, Plan};

/// A work item: a replicate. Within a seed fits rest on one another (a level on the one before it, every arm on the
/// ticket's mask), so that a finer split would make machines wait for each other's files; between seeds none does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkItem {
    /// Its place in the plan, from 0.
    pub item: usize,
    /// The seed of all its fits.
    pub seed: u64,
    /// Its fits, in the order in which they are done.
    pub fits: Vec<Address>,
    /// Paths between its networks.
    pub n_paths: usize,
}

/// The `index`-th of so many shares of a plan's work items: items `index`, `index + of`, `index + 2 of`, … A seed that is
/// added to a plan thus moves no other into another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    of: u32,
}

impl Shard {
    /// The shard of that number, from 0.
    ///
    /// # Errors
    /// [`Error::Plan`] if there is no such shard.
    pub fn new(index: u32, of: u32) -> Result<Self, Error> {
        if index < of {
            return Ok(Self { index, of });
        }
        let expected = match of {
            0 => "one of at least 1 shard".to_owned(),
            of => format!("0 to {}, one of {of} shards", of - 1),
        };
        Err(Error::Plan { field: "index of the shard".into(), got: index.to_string(), expected })
    }

    /// The shard that does the work item at that place.
    ///
    /// # Errors
    /// [`Error::Plan`] if there are no shards.
    pub fn of_item(item: usize, of: u32) -> Result<Self, Error> {
        Self::new(u32::try_from(item as u64 % u64::from(of.max(1))).unwrap_or(0), of)
    }

    /// Its number, from 0.
    #[must_use]
    pub fn index(self) -> u32 {
        self.index
    }

    /// Whether the work item at that place is one of its own.
    #[must_use]
    pub fn has(self, item: usize) -> bool {
        item as u64 % u64::from(self.of) == u64::from(self.index)
    }

    /// What of a plan it does.
    #[must_use]
    pub fn plan(self, whole: &Plan) -> Plan {
        let items = whole.work_items();
        let own = |address: &Address| items.iter().any(|item| item.seed == address.seed && self.has(item.item));
        let mut plan = whole.clone();
        plan.fits.retain(|fit| own(&fit.address));
        plan.paths.retain(|path| path.ends.iter().all(own));
        plan
    }
}

/// `0-of-4`, as in the name of its folder.
impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-of-{}", self.index, self.of)
    }
}

impl Plan {
    /// Its replicates, in the order of their first fits.
    #[must_use]
    pub fn work_items(&self) -> Vec<WorkItem> {
        let mut items: Vec<WorkItem> = Vec::new();
        for fit in &self.fits {
            let seed = fit.address.seed;
            let place = items.iter().position(|item| item.seed == seed).unwrap_or(items.len());
            if place == items.len() {
                let n_paths = self.paths.iter().filter(|path| path.ends[1].seed == seed).count();
                items.push(WorkItem { item: place, seed, fits: Vec::new(), n_paths });
            }
            items[place].fits.push(fit.address.clone());
        }
        items
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;

    #[test]
    fn shards_have_every_fit_once_and_what_it_rests_on() -> Result<(), Error> {
        let whole = preset("lenet-digits")?.plan()?;
        let n_items = whole.work_items().len();
        assert_eq!(n_items, 10);
        for of in [1, 3, 10, 12] {
            let mut addresses = Vec::new();
            for index in 0..of {
                let plan = Shard::new(index, of)?.plan(&whole);
                plan.check(34)?;
                addresses.extend(plan.fits.into_iter().map(|fit| fit.address));
            }
            addresses.sort();
            let mut expected: Vec<Address> = whole.fits.iter().map(|fit| fit.address.clone()).collect();
            expected.sort();
            assert_eq!(addresses, expected, "{of} shards");
        }
        Ok(())
    }

    #[test]
    fn a_seed_that_is_added_moves_no_other() -> Result<(), Error> {
        let seeds = |n: u64| {
            let mut experiment = preset("lenet-digits")?;
            experiment.imp.seeds = (0..n).collect();
            let plan = Shard::new(1, 3)?.plan(&experiment.plan()?);
            Ok::<_, Error>(plan.work_items().into_iter().map(|item| item.seed).collect::<Vec<_>>())
        };
        assert_eq!(seeds(6)?, [1, 4]);
        assert_eq!(seeds(8)?, [1, 4, 7]);
        Ok(())
    }

    #[test]
    fn a_shard_that_is_not_there_is_refused() {
        let said = |index, of| Shard::new(index, of).expect_err("there is none").to_string();
        assert_eq!(said(4, 4), "index of the shard is 4, expected 0 to 3, one of 4 shards");
        assert_eq!(said(0, 0), "index of the shard is 0, expected one of at least 1 shard");
    }
}
