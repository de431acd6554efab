//! The networks of a fit, written as tickets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use lth_files::{link_or_copy, sha256_file};
use lth_mask::MaskSet;
use lth_runs::experiment::{ExperimentDir, FileRecord, FitRecord};
use lth_schedule::{Schedule, Sparsity, SparsitySchedule};
use lth_ticket::{PruningInfo, Stage, Ticket, TicketHeader, Written};

use crate::plan::{FitPlan, MaskFrom};
use crate::states::{Kept, rewinds_at_end};
use crate::{Error, Runner};

type Tensors = BTreeMap<String, Tensor>;

/// Writes a fit's networks.
pub(crate) struct Files<'a, R> {
    pub(crate) runner: &'a R,
    pub(crate) fit: &'a FitPlan,
    /// Of the training that it is, or is a part of.
    pub(crate) n_iterations: u64,
    pub(crate) records: &'a [FitRecord],
    pub(crate) written: BTreeMap<String, FileRecord>,
}

impl<N, E, T> Files<'_, Runner<'_, N, E, T>> {
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(
        &mut self,
        dir: &mut ExperimentDir,
        kept: Kept,
        tensors: Tensors,
        masks: &MaskSet,
    ) -> Result<(), Error> {
        let name = kept.name(self.fit);
        let (path, relative) = dir.prepare_file(&self.fit.address, &format!("{name}.safetensors"))?;
        let is_ticket = kept == Kept::Start || (kept == Kept::End && rewinds_at_end(self.fit));
        let header = TicketHeader {
            stage: if is_ticket { Stage::Ticket } else { Stage::Trained },
            network: self.runner.network_info.clone(),
            pruning: if masks.is_empty() { None } else { Some(self.pruning_info(masks)?) },
            seed: self.fit.address.seed,
            dataset: (self.runner.dataset_info)(),
            parent: None,
            other: BTreeMap::new(),
        };
        let ticket = Ticket { header, tensors, masks: masks.clone() };
        let mut ticket = ticket.identified()?;
        let content = ticket.content_sha256().to_owned();
        // The ticket that a search leaves is the one that the next fit trains: nothing is its own parent.
        ticket.header_mut().parent = self.parent(kept).filter(|parent| *parent != content);
        // The smaller form: the 33 networks of `lth imp --preset lenet-digits --seeds 3` take 2.6 MB instead of 6.7.
        // What is there already, as a search's ticket is when it comes to be trained, is on the disk once. The header is then
        // that of the fit that made it.
        let record = match self.same(dir, &name, &content) {
            Some((same, record)) => {
                link_or_copy(&same, &path)?;
                FileRecord { path: relative, ..record.clone() }
            }
            None => {
                let Written { content_sha256, sha256, bytes } = ticket.write_smaller(&path)?;
                FileRecord { path: relative, sha256, bytes, content: Some(content_sha256) }
            }
        };
        self.written.insert(name, record);
        Ok(())
    }

    /// A file of an earlier fit that holds the same, and is what its record says. Of the same name, since a ticket and a
    /// trained network of equal content say different things.
    fn same(&self, dir: &ExperimentDir, name: &str, content: &str) -> Option<(PathBuf, &FileRecord)> {
        let files = self.records.iter().filter_map(|record| record.files.get(name));
        let same = files.filter(|file| file.content.as_deref() == Some(content));
        same.map(|file| (dir.path().join(&file.path), file))
            .find(|(path, file)| sha256_file(path).is_ok_and(|(found, _)| found == file.sha256))
    }

    /// The content of the network that this one was pruned or trained from.
    fn parent(&self, kept: Kept) -> Option<String> {
        let own = |name: &str| self.written.get(name)?.content.clone();
        match kept {
            Kept::End if rewinds_at_end(self.fit) => own("trained"),
            Kept::End if self.written.contains_key("ticket") => own("ticket"),
            _ => {
                let before = self.fit.start.fit().or(self.fit.mask.fits().first().copied())?;
                let record = self.records.iter().find(|record| record.address == *before)?;
                let before = self.runner.plan.fit(before)?;
                record.files.get(&Kept::End.name(before))?.content.clone()
            }
        }
    }

    fn pruning_info(&self, masks: &MaskSet) -> Result<PruningInfo, Error> {
        let rule = &self.runner.plan.pruning;
        let sparsity = Sparsity::new(masks.sparsity())?;
        let once = SparsitySchedule::to(sparsity, Schedule::OneShot);
        let (criterion, selection, schedule, rewind) = match (&self.fit.gradual, &self.fit.mask) {
            (Some(gradual), _) => {
                (&gradual.criterion, &gradual.selection, gradual.schedule(sparsity, self.n_iterations), gradual.rewind)
            }
            (None, MaskFrom::Cut(cut)) => {
                let criterion = cut.criterion.as_ref().unwrap_or(&rule.criterion);
                (criterion, cut.selection.as_ref().unwrap_or(&rule.selection), once, None)
            }
            _ => (&rule.criterion, &rule.selection, once, None),
        };
        Ok(PruningInfo {
            criterion: criterion.clone(),
            selection: selection.clone(),
            schedule,
            sparsity: masks.sparsity(),
            rewind,
        })
    }
}

/// # Errors
/// If the file cannot be read.
pub(crate) fn file_record(path: &Path, relative: String) -> Result<FileRecord, Error> {
    let (sha256, bytes) = sha256_file(path)?;
    Ok(FileRecord { path: relative, sha256, bytes, content: None })
}
