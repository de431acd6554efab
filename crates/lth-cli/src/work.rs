//! `lth plan` and `lth run`: an experiment as work items, and a share of them done on one of several machines.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lth_experiment::{Plan, Shard, WorkItem};
use lth_runs::table::{Align, Table};
use serde::Serialize;

use crate::console::Console;
use crate::failure::{Blame, Failure, Result};
use crate::{connectivity, imp, race, reproduce};

/// A command that trains an experiment's fits.
#[derive(Subcommand)]
pub(crate) enum Work {
    /// As `lth imp`
    Imp(Box<imp::Options>),
    /// As `lth race`
    Race(Box<race::Options>),
    /// As `lth connectivity`
    Connectivity(Box<connectivity::Options>),
    /// As `lth reproduce`
    Reproduce(Box<reproduce::Options>),
}

/// What a command would do, and where.
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) identity: String,
    pub(crate) out: PathBuf,
    pub(crate) json: bool,
}

impl Work {
    fn planned(&self) -> Result<Planned> {
        match self {
            Self::Imp(options) => imp::planned(options),
            Self::Race(options) => race::planned(options),
            Self::Connectivity(options) => connectivity::planned(options),
            Self::Reproduce(options) => reproduce::planned(options),
        }
    }

    fn run(&self, shard: Shard) -> Result {
        match self {
            Self::Imp(options) => imp::run(options, Some(shard)),
            Self::Race(options) => race::run(options, Some(shard)),
            Self::Connectivity(options) => connectivity::run(options, Some(shard)),
            Self::Reproduce(options) => reproduce::run(options, Some(shard)),
        }
    }
}

/// The folder of a shard: beside that of the whole, so that no two machines write into one.
///
/// One folder for all would have to be locked over the network, where locks are not to be relied on, and every shard would
/// write the same summary.
pub(crate) fn folder(whole: PathBuf, shard: Option<Shard>) -> Result<PathBuf> {
    let Some(shard) = shard else { return Ok(whole) };
    let Some(name) = whole.file_name() else {
        let what = whole.display();
        return Err(Failure::usage(format!(
            "--out is `{what}`, expected a folder with a name, for shards stand beside it"
        )));
    };
    let mut name = name.to_os_string();
    name.push(format!("-{shard}"));
    Ok(whole.with_file_name(name))
}

/// Lists the work items of an experiment, and trains nothing.
///
/// A work item is a replicate: a seed with all its fits. Those of one seed rest on one another; between seeds nothing does,
/// so that each can be done on a machine of its own, by `lth run`. Its own options stand before the command, `--json` behind it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth plan imp --preset lenet-mnist --seeds 5
  lth plan --of 4 imp --preset lenet-digits --json         which shard does what")]
pub struct PlanOptions {
    /// Also say which of so many shards does an item
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..))]
    of: Option<u32>,
    #[command(subcommand)]
    work: Work,
}

/// What `lth plan --json` prints.
#[derive(Serialize)]
struct Listed {
    experiment: String,
    identity: String,
    /// The folder of the whole, which `lth imp` writes to and `lth collect` may.
    out: PathBuf,
    n_fits: usize,
    items: Vec<ListedItem>,
}

#[derive(Serialize)]
struct ListedItem {
    #[serde(flatten)]
    item: WorkItem,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<u32>,
    /// The shard's folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<PathBuf>,
}

pub(crate) fn plan(options: &PlanOptions) -> Result {
    let Planned { plan, identity, out, json } = options.work.planned()?;
    let listed = |item: WorkItem| {
        let shard = options.of.map(|of| Shard::of_item(item.item, of).usage()).transpose()?;
        let of_shard = shard.map(|shard| folder(out.clone(), Some(shard))).transpose()?;
        Ok(ListedItem { item, shard: shard.map(Shard::index), out: of_shard })
    };
    let items: Vec<ListedItem> = plan.work_items().into_iter().map(listed).collect::<Result<_>>()?;
    let console = Console::new(json);
    let mut table = Table::new([
        ("item", Align::Right),
        ("shard", Align::Right),
        ("seed", Align::Right),
        ("fits", Align::Right),
        ("paths", Align::Right),
        ("first", Align::Left),
        ("last", Align::Left),
    ]);
    for ListedItem { item, shard, .. } in &items {
        let address = |fit: Option<&lth_runs::Address>| fit.map_or_else(String::new, ToString::to_string);
        table.push([
            item.item.to_string(),
            shard.map_or_else(String::new, |shard| shard.to_string()),
            item.seed.to_string(),
            item.fits.len().to_string(),
            item.n_paths.to_string(),
            address(item.fits.first()),
            address(item.fits.last()),
        ]);
    }
    console.line(table.plain().trim_end());
    console.line(format!(
        "{} items, {} fits; experiment {identity} in {}",
        items.len(),
        plan.fits.len(),
        out.display()
    ));
    let listed = Listed { experiment: plan.name, identity, out, n_fits: plan.fits.len(), items };
    console.json(&serde_json::to_string_pretty(&listed).data()?);
    console.finish()
}

/// Does one of several shards of an experiment: every M-th of its work items, from the K-th on.
///
/// It writes into a folder of its own, which has the name of the whole's with `-K-of-M` behind it; the same command line goes
/// on there. `lth collect` makes one experiment of the folders. In a SLURM array that begins with 0, K and M are the
/// array's; in a Kubernetes Indexed Job K is the completion's index.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth run --index 0 --of 4 imp --preset lenet-mnist --seeds 8
  sbatch --array=0-3 --wrap 'lth run --of 4 imp --preset lenet-mnist --seeds 8'
  lth collect runs/lenet-mnist-5f0c1a2b runs/lenet-mnist-5f0c1a2b-*-of-4")]
pub struct RunOptions {
    /// Which shard, from 0 [default: SLURM_ARRAY_TASK_ID or JOB_COMPLETION_INDEX]
    #[arg(long, value_name = "K")]
    index: Option<u32>,
    /// How many shards there are [default: SLURM_ARRAY_TASK_COUNT]
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..))]
    of: Option<u32>,
    #[command(subcommand)]
    work: Work,
}

pub(crate) fn run(options: &RunOptions) -> Result {
    let shard = shard(options.index, options.of, &|name| std::env::var(name).ok())?;
    let Planned { plan, json, .. } = options.work.planned()?;
    if shard.plan(&plan).fits.is_empty() {
        let console = Console::new(json);
        console.note(format!("shard {shard} has nothing to do: there are {} work items", plan.work_items().len()));
        return console.finish();
    }
    options.work.run(shard)
}

const SLURM_INDEX: &str = "SLURM_ARRAY_TASK_ID";
const SLURM_COUNT: &str = "SLURM_ARRAY_TASK_COUNT";
const SLURM_LAST: &str = "SLURM_ARRAY_TASK_MAX";
const KUBERNETES_INDEX: &str = "JOB_COMPLETION_INDEX";

/// What the options say, and what is left out by the scheduler's environment.
fn shard(index: Option<u32>, of: Option<u32>, variable: &dyn Fn(&str) -> Option<String>) -> Result<Shard> {
    let number = |name: &str| {
        let parse = |text: String| {
            text.parse::<u32>().map_err(|_| Failure::usage(format!("{name} is `{text}`, expected a number from 0 on")))
        };
        variable(name).map(parse).transpose()
    };
    let (by_slurm, by_kubernetes) = (number(SLURM_INDEX)?, number(KUBERNETES_INDEX)?);
    let Some(own) = index.or(by_slurm).or(by_kubernetes) else {
        return Err(Failure::usage(format!(
            "--index is missing, and neither {SLURM_INDEX} nor {KUBERNETES_INDEX} is set: which shard this is, from 0"
        )));
    };
    let of = match (of, number(SLURM_COUNT)?) {
        (Some(of), _) => of,
        (None, Some(count)) if index.is_none() => {
            // Part of an array that is submitted again has another count, and would be another share.
            if number(SLURM_LAST)?.is_none_or(|last| last.checked_add(1) != Some(count)) {
                return Err(Failure::usage(format!(
                    "--of is missing: the {count} tasks of the array are not 0 to {}, so that their number is not that of the \
                     shards",
                    count.saturating_sub(1)
                )));
            }
            count
        }
        (None, _) => return Err(Failure::usage("--of is missing: how many shards there are")),
    };
    Ok(Shard::new(own, of)?)
}

#[cfg(test)]
mod tests {
    use super::shard;

    #[track_caller]
    fn check(options: (Option<u32>, Option<u32>), variables: &[(&str, &str)], expected: Result<&str, &str>) {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        match (shard(options.0, options.1, &variable), expected) {
            (Ok(shard), Ok(expected)) => assert_eq!(shard.to_string(), expected),
            (Err(failure), Err(expected)) => assert!(failure.to_string().contains(expected), "{failure}"),
            (got, expected) => panic!("{got:?}, expected {expected:?}"),
        }
    }

    const ARRAY: [(&str, &str); 3] =
        [("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_COUNT", "4"), ("SLURM_ARRAY_TASK_MAX", "3")];

    #[test]
    fn a_shard_is_what_the_options_or_else_the_scheduler_say() {
        check((Some(1), Some(3)), &[], Ok("1-of-3"));
        check((None, None), &ARRAY, Ok("2-of-4"));
        check((None, Some(8)), &ARRAY, Ok("2-of-8"));
        check((Some(0), Some(3)), &ARRAY, Ok("0-of-3"));
        check((None, Some(5)), &[("JOB_COMPLETION_INDEX", "4")], Ok("4-of-5"));
    }

    #[test]
    fn a_share_that_could_be_another_is_refused() {
        check((None, Some(3)), &[], Err("--index is missing"));
        check((Some(0), None), &[], Err("--of is missing"));
        check((None, None), &[("JOB_COMPLETION_INDEX", "4")], Err("--of is missing"));
        check((Some(0), None), &ARRAY, Err("--of is missing"));
        check((None, Some(2)), &ARRAY, Err("index of the shard is 2, expected 0 to 1, one of 2 shards"));
        // Only tasks 2 and 5 of an array, submitted again.
        let again = [("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_COUNT", "2"), ("SLURM_ARRAY_TASK_MAX", "5")];
        check((None, None), &again, Err("the 2 tasks of the array are not 0 to 1"));
        check((None, Some(3)), &[("SLURM_ARRAY_TASK_ID", "two")], Err("SLURM_ARRAY_TASK_ID is `two`"));
    }
}
