//! Where pictures come from, as options and with progress.

use std::path::PathBuf;

use clap::Args;
use indicatif::ProgressBar;
use lth_data::download::Event;
use lth_data::{
    ByteSize, DamagedPolicy, DataSource, Dataset, DatasetSpec, Normalisation, OpenOptions, Opening, Progress,
    Provenance, cache_dir,
};
use lth_ticket::Preprocessing;

use crate::console::Console;
use crate::failure::{Blame, Failure, Kind, Result};

/// Names that a note shows; all are on record.
const SHOWN: usize = 5;

/// Where the data lie, if not where they are fetched to.
#[derive(Args)]
pub(crate) struct SourceOptions {
    /// Read the data from these archives or files instead of downloading them
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["data_dir", "mirror"])]
    pub(crate) archive: Vec<PathBuf>,
    /// Read the data from this folder
    #[arg(long, value_name = "DIR", conflicts_with = "mirror")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Download from URL/FILE; URL/SHA256SUMS, if there, replaces the built-in checksums
    #[arg(long, value_name = "URL")]
    pub(crate) mirror: Option<String>,
    /// Leave damaged pictures out instead of ending with exit code 3
    #[arg(long)]
    pub(crate) skip_damaged: bool,
}

impl SourceOptions {
    /// The source that the options name, if they name one.
    pub(crate) fn source(&self) -> Option<DataSource> {
        if !self.archive.is_empty() {
            return Some(DataSource::local(self.archive.clone()));
        }
        if let Some(folder) = &self.data_dir {
            return Some(DataSource::local(vec![folder.clone()]));
        }
        self.mirror.as_ref().map(|mirror| DataSource::Download { mirror: Some(mirror.clone()) })
    }
}

/// What a ticket says of the values that its network sees.
pub(crate) fn preprocessing(normalisation: &Normalisation) -> Preprocessing {
    Preprocessing { mean: normalisation.mean.clone(), std: normalisation.std.clone() }
}

/// Opens a data set and shows how far it is.
pub(crate) fn open(spec: &DatasetSpec, split_seed: u64, skip_damaged: bool, console: &Console) -> Result<Dataset> {
    let options = open_options(skip_damaged)?;
    let mut watch = Watch { console, bar: None };
    let opened = spec.open(split_seed, &options, &mut |opening| watch.show(opening));
    watch.clear();
    let dataset = opened.map_err(|error| failure(error, spec))?;
    remarks(&dataset.provenance).iter().for_each(|line| console.note(line));
    Ok(dataset)
}

/// Where the data's cache is, and what is done with damaged pictures.
pub(crate) fn open_options(skip_damaged: bool) -> Result<OpenOptions> {
    let damaged = if skip_damaged { DamagedPolicy::Skip } else { DamagedPolicy::Fail };
    Ok(OpenOptions { cache_dir: cache_dir().data()?, damaged })
}

/// Shows downloads, drawing and decoding.
pub(crate) struct Watch<'a> {
    pub(crate) console: &'a Console,
    pub(crate) bar: Option<ProgressBar>,
}

impl Watch<'_> {
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    pub(crate) fn show(&mut self, opening: Opening<'_>) {
        match opening {
            Opening::Drawing { n_pictures, n_total, .. } => {
                let bar = || self.console.bar("drawing toy pets", n_total as u64);
                self.bar.get_or_insert_with(bar).set_position(n_pictures as u64);
                if n_pictures == n_total {
                    self.clear();
                }
            }
            Opening::Decoding(Progress::Waiting) => {
                self.console.note("another process is decoding the same pictures: waiting for it");
            }
            Opening::Decoding(Progress::Measured { n_pictures, n_bytes }) => {
                let (n_pictures, size) = (lth_runs::lines::grouped(n_pictures as u64), ByteSize(n_bytes));
                self.console.note(format!("decoding {n_pictures} pictures: {size} in the cache"));
            }
            Opening::Decoding(Progress::Decoding { n_bytes, n_bytes_total, .. }) => {
                let bar = || self.console.bytes("decoding pictures", n_bytes_total);
                self.bar.get_or_insert_with(bar).set_position(n_bytes);
            }
            Opening::Downloading(event) => self.download(event),
            _ => {}
        }
    }

    pub(crate) fn download(&mut self, event: Event<'_>) {
        match event {
            Event::Waiting { name } => self.console.note(format!("another process downloads {name}: waiting for it")),
            Event::Started { name, url, offset, total } => {
                let from = if offset > 0 { format!(" from byte {offset} on") } else { String::new() };
                self.console.note(format!("downloading {url}{from}"));
                self.clear();
                let bar = self.console.bytes(name, total.unwrap_or(0));
                bar.set_position(offset);
                self.bar = Some(bar);
            }
            Event::Received { received, .. } => {
                if let Some(bar) = &self.bar {
                    bar.set_position(received);
                }
            }
            Event::Retrying { url, cause, pause, .. } => {
                self.console.note(format!("{url}: {cause}; again in {:.0} s", pause.as_secs_f64()));
            }
            Event::Verifying { name } => {
                self.clear();
                self.console.note(format!("checking {name}"));
            }
            Event::SetAside { path } => {
                self.console.note(format!("the file there was another one: set aside as {}", path.display()));
            }
            _ => {}
        }
    }
}

/// What was opened, and what of it is odd: a line each.
fn remarks(provenance: &Provenance) -> Vec<String> {
    let mut lines = Vec::new();
    if !provenance.damaged.is_empty() {
        lines.push(format!("damaged pictures, left out ({}):", provenance.damaged.len()));
        lines.extend(provenance.damaged.iter().map(|damaged| format!("  {damaged}")));
    }
    lines.push(format!(
        "{} pictures{}: {}",
        provenance.n_pictures,
        if provenance.from_cache { " (decoded before)" } else { "" },
        provenance.classes.iter().map(|(name, n)| format!("{n} {name}")).collect::<Vec<_>>().join(", ")
    ));
    let contradicted = provenance.list.as_ref().map(|list| list.contradicted.as_slice()).unwrap_or_default();
    for (names, what) in [
        (provenance.left_out.as_slice(), "files among the pictures, not looked at"),
        (contradicted, "pictures of another class in annotations/list.txt than by their names, which count"),
    ] {
        if !names.is_empty() {
            let (n, more) = (names.len(), if names.len() > SHOWN { ", …" } else { "" });
            lines.push(format!("{what} ({n}): {}{more}", names[..n.min(SHOWN)].join(", ")));
        }
    }
    lines
}

fn failure(error: lth_data::Error, spec: &DatasetSpec) -> Failure {
    use lth_data::Error as Data;
    match (&error, &spec.source) {
        (Data::BadSetting { .. }, _) => Failure::new(Kind::Usage, error),
        (Data::Download(download), DataSource::Download { .. }) => {
            let kind = match download {
                lth_data::download::Error::BadMirror { .. } => Kind::Usage,
                _ => Kind::Data,
            };
            let hint = "Without a network: `lth reproduce --dataset toy-pets`, `lth imp --preset lenet-digits`, or give the \
                        data with --archive FILE… or --data-dir DIR";
            Failure::new(kind, anyhow::anyhow!("the data could not be downloaded: {error}. {hint}"))
        }
        (Data::CacheLimit { .. }, _) => {
            let hint = "`lth cache list` shows what is there, `lth cache clean` removes it";
            Failure::new(Kind::Data, anyhow::anyhow!("{error}: {hint}"))
        }
        _ => Failure::new(Kind::Data, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_of_the_data_is_not_looked_at_or_contradicts_itself_is_said() -> anyhow::Result<()> {
        let plain = serde_json::json!({
            "name": "pets", "source": "a folder", "files": [], "checked": "no", "content_sha256": "", "split_sha256": "",
            "n_pictures": 3, "n_channels": 3, "classes": [["cat", 1], ["dog", 2]], "n_train": 2, "n_valid": 1, "n_test": 0,
            "from_cache": false
        });
        let mut provenance: Provenance = serde_json::from_value(plain)?;
        assert_eq!(remarks(&provenance), ["3 pictures: 1 cat, 2 dog"]);
        provenance.damaged = vec![lth_data::Damaged { name: "a.jpg".to_owned(), reason: "it ends early".to_owned() }];
        provenance.left_out = (1..=6).map(|i| format!("{i}.heic")).collect();
        let contradicted = vec!["Bombay_1.jpg".to_owned()];
        provenance.list = Some(lth_data::ListCheck { contradicted, ..Default::default() });
        assert_eq!(
            remarks(&provenance),
            [
                "damaged pictures, left out (1):",
                "  `a.jpg` (it ends early)",
                "3 pictures: 1 cat, 2 dog",
                "files among the pictures, not looked at (6): 1.heic, 2.heic, 3.heic, 4.heic, 5.heic, …",
                "pictures of another class in annotations/list.txt than by their names, which count (1): Bombay_1.jpg",
            ]
        );
        Ok(())
    }
}
