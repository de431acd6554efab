use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor, safetensors};
use lth_mask::{Granularity, MaskSet, Selection};
use lth_schedule::{Schedule, Sparsity, SparsitySchedule};
use lth_ticket::{
    DatasetInfo, Error, NetworkInfo, Preprocessing, Pruning, PruningConfig, PruningInfo, Rewind, Stage, Ticket,
    TicketHeader, Written,
};
use lth_train::{FitConfig, Network};
use proptest::prelude::*;

use crate::support::{RANKS, data, trainer};
use crate::writers::check_writer;

pub(crate) fn ticket() -> Ticket {
    let schedule = SparsitySchedule::to(Sparsity::new(0.7).expect("a fraction"), Schedule::OneShot);
    let config = PruningConfig { ranks: RANKS.to_vec(), ..PruningConfig::new(schedule.clone()) };
    let mut trainer = trainer();
    trainer.fit(&FitConfig::new(1), &data(), &mut [&mut Pruning::new(config)]).expect("one epoch");
    let masks = MaskSet::from_tensors(trainer.masks()).expect("masks");
    Ticket {
        header: TicketHeader {
            stage: Stage::Trained,
            network: NetworkInfo {
                name: "lenet".to_owned(),
                head: Some("fc".to_owned()),
                n_outputs: 3,
                input: vec![1, 8, 8],
                preprocessing: Some(Preprocessing { mean: vec![0.5], std: vec![0.25] }),
                class_names: vec!["zero".to_owned(), "\"one\"".to_owned(), "42".to_owned()],
            },
            pruning: Some(PruningInfo {
                criterion: "large_final".to_owned(),
                selection: Selection::fasterai_2021(),
                schedule,
                sparsity: masks.sparsity(),
                rewind: Some(Rewind::to_epoch(1)),
            }),
            seed: u64::MAX,
            dataset: DatasetInfo { name: "waves".to_owned(), sha256: Some("ab".repeat(32)) },
            parent: Some("12".repeat(32)),
            other: BTreeMap::from([("author".to_owned(), "me".to_owned())]),
        },
        tensors: trainer.network().parameters().snapshot(|_, _| true).expect("copies"),
        masks,
    }
}

pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

type Write = fn(&Ticket, &Path) -> Result<Written, Error>;

/// Both forms.
const FORMS: [Write; 2] = [Ticket::write, Ticket::write_compact];

#[test]
fn what_is_written_in_either_form_is_read_back_to_the_bit() -> Result<(), Error> {
    let (folder, ticket) = (folder(), ticket());
    for write in FORMS {
        let path = folder.path().join("a.safetensors");
        let Written { content_sha256: content, sha256, bytes } = write(&ticket, &path)?;
        assert_eq!(lth_files::sha256_file(&path)?, (sha256, bytes));
        let read = Ticket::read(&path, &Device::Cpu)?;
        assert_eq!(read.header, ticket.header);
        assert_eq!((read.content_sha256()?, ticket.content_sha256()?), (content.clone(), content));
        assert_eq!(read.masks, ticket.masks);
        assert_eq!(read.tensors.keys().collect::<Vec<_>>(), ticket.tensors.keys().collect::<Vec<_>>());
        for (name, tensor) in &read.tensors {
            assert_eq!(bytes_of(tensor), bytes_of(&ticket.tensors[name]), "{name}");
        }
    }
    Ok(())
}

fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    lth_train::tensor_bytes(tensor).expect("on the CPU")
}

#[test]
fn a_failed_write_leaves_the_old_ticket_and_nothing_else() {
    let ticket = ticket();
    for write in FORMS {
        check_writer("a.safetensors", |path| write(&ticket, path).map(|_| ()).map_err(|error| error.to_string()));
    }
}

#[test]
fn a_ticket_is_no_trained_network() -> Result<(), Error> {
    let (folder, mut ticket) = (folder(), ticket());
    let path = folder.path().join("a.safetensors");
    ticket.write(&path)?;
    assert_eq!(Ticket::read_trained(&path, &Device::Cpu)?.header, ticket.header);
    ticket.header.stage = Stage::Ticket;
    ticket.write(&path)?;
    let error = Ticket::read_trained(&path, &Device::Cpu).expect_err("nothing was trained");
    assert!(matches!(error, Error::Untrained { .. }) && error.to_string().contains("trained network"), "{error}");
    Ok(())
}

#[test]
fn other_software_sees_the_networks_own_names_and_nothing_else() -> Result<(), Error> {
    let (folder, ticket) = (folder(), ticket());
    let path = folder.path().join("a.safetensors");
    ticket.write(&path)?;
    let loaded = safetensors::load(&path, &Device::Cpu)?;
    let mut names: Vec<_> = loaded.keys().cloned().collect();
    names.sort();
    assert_eq!(names, ticket.tensors.keys().cloned().collect::<Vec<_>>());
    for (name, tensor) in &loaded {
        let expected = ticket.tensors[name].flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(tensor.flatten_all()?.to_vec1::<f32>()?, expected, "{name}");
    }
    let bytes = std::fs::read(&path).expect("written above");
    let (_, header) = ::safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
    let metadata = header.metadata().clone().expect("metadata");
    assert_eq!(metadata["stage"], "trained");
    assert_eq!((metadata["format"].as_str(), metadata["schema"].as_str()), ("pt", "2"));
    Ok(())
}

#[test]
fn equal_tickets_are_equal_bytes() -> Result<(), Error> {
    let (folder, ticket) = (folder(), ticket());
    for write in FORMS {
        let [a, b] = ["a", "b"].map(|name| folder.path().join(format!("{name}.safetensors")));
        write(&ticket, &a)?;
        write(&ticket.clone(), &b)?;
        assert!(std::fs::read(&a).expect("written") == std::fs::read(&b).expect("written"));
    }
    Ok(())
}

#[test]
fn tickets_whose_names_differ_after_a_dot_share_nothing() -> Result<(), Error> {
    let (folder, first) = (folder(), ticket());
    let mut second = first.clone();
    second.masks = lth_mask::MaskSet::all_kept(&second.tensors)?;
    let [a, b] = ["ticket-0.8", "ticket-0.9"].map(|name| folder.path().join(name));
    first.write(&a)?;
    second.write(&b)?;
    assert_eq!(Ticket::read(&a, &Device::Cpu)?.masks, first.masks);
    assert_eq!(Ticket::read(&b, &Device::Cpu)?.masks, second.masks);
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2);
    Ok(())
}

#[test]
fn a_pruned_weight_that_is_not_zero_is_refused_and_the_old_file_stays() -> Result<(), Error> {
    let (folder, ticket) = (folder(), ticket());
    let path = folder.path().join("a.safetensors");
    ticket.write(&path)?;
    let before = std::fs::read(&path).expect("written above");
    let mut wrong = ticket.clone();
    let ones = wrong.tensors["fc1.weight"].ones_like()?;
    wrong.tensors.insert("fc1.weight".to_owned(), ones);
    let message = wrong.write(&path).expect_err("a pruned weight is 1").to_string();
    assert!(message.contains("`fc1.weight` is 1 at pruned position"), "{message}");
    assert!(std::fs::read(&path).expect("still there") == before);
    Ok(())
}

/// A file of the ticket's tensors, its header changed.
pub(crate) fn rewrite(path: &Path, change: impl FnOnce(&mut BTreeMap<String, String>)) {
    let bytes = std::fs::read(path).expect("it is there");
    let (mut fields, _) = lth_files::open_safetensors(&bytes).expect("a header");
    change(&mut fields);
    let tensors = safetensors::load_buffer(&bytes, &Device::Cpu).expect("tensors").into_iter().collect();
    lth_train::save_safetensors(path, &tensors, &fields).expect("room for a small file");
}

#[test]
fn what_others_add_to_the_header_is_kept_and_what_is_ours_is_not_changed_unnoticed() -> Result<(), Error> {
    let (folder, ticket) = (folder(), ticket());
    let path = folder.path().join("a.safetensors");
    ticket.write(&path)?;
    rewrite(&path, |fields| {
        fields.insert("note".to_owned(), "theirs".to_owned());
    });
    let read = Ticket::read(&path, &Device::Cpu)?;
    let other = [("author", "me"), ("note", "theirs")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(read.header, TicketHeader { other: other.into(), ..ticket.header.clone() });
    read.write(&path)?;
    assert_eq!(Ticket::read(&path, &Device::Cpu)?.header, read.header, "written again");
    for (name, text) in [("seed", "1"), ("lth_version", "9"), ("masks", "{}"), ("form", "compact")] {
        ticket.write(&path)?;
        rewrite(&path, |fields| {
            fields.insert(name.to_owned(), text.to_owned());
        });
        let message = Ticket::read(&path, &Device::Cpu).expect_err(name).to_string();
        assert!(message.contains("its header does not have the SHA-256"), "{message}");
    }
    Ok(())
}

#[test]
fn a_later_version_is_named_as_the_reason() -> Result<(), Error> {
    let (folder, ticket) = (folder(), ticket());
    let path = folder.path().join("a.safetensors");
    ticket.write(&path)?;
    rewrite(&path, |fields| {
        fields.insert("schema".to_owned(), "3".to_owned());
    });
    let error = Ticket::read(&path, &Device::Cpu).expect_err("schema 3");
    assert!(matches!(error, Error::LaterSchema { found: 3, known: 2, .. }), "{error}");
    Ok(())
}

#[test]
fn places_near_the_largest_number_are_an_error() {
    let folder = folder();
    let path = folder.path().join("hostile.safetensors");
    let size = (1u64 << 61) - 1;
    let tensors = (0..8u64).map(|i| {
        let (from, to) = (i * size, (i + 1) * size);
        format!(r#""t{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{from},{to}]}}"#)
    });
    let header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat())
        .expect("a small file");
    assert!(matches!(Ticket::read(&path, &Device::Cpu), Err(Error::Damaged { .. })));
}

#[test]
fn a_plain_safetensors_file_is_no_ticket() -> Result<(), Error> {
    let folder = folder();
    let path = folder.path().join("plain.safetensors");
    safetensors::save(&ticket().tensors.into_iter().collect(), &path)?;
    let error = Ticket::read(&path, &Device::Cpu).expect_err("no header");
    assert!(matches!(error, Error::PlainWeights { .. }), "{error}");
    assert!(error.to_string().contains("lth_nn::Weights::read"), "{error}");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a disk or a person does to a file, reading it is an error or gives the same ticket.
    #[test]
    fn a_damaged_file_is_an_error(is_compact: bool, cut in proptest::option::of(0.0..1.0f64), flips in proptest::collection::vec((0.0..1.0f64, 1u8..), 0..4)) {
        let (folder, ticket) = (folder(), ticket());
        let path = folder.path().join("a.safetensors");
        let content = FORMS[usize::from(is_compact)](&ticket, &path).expect("a ticket").content_sha256;
        let mut bytes = std::fs::read(&path).expect("written above");
        let whole = bytes.clone();
        for (place, bits) in flips {
            let place = (place * bytes.len() as f64) as usize;
            bytes[place] ^= bits;
        }
        if let Some(cut) = cut {
            bytes.truncate((cut * bytes.len() as f64) as usize);
        }
        std::fs::write(&path, &bytes).expect("room for a small file");
        match Ticket::read(&path, &Device::Cpu) {
            Err(_) => prop_assert!(bytes != whole),
            // A flip in the header can be harmless (a space) or change a field that says nothing of the content.
            Ok(read) => prop_assert_eq!(read.content_sha256().expect("readable"), content),
        }
    }
}

/// Rows of a linear weight, and a line: a user's own.
#[derive(Debug)]
struct Own;

impl lth_schedule::Curve for Own {
    fn name(&self) -> &str {
        "mine, (1)"
    }

    fn progress(&self, position: f64) -> f64 {
        position
    }
}

impl lth_mask::Groups for Own {
    fn name(&self) -> &str {
        "mine, (1)"
    }

    fn groups(&self, shape: &[usize], _: lth_mask::Layer) -> Result<Vec<usize>, String> {
        match *shape {
            [rows, columns] => Ok((0..rows * columns).map(|i| i / columns).collect()),
            _ => Err("expected two dimensions".to_owned()),
        }
    }
}

#[test]
fn a_ticket_pruned_by_ones_own_curve_and_groups_is_read_and_names_them() -> Result<(), Error> {
    let granularity = Granularity::own(Own);
    let granularities = BTreeMap::from([("fc2.weight".to_owned(), Granularity::own(Own))]);
    let selection = Selection { granularity, granularities, ..Selection::default() };
    let schedule = SparsitySchedule::to(Sparsity::from_percent(50.0)?, Schedule::own(Own));
    let config =
        PruningConfig { ranks: RANKS.to_vec(), selection: selection.clone(), ..PruningConfig::new(schedule.clone()) };
    let mut trainer = trainer();
    trainer.fit(&FitConfig::new(1), &data(), &mut [&mut Pruning::new(config)])?;
    let mut ticket = ticket();
    ticket.tensors = trainer.network().parameters().snapshot(|_, _| true)?;
    ticket.masks = MaskSet::from_tensors(trainer.masks())?;
    if let Some(pruning) = &mut ticket.header.pruning {
        (pruning.selection, pruning.schedule) = (selection, schedule);
    }
    let folder = folder();
    let path = folder.path().join("own.safetensors");
    ticket.write(&path)?;
    let read = Ticket::read(&path, &Device::Cpu)?;
    assert_eq!(read.header, ticket.header);
    // Only the names came back, and nothing can be done by them.
    let pruning = read.header.pruning.as_ref().expect("a pruned ticket");
    assert_eq!(pruning.schedule.schedule.to_string(), "own(mine, (1))");
    let plan = pruning.schedule.plan(lth_schedule::TrainingLength::new(1, 10)?);
    assert!(matches!(plan, Err(lth_schedule::Error::CurveNan { .. })), "{plan:?}");
    let selected = lth_mask::select(&read.tensors, 0.5, &pruning.selection);
    let message = selected.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(message.contains("only its name is recorded"), "{message}");
    Ok(())
}
