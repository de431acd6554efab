//! Writes a corpus for every target from files of the tests: `cargo run --bin seeds`, or with `--no-default-features` where
//! candle is not wanted.

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
    #[cfg(feature = "plan")]
    if let Ok(experiment) = lth_experiment::preset("lenet-digits")
        && let Ok(text) = toml::to_string(&experiment)
    {
        write("plan", "lenet-digits.toml", text.as_bytes())?;
    }
    Ok(())
}
