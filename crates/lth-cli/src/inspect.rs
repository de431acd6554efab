//! `lth inspect`: what a file of weights or masks holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use candle_core::{DType, Device, Tensor};
use clap::Args;
use lth_files::on_one_line;
use lth_mask::{Mask, MaskSet, Stats};
use lth_nn::{WeightFiles, Weights};
use lth_ticket::{NetworkInfo, Ticket, TicketHeader};
use serde::Serialize;

use crate::console::Console;
use crate::failure::{Blame, Result};

/// Prints the per-layer sparsity of a ticket, of a file of masks, or of any safetensors or PyTorch checkpoint, which may
/// be the index of several files.
///
/// Of a ticket it checks every field of the header, that pruned weights are exactly 0, and the SHA-256 of its content.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth inspect runs/toy-pets-5f0c1a2b/fits/ticket/level-01/seed-42/ticket.safetensors
  lth inspect pruned.masks.safetensors
  lth inspect resnet18-f37072fd.pth --json")]
pub struct Options {
    /// The file; what it is, its content shows
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    kind: FileKind,
    /// A ticket's header.
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<TicketHeader>,
    /// SHA-256 of the content of a ticket or of masks, computed and found to be what the file says.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_sha256: Option<String>,
    /// The text fields of a checkpoint's header.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    n_tensors: usize,
    n_values: u64,
    /// Entries of the file that could not become a tensor, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<String>,
    /// Tensors that the file holds as NAME_orig and NAME_mask, as `torch.nn.utils.prune` leaves them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    folded: Vec<String>,
    /// What stands before every name and belongs to a wrapper of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    wrapper: Option<String>,
    /// Layers of which every weight is 0. They count as wholly pruned, though they may have begun so (LoRA's B).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    all_zero: Vec<String>,
    /// Of a ticket: what its masks prune. The layers count zeros in the weights themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    masks: Option<MaskTotals>,
    weights: u64,
    zeros: u64,
    sparsity: f64,
    layers: Stats,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum FileKind {
    Ticket,
    Masks,
    Checkpoint,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct MaskTotals {
    n_layers: usize,
    weights: usize,
    zeros: usize,
    sparsity: f64,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(options.json);
    let report = inspect(&options.file).data()?;
    if options.json {
        console.json(&serde_json::to_string_pretty(&report).data()?);
    } else {
        console.line(text(&report).trim_end());
    }
    console.finish()
}

fn inspect(path: &Path) -> anyhow::Result<Report> {
    let files = WeightFiles::open(path)?;
    if files.metadata.contains_key("lth-mask") {
        return inspect_masks(path);
    }
    // The two fields that only a ticket has; one of them alone is a damaged ticket, which `Ticket::read` says.
    if files.metadata.contains_key("content_sha256") || files.metadata.contains_key("stage") {
        drop(files);
        return inspect_ticket(path);
    }
    let report = of_weights(path, FileKind::Checkpoint, &files)?;
    let wrapper = files.wrapper();
    let WeightFiles { metadata, ignored, folded, .. } = files;
    let skipped = ignored.into_iter().map(|entry| format!("{}: {}", entry.name, entry.reason)).collect();
    Ok(Report { metadata, skipped, folded, wrapper, ..report })
}

fn inspect_ticket(path: &Path) -> anyhow::Result<Report> {
    let ticket = Ticket::read(path, &Device::Cpu)?;
    let masks = ticket.header.pruning.is_some().then(|| MaskTotals {
        n_layers: ticket.masks.len(),
        weights: ticket.masks.weights(),
        zeros: ticket.masks.zeros(),
        sparsity: ticket.masks.sparsity(),
    });
    let content_sha256 = Some(ticket.content_sha256()?);
    let tensors = Weights { tensors: ticket.tensors, ..Weights::default() };
    let report = of_weights(path, FileKind::Ticket, &tensors.into())?;
    Ok(Report { header: Some(ticket.header), content_sha256, masks, ..report })
}

fn inspect_masks(path: &Path) -> anyhow::Result<Report> {
    let masks = MaskSet::load(path).with_context(|| path.display().to_string())?;
    let report = of_stats(path, FileKind::Masks, masks.stats());
    Ok(Report {
        content_sha256: Some(masks.sha256()),
        n_tensors: masks.len(),
        n_values: masks.weights() as u64,
        ..report
    })
}

/// One tensor at a time is in memory, and what of the layers' weights is not 0: every tensor of floating-point numbers with
/// at least two dimensions.
fn of_weights(path: &Path, kind: FileKind, files: &WeightFiles) -> anyhow::Result<Report> {
    let layers = files.tensors().iter().filter(|(_, tensor)| tensor.shape.len() >= 2 && tensor.dtype.is_float());
    let masks = layers.map(|(name, _)| Ok((name.clone(), nonzero(&files.read(name)?)?)));
    let stats = masks.collect::<anyhow::Result<MaskSet>>()?.stats();
    let n_values = files.tensors().values().map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum();
    Ok(Report { n_tensors: files.tensors().len(), n_values, ..of_stats(path, kind, stats) })
}

fn of_stats(path: &Path, kind: FileKind, layers: Stats) -> Report {
    Report {
        file: path.to_owned(),
        kind,
        header: None,
        content_sha256: None,
        metadata: BTreeMap::new(),
        n_tensors: 0,
        n_values: 0,
        skipped: Vec::new(),
        folded: Vec::new(),
        wrapper: None,
        all_zero: all_zero(&layers),
        masks: None,
        weights: layers.weights(),
        zeros: layers.zeros(),
        sparsity: layers.sparsity(),
        layers,
    }
}

/// The mask that keeps what is not 0.
pub(crate) fn nonzero(tensor: &Tensor) -> anyhow::Result<Mask> {
    match tensor.dtype() {
        DType::F32 | DType::F64 | DType::F16 | DType::BF16 => Ok(Mask::from_nonzero(tensor)?),
        _ => Ok(Mask::from_nonzero(&tensor.ne(0f64)?.to_dtype(DType::F32)?)?),
    }
}

/// Layers of which every weight is 0.
fn all_zero(layers: &Stats) -> Vec<String> {
    let empty = layers.layers.iter().filter(|layer| layer.weights > 0 && layer.zeros == layer.weights);
    empty.map(|layer| layer.name.clone()).collect()
}

/// What a person should know of a checkpoint's names and zeros.
pub(crate) fn remarks(folded: &[String], wrapper: Option<&str>, all_zero: &[String]) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(wrapper) = wrapper {
        remarks.push(format!("every name begins with `{wrapper}`, which belongs to a wrapper of the network"));
    }
    remarks.extend(folded.iter().map(|name| format!("`{name}` is the product of `{name}_orig` and `{name}_mask`")));
    remarks.extend(
        all_zero.iter().map(|name| format!("`{name}` is 0 throughout, pruned or not: it counts as wholly pruned")),
    );
    remarks
}

fn text(report: &Report) -> String {
    let kind = match report.kind {
        FileKind::Ticket => "ticket file",
        FileKind::Masks => "masks",
        FileKind::Checkpoint => "checkpoint",
    };
    let mut lines = vec![format!(
        "{}: {kind} with {} tensors, {} values",
        report.file.display(),
        report.n_tensors,
        report.n_values
    )];
    if let Some(header) = &report.header {
        lines.extend(header_lines(header, report));
    }
    if let Some(content) = &report.content_sha256 {
        lines.push(format!("  content    SHA-256 {content}, verified"));
    }
    lines.extend(report.metadata.iter().map(|(name, value)| format!("  {name:<10} {value}")));
    lines.extend(report.skipped.iter().map(|entry| format!("  skipped    {entry}")));
    let remarks = remarks(&report.folded, report.wrapper.as_deref(), &report.all_zero);
    lines.extend(remarks.into_iter().map(|remark| format!("  note       {remark}")));
    let mut text: String = lines.iter().map(|line| on_one_line(line) + "\n").collect();
    // Its own rows are lines; names in it begin none.
    text += &format!("\n{}", report.layers);
    text
}

fn header_lines(header: &TicketHeader, report: &Report) -> Vec<String> {
    let stage = match header.stage {
        lth_ticket::Stage::Ticket => "ticket: what training starts from",
        lth_ticket::Stage::Trained => "trained network",
    };
    let network = &header.network;
    let head = network.head.as_ref().map_or(String::new(), |head| format!(", head {head}"));
    let mut fields = vec![
        ("stage", stage.to_owned()),
        ("network", format!("{}{head}, input {}, {} outputs", network.name, input(network), network.n_outputs)),
    ];
    if !network.class_names.is_empty() {
        fields.push(("classes", network.class_names.join(", ")));
    }
    match (&header.pruning, report.masks) {
        (Some(pruning), Some(masks)) => {
            let selection = &pruning.selection;
            fields.extend([
                ("criterion", pruning.criterion.clone()),
                (
                    "selection",
                    format!(
                        "granularity {}, scope {:?}, rule {:?}",
                        selection.granularity, selection.scope, selection.rule
                    ),
                ),
                ("schedule", pruning.schedule.schedule.to_string()),
                (
                    "pruned",
                    format!("{:.2} % of {} weights in {} layers", 100. * masks.sparsity, masks.weights, masks.n_layers),
                ),
                (
                    "rewind",
                    pruning.rewind.map_or("none".to_owned(), |rewind| {
                        let end = if rewind.reset_end { ", and after the last epoch" } else { "" };
                        format!("to the start of epoch {}, rule {:?}{end}", rewind.epoch, rewind.rule)
                    }),
                ),
            ]);
        }
        _ => fields.push(("pruned", "no: a dense network".to_owned())),
    }
    fields.push(("seed", header.seed.to_string()));
    let checksum = header.dataset.sha256.as_ref().map_or(String::new(), |sha256| format!(", SHA-256 {sha256}"));
    fields.push(("dataset", format!("{}{checksum}", header.dataset.name)));
    fields.extend(header.other.iter().map(|(name, text)| (name.as_str(), text.clone())));
    fields.push(("parent", header.parent.clone().unwrap_or_else(|| "none".to_owned())));
    fields.into_iter().map(|(name, value)| format!("  {name:<10} {value}")).collect()
}

/// "3 x 64 x 64"
fn input(network: &NetworkInfo) -> String {
    network.input.iter().map(usize::to_string).collect::<Vec<_>>().join(" x ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Weights {
        let values = [0f32, 1., 0., -2., 0., 3.];
        let weight = Tensor::from_slice(&values, (2, 3), &Device::Cpu).expect("six values");
        let bias = Tensor::zeros(2, DType::F32, &Device::Cpu).expect("two values");
        Weights {
            tensors: [("fc.weight".to_owned(), weight), ("fc.bias".to_owned(), bias)].into(),
            ..Weights::default()
        }
    }

    #[test]
    fn a_wrapper_before_every_name_is_said() {
        let said = remarks(&[], Some("_orig_mod."), &[]);
        assert_eq!(said, ["every name begins with `_orig_mod.`, which belongs to a wrapper of the network"]);
        assert!(remarks(&[], None, &[]).is_empty());
    }

    #[test]
    fn zeros_of_a_checkpoint_are_counted_in_its_layers() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.safetensors");
        checkpoint().write(&path)?;
        let report = inspect(&path)?;
        assert_eq!((report.kind, report.n_tensors, report.n_values), (FileKind::Checkpoint, 2, 8));
        assert_eq!((report.weights, report.zeros, report.sparsity), (6, 3, 0.5));
        assert!(text(&report).contains("fc.weight"), "{}", text(&report));
        Ok(())
    }

    #[test]
    fn tiny_double_precision_weights_are_not_zero() -> anyhow::Result<()> {
        let tensor = Tensor::new(&[[1e-300f64, 0.]], &Device::Cpu)?;
        assert_eq!(nonzero(&tensor)?.zeros(), 1);
        Ok(())
    }

    #[test]
    fn masks_are_known_by_their_content() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("anything");
        let mask = nonzero(&checkpoint().tensors["fc.weight"])?;
        MaskSet::from_iter([("fc.weight".to_owned(), mask)]).save(&path)?;
        let report = inspect(&path)?;
        assert_eq!((report.kind, report.weights, report.zeros), (FileKind::Masks, 6, 3));
        Ok(())
    }

    #[test]
    fn a_cut_or_foreign_file_is_an_error_in_one_line() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("a.safetensors");
        checkpoint().write(&path)?;
        let bytes = std::fs::read(&path)?;
        for content in [&bytes[..bytes.len() - 1], &bytes[..20], &b"not weights"[..], &[]] {
            std::fs::write(&path, content)?;
            let failure = inspect(&path).data().expect_err("the file is damaged");
            assert!(!failure.to_string().contains('\n'), "{failure}");
        }
        let failure = inspect(&folder.path().join("none")).data().expect_err("there is no file");
        assert!(failure.to_string().contains("none"), "{failure}");
        Ok(())
    }

    #[test]
    fn a_header_that_lies_about_places_is_an_error() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("hostile.safetensors");
        let huge = u64::MAX / 8;
        for header in [
            format!(r#"{{"a":{{"dtype":"U8","shape":[{huge}],"data_offsets":[0,{huge}]}}}}"#),
            format!(r#"{{"a":{{"dtype":"F32","shape":[{huge},{huge}],"data_offsets":[0,4]}}}}"#),
            format!(r#"{{"a":{{"dtype":"U8","shape":[1],"data_offsets":[{},0]}}}}"#, u64::MAX),
        ] {
            let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat();
            std::fs::write(&path, bytes)?;
            assert!(inspect(&path).is_err(), "{header}");
        }
        Ok(())
    }
}
