//! One experiment on several machines: its work items, shards, and what is made of their folders; and a ticket whose step is
//! done again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Result, files, lth, pets, run, stderr};

/// LeNet on the embedded digits for an epoch, one level.
const SHORT: &str = "--preset lenet-digits --length 1ep --threads 1";

/// The exit code, and that what was said holds `expected`.
#[track_caller]
fn check(output: &std::process::Output, code: i32, expected: &str) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(expected) && !said.contains("panicked"), "{said}");
}

/// A summary without what differs between any two runs.
fn untimed(path: &Path) -> Result<Value> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let times = [
                    "seconds",
                    "valid_seconds",
                    "overhead_seconds",
                    "test_seconds",
                    "wait_seconds",
                    "wall_seconds",
                    "started",
                ];
                fields.retain(|name, _| {
                    !times.contains(&name.as_str()) && name != "peak_memory_bytes" && name != "command"
                });
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut summary = serde_json::from_slice(&std::fs::read(path.join("summary.json"))?)?;
    strip(&mut summary);
    Ok(summary)
}

#[test]
fn a_plan_lists_its_work_items_and_trains_nothing() -> Result {
    let folder = tempfile::tempdir()?;
    let output = run(folder.path(), &format!("plan --of 2 imp {SHORT} --levels 2 --arms random --seeds 3 --json"))?;
    check(&output, 0, "3 items, 15 fits");
    let listed: Value = serde_json::from_slice(&output.stdout)?;
    let of = |field: &str| -> Vec<&Value> {
        listed["items"].as_array().into_iter().flatten().map(|item| &item[field]).collect()
    };
    assert_eq!(
        (of("seed"), of("shard")),
        (vec![&0.into(), &1.into(), &2.into()], vec![&0.into(), &1.into(), &0.into()])
    );
    assert_eq!(
        listed["items"][1]["fits"],
        serde_json::json!(["dense/0/1", "ticket/1/1", "ticket/2/1", "random/1/1", "random/2/1"])
    );
    let identity = listed["identity"].as_str().ok_or("no identity")?;
    assert_eq!(listed["items"][1]["out"], format!("runs/lenet-digits-{}-1-of-2", &identity[..8]));
    let toys = run(folder.path(), "plan reproduce --dataset toy-pets --seeds 2")?;
    check(&toys, 0, "");
    assert!(String::from_utf8_lossy(&toys.stdout).contains("2 items, 20 fits"), "{toys:?}");
    assert_eq!(files(folder.path())?.len(), 0);
    Ok(())
}

/// Commands of both kinds in one folder, whole and in two shards, the second of which is told its place by the scheduler.
#[test]
fn collected_shards_are_the_experiment_that_one_run_makes() -> Result {
    let folder = tempfile::tempdir()?;
    let commands = [
        format!("imp {SHORT} --levels 1 --arms random --seeds 3"),
        format!("connectivity {SHORT} --steps 5it --levels 0 --points 2 --seeds 3"),
    ];
    for command in &commands {
        check(&run(folder.path(), &format!("{command} --out whole"))?, 0, "");
        check(&run(folder.path(), &format!("run --index 0 --of 2 {command} --out part"))?, 0, "");
    }
    let collect = "collect together part-0-of-2 part-1-of-2";
    check(&run(folder.path(), collect)?, 3, "no experiment at part-1-of-2");
    assert!(!folder.path().join("together").exists());
    let slurm = |command: &str| {
        let mut lth = lth(folder.path(), &format!("run {command} --out part"));
        lth.envs([("SLURM_ARRAY_TASK_ID", "1"), ("SLURM_ARRAY_TASK_COUNT", "2"), ("SLURM_ARRAY_TASK_MAX", "1")])
            .output()
    };
    check(&slurm(&commands[0])?, 0, "");
    // The paths of the second shard are still to come.
    check(&run(folder.path(), collect)?, 75, "not there yet, copy-1-5it/0/1 first");
    check(&slurm(&commands[1])?, 0, "");
    let again = run(folder.path(), collect)?;
    check(&again, 0, "");
    assert!(String::from_utf8_lossy(&again.stdout).contains("1 fits were brought, 11 were there"), "{again:?}");

    let [whole, together] = ["whole", "together"].map(|name| untimed(&folder.path().join(name)));
    let (whole, together) = (whole?, together?);
    assert_eq!(together, whole);
    assert_eq!(together["fits"].as_array().map(Vec::len), Some(12));
    assert_eq!(together["paths"].as_array().map(Vec::len), Some(3));
    check(&run(folder.path(), "verify whole together")?, 0, "");
    let names = |name: &str| -> Result<Vec<String>> {
        let root = folder.path().join(name);
        let mut names: Vec<String> = files(&root)?
            .iter()
            .filter_map(|path| Some(path.strip_prefix(&root).ok()?.display().to_string()))
            .collect();
        names.sort();
        Ok(names)
    };
    assert_eq!(names("together")?, names("whole")?);
    let lines = |name: &str| {
        Ok::<_, std::io::Error>(
            std::fs::read_to_string(folder.path().join(name).join("metrics.jsonl"))?.lines().count(),
        )
    };
    assert_eq!(lines("together")?, lines("whole")?);

    // Nothing is done twice, and a single run has nothing to do where all was collected.
    let written = std::fs::read(folder.path().join("together/summary.json"))?;
    let again = run(folder.path(), collect)?;
    check(&again, 0, "");
    assert!(String::from_utf8_lossy(&again.stdout).contains("0 fits were brought, 12 were there"), "{again:?}");
    assert_eq!(std::fs::read(folder.path().join("together/summary.json"))?, written);
    check(&run(folder.path(), &format!("{} --out together", commands[1]))?, 0, "6 fits were there already");

    // As after a kill between a fit's files and its record, and before the summary.
    std::fs::remove_file(folder.path().join("together/fits/ticket/level-01/seed-1/record.json"))?;
    std::fs::remove_file(folder.path().join("together/fits/ticket/level-01/seed-2/ticket.safetensors"))?;
    std::fs::remove_file(folder.path().join("together/summary.json"))?;
    check(&run(folder.path(), collect)?, 0, "");
    assert_eq!(untimed(&folder.path().join("together"))?, whole);
    assert_eq!((lines("together")?, names("together")?), (lines("whole")?, names("whole")?));
    check(&run(folder.path(), "verify whole together")?, 0, "");
    Ok(())
}

#[test]
fn folders_that_do_not_go_together_are_refused_before_anything_is_written() -> Result {
    let folder = tempfile::tempdir()?;
    let short = format!("imp {SHORT} --levels 1 --arms none --seeds 1");
    for (options, out) in
        [("--seed 0", "a"), ("--seed 0", "b"), ("--seed 1 --batch-size 64", "other"), ("--seed 2", "c")]
    {
        check(&run(folder.path(), &format!("{short} {options} --out {out}"))?, 0, "");
    }
    let refused = |arguments: &str, code: i32, expected: &str| -> Result {
        check(&run(folder.path(), &format!("collect out {arguments}"))?, code, expected);
        assert!(!folder.path().join("out").exists(), "{arguments}");
        Ok(())
    };
    refused("a other", 2, "other is not of the experiment of a: batch_size is 64, expected 32")?;
    refused("a nothing", 3, "no experiment at nothing")?;
    check(&run(folder.path(), "collect a a")?, 2, "folder to collect from is a, the one to collect into");
    check(
        &run(folder.path(), &format!("run --index 1 --of 2 {short} --out lone"))?,
        0,
        "has nothing to do: there are 1 work",
    );
    assert!(!folder.path().join("lone-1-of-2").exists());
    check(
        &run(folder.path(), &format!("run --index 2 --of 2 {short}"))?,
        2,
        "index of the shard is 2, expected 0 to 1",
    );

    // Seeds that were trained apart, one of them twice, in whatever order they are named.
    check(&run(folder.path(), "collect out c b a")?, 0, "");
    assert_eq!(untimed(&folder.path().join("out"))?["experiment"]["config"]["imp"]["seeds"], serde_json::json!([0, 2]));
    std::fs::remove_dir_all(folder.path().join("out"))?;

    let record = folder.path().join("b/fits/ticket/level-01/seed-0/record.json");
    let text = std::fs::read_to_string(&record)?;
    std::fs::write(&record, text.replacen("\"train_loss\": ", "\"train_loss\": 1", 1))?;
    refused("a b", 5, "b contradicts a: ticket/1/0: figures is ")?;
    std::fs::write(&record, "{}")?;
    refused("a b", 5, "record.json is damaged")?;
    std::fs::write(&record, text)?;
    let ticket = folder.path().join("c/fits/ticket/level-01/seed-2/ticket.safetensors");
    let mut bytes = std::fs::read(&ticket)?;
    bytes.push(0);
    std::fs::write(&ticket, bytes)?;
    check(&run(folder.path(), "collect out a c")?, 5, "ticket.safetensors is damaged: its SHA-256 is ");
    Ok(())
}

#[test]
fn a_ticket_is_what_its_step_makes() -> Result {
    let folder = tempfile::tempdir()?;
    let short = format!("imp {SHORT} --levels 2 --rewind 5it --arms random --seeds 1 --out run");
    check(&run(folder.path(), &short)?, 0, "");
    let verify = |file: &str| run(folder.path(), &format!("verify run/fits/{file}.safetensors"));
    let says = |output: &std::process::Output, all: &[&str]| {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        for expected in all {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    };
    let before = files(folder.path())?;
    let output = verify("ticket/level-02/seed-0/ticket")?;
    check(&output, 0, "");
    says(
        &output,
        &[
            "ticket     ticket/2/0 of ",
            "files      2 of its record",
            "data       digits of SHA-256 ",
            "program    lth 0.1.0",
            "start      fits/dense/level-00/seed-0/at-5it.safetensors of SHA-256 ",
            "start      fits/ticket/level-01/seed-0/trained.safetensors of SHA-256 ",
            "unchecked  how fits/ticket/level-01/seed-0/trained.safetensors came about: lth verify ",
            "verified: ticket/2/0 done again has the same weights, masks and figures, to the bit (ticket, trained)",
        ],
    );
    // On as many threads as there are, too, and back to where the chain begins.
    let output = verify("dense/level-00/seed-0/trained")?;
    check(&output, 0, "");
    says(
        &output,
        &["start      the initial weights of seed 0, drawn again", "verified: dense/0/0", "(at-5it, trained)"],
    );
    assert_eq!(files(folder.path())?, before);

    // Another seed's network in its place, with a record that agrees.
    check(&run(folder.path(), &format!("{short} --seed 1").replace("--out run", "--out other"))?, 0, "");
    let own = folder.path().join("run/fits/ticket/level-02/seed-0");
    let other = folder.path().join("other/fits/ticket/level-02/seed-1");
    let of = |fit: &Path| -> Result<[String; 2]> {
        let record: Value = serde_json::from_slice(&std::fs::read(fit.join("record.json"))?)?;
        Ok(["sha256", "content"].map(|field| record["files"]["trained"][field].as_str().unwrap_or_default().to_owned()))
    };
    let [ours, theirs] = [of(&own)?, of(&other)?];
    let (record, network) =
        (std::fs::read_to_string(own.join("record.json"))?, std::fs::read(own.join("trained.safetensors"))?);
    std::fs::copy(other.join("trained.safetensors"), own.join("trained.safetensors"))?;
    check(&verify("ticket/level-02/seed-0/ticket")?, 3, "trained.safetensors has SHA-256 ");
    std::fs::write(own.join("record.json"), record.replace(&ours[0], &theirs[0]).replace(&ours[1], &theirs[1]))?;
    let output = verify("ticket/level-02/seed-0/ticket")?;
    check(&output, 3, "1 discrepancies in ticket/2/0, done again");
    says(&output, &["ticket/2/0: content of trained is ", "of 19200 values differ, "]);
    std::fs::write(own.join("record.json"), record)?;
    std::fs::write(own.join("trained.safetensors"), network)?;

    // What it began with is not there any more.
    std::fs::remove_file(folder.path().join("run/fits/ticket/level-01/seed-0/trained.safetensors"))?;
    let expected = "ticket/2/0 rests on ticket/1/0: its file `trained.safetensors` was not kept";
    check(&verify("ticket/level-02/seed-0/ticket")?, 3, expected);
    check(&run(folder.path(), &short)?, 0, "");
    check(&verify("ticket/level-02/seed-0/ticket")?, 0, "");
    std::fs::copy(own.join("ticket.safetensors"), folder.path().join("alone.safetensors"))?;
    check(&run(folder.path(), "verify alone.safetensors")?, 2, "is in no experiment's folder");
    Ok(())
}

#[test]
fn a_ticket_of_the_notebook_is_what_its_step_makes() -> Result {
    let folder = tempfile::tempdir()?;
    pets(folder.path())?;
    let short = "--epochs 1,2,1,2,1 --no-controls --image-size 32 --batch-size 8 --width 8 --threads 1";
    let [here, there] = ["start", "elsewhere"].map(|name| folder.path().join(name).with_extension("safetensors"));
    let fits = |out: &str| folder.path().join(out).join("fits");
    check(&run(folder.path(), &format!("reproduce --data-dir pets --weights none {short} --out first"))?, 0, "");
    std::fs::copy(fits("first").join("dense/level-00/seed-42/trained.safetensors"), &here)?;
    let train = format!("reproduce --data-dir pets --weights start.safetensors {short} --out run");
    check(&run(folder.path(), &train)?, 0, "");
    let before = files(folder.path())?;
    let verify = |file: &str, more: &str| run(folder.path(), &format!("verify run/fits/{file}.safetensors {more}"));
    // From initial weights, and from what a search left.
    for (file, start) in [
        ("search/level-02/seed-42/ticket", "start      the initial weights of seed 42"),
        ("ticket/level-02/seed-42/trained", "start      fits/search/level-02/seed-42/"),
    ] {
        let output = verify(file, "--data-dir pets")?;
        check(&output, 0, "");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        for expected in [start, "done again has the same weights, masks and figures, to the bit"] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }
    assert_eq!(files(folder.path())?, before);

    let search = "search/level-02/seed-42/ticket";
    std::fs::rename(&here, &there)?;
    check(&verify(search, "--data-dir pets")?, 3, "start.safetensors");
    check(&verify(search, "--data-dir pets --weights elsewhere.safetensors")?, 0, "");
    std::fs::copy(fits("run").join("dense/level-00/seed-42/trained.safetensors"), &there)?;
    let other = verify(search, "--data-dir pets --weights elsewhere.safetensors")?;
    check(&other, 3, "the starting weights have SHA-256 ");

    // Nor does the experiment go on with them, though the name is the same.
    std::fs::rename(&there, &here)?;
    std::fs::remove_file(fits("run").join("ticket/level-02/seed-42/record.json"))?;
    check(&run(folder.path(), &train)?, 2, "the starting weights have SHA-256 ");
    Ok(())
}

/// What a scheduler does to a task: SIGUSR1 in the middle of a fit, and the same command again.
#[test]
fn a_shard_that_is_signalled_again_and_again_ends_with_the_same_bits() -> Result {
    let folder = tempfile::tempdir()?;
    let command = "imp --preset lenet-digits --length 40ep --levels 1 --arms none --seeds 2 --seed 3 --threads 1";
    check(&run(folder.path(), &format!("run --index 1 --of 2 {command} --out untouched"))?, 0, "");
    let task = || {
        let mut lth = lth(folder.path(), &format!("run --of 2 {command} --out task"));
        lth.env("SLURM_ARRAY_TASK_ID", "1");
        lth
    };
    for _ in 0..3 {
        let mut child = task().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        // Lines of a table, one for each epoch: it is at work on a fit.
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let mut epochs =
            lines.map_while(std::io::Result::ok).filter(|line| line.trim().starts_with(|c: char| c.is_ascii_digit()));
        epochs.nth(4).ok_or("it ended before its fifth epoch")?;
        check_success(&Command::new("kill").args(["-USR1", &child.id().to_string()]).output()?)?;
        // Somebody must take what it still says.
        epochs.for_each(drop);
        let output = child.wait_with_output()?;
        check(&output, 75, "interrupted: the same command line goes on where it was cut");
    }
    let last = task().output()?;
    check(&last, 0, "goes on from its checkpoint, at step");
    check(&run(folder.path(), "verify untouched-1-of-2 task-1-of-2")?, 0, "");
    Ok(())
}

fn check_success(output: &std::process::Output) -> Result {
    if output.status.success() { Ok(()) } else { Err(stderr(output).into()) }
}
