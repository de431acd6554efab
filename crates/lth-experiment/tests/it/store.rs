//! What an experiment leaves in its folder besides its records: networks, pictures, event files; and what stays of it.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use lth_criteria::{LargeFinal, NamedInputs, score_all};
use lth_experiment::{Arm, Experiment, Host, Silent, TensorBoard, extras};
use lth_mask::{Scope, Selection, select};
use lth_nn::{NetworkSpec, Setup};
use lth_runs::{Address, ArmRecord, ArmRole, ContactSheet, Existing, FitRecord, Part, Summary, report};
use lth_ticket::{DatasetInfo, NetworkInfo, Stage, Ticket, TicketHeader};
use lth_train::Network;

use crate::support::{Result, run, small};

fn summary(folder: &Path) -> Result<Summary> {
    Ok(Summary::read(&folder.join("summary.json"))?)
}

fn names(addresses: &[Address]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn fit<'a>(summary: &'a Summary, address: &str) -> Result<&'a FitRecord> {
    Ok(summary.fit(&address.parse()?).ok_or_else(|| address.to_owned())?)
}

#[test]
fn fits_that_the_last_command_did_not_ask_for_stay_and_are_named() -> Result {
    let folder = tempfile::tempdir()?;
    let mut experiment = small()?;
    experiment.imp.arms = vec![Arm::Random, Arm::DenseLonger];
    run(&experiment, folder.path())?;
    let whole = summary(folder.path())?;
    assert_eq!((whole.fits.len(), whole.earlier.len()), (6, 0));

    // Fewer levels, another arm: dense for longer is now a shorter one, beside the one that is there.
    let fewer = |arms: &[Arm], n_levels: u32, seed: u64| {
        let mut fewer = experiment.clone();
        (fewer.imp.arms, fewer.imp.n_levels, fewer.imp.seeds) = (arms.to_vec(), n_levels, vec![seed]);
        fewer
    };
    let (outcome, _) = run(&fewer(&[Arm::DenseLonger], 1, 7), folder.path())?;
    assert_eq!(outcome.n_trained, 1);
    let now = summary(folder.path())?;
    assert_eq!(names(&now.earlier), ["ticket/2/7", "dense-longer/2/7", "random/1/7", "random/2/7"]);
    assert_eq!(now.fits.len(), 7);
    for record in &whole.fits {
        assert_eq!(now.fit(&record.address), Some(record), "{}", record.address);
    }
    assert_eq!(
        now.arms.iter().map(|arm| arm.name.as_str()).collect::<Vec<_>>(),
        ["dense", "ticket", "dense-longer", "random"]
    );
    let text = std::fs::read_to_string(folder.path().join("report.md"))?;
    assert!(text.contains("4 fits that the last command did not ask for, shown like all others: ticket (1)"), "{text}");

    // Another seed; then again what was asked for first, which has nothing to do.
    run(&fewer(&[], 1, 8), folder.path())?;
    assert_eq!((summary(folder.path())?.fits.len(), summary(folder.path())?.earlier.len()), (9, 7));
    let (outcome, _) = run(&experiment, folder.path())?;
    assert_eq!(outcome.n_trained, 0);
    assert_eq!(names(&summary(folder.path())?.earlier), ["dense/0/8", "ticket/1/8", "dense-longer/1/7"]);

    // A record of another definition of its fit is none of this experiment's, nor is what rests on it.
    let path = folder.path().join("fits/ticket/level-01/seed-8/record.json");
    let text = std::fs::read_to_string(&path)?;
    let plan = &fit(&summary(folder.path())?, "ticket/1/8")?.plan.clone();
    std::fs::write(&path, text.replace(plan.as_str(), &"0".repeat(64)))?;
    run(&experiment, folder.path())?;
    assert_eq!(names(&summary(folder.path())?.earlier), ["dense/0/8", "dense-longer/1/7"]);
    Ok(())
}

#[test]
fn fits_of_another_plan_in_the_same_folder_stay_as_the_summary_has_them() -> Result {
    let folder = tempfile::tempdir()?;
    let experiment = small()?;
    run(&experiment, folder.path())?;
    // An arm that no option of the experiment makes, as a program of one's own adds it.
    let mut summary_with = summary(folder.path())?;
    let own = FitRecord { address: "own/1/7".parse()?, ..fit(&summary_with, "ticket/1/7")?.clone() };
    let arm = ArmRecord { name: "own".into(), role: ArmRole::Control, title: "mine".into(), meaning: String::new() };
    summary_with.arms.push(arm.clone());
    summary_with.fits.push(own.clone());
    let mut dir = experiment.open_dir(folder.path(), Existing::Refuse)?;
    dir.write_record(&own)?;
    dir.finish(&summary_with, report::files)?;
    drop(dir);
    let (outcome, _) = run(&experiment, folder.path())?;
    assert_eq!(outcome.n_trained, 0);
    let now = summary(folder.path())?;
    assert_eq!((names(&now.earlier), now.fit(&own.address)), (vec!["own/1/7".to_owned()], Some(&own)));
    assert_eq!(now.arm("own"), Some(&arm));
    Ok(())
}

/// 95 % of a ResNet-18's weights pruned: a bit for each of 11.2 million, 4 bytes for each of the 559 thousand kept, and the
/// norms, in a file of about 4 MB instead of 45.
#[test]
fn a_sparse_resnet_18_takes_four_megabytes_and_is_the_same() -> Result {
    let network = NetworkSpec::new("resnet-18".parse()?, 2, [3, 64, 64]).build(&Setup::new(1))?;
    let mut tensors = network.parameters().snapshot(|_, _| true)?;
    let prunable: Vec<String> = network.parameters().prunable(&[4]).map(|(name, _)| name.to_owned()).collect();
    let weights: BTreeMap<String, Tensor> =
        tensors.iter().filter(|(name, _)| prunable.contains(name)).map(|(name, t)| (name.clone(), t.clone())).collect();
    let selection = Selection { scope: Scope::Global, ..Selection::default() };
    let masks = select(&score_all(&LargeFinal, &NamedInputs::of(&weights))?, 0.95, &selection)?;
    masks.apply(&mut tensors)?;
    let header = TicketHeader {
        stage: Stage::Trained,
        network: NetworkInfo {
            name: "resnet-18".into(),
            head: None,
            n_outputs: 2,
            input: vec![3, 64, 64],
            preprocessing: None,
            class_names: Vec::new(),
        },
        pruning: None,
        seed: 1,
        dataset: DatasetInfo { name: "none".into(), sha256: None },
        parent: None,
        other: BTreeMap::new(),
    };
    let ticket = Ticket { header, tensors, masks };
    let folder = tempfile::tempdir()?;
    let [plain, small] = ["plain", "small"].map(|name| folder.path().join(name));
    let (plain, small) = (ticket.write(&plain)?, ticket.write_smaller(&small)?);
    assert_eq!(plain.content_sha256, small.content_sha256);
    let (plain, small) = (plain.bytes, small.bytes);
    assert!((44_000_000..46_000_000).contains(&plain), "{plain} bytes plain");
    assert!((3_400_000..4_300_000).contains(&small), "{small} bytes compact");
    Ok(())
}

fn two_seeds() -> Result<Experiment> {
    let mut experiment = small()?;
    experiment.imp.seeds = vec![7, 8];
    Ok(experiment)
}

#[test]
fn pictures_are_kept_with_what_the_networks_said() -> Result {
    let folder = tempfile::tempdir()?;
    run(&two_seeds()?, folder.path())?;
    let summary = summary(folder.path())?;
    let sheet = ContactSheet::read(folder.path())?.ok_or("there is no contact sheet")?;
    // Of the seed whose data were open at the end.
    assert_eq!(names(&sheet.networks), ["dense/0/8", "ticket/2/8"]);
    assert!(sheet.pictures.len() > 6 && sheet.pictures.len() <= 12, "{}", sheet.pictures.len());
    for (index, fit) in sheet.networks.iter().enumerate() {
        let at_end = summary.fit(fit).and_then(|fit| fit.at_end.as_ref()).ok_or("it was not tested")?;
        assert_eq!(at_end.on, Part::Test);
        let right: Vec<bool> = at_end.right.as_ref().ok_or("nobody noted what was right")?.iter().take(6).collect();
        let said: Vec<bool> = sheet.pictures.iter().take(6).map(|shown| shown.said[index] == shown.label).collect();
        assert_eq!(said, right, "{fit}");
    }
    // The others were picked because one was wrong.
    for shown in sheet.pictures.iter().skip(6) {
        assert!(shown.said.iter().any(|said| *said != shown.label), "{shown:?}");
    }
    Ok(())
}

#[test]
fn a_report_shows_what_the_networks_have_and_is_made_again_from_the_folder() -> Result {
    let folder = tempfile::tempdir()?;
    run(&two_seeds()?, folder.path())?;
    let summary = summary(folder.path())?;
    let found = extras(folder.path(), &summary);
    assert_eq!(found.notes, Vec::<String>::new());
    let titles: Vec<&str> = found.overlaps.iter().map(|overlap| overlap.title.as_str()).collect();
    assert_eq!(
        titles,
        ["between seeds, 60.4 % of weights", "between seeds, 36.6 % of weights", "between levels of seed 7"]
    );
    // Two seeds have no more in common than chance gives, nearly; a level lies within the one before.
    for overlap in &found.overlaps[..2] {
        let by_chance = overlap.by_chance.ok_or("nothing is said of chance")?;
        assert!((overlap.values[0][1] - by_chance).abs() < 0.05, "{overlap:?}");
    }
    let kept = |level: u32| -> Result<f64> {
        let layers = &fit(&summary, &format!("ticket/{level}/7"))?.layers;
        Ok(layers.iter().map(|layer| (layer.weights - layer.zeros) as f64).sum())
    };
    let nested = kept(2)? / kept(1)?;
    assert!((found.overlaps[2].values[0][1] - nested).abs() < 1e-3, "{nested}");
    // Every kept weight is counted once, at the start and at the end.
    for (histogram, level) in found.histograms.iter().zip([1, 2]) {
        let ticket = folder.path().join(format!("fits/ticket/level-0{level}/seed-7/ticket.safetensors"));
        let masks = Ticket::read(&ticket, &Device::Cpu)?.masks;
        let expected = (masks.weights() - masks.zeros()) as f64;
        let sums: Vec<(String, f64)> =
            histogram.series.iter().map(|(name, counts)| (name.clone(), counts.iter().sum())).collect();
        assert_eq!(sums, [("at the start".to_owned(), expected), ("at the end".to_owned(), expected)]);
    }
    for (name, text) in report::files_with(&summary, &found) {
        assert_eq!(std::fs::read_to_string(folder.path().join(name))?, text, "{name}");
    }
    // Without the files it says so.
    std::fs::remove_file(folder.path().join("pictures.json"))?;
    std::fs::remove_file(folder.path().join("fits/ticket/level-02/seed-8/ticket.safetensors"))?;
    let found = extras(folder.path(), &summary);
    assert!(found.about_pictures.contains("no pictures.json"), "{}", found.about_pictures);
    assert!(found.notes[0].contains("ticket/2/8"), "{:?}", found.notes);
    assert_eq!(found.overlaps.len(), 2);
    Ok(())
}

/// The events of a file: of each its step and the numbers by name. Written anew from the format's description.
fn events(folder: &Path) -> Result<Vec<(u64, BTreeMap<String, f32>)>> {
    let mut paths = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    let path = paths.find(|path| path.to_string_lossy().contains("events.out.tfevents.")).ok_or("no event file")?;
    let bytes = std::fs::read(path)?;
    let mut rest = bytes.as_slice();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let length = u64::from_le_bytes(rest[..8].try_into()?) as usize;
        let (event, after) = rest[12..].split_at(length);
        rest = &after[4..];
        let (mut step, mut values) = (0, BTreeMap::new());
        for (field, content) in fields(event) {
            match (field, content) {
                (2, Content::Number(number)) => step = number,
                (5, Content::Bytes(summary)) => {
                    for (_, value) in fields(summary) {
                        let Content::Bytes(value) = value else { return Err("a value is no message".into()) };
                        match fields(value).as_slice() {
                            [(1, Content::Bytes(tag)), (2, Content::Bytes(number))] => {
                                let number = f32::from_le_bytes((*number).try_into()?);
                                values.insert(String::from_utf8(tag.to_vec())?, number);
                            }
                            _ => return Err("a value has other fields".into()),
                        }
                    }
                }
                _ => {}
            }
        }
        events.push((step, values));
    }
    Ok(events)
}

enum Content<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn fields(mut message: &[u8]) -> Vec<(u64, Content<'_>)> {
    fn varint(message: &mut &[u8]) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some((byte, rest)) = message.split_first() {
            *message = rest;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint(&mut message);
        let length = match key & 7 {
            0 => {
                fields.push((key >> 3, Content::Number(varint(&mut message))));
                continue;
            }
            1 => 8,
            5 => 4,
            _ => varint(&mut message) as usize,
        };
        let (content, rest) = message.split_at(length);
        fields.push((key >> 3, Content::Bytes(content)));
        message = rest;
    }
    fields
}

#[test]
fn event_files_have_the_figures_of_every_fit() -> Result {
    let folder = tempfile::tempdir()?;
    let experiment = small()?;
    let run = |experiment: &Experiment| -> Result<Summary> {
        let mut dir = experiment.open_dir(folder.path(), Existing::Refuse)?;
        let mut silent = Silent;
        let mut observer = TensorBoard::new(folder.path(), &mut silent);
        let mut watch = |_: lth_data::Opening<'_>| {};
        let (summary, _) = experiment.run(&mut dir, Host::new(folder.path(), &mut watch, &mut observer))?;
        observer.finish()?;
        Ok(summary)
    };
    let summary = run(&experiment)?;
    let check = |record: &FitRecord, has_rate: bool| -> Result {
        let found = events(&folder.path().join(record.address.folder()))?;
        // The first says which version of the format it is.
        assert_eq!(found.len(), record.history.len() + 1, "{}", record.address);
        for ((step, values), at) in found.iter().skip(1).zip(&record.history) {
            assert_eq!(*step, at.step);
            let mut expected = BTreeMap::from([
                ("loss/train".to_owned(), at.train_loss as f32),
                ("sparsity".to_owned(), at.sparsity as f32),
                ("accuracy/validation".to_owned(), at.metrics["accuracy"] as f32),
                ("loss/validation".to_owned(), at.valid_loss.ok_or("it was not validated")? as f32),
            ]);
            if has_rate {
                expected.insert("learning_rate".to_owned(), 1.2e-3);
            }
            assert_eq!(*values, expected);
        }
        Ok(())
    };
    assert!(!summary.fits.is_empty());
    summary.fits.iter().try_for_each(|record| check(record, true))?;
    // A fit that was there already gets one from its record.
    let dense = fit(&summary, "dense/0/7")?;
    for entry in std::fs::read_dir(folder.path().join(dense.address.folder()))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("events.") {
            std::fs::remove_file(entry.path())?;
        }
    }
    run(&experiment)?;
    check(dense, false)?;
    Ok(())
}
