//! Writes a corpus for every target from files of the tests: `cargo run --bin seeds`, or with `--no-default-features` where
//! candle is not wanted. `cargo run --bin seeds -- runs/…` adds the files of an experiment's folder.

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = |target: &str, folder: &str, ends: &[&str]| -> std::io::Result<()> {
        let corpus = root.join("corpus").join(target);
        fs::create_dir_all(&corpus)?;
        for entry in fs::read_dir(root.join("..").join(folder))? {
            let path = entry?.path();
            if let Some(name) = path.file_name().and_then(|name| name.to_str())
                && ends.iter().any(|end| name.ends_with(end))
            {
                fs::copy(&path, corpus.join(name))?;
            }
        }
        Ok(())
    };
    let write = |target: &str, name: &str, bytes: &[u8]| -> std::io::Result<()> {
        let corpus = root.join("corpus").join(target);
        fs::create_dir_all(&corpus)?;
        fs::write(corpus.join(name), bytes)
    };
    copy("picture", "crates/lth-data/tests/golden/pictures", &["jpg", "png", "gif", "bmp", "webp"])?;
    copy("weights", "crates/lth-nn/tests/golden", &[".pth"])?;
    let mut file = Vec::new();
    let weight = lth_files::RawTensor { dtype: lth_files::Dtype::F32, shape: vec![2], data: vec![0; 8].into() };
    let fields = [("format".to_owned(), "pt".to_owned())].into();
    lth_files::write_safetensors(&mut file, &[("fc.weight".to_owned(), weight)].into(), &fields)?;
    for target in ["safetensors", "weights", "masks", "ticket", "checkpoint"] {
        write(target, "small.safetensors", &file)?;
    }
    write("weights", "index.json", br#"{"weight_map": {"fc.weight": "file"}}"#)?;
    write("summary", "empty.json", br#"{"schema": 2, "experiment": {}, "fits": []}"#)?;
    write("idx", "labels", &[0, 0, 8, 1, 0, 0, 0, 2, 7, 2])?;
    write("pets_list", "list.txt", b"#Image CLASS-ID SPECIES BREED ID\nAbyssinian_1 1 1 1\nbeagle_2 2 2 1\n")?;
    write("records", "line.jsonl", br#"{"fit": "dense/0/0", "step": 1, "epoch": 1.0, "train_loss": 0.5}"#)?;
    let mut name = [0; 512];
    name[..7].copy_from_slice(b"a/x.gif");
    write("archive", "header.tar", &name)?;
    write("cifar", "header.tar", &name)?;
    if let Some(experiment) = std::env::args_os().nth(1) {
        of_experiment(Path::new(&experiment), &write)?;
    }
    #[cfg(feature = "plan")]
    if let Ok(experiment) = lth_experiment::preset("lenet-digits")
        && let Ok(text) = toml::to_string(&experiment)
    {
        write("plan", "lenet-digits.toml", text.as_bytes())?;
    }
    Ok(())
}

/// Longer files are no seeds: most changes of them change nothing that is read closely.
const MOST: usize = 64 << 10;

/// Every file under a name of its own, for those who read such files.
fn of_experiment(folder: &Path, write: &dyn Fn(&str, &str, &[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            of_experiment(&path, write)?;
            continue;
        }
        let readers: &[&str] = match path.file_name().and_then(|name| name.to_str()).unwrap_or_default() {
            "summary.json" => &["summary"],
            "experiment.json" | "record.json" | "path.json" | "metrics.jsonl" => &["records"],
            name if name.starts_with("checkpoint") => &["checkpoint", "safetensors"],
            name if name.ends_with(".safetensors") => &["ticket", "weights", "masks", "safetensors"],
            _ => &[],
        };
        let bytes = fs::read(&path)?;
        let name = lth_files::sha256(&bytes);
        // Lines count one by one.
        let some = if path.ends_with("metrics.jsonl") { &bytes[..bytes.len().min(1 << 10)] } else { &bytes[..] };
        for reader in readers.iter().filter(|_| some.len() <= MOST) {
            write(reader, &name[..16], some)?;
        }
    }
    Ok(())
}
