//! What an experiment's folder has on record: its configuration, fits, paths, and lines of figures.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;

use lth_runs::experiment::{ExperimentDir, ExperimentReader, ExperimentRecord};
use lth_runs::{Address, Error, Existing};

fuzz_target!(|bytes: &[u8]| {
    lth_fuzz::with_file(bytes, |path| {
        let folder = path.with_file_name("run");
        let address = Address::new("dense", 0, 0);
        let experiment =
            ExperimentRecord { name: "imp".into(), identity: "0".repeat(64), config: serde_json::Value::Null };
        let mut dir = ExperimentDir::open(&folder, experiment, Existing::Refuse)?;
        let (fit, _) = dir.prepare_file(&address, "trained.safetensors")?;
        for name in ["record.json", "path.json"] {
            fs::copy(path, fit.with_file_name(name)).expect("a small file");
        }
        fs::copy(path, folder.join("metrics.jsonl")).expect("a small file");
        let figures = dir.drop_lines_after(&address, 0);
        drop(dir);
        fs::copy(path, folder.join("experiment.json")).expect("a small file");
        let reader = ExperimentReader::new(&folder);
        let (record, way) = (reader.record(&address), reader.path_record(&address));
        // A message of each, which is looked at.
        let all = [figures.err(), record.err(), way.err(), reader.experiment().err()];
        let said: Vec<String> = all.iter().flatten().map(ToString::to_string).collect();
        assert!(!said.iter().any(|said| said.contains(char::is_control)), "{said:?}");
        Ok::<_, Error>(())
    });
});
