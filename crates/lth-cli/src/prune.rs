//! `lth prune`: a checkpoint in, the masked checkpoint and its masks out.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Device, Tensor};
use clap::{Args, ValueEnum};
use lth_criteria::{Criterion, Input, Inputs};
use lth_files::{Dtype, TensorBytes, on_one_line, save_safetensors};
use lth_mask::{
    Granularity, Mask, MaskSet, Scope, Selection, Stats, Streamed, ThresholdRule, matches, select_streamed,
};
use lth_nn::{TensorInfo, WeightFiles, Weights};
use lth_ticket::Ticket;
use lth_train::tensor_bytes;
use serde::Serialize;

use crate::console::Console;
use crate::failure::{Blame, Failure, Result};
use crate::inspect;
use crate::layers::{Layers, LeftOut, Totals};
use crate::share::Share;
use crate::system;

/// Prunes a checkpoint, without data and without training.
///
/// Writes the masked weights under the same names (safetensors), and beside them the masks, a bit per weight, as
/// NAME.masks.safetensors. Prunes every tensor of floating-point numbers of two to four dimensions whose last name is
/// `weight` (convolutions, linear layers, embeddings), that of an attention's projection (`in_proj_weight`, …) or of a
/// recurrent layer (`weight_ih_l0`, …), and fused experts; --keep-dense leaves some out. What else has two dimensions is
/// named, and the sparsity of the whole file is said beside that of what was pruned. What is already 0 counts as pruned
/// and stays so. Weights that `torch.nn.utils.prune` left as NAME_orig and NAME_mask are read, and written, as
/// NAME.
///
/// One tensor at a time is in memory, and the masks; of safetensors a model may be larger than memory, in one file or in
/// several with an index.
#[derive(Args)]
#[command(after_help = "\
Examples:
  lth prune resnet18.safetensors pruned.safetensors --sparsity 80%
  lth prune resnet18.pth pruned.safetensors --sparsity 0.9 --scope erk --keep-dense conv1.weight --keep-dense fc.weight
  lth prune bert.safetensors pruned.safetensors --sparsity 50% --granularity 2:4 --keep-dense '*embeddings*'
  lth prune now.safetensors pruned.safetensors --sparsity 0.8 --criterion movement --initial then.safetensors")]
pub struct Options {
    /// Weights: safetensors, its index where they are in several files, or PyTorch's .pth
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The masked weights: NAME.safetensors
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// How much of the weights goes: 0.8 or 80%
    #[arg(long, value_name = Share::VALUE_NAME)]
    sparsity: Share,
    /// Saliency score
    #[arg(long, value_name = "NAME", default_value = "large_final")]
    criterion: String,
    /// The weights as they were at first, for criteria that look back
    #[arg(long, value_name = "FILE")]
    initial: Option<PathBuf>,
    /// What is pruned as one: weight, filter, kernel, row, 2:4, row_block(64), …
    #[arg(long, value_name = "GRANULARITY", default_value = "weight")]
    granularity: Granularity,
    /// Over what the sparsity is shared
    #[arg(long, value_enum, default_value_t = ScopeName::Local)]
    scope: ScopeName,
    /// How the sparsity becomes a cut
    #[arg(long, value_enum, default_value_t = RuleName::ExactCount)]
    rule: RuleName,
    /// Leave tensors of this name as they are; * stands for any text; may be given more than once
    #[arg(long, value_name = "PATTERN")]
    keep_dense: Vec<String>,
    /// Weights of this name have their inputs first, as transposed convolutions do; GPT-2's and experts' are told by shape
    #[arg(long, value_name = "PATTERN")]
    transposed: Vec<String>,
    /// Seed of the criterion random
    #[arg(long, value_name = "SEED", default_value_t = 42)]
    seed: u64,
    /// Worker threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Replace OUT and its masks
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScopeName {
    /// Every tensor has the sparsity
    Local,
    /// Every output of every tensor has it: rows and filters by themselves
    PerOutput,
    /// All together have it: one threshold
    Global,
    /// Erdős–Rényi: density by the sum of inputs and outputs over their product
    ErdosRenyi,
    /// The same with the kernel's sides
    Erk,
    /// Shared by LAMP scores
    Lamp,
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::Local => Self::Local,
            ScopeName::PerOutput => Self::PerOutput,
            ScopeName::Global => Self::Global,
            ScopeName::ErdosRenyi => Self::ErdosRenyi,
            ScopeName::Erk => Self::ErdosRenyiKernel,
            ScopeName::Lamp => Self::Lamp,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RuleName {
    /// Exactly the count, ties broken by position
    ExactCount,
    /// At least the interpolated quantile: fasterai, February 2021
    Quantile,
    /// At least the k-th lowest: fasterai 0.3.3
    KthValue,
}

impl From<RuleName> for ThresholdRule {
    fn from(name: RuleName) -> Self {
        match name {
            RuleName::ExactCount => Self::ExactCount,
            RuleName::Quantile => Self::Quantile,
            RuleName::KthValue => Self::KthValue,
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    input: &'a Path,
    output: &'a Path,
    masks: PathBuf,
    /// Of the whole file that was written; `sparsity` is of what was pruned.
    file: Totals,
    left_out: &'a [LeftOut],
    criterion: &'a str,
    selection: &'a Selection,
    sparsity: f64,
    layers: Stats,
    /// Written under one name, read as NAME_orig and NAME_mask.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    folded: &'a [String],
    /// Layers that were 0 throughout before anything was pruned.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    all_zero: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result {
    let console = Console::new(options.json);
    if options.threads.is_some() {
        system::set_threads(options.threads)?;
    }
    let criterion = criterion(options)?;
    let masks_output = masks_output(options)?;
    let mut files = WeightFiles::open(&options.input).data()?;
    if files.metadata.get("form").is_some_and(|form| form == "compact") {
        // Kept values and bits are no weights yet.
        let Ticket { tensors, .. } = Ticket::read(&options.input, &Device::Cpu).data()?;
        let metadata = files.metadata;
        files = Weights { tensors, metadata, ..Weights::default() }.into();
    }
    let initial = options.initial.as_deref().map(|path| WeightFiles::open(path).data()).transpose()?;

    let mut layers = Layers::of(files.tensors(), &options.granularity);
    let prunable = &layers.weights;
    if let Some(pattern) = options.keep_dense.iter().find(|pattern| !prunable.keys().any(|name| matches(pattern, name)))
    {
        let names: Vec<&str> = prunable.keys().map(String::as_str).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Failure::usage(format!("--keep-dense {pattern} fits no tensor that is pruned, which are {names}")));
    }
    layers.keep_dense(|name| options.keep_dense.iter().any(|pattern| matches(pattern, name)));
    let Layers { weights: chosen, transposed, experts, left_out } = layers;
    if chosen.is_empty() {
        return Err(Failure::usage(format!("{} leaves nothing to prune", options.input.display())));
    }
    let selection = Selection {
        granularity: options.granularity.clone(),
        scope: options.scope.into(),
        rule: options.rule.into(),
        transposed: transposed.into_iter().chain(options.transposed.iter().cloned()).collect(),
        experts,
        ..Selection::default()
    };
    let (masks, all_zero) = select(&*criterion, &files, initial.as_ref(), &chosen, options.sparsity.0, &selection)?;
    for remark in inspect::remarks(&files.folded, files.wrapper().as_deref(), &all_zero) {
        console.note(remark);
    }
    for entry in &files.ignored {
        console.note(format!("left out `{}`: {}", entry.name, entry.reason));
    }
    // A ticket's header describes the weights that went in, not those that come out.
    let mut metadata = files.metadata.clone();
    if metadata.contains_key("content_sha256") {
        metadata.clear();
    }
    metadata.insert("format".to_owned(), "pt".to_owned());
    masks.save(&masks_output).data()?;
    let file = Mutex::default();
    let masked = |(name, info)| (String::clone(name), Masked { files: &files, masks: &masks, name, info, file: &file });
    let tensors = files.tensors().iter().map(masked).collect();
    save_safetensors(&options.output, &tensors, &metadata).data()?;

    let file = file.into_inner().unwrap_or_else(PoisonError::into_inner);
    let layers = masks.stats();
    if options.json {
        let report = Report {
            input: &options.input,
            output: &options.output,
            masks: masks_output,
            file,
            left_out: &left_out,
            criterion: criterion.name(),
            selection: &selection,
            sparsity: masks.sparsity(),
            layers,
            folded: &files.folded,
            all_zero,
        };
        console.json(&serde_json::to_string_pretty(&report).data()?);
    } else {
        console.line(layers.to_string());
        for LeftOut { name, shape, reason } in &left_out {
            console.line(on_one_line(&format!("left out `{name}` {shape:?}: {reason}")));
        }
        let Totals { values, zeros, sparsity } = file;
        console.line(format!("whole file: {zeros} of {values} values are 0, {:.2} %", 100. * sparsity));
        console.line(format!("weights: {}", options.output.display()));
        console.line(format!("masks:   {}", masks_output.display()));
    }
    console.finish()
}

/// The criterion, if the tensors at hand are all that it needs.
fn criterion(options: &Options) -> Result<Box<dyn Criterion>> {
    let at_hand = |input: Input| match input {
        Input::Weight => true,
        Input::Initial | Input::Previous => options.initial.is_some(),
        _ => false,
    };
    let criterion = lth_criteria::by_name(&options.criterion, options.seed).usage()?;
    let Some(missing) = criterion.requires().iter().find(|input| !at_hand(*input)) else { return Ok(criterion) };
    if matches!(missing, Input::Initial | Input::Previous) {
        let text = format!(
            "criterion `{}` needs the {missing}s: give the file that holds them with --initial",
            criterion.name()
        );
        return Err(Failure::usage(text));
    }
    let can = |input: Input| matches!(input, Input::Weight | Input::Initial | Input::Previous);
    let all = lth_criteria::all(options.seed);
    let names = all.iter().filter(|other| other.requires().iter().all(can)).map(lth_criteria::Criterion::name);
    let names: Vec<&str> = names.collect();
    Err(Failure::usage(format!(
        "criterion `{}` needs the {missing}, which a checkpoint does not hold; those that need no data are {}",
        criterion.name(),
        names.join(", ")
    )))
}

/// Where the masks go, if nothing is in the way of them or of OUT.
fn masks_output(options: &Options) -> Result<PathBuf> {
    let output = &options.output;
    if output.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(Failure::usage(format!("OUT is {}, expected a name that ends in .safetensors", output.display())));
    }
    let masks = masks_path(output);
    let sources = std::iter::once(&options.input).chain(&options.initial);
    for source in sources.filter_map(|path| path.canonicalize().ok()) {
        for target in [output, &masks] {
            if target.canonicalize().is_ok_and(|target| target == source) {
                return Err(Failure::usage(format!("{} would be written over what is read", target.display())));
            }
        }
    }
    if let Some(there) = [output, &masks].into_iter().find(|path| path.exists() && !options.force) {
        return Err(Failure::usage(format!(
            "{} is already there: choose another OUT, or replace it with --force",
            there.display()
        )));
    }
    Ok(masks)
}

/// `name.masks.safetensors` beside `name.safetensors`.
fn masks_path(output: &Path) -> PathBuf {
    output.with_extension("masks.safetensors")
}

/// A tensor of the file that is written.
struct Masked<'a> {
    files: &'a WeightFiles,
    masks: &'a MaskSet,
    name: &'a str,
    info: &'a TensorInfo,
    file: &'a Mutex<Totals>,
}

impl TensorBytes for Masked<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::from(self.info.dtype)
    }

    fn shape(&self) -> &[usize] {
        &self.info.shape
    }

    fn bytes(&self) -> io::Result<Cow<'_, [u8]>> {
        let tensor = self.files.read(self.name).map_err(io::Error::other)?;
        if let Some(mask) = self.masks.get(self.name) {
            // What a file gave is this tensor's alone; what is in memory may be shared, and is masked to the same.
            mask.apply_in_place(&tensor).map_err(io::Error::other)?;
        }
        if self.info.dtype.is_float() {
            let nonzero = inspect::nonzero(&tensor).map_err(io::Error::other)?;
            self.file.lock().unwrap_or_else(PoisonError::into_inner).add(nonzero.len(), nonzero.zeros());
        }
        tensor_bytes(&tensor).map(Cow::Owned)
    }
}

fn widened(tensor: Tensor) -> candle_core::Result<Tensor> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.to_dtype(DType::F32),
        _ => Ok(tensor),
    }
}

/// The masks of the tensors of these shapes, and those that were 0 throughout before.
fn select(
    criterion: &dyn Criterion,
    files: &WeightFiles,
    initial: Option<&WeightFiles>,
    shapes: &BTreeMap<String, Vec<usize>>,
    sparsity: f64,
    selection: &Selection,
) -> Result<(MaskSet, Vec<String>)> {
    let all_zero = Mutex::new(BTreeSet::new());
    let load = |name: &str| -> anyhow::Result<Streamed> {
        // Widened at once, so that the criterion holds no narrow copy beside its own.
        let weight = widened(files.read(name)?)?;
        let initial = match initial {
            Some(initial) if initial.tensors().contains_key(name) => Some(initial.read(name)?),
            _ => None,
        };
        let before: Mask = inspect::nonzero(&weight)?;
        if before.kept() == 0 && !before.is_empty() {
            all_zero.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        }
        let inputs = Inputs { initial: initial.as_ref(), previous: initial.as_ref(), ..Inputs::of(&weight) };
        Ok(Streamed { scores: criterion.score(name, &inputs)?, previous: Some(before) })
    };
    let masks = select_streamed(shapes, load, sparsity, selection).map_err(|error| {
        let cause = match &error {
            lth_mask::Error::Named { source, .. } => source,
            error => error,
        };
        match cause {
            lth_mask::Error::Scores(_) => Failure::new(crate::failure::Kind::Data, error),
            lth_mask::Error::Granularity { .. } => {
                Failure::usage(format!("{error}; leave such tensors out with --keep-dense"))
            }
            _ => Failure::new(crate::failure::Kind::Usage, error),
        }
    })?;
    let all_zero = all_zero.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((masks, all_zero.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn prune(folder: &Path, arguments: &str) -> Result {
        let here = |argument: &str| match argument.strip_prefix('@') {
            Some(name) => folder.join(name).into_os_string(),
            None => argument.into(),
        };
        let arguments = std::iter::once("prune".into()).chain(arguments.split_whitespace().map(here));
        run(&Command::try_parse_from(arguments).usage()?.options)
    }

    fn write_checkpoint(path: &Path) -> anyhow::Result<Weights> {
        let values = |n: usize| (0..n).map(move |i| ((i * 7919) % 101) as f32 - 50.5);
        let tensor = |shape: &[usize]| Tensor::from_iter(values(shape.iter().product()), &Device::Cpu)?.reshape(shape);
        let tensors = [
            ("conv.weight".to_owned(), tensor(&[8, 4, 3, 3])?),
            ("fc.weight".to_owned(), tensor(&[10, 8])?),
            ("fc.bias".to_owned(), tensor(&[10])?),
            ("steps".to_owned(), Tensor::new(&[[7i64]], &Device::Cpu)?),
        ];
        let weights = Weights { tensors: tensors.into(), ..Weights::default() };
        weights.write(path)?;
        Ok(weights)
    }

    #[test]
    fn masked_weights_and_masks_are_written_and_the_rest_is_kept() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let before = write_checkpoint(&folder.path().join("in.safetensors"))?;
        prune(folder.path(), "@in.safetensors @out.safetensors --sparsity 75% --keep-dense fc.*").expect("pruned");
        let after = Weights::read(&folder.path().join("out.safetensors"))?;
        let masks = MaskSet::load(folder.path().join("out.masks.safetensors"))?;
        assert_eq!(masks.iter().map(|(name, mask)| (name, mask.zeros())).collect::<Vec<_>>(), [("conv.weight", 216)]);
        let masked = masks.apply_to("conv.weight", &before.tensors["conv.weight"])?;
        assert_eq!(
            after.tensors["conv.weight"].flatten_all()?.to_vec1::<f32>()?,
            masked.flatten_all()?.to_vec1::<f32>()?
        );
        assert_eq!(after.tensors["fc.weight"].to_vec2::<f32>()?, before.tensors["fc.weight"].to_vec2::<f32>()?);
        assert_eq!(after.tensors["steps"].to_vec2::<i64>()?, [[7]]);
        assert_eq!(after.tensors["steps"].dtype(), DType::I64);
        Ok(())
    }

    #[test]
    fn merged_attention_is_pruned_and_the_whole_file_is_counted() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let tensor = |shape: &[usize]| {
            let n: usize = shape.iter().product();
            Tensor::from_iter((1..=n).map(|i| i as f32), &Device::Cpu)?.reshape(shape)
        };
        let tensors = [
            ("attn.in_proj_weight", tensor(&[30, 10])?),
            ("attn.out_proj.weight", tensor(&[10, 10])?),
            ("attn.out_proj.bias", tensor(&[10])?),
            ("pos_embed", tensor(&[1, 9, 10])?),
        ];
        let tensors = tensors.map(|(name, tensor)| (name.to_owned(), tensor)).into();
        Weights { tensors, ..Weights::default() }.write(&folder.path().join("in.safetensors"))?;
        prune(folder.path(), "@in.safetensors @out.safetensors --sparsity 90%").expect("pruned");
        let masks = MaskSet::load(folder.path().join("out.masks.safetensors"))?;
        assert_eq!((masks.weights(), masks.zeros()), (400, 360));
        let written = Weights::read(&folder.path().join("out.safetensors"))?;
        let zeros = |tensor: &Tensor| Ok::<_, anyhow::Error>(inspect::nonzero(tensor)?.zeros());
        assert_eq!(written.tensors.values().map(zeros).sum::<anyhow::Result<usize>>()?, 360);
        let layers = Layers::of(WeightFiles::from(written).tensors(), &Granularity::Weight);
        let left: Vec<_> = layers.left_out.iter().map(|left| left.name.as_str()).collect();
        assert_eq!(left, ["pos_embed"]);
        Ok(())
    }

    #[test]
    fn what_was_zero_stays_pruned_whatever_the_score() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        write_checkpoint(&folder.path().join("a.safetensors"))?;
        prune(folder.path(), "@a.safetensors @b.safetensors --sparsity 0.5").expect("pruned");
        prune(folder.path(), "@b.safetensors @c.safetensors --sparsity 0.8 --criterion small_final").expect("pruned");
        let masks = |name: &str| MaskSet::load(folder.path().join(name));
        let (b, c) = (masks("b.masks.safetensors")?, masks("c.masks.safetensors")?);
        assert!(c.is_nested_in(&b)?);
        assert_eq!((b.zeros(), c.zeros()), (144 + 40, 230 + 64));
        Ok(())
    }

    #[test]
    fn criteria_that_look_back_read_the_other_file() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut weights = write_checkpoint(&folder.path().join("now.safetensors"))?;
        for tensor in weights.tensors.values_mut().filter(|tensor| tensor.dtype() == DType::F32) {
            *tensor = tensor.affine(0.5, 0.)?;
        }
        weights.write(&folder.path().join("then.safetensors"))?;
        let command = "@now.safetensors @out.safetensors --sparsity 0.5 --criterion movement";
        let failure = prune(folder.path(), command).expect_err("nothing to look back at");
        assert!(failure.to_string().contains("--initial"), "{failure}");
        prune(folder.path(), &format!("{command} --initial @then.safetensors")).expect("pruned");
        assert_eq!(MaskSet::load(folder.path().join("out.masks.safetensors"))?.sparsity(), 0.5);
        Ok(())
    }

    #[test]
    fn wrong_use_says_what_would_be_right() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        write_checkpoint(&folder.path().join("in.safetensors"))?;
        write_checkpoint(&folder.path().join("there.safetensors"))?;
        for (arguments, expected) in [
            ("@in.safetensors @in.safetensors --sparsity 0.5 --force", "would be written over what is read"),
            ("@in.safetensors @there.safetensors --sparsity 0.5", "--force"),
            ("@in.safetensors @out.pth --sparsity 0.5", "ends in .safetensors"),
            ("@in.safetensors @out.safetensors --sparsity 0.5 --criterion snip", "large_final, squared_final"),
            ("@in.safetensors @out.safetensors --sparsity 0.5 --criterion smip", "expected one of"),
            ("@in.safetensors @out.safetensors --sparsity 0.5 --keep-dense fc", "conv.weight, fc.weight"),
            ("@in.safetensors @out.safetensors --sparsity 0.5 --keep-dense *", "nothing to prune"),
            ("@in.safetensors @out.safetensors --sparsity 0.5 --transposed deconv", "transposed has `deconv`"),
            ("@in.safetensors @out.safetensors --sparsity 0.5 --granularity filter", "--keep-dense"),
            ("@in.safetensors @out.safetensors --sparsity 0.9 --granularity 2:4 --keep-dense fc.*", "2:4"),
        ] {
            let failure = prune(folder.path(), arguments).expect_err(arguments);
            assert_eq!(failure.exit_code(), std::process::ExitCode::from(2), "{arguments}");
            assert!(failure.to_string().contains(expected), "{arguments}: {failure}");
        }
        assert!(
            !folder.path().join("out.safetensors").exists() && !folder.path().join("out.masks.safetensors").exists()
        );
        let failure = prune(folder.path(), "@none.safetensors @out.safetensors --sparsity 0.5").expect_err("no file");
        assert_eq!(failure.exit_code(), std::process::ExitCode::from(3));
        Ok(())
    }
}
