//! The commands as a person or a script runs them: files and servers that mean harm, output that nobody takes, exit codes.
#![cfg(unix)]
#![allow(clippy::print_stderr)] // a test says what it could not check

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use candle_core::{Device, Tensor};
use lth_data::toy_pets::ToyPets;
use lth_nn::Weights;

#[path = "commands/cache.rs"]
mod cache;
#[path = "commands/cluster.rs"]
mod cluster;
#[path = "commands/looking.rs"]
mod looking;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Five fits of a moment.
const SHORT: &str = "--weights none --epochs 1,2,1,2,1 --no-controls --image-size 32 --batch-size 8 --threads 1";

/// The program in `folder`, with its cache there, without a proxy and without the hub.
fn lth(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lth"));
    command.args(arguments.split_whitespace()).current_dir(folder).stdin(Stdio::null());
    command.env("LTH_CACHE", folder.join("cache")).env("HF_HUB_OFFLINE", "1").env("NO_PROXY", "*");
    command.env_remove("RUST_BACKTRACE").env_remove("LTH_LOG");
    for scheduler in ["SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MAX", "JOB_COMPLETION_INDEX"] {
        command.env_remove(scheduler);
    }
    command
}

fn run(folder: &Path, arguments: &str) -> Result<Output> {
    Ok(lth(folder, arguments).output()?)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The exit code, and the last line of standard error.
#[track_caller]
fn check(output: &Output, code: i32, expected: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(said.lines().last().unwrap_or_default().contains(expected), "{said}");
}

/// Every file below `folder`.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

/// A folder with a few drawn pets in it, laid out as PETS.
fn pets(folder: &Path) -> Result {
    let toys = ToyPets { pictures: 24, ..ToyPets::default() };
    toys.write_to(&folder.join("pets"), &|_, _| {})?;
    Ok(())
}

/// Answers every request by a function of its path: status line, further headers, body. Ends with the process.
fn serve(answer: impl Fn(&str) -> (&'static str, &'static str, Vec<u8>) + Send + 'static) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let path = request(&stream).unwrap_or_default();
            let (status, headers, body) = answer(&path);
            let head =
                format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    Ok(address.to_string())
}

fn request(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    lines.map_while(std::io::Result::ok).find(String::is_empty)?;
    Some(path)
}

/// Two archives, as the makers of PETS have them, of the pets in `folder`.
fn archives(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let archive = |name: &str| -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir_all(name, folder.join("pets").join(name))?;
        Ok(archive.into_inner()?)
    };
    std::fs::create_dir_all(folder.join("pets/annotations"))?;
    ["images", "annotations"].into_iter().map(|name| Ok((format!("/{name}.tar.gz"), archive(name)?))).collect()
}

fn checkpoint(path: &Path) -> Result {
    let values: Vec<f32> = (1..=64).map(|i| i as f32).collect();
    let tensor = |values: &[f32]| Tensor::from_slice(values, (8, values.len() / 8), &Device::Cpu);
    let tensors = [
        ("a.weight_orig".to_owned(), tensor(&values)?),
        ("a.weight_mask".to_owned(), tensor(&values.iter().map(|v| f32::from(*v > 16.)).collect::<Vec<_>>())?),
        ("lora_B.weight".to_owned(), tensor(&[0.; 16])?),
    ];
    Ok(Weights { tensors: tensors.into(), ..Weights::default() }.write(path)?)
}

/// The identity of every network that a short run of all fits leaves, controls aside: what moves a bit of training moves
/// one of these. They are pinned for the instruction sets that they were made on; sums differ between those.
#[test]
fn a_short_run_leaves_the_same_weights_to_the_bit() -> Result {
    let folder = tempfile::tempdir()?;
    pets(folder.path())?;
    let command = format!("reproduce --data-dir pets {SHORT} --out run");
    check(&run(folder.path(), &command)?, 0, "");
    // A network that is gone is trained again, from what it was trained from.
    std::fs::remove_file(folder.path().join("run/fits/ticket/level-02/seed-42/trained.safetensors"))?;
    check(&run(folder.path(), &command)?, 0, "");
    let mut contents = BTreeMap::new();
    for path in files(&folder.path().join("run"))? {
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = std::fs::read(&path)?;
            let (_, header) = safetensors::SafeTensors::read_metadata(&bytes)?;
            if let Some(content) = header.metadata().as_ref().and_then(|metadata| metadata.get("content_sha256")) {
                let name = path.strip_prefix(folder.path().join("run"))?.display().to_string();
                contents.insert(name, content.clone());
            }
        }
    }
    let made_on = format!("{:?}", lth_kernels::InstructionSet::detect());
    let pinned: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(include_str!("golden/weights.json"))?;
    match pinned.get(&made_on) {
        Some(pinned) => assert_eq!(contents, *pinned),
        None => eprintln!("no weights are pinned for {made_on}: {}", serde_json::to_string_pretty(&contents)?),
    }
    assert_eq!(contents.len(), 9, "{contents:?}");

    // A search's ticket is what the next fit trains from: it is on the disk once, and its mask takes a bit a weight.
    use std::os::unix::fs::MetadataExt;
    let of = |name: &str| std::fs::metadata(folder.path().join("run/fits").join(name));
    for level in ["level-01", "level-02"] {
        let (search, ticket) = (format!("search/{level}/seed-42"), format!("ticket/{level}/seed-42"));
        let found = of(&format!("{search}/ticket.safetensors"))?;
        assert_eq!(found.ino(), of(&format!("{ticket}/ticket.safetensors"))?.ino(), "{level}");
        assert!(found.len() < of("dense/level-00/seed-42/trained.safetensors")?.len() * 3 / 5, "{level}");
    }
    Ok(())
}

#[test]
fn a_ticket_is_expanded_to_what_other_software_loads_and_back() -> Result {
    let folder = tempfile::tempdir()?;
    let found =
        run(folder.path(), "imp --levels 1 --seeds 1 --arms none --length 1ep --threads 1 --out run --tensorboard")?;
    check(&found, 0, "");
    let fit = folder.path().join("run/fits/ticket/level-01/seed-0");
    let ticket = fit.join("trained.safetensors");
    check(&run(folder.path(), &format!("expand {} plain.safetensors", ticket.display()))?, 0, "");
    let [compact, plain] = [&ticket, &folder.path().join("plain.safetensors")].map(std::fs::read);
    let names = |bytes: &[u8]| -> Result<Vec<String>> {
        let mut names: Vec<String> =
            safetensors::SafeTensors::deserialize(bytes)?.names().into_iter().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    };
    let plain = plain?;
    assert_eq!(names(&plain)?, ["fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight", "fc3.bias", "fc3.weight"]);
    assert!(names(&compact?)?.contains(&"bits/fc1.weight".to_owned()));
    // Three layers of 64 inputs, 300, 100 and 10 outputs, as candle's own loader sees them.
    let tensors = candle_core::safetensors::load_buffer(&plain, &Device::Cpu)?;
    assert_eq!(tensors["fc1.weight"].dims(), [300, 64]);
    let nonzero = tensors["fc1.weight"].ne(0f32)?.to_dtype(candle_core::DType::F32)?.sum_all()?.to_scalar::<f32>()?;
    assert_eq!(nonzero, 0.6 * 300.0 * 64.0);
    // Back again it is the same file.
    check(&run(folder.path(), "expand plain.safetensors compact.safetensors --compact")?, 0, "");
    assert_eq!(std::fs::read(folder.path().join("compact.safetensors"))?, std::fs::read(&ticket)?);
    check(&run(folder.path(), "expand plain.safetensors compact.safetensors")?, 2, "is there already");

    // What is there can be shown, and has what was asked for.
    let shown = run(folder.path(), "show run ticket/1/0")?;
    check(&shown, 0, "");
    let text = String::from_utf8(shown.stdout)?;
    for said in ["starts from    initial weights", "ended          done", "fc1.weight   19,200", "trained.safetensors"]
    {
        assert!(text.contains(said), "{said}: {text}");
    }
    check(
        &run(folder.path(), "show run ticket/2/0")?,
        2,
        "there is no fit ticket/2/0; there are dense/0, ticket/1; seeds 0",
    );
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.path().join("run/summary.json"))?)?;
    assert_eq!(summary["dataset"]["splits"]["0"].as_str().map(str::len), Some(64));
    let build = &summary["builds"][0];
    assert_eq!(build["software"], "lth 0.1.0");
    assert!(build["compiler"].as_str().is_some_and(|text| text.starts_with("rustc ")), "{build}");
    assert!(build["candle"].as_str().is_some_and(|text| text.starts_with("0.11")), "{build}");
    assert!(files(&fit)?.iter().any(|path| path.display().to_string().contains("events.out.tfevents.")));
    // The report is made again as it was, without the data.
    let report = folder.path().join("run/report.html");
    let before = std::fs::read(&report)?;
    std::fs::remove_dir_all(folder.path().join("cache")).ok();
    std::fs::write(&report, b"")?;
    check(&run(folder.path(), "report run")?, 0, "");
    assert_eq!(std::fs::read(&report)?, before);
    Ok(())
}

#[test]
fn a_run_that_is_killed_again_and_again_ends_with_the_same_bits() -> Result {
    let folder = tempfile::tempdir()?;
    let command = "imp --preset lenet-digits --levels 2 --arms agp,rigl --seeds 1 --length 4ep --threads 1";
    let whole = run(folder.path(), &format!("{command} --out whole"))?;
    assert_eq!(whole.status.code(), Some(0), "{}", stderr(&whole));
    // At every step a checkpoint: also a process that lives for a moment gets on.
    let cut = format!("{command} --out cut --checkpoint-every 0");
    let (mut n_kills, mut n_resumed) = (0, 0);
    for moment in 0..40 {
        let mut child = lth(folder.path(), &cut).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        std::thread::sleep(std::time::Duration::from_millis(60 + 23 * (moment * 7 % 11)));
        // SIGKILL: nothing can be tidied up.
        child.kill()?;
        let output = child.wait_with_output()?;
        n_resumed += stderr(&output).matches("goes on from its checkpoint").count();
        n_kills += usize::from(output.status.code().is_none());
    }
    let rest = run(folder.path(), &cut)?;
    assert_eq!(rest.status.code(), Some(0), "{}", stderr(&rest));
    assert!(n_kills > 0 && n_resumed > 0, "{n_kills} killed, {n_resumed} resumed");
    let contents = |out: &str| -> Result<BTreeMap<String, Vec<u8>>> {
        let out = folder.path().join(out);
        let networks = files(&out)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "safetensors"));
        networks
            .map(|path| Ok((path.strip_prefix(&out)?.display().to_string(), std::fs::read(&path)?)))
            .collect::<Result<_>>()
    };
    let (whole, cut) = (contents("whole")?, contents("cut")?);
    assert_eq!(whole.keys().collect::<Vec<_>>(), cut.keys().collect::<Vec<_>>());
    for (name, bytes) in &whole {
        assert!(cut[name] == *bytes, "{name} after {n_kills} kills");
    }
    Ok(())
}

#[test]
fn a_narrower_network_is_an_experiment_of_its_own_and_is_inferred_with() -> Result {
    let folder = tempfile::tempdir()?;
    pets(folder.path())?;
    let train = |more: &str| run(folder.path(), &format!("reproduce --data-dir pets {SHORT} {more} --out run"));
    check(&train("--width 4")?, 0, "");
    check(&train("--width 8")?, 2, "another experiment");
    let picture = std::fs::read_dir(folder.path().join("pets/images"))?.flatten().map(|entry| entry.path()).next();
    let picture = picture.ok_or("a picture was drawn")?.display().to_string();
    let network = "run/fits/ticket/level-02/seed-42/trained.safetensors";
    let answer = run(folder.path(), &format!("infer {network} {picture} --json"))?;
    check(&answer, 0, "");
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&answer.stdout)?.as_array().map(Vec::len), Some(1));
    Ok(())
}

#[test]
fn the_figures_of_a_report_are_files_that_stand_alone() -> Result {
    let folder = tempfile::tempdir()?;
    let short = "imp --preset lenet-digits --seeds 1 --levels 1 --arms none --length 1ep --out run";
    check(&run(folder.path(), short)?, 0, "");
    check(&run(folder.path(), "report --figures run")?, 0, "");
    let figure = std::fs::read_to_string(folder.path().join("run/figures/test-accuracy-on-digits.svg"))?;
    assert!(figure.starts_with("<svg") && figure.contains("xmlns=") && figure.contains(".lth-figure{"), "{figure}");
    Ok(())
}

#[test]
fn a_run_through_a_mirror_keeps_no_password_and_says_what_was_checked() -> Result {
    let folder = tempfile::tempdir()?;
    pets(folder.path())?;
    let archives = archives(folder.path())?;
    let sums: String =
        archives.iter().map(|(path, bytes)| format!("{}  {}\n", lth_files::sha256(bytes), &path[1..])).collect();
    let mut served = archives;
    served.insert("/SHA256SUMS".to_owned(), sums.into_bytes());
    let address = serve(move |path| match served.get(path) {
        Some(bytes) => ("200 OK", "", bytes.clone()),
        None => ("403 Forbidden", "", Vec::new()),
    })?;
    let mirror = format!("http://me:pass-1234@{address}");
    let output = run(folder.path(), &format!("reproduce --mirror {mirror} {SHORT} --out run --json"))?;
    check(&output, 0, "report: ");

    let summary: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(summary["dataset"]["mirror"]["url"], format!("http://{address}"));
    assert_eq!(summary["dataset"]["checked"], "mirror");
    assert_eq!(summary["dataset"]["files"][0]["checked"], "the mirror's checksum");
    for path in files(folder.path())? {
        let bytes = std::fs::read(&path)?;
        assert!(!bytes.windows(9).any(|part| part == b"pass-1234"), "{}", path.display());
    }
    let said = format!("{}{}", stderr(&output), String::from_utf8_lossy(&output.stdout));
    assert!(!said.contains("pass-1234"), "{said}");

    // The tickets name the data by what they hold.
    let expected = summary["dataset"]["checksum"].as_str().ok_or("the data have no checksum")?.to_owned();
    let ticket = folder.path().join("run/fits/ticket/level-01/seed-42/ticket.safetensors");
    let inspected = run(folder.path(), &format!("inspect {}", ticket.display()))?;
    let text = String::from_utf8_lossy(&inspected.stdout).into_owned();
    assert!(text.contains(&format!("pets, SHA-256 {expected}")), "{text}");
    // The files that the help names are there.
    let help = String::from_utf8(run(folder.path(), "inspect --help")?.stdout)?;
    let named = help.split_whitespace().filter_map(|word| word.strip_prefix("runs/toy-pets-5f0c1a2b/"));
    let named: Vec<&str> = named.collect();
    assert_eq!(named.len(), 1, "{help}");
    for name in named {
        assert!(folder.path().join("run").join(name).is_file(), "{name}");
    }
    // A ticket is one file: it can go anywhere by itself.
    let alone = folder.path().join("alone.safetensors");
    std::fs::copy(&ticket, &alone)?;
    let inspected = run(folder.path(), "inspect alone.safetensors --json")?;
    check(&inspected, 0, "");
    let report: serde_json::Value = serde_json::from_slice(&inspected.stdout)?;
    assert_eq!(report["kind"], "ticket");
    assert!(report["masks"]["zeros"].as_u64() > Some(0), "{}", report["masks"]);
    Ok(())
}

#[test]
fn progress_that_cannot_be_shown_ends_no_training() -> Result {
    let folder = tempfile::tempdir()?;
    pets(folder.path())?;
    let command = |out: &str| lth(folder.path(), &format!("reproduce --data-dir pets {SHORT} --json --out {out}"));
    let full = command("full").stderr(File::options().write(true).open("/dev/full")?).output()?;
    assert_eq!(full.status.code(), Some(0));
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let closed = command("closed").stderr(writer).output()?;
    assert_eq!(closed.status.code(), Some(0));
    for (output, out) in [(full, "full"), (closed, "closed")] {
        let written: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.path().join(out).join("summary.json"))?)?;
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&output.stdout)?, written);
        assert_eq!(written["fits"].as_array().map(Vec::len), Some(5));
    }
    Ok(())
}

#[test]
fn results_that_cannot_be_written_are_an_error() -> Result {
    let folder = tempfile::tempdir()?;
    checkpoint(&folder.path().join("a.safetensors"))?;
    let full = || File::options().write(true).open("/dev/full");
    let commands = [
        "inspect a.safetensors --json",
        "inspect a.safetensors",
        "prune a.safetensors b.safetensors --sparsity 0.9 --json",
    ];
    for arguments in commands {
        let output = lth(folder.path(), arguments).stdout(full()?).output()?;
        check(&output, 3, "error: the results could not be written to standard output: No space left on device");
    }
    assert!(folder.path().join("b.safetensors").is_file(), "what was computed is kept");
    assert_eq!(lth(folder.path(), "--help").stdout(full()?).output()?.status.code(), Some(3));
    // A reader who has seen enough of a text is none; half a JSON text is.
    let gone = |arguments: &str| -> Result<Output> {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        Ok(lth(folder.path(), arguments).stdout(writer).output()?)
    };
    check(&gone("inspect a.safetensors")?, 0, "");
    check(&gone("inspect a.safetensors --json")?, 3, "Broken pipe");
    Ok(())
}

#[test]
fn places_near_the_largest_number_are_an_error_in_every_command() -> Result {
    let folder = tempfile::tempdir()?;
    pets(folder.path())?;
    let size = (1u64 << 61) - 1;
    let tensors: Vec<String> = (0..8u64)
        .map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{},{}]}}"#, i * size, (i + 1) * size))
        .collect();
    let metadata = [
        ("plain", String::new()),
        ("ticket", r#""__metadata__":{"stage":"trained","content_sha256":""},"#.to_owned()),
        ("masks", r#""__metadata__":{"lth-mask":"{}"},"#.to_owned()),
    ];
    for (name, fields) in metadata {
        let header = format!("{{{fields}{}}}", tensors.join(","));
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        std::fs::write(folder.path().join(format!("{name}.safetensors")), bytes)?;
        for arguments in [
            format!("inspect {name}.safetensors"),
            format!("prune {name}.safetensors out.safetensors --sparsity 0.5"),
            format!("infer {name}.safetensors picture.jpg"),
            format!("reproduce --data-dir pets {SHORT} --weights {name}.safetensors --out run")
                .replace("--weights none", ""),
        ] {
            check(&run(folder.path(), &arguments)?, 3, &format!("{name}.safetensors"));
        }
    }
    assert!(!folder.path().join("run").exists() && !folder.path().join("out.safetensors").exists());
    Ok(())
}

/// A small pickle of which every tensor refers to one name of a megabyte: copied for each, that is many gigabytes.
#[cfg(target_os = "linux")]
#[test]
fn a_small_checkpoint_takes_little_memory() -> Result {
    let folder = tempfile::tempdir()?;
    let text = |text: &[u8]| [b"X", &(text.len() as u32).to_le_bytes()[..], text].concat();
    // Remembered: 0 the key, 1 the class, 2 the function, 3 an empty tuple, 4 the storage.
    let key = [text(&vec![b'k'; 1 << 20]), b"q\x000".to_vec()].concat();
    let class = [b"c", &vec![b'm'; 1 << 20][..], b"\nFloatStorage\nq\x010"].concat();
    let function = b"ctorch._utils\n_rebuild_tensor_v2\nq\x020)q\x030".to_vec();
    let storage =
        [b"(".to_vec(), text(b"storage"), b"h\x01h\x00".to_vec(), text(b"cpu"), b"K\x02tq\x040".to_vec()].concat();
    let mut entries = Vec::new();
    for i in 0..20_000u32 {
        entries.extend(text(i.to_string().as_bytes()));
        entries.extend(b"h\x02(h\x04QK\x00h\x03h\x03\x89}tR");
    }
    let memo = [key, class, function, storage].concat();
    let pickle = [b"\x80\x02".to_vec(), memo, b"}(".to_vec(), entries, b"u.".to_vec()].concat();
    // The format before the zip one: magic number, version, system, the object, the keys of the storages.
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let bytes = [&magic[..], b"\x80\x02M\xe9\x03.", b"\x80\x02}.", &pickle, b"\x80\x02]."].concat();
    std::fs::write(folder.path().join("many.pth"), bytes)?;
    let limited = format!("ulimit -v 2000000; exec {} inspect many.pth", env!("CARGO_BIN_EXE_lth"));
    let output = Command::new("sh").args(["-c", &limited]).current_dir(folder.path()).output()?;
    check(&output, 0, "");
    assert!(String::from_utf8_lossy(&output.stdout).contains("is of no type that can be read"));
    // An object for every byte.
    let objects = [&magic[..], b"\x80\x02M\xe9\x03.", b"\x80\x02}.", b"\x80\x02", &vec![b'}'; 64 << 20], b"."].concat();
    std::fs::write(folder.path().join("many.pth"), objects)?;
    let output = Command::new("sh").args(["-c", &limited]).current_dir(folder.path()).output()?;
    check(&output, 3, "it describes more than");
    Ok(())
}

#[test]
fn a_network_that_fails_is_not_wrong_usage() -> Result {
    let folder = tempfile::tempdir()?;
    let closed = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let answering = |status: &'static str| serve(move |_| (status, "Retry-After: 0\r\n", Vec::new()));
    let reproduce = |mirror: &str| run(folder.path(), &format!("reproduce --mirror {mirror} {SHORT} --out run"));
    for (address, expected) in [
        (closed, "no connection"),
        (answering("403 Forbidden")?, "status 403"),
        (answering("401 Unauthorized")?, "status 401"),
        (answering("500 Internal Server Error")?, "status 500"),
        (serve(|_| ("200 OK", "", b"<html>".to_vec()))?, "SHA256SUMS line 1"),
    ] {
        let output = reproduce(&format!("http://me:pass-1234@{address}"))?;
        check(&output, 3, expected);
        assert!(!stderr(&output).contains("pass-1234"), "{}", stderr(&output));
        assert!(!folder.path().join("run").exists(), "{expected}");
    }
    for wrong in ["ftp://me:pass-1234@host", "me:pass-1234@host"] {
        let output = reproduce(wrong)?;
        check(&output, 2, "expected an address");
        assert!(!stderr(&output).contains("pass-1234"), "{}", stderr(&output));
    }
    Ok(())
}

#[test]
fn a_run_that_is_refused_for_its_data_leaves_nothing() -> Result {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir_all(folder.path().join("set/cats"))?;
    std::fs::create_dir_all(folder.path().join("set/dogs"))?;
    std::fs::write(folder.path().join("set/cats/1.jpg"), b"no picture")?;
    for out in ["", "--out deep/down/run"] {
        let output = run(folder.path(), &format!("reproduce --dataset folder --data-dir set {SHORT} {out}"))?;
        check(&output, 3, "1 damaged picture: `cats/1.jpg`");
    }
    let mut left: Vec<_> = std::fs::read_dir(folder.path())?.flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, ["cache", "set"]);
    Ok(())
}

#[test]
fn what_is_odd_about_a_checkpoint_is_said() -> Result {
    let folder = tempfile::tempdir()?;
    checkpoint(&folder.path().join("a.safetensors"))?;
    let output = run(folder.path(), "prune a.safetensors b.safetensors --sparsity 50%")?;
    check(&output, 0, "");
    let said = stderr(&output);
    assert!(said.contains("`a.weight` is the product of `a.weight_orig` and `a.weight_mask`"), "{said}");
    assert!(said.contains("`lora_B.weight` is 0 throughout"), "{said}");
    let written = Weights::read(&folder.path().join("b.safetensors"))?;
    assert_eq!(written.tensors.keys().collect::<Vec<_>>(), ["a.weight", "lora_B.weight"]);
    // Magnitudes are 1 to 64; the mask took 1 to 16, and half of all are 1 to 32.
    let kept: Vec<f32> = written.tensors["a.weight"].flatten_all()?.to_vec1()?;
    let expected: Vec<f32> = (1..=64).map(|i| if i > 32 { i as f32 } else { 0. }).collect();
    assert_eq!(kept, expected);

    let inspected = run(folder.path(), "inspect a.safetensors --json")?;
    let report: serde_json::Value = serde_json::from_slice(&inspected.stdout)?;
    assert_eq!(report["folded"], serde_json::json!(["a.weight"]));
    assert_eq!(report["all_zero"], serde_json::json!(["lora_B.weight"]));
    for all in ["1", "100%", "1.0"] {
        check(&run(folder.path(), &format!("prune a.safetensors c.safetensors --sparsity {all}"))?, 2, "");
    }
    assert!(!folder.path().join("c.safetensors").exists());
    let cuda = run(folder.path(), &format!("reproduce --device cuda {SHORT}"))?;
    check(&cuda, 2, "cannot use --device cuda, expected --device cpu");
    assert!(!stderr(&cuda).contains("--features"), "{}", stderr(&cuda));
    Ok(())
}
