//! `lth fetch`: data into the cache, for a machine without a network or a run without a wait.

use clap::Args;
use lth_data::{DataSource, DatasetName, DatasetSpec};

use crate::console::Console;
use crate::data::{self, SourceOptions};
use crate::failure::{Blame, Result};

/// Downloads, draws or decodes a data set into the cache, so that experiments need no network for it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth fetch mnist
  LTH_CACHE=/mnt/shared lth fetch cifar-10 pets")]
pub struct Options {
    /// digits, mnist, fashion-mnist, cifar-10, cifar-100, pets, pets-breeds, toy-pets
    #[arg(required = true, value_name = "DATASET")]
    datasets: Vec<DatasetName>,
    #[command(flatten)]
    source: SourceOptions,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(false);
    for name in &options.datasets {
        let mut spec = DatasetSpec::new(*name);
        if let Some(source) = options.source.source()
            && !matches!(spec.source, DataSource::Embedded | DataSource::Drawn(_))
        {
            spec.source = source;
        }
        spec.check().usage()?;
        let dataset = data::open(&spec, 0, options.source.skip_damaged, &console)?;
        console.line(format!("{name}: {}, content {}", dataset.provenance.source, dataset.provenance.content_sha256));
    }
    console.finish()
}
