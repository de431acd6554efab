//! A Python process that runs PyTorch and SparseProp, and answers one request at a time.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

use super::options::{Engine, Figure};

const SCRIPT: &str = include_str!("torch_bench.py");

pub(crate) struct Torch {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    n_jobs: u64,
    /// What it runs: package → version.
    pub(crate) versions: BTreeMap<String, String>,
}

/// An answer; which fields it has depends on the request.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: Option<String>,
    versions: BTreeMap<String, String>,
    ms: Vec<f64>,
    bytes: Option<u64>,
}

impl Torch {
    /// Starts the interpreter, which imports torch.
    pub(crate) fn start(python: &Path, threads: u32) -> anyhow::Result<Self> {
        let mut command = Command::new(python);
        command.args(["-c", SCRIPT, &threads.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        // SparseProp asks OpenMP, which reads the environment when it is loaded.
        for variable in ["OMP_NUM_THREADS", "MKL_NUM_THREADS"] {
            command.env(variable, threads.to_string());
        }
        let mut child = command.spawn().with_context(|| format!("starting `{}`", python.display()))?;
        let (requests, answers) = (child.stdin.take(), child.stdout.take().context("no pipe from the child")?);
        let mut torch =
            Self { child, requests, answers: BufReader::new(answers), n_jobs: 0, versions: BTreeMap::new() };
        torch.versions = torch.ask(&json!({ "op": "hello" }))?.versions;
        Ok(torch)
    }

    pub(crate) fn has_sparseprop(&self) -> bool {
        self.versions.contains_key("sparseprop")
    }

    /// Makes a job and returns its number.
    pub(crate) fn build(&mut self, figure: Figure, engine: Engine, sparsity: f64) -> anyhow::Result<u64> {
        let id = self.n_jobs;
        self.n_jobs += 1;
        let request = json!({
            "op": "build", "id": id, "engine": engine.name(), "figure": figure.name(), "sparsity": sparsity,
        });
        self.ask(&request).with_context(|| format!("building {} of {}", figure.name(), engine.name()))?;
        Ok(id)
    }

    /// The milliseconds of `samples` steps after `warmup` others.
    pub(crate) fn turn(&mut self, id: u64, (warmup, samples): (usize, usize)) -> anyhow::Result<Vec<f64>> {
        Ok(self.ask(&json!({ "op": "turn", "id": id, "warmup": warmup, "samples": samples }))?.ms)
    }

    pub(crate) fn drop_job(&mut self, id: u64) -> anyhow::Result<()> {
        self.ask(&json!({ "op": "drop", "id": id })).map(drop)
    }

    /// The peak memory of the process so far in bytes.
    pub(crate) fn peak(&mut self) -> anyhow::Result<Option<u64>> {
        Ok(self.ask(&json!({ "op": "peak" }))?.bytes)
    }

    fn ask(&mut self, request: &Value) -> anyhow::Result<Answer> {
        let requests = self.requests.as_mut().context("the Python process was stopped")?;
        let gone = "the Python process ended; standard error says why";
        writeln!(requests, "{request}").and_then(|()| requests.flush()).context(gone)?;
        let mut line = String::new();
        anyhow::ensure!(self.answers.read_line(&mut line)? > 0, "{gone}");
        let answer: Answer = serde_json::from_str(&line).context("the Python process gave no JSON")?;
        match answer.error {
            Some(error) => anyhow::bail!("Python: {error}"),
            None => Ok(answer),
        }
    }
}

impl Drop for Torch {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.requests = None;
        let _ended = self.child.wait();
    }
}
