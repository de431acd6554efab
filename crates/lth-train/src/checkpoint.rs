//! A [`State`] as a file that tells whose it is and whether it is whole.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use lth_files::{Sha256, open_safetensors, sync_folder};
use serde::{Deserialize, Serialize};

use crate::safetensors_file::tensor_bytes;
use crate::{Counters, Error, HookState, State, save_safetensors};

/// The header's fields.
const INFO: &str = "lth_checkpoint";
const SHA256: &str = "sha256";
/// The number of the layout below.
const SCHEMA: u32 = 1;

/// Where a fit's states are written, and whose they are: at any moment the latest whole one and the one before it.
///
/// The file is safetensors: `parameters/NAME`, `masks/NAME`, `optimizer/NAME` and `hooks/NUMBER/NAME`, with everything
/// else as JSON in the header and the SHA-256 of it all beside it. A process that is killed while it writes leaves the
/// states of before.
///
/// ```
/// use std::collections::BTreeMap;
/// use candle_core::{DType, Device};
/// use lth_train::{Checkpoint, ModuleNetwork, Optimizer, OptimizerConfig, Trainer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("lth-checkpoint-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let varmap = candle_nn::VarMap::new();
/// let vb = candle_nn::VarBuilder::from_varmap(&varmap, DType::F32, &Device::Cpu);
/// let module = candle_nn::linear(3, 2, vb.pp("fc"))?;
/// let network = ModuleNetwork::new(module, &varmap)?;
/// let mut trainer = Trainer::new(network, Optimizer::new(OptimizerConfig::adam()), 42);
///
/// // Two runs are the same if these facts are.
/// let whose = BTreeMap::from([("data".to_owned(), "mnist".to_owned()), ("batch_size".to_owned(), "60".to_owned())]);
/// let checkpoint = Checkpoint::new(folder.join("checkpoint.safetensors"), whose);
/// checkpoint.write(&trainer.state()?)?; // in a fit: `checkpoint: Some(&|state| Ok(checkpoint.write(state)?))`
/// if let Some(state) = checkpoint.read()? {
///     trainer.restore(&state)?;
/// }
/// checkpoint.remove()?;
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    path: PathBuf,
    belongs_to: BTreeMap<String, String>,
}

/// What the header says.
#[derive(Serialize, Deserialize)]
struct Info {
    schema: u32,
    belongs_to: BTreeMap<String, String>,
    counters: Counters,
    /// By number.
    hooks: Vec<HookInfo>,
}

#[derive(Serialize, Deserialize)]
struct HookInfo {
    name: String,
    json: serde_json::Value,
}

impl Checkpoint {
    /// The file `path` of the run that these facts tell from all others, such as its configuration's hash, the data's, the
    /// split and the batch size. Nothing is read or written yet.
    pub fn new(path: impl Into<PathBuf>, belongs_to: BTreeMap<String, String>) -> Self {
        Self { path: path.into(), belongs_to }
    }

    /// The file of the latest state.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the state before: `NAME.previous`.
    #[must_use]
    pub fn previous(&self) -> PathBuf {
        self.beside(".previous")
    }

    /// Writes a state, whole or not at all; what was the latest is the previous one then.
    ///
    /// # Errors
    /// If a tensor cannot be brought to the CPU or a file not be written; the states that were there stay.
    pub fn write(&self, state: &State) -> Result<(), Error> {
        let tensors = flat(state);
        let hooks = state.hooks.iter().map(|(name, hook)| HookInfo { name: name.clone(), json: hook.json.clone() });
        let info = Info {
            schema: SCHEMA,
            belongs_to: self.belongs_to.clone(),
            counters: state.counters.clone(),
            hooks: hooks.collect(),
        };
        let cannot = |error: String| Error::State(format!("{} cannot be written: {error}", self.path.display()));
        let info = serde_json::to_string(&info).map_err(|error| cannot(error.to_string()))?;
        let sha256 = content_sha256(&tensors, &info).map_err(|error| cannot(error.to_string()))?;
        let metadata = BTreeMap::from([(INFO.to_owned(), info), (SHA256.to_owned(), sha256)]);
        // Under its own name first: between the two renames there is the previous one, and this.
        let next = self.beside(".next");
        save_safetensors(&next, &tensors, &metadata)?;
        rename_if_there(&self.path, &self.previous())?;
        rename_if_there(&next, &self.path)?;
        if let Some(folder) = self.path.parent() {
            sync_folder(folder);
        }
        Ok(())
    }

    /// The latest state that is whole; `None` if there is no file. A damaged file is passed over with a warning where the
    /// previous state is there.
    ///
    /// # Errors
    /// [`Error::OtherRun`] if the state is of another run, with the first fact that differs; [`Error::DamagedCheckpoint`]
    /// if no file is whole; [`Error::Files`] if one cannot be read.
    pub fn read(&self) -> Result<Option<State>, Error> {
        let mut damaged = None;
        for path in [self.path.clone(), self.previous()] {
            match self.read_file(&path) {
                Ok(Some(state)) => return Ok(Some(state)),
                Ok(None) => {}
                Err(error @ Error::DamagedCheckpoint { .. }) => {
                    tracing::warn!("{error}");
                    damaged.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        damaged.map_or(Ok(None), Err)
    }

    /// Removes the files, where they are there.
    ///
    /// # Errors
    /// [`Error::Files`] if one cannot be removed.
    pub fn remove(&self) -> Result<(), Error> {
        for path in [self.path.clone(), self.previous(), self.beside(".next")] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(lth_files::Error::io("remove", &path)(error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        self.path.with_file_name(name)
    }

    fn read_file(&self, path: &Path) -> Result<Option<State>, Error> {
        let bytes = match std::fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(lth_files::Error::io("read", path))?,
        };
        let damaged = |reason: String| Error::DamagedCheckpoint { path: path.to_owned(), reason };
        let (metadata, _) = open_safetensors(&bytes).map_err(|error| damaged(error.to_string()))?;
        let field = |name: &str| metadata.get(name).ok_or_else(|| damaged(format!("its header has no `{name}`")));
        let (text, sha256) = (field(INFO)?, field(SHA256)?);
        let tensors: BTreeMap<String, Tensor> = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|error| damaged(crate::without_backtrace(error).to_string()))?
            .into_iter()
            .collect();
        drop(bytes);
        let content = content_sha256(&tensors, text).map_err(|error| damaged(error.to_string()))?;
        if content != *sha256 {
            return Err(damaged("its content is not what its checksum says".to_owned()));
        }
        let info: Info = serde_json::from_str(text).map_err(|error| {
            // Whole, and yet not to be understood: of another version.
            damaged(format!("its header cannot be read ({error}); this program writes schema {SCHEMA}"))
        })?;
        if info.schema != SCHEMA {
            return Err(damaged(format!("it has schema {}, this program reads {SCHEMA}", info.schema)));
        }
        self.check_same_run(path, &info.belongs_to)?;
        unflat(tensors, info).map(Some).map_err(damaged)
    }

    fn check_same_run(&self, path: &Path, got: &BTreeMap<String, String>) -> Result<(), Error> {
        let names = self.belongs_to.keys().chain(got.keys());
        for name in names {
            let (got, expected) = (got.get(name), self.belongs_to.get(name));
            if got != expected {
                let text = |value: Option<&String>| value.map_or_else(|| "not said".to_owned(), Clone::clone);
                return Err(Error::OtherRun {
                    path: path.to_owned(),
                    what: name.clone(),
                    got: text(got),
                    expected: text(expected),
                });
            }
        }
        Ok(())
    }
}

/// All tensors by their names in the file.
fn flat(state: &State) -> BTreeMap<String, Tensor> {
    let mut all = BTreeMap::new();
    for (kind, tensors) in [("parameters", &state.parameters), ("masks", &state.masks), ("optimizer", &state.optimizer)]
    {
        all.extend(tensors.iter().map(|(name, tensor)| (format!("{kind}/{name}"), tensor.clone())));
    }
    for (number, hook) in state.hooks.values().enumerate() {
        all.extend(hook.tensors.iter().map(|(name, tensor)| (format!("hooks/{number}/{name}"), tensor.clone())));
    }
    all
}

fn unflat(tensors: BTreeMap<String, Tensor>, info: Info) -> Result<State, String> {
    let mut state = State {
        parameters: BTreeMap::new(),
        masks: BTreeMap::new(),
        optimizer: BTreeMap::new(),
        hooks: BTreeMap::new(),
        counters: info.counters,
    };
    let names: Vec<String> = info.hooks.iter().map(|hook| hook.name.clone()).collect();
    for HookInfo { name, json } in info.hooks {
        state.hooks.insert(name, HookState { tensors: BTreeMap::new(), json });
    }
    for (name, tensor) in tensors {
        let unknown = || format!("it has a tensor `{name}`, which is no part of a state");
        let (kind, rest) = name.split_once('/').ok_or_else(unknown)?;
        let (into, rest) = match kind {
            "parameters" => (&mut state.parameters, rest),
            "masks" => (&mut state.masks, rest),
            "optimizer" => (&mut state.optimizer, rest),
            "hooks" => {
                let (number, rest) = rest.split_once('/').ok_or_else(unknown)?;
                let hook = number.parse().ok().and_then(|number: usize| names.get(number)).ok_or_else(unknown)?;
                (&mut state.hooks.get_mut(hook).ok_or_else(unknown)?.tensors, rest)
            }
            _ => return Err(unknown()),
        };
        into.insert(rest.to_owned(), tensor);
    }
    Ok(state)
}

/// Of the header's JSON and of every tensor's name, type, shape and bytes.
fn content_sha256(tensors: &BTreeMap<String, Tensor>, info: &str) -> std::io::Result<String> {
    let mut sha256 = Sha256::new();
    sha256.field(info.as_bytes());
    for (name, tensor) in tensors {
        sha256.field(name.as_bytes());
        sha256.field(tensor.dtype().as_str().as_bytes());
        sha256.field(format!("{:?}", tensor.dims()).as_bytes());
        sha256.field(&tensor_bytes(tensor)?);
    }
    Ok(sha256.finish())
}

fn rename_if_there(from: &Path, to: &Path) -> Result<(), Error> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(lth_files::Error::io("rename", from)(error).into()),
        _ => Ok(()),
    }
}
