//! What the two forms of a ticket hold, and that nothing done to a file goes unnoticed.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use lth_mask::{Mask, MaskSet};
use lth_ticket::{DatasetInfo, Error, Identified, NetworkInfo, Stage, Ticket, TicketHeader, Written};
use proptest::prelude::*;

use crate::file::folder;

fn header() -> TicketHeader {
    TicketHeader {
        stage: Stage::Ticket,
        // A network of features: no picture, no classes, no head.
        network: NetworkInfo {
            name: "line".to_owned(),
            head: None,
            n_outputs: 1,
            input: vec![7],
            preprocessing: None,
            class_names: Vec::new(),
        },
        pruning: None,
        seed: 3,
        dataset: DatasetInfo { name: "line".to_owned(), sha256: None },
        parent: None,
        other: BTreeMap::new(),
    }
}

fn ticket(tensors: impl Into<BTreeMap<String, Tensor>>, masks: MaskSet) -> Ticket {
    Ticket { header: header(), tensors: tensors.into(), masks }
}

fn small() -> Result<Ticket, Error> {
    let weight = Tensor::new(&[1f32, 0.0, -2.0, 0.0, 0.0, 6.0, -0.0], &Device::Cpu)?;
    let bias = Tensor::new(&[0.5f32], &Device::Cpu)?;
    // Of the zeros, the second is kept, and so is the −0 at the end.
    let mask = Mask::from_fn([7], |i| ![1, 4].contains(&i))?;
    let masks = [("w".to_owned(), mask)].into_iter().collect();
    Ok(ticket([("w".to_owned(), weight), ("b".to_owned(), bias)], masks))
}

type Write = fn(&Ticket, &Path) -> Result<Written, Error>;

const FORMS: [Write; 2] = [Ticket::write, Ticket::write_compact];

#[test]
fn a_network_without_pictures_or_classes_needs_none() -> Result<(), Error> {
    let (folder, ticket) = (folder(), small()?);
    for write in FORMS {
        let path = folder.path().join("a.safetensors");
        write(&ticket, &path)?;
        let read = Ticket::read(&path, &Device::Cpu)?;
        assert_eq!((read.header, read.masks), (ticket.header.clone(), ticket.masks.clone()));
    }
    Ok(())
}

#[test]
fn a_hashed_ticket_goes_out_under_another_header() -> Result<(), Error> {
    let (folder, ticket) = (folder(), small()?);
    let mut hashed = ticket.identified()?;
    assert_eq!(hashed.content_sha256(), ticket.content_sha256()?);
    hashed.header_mut().parent = Some("ab".repeat(32));
    for (n, written) in [Identified::write, Identified::write_compact, Identified::write_smaller].iter().enumerate() {
        let path = folder.path().join(n.to_string());
        let written = written(&hashed, &path)?;
        let read = Ticket::read(&path, &Device::Cpu)?;
        assert_eq!(read.header, TicketHeader { parent: Some("ab".repeat(32)), ..ticket.header.clone() });
        assert_eq!(
            [read.content_sha256()?, written.content_sha256],
            [hashed.content_sha256(), hashed.content_sha256()]
        );
        assert_eq!(lth_files::sha256_file(&path)?, (written.sha256, written.bytes));
    }
    assert_eq!(ticket.header.parent, None, "its own is as it was");
    Ok(())
}

#[test]
fn the_smaller_form_is_the_compact_one_where_there_are_masks() -> Result<(), Error> {
    let folder = folder();
    let form = |ticket: &Ticket| {
        let path = folder.path().join("a.safetensors");
        assert_eq!(ticket.write_smaller(&path)?.content_sha256, ticket.content_sha256()?);
        Ticket::read(&path, &Device::Cpu)?;
        let bytes = std::fs::read(&path).expect("written above");
        let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        Ok::<_, Error>((has("bits/w"), has("\"compact\"")))
    };
    let masked = small()?;
    assert_eq!(form(&masked)?, (true, true));
    let dense = Ticket { masks: MaskSet::new(), ..masked.clone() };
    assert_eq!(form(&dense)?, (false, false));
    let mut named = masked;
    named.tensors.insert("kept/w".to_owned(), Tensor::new(&[1f32], &Device::Cpu)?);
    assert_eq!(form(&named)?, (false, false));
    Ok(())
}

#[test]
fn cuts_at_every_length_and_flips_of_every_bit_are_noticed() -> Result<(), Error> {
    let (folder, ticket) = (folder(), small()?);
    let path = folder.path().join("a.safetensors");
    for write in FORMS {
        write(&ticket, &path)?;
        let whole = std::fs::read(&path).expect("written above");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("room for a small file");
            Ticket::read(&path, &Device::Cpu)
        };
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut at {length}");
        }
        for place in 0..whole.len() {
            for flip in (0..8).map(|bit| 1u8 << bit).chain([0xff]) {
                let mut bytes = whole.clone();
                bytes[place] ^= flip;
                assert!(read(&bytes).is_err(), "byte {place} is {:#x} instead of {:#x}", bytes[place], whole[place]);
            }
        }
        assert!(read(&[&whole[..], &[0]].concat()).is_err(), "a byte more");
    }
    Ok(())
}

#[test]
fn which_zero_a_pruned_weight_is_makes_no_other_ticket() -> Result<(), Error> {
    let folder = folder();
    let of = |zero: f32| -> Result<Ticket, Error> {
        let mask = [("w".to_owned(), Mask::from_fn([2], |i| i == 0)?)].into_iter().collect();
        Ok(ticket([("w".to_owned(), Tensor::new(&[1f32, zero], &Device::Cpu)?)], mask))
    };
    for write in FORMS {
        let bytes = [0.0, -0.0].map(|zero| {
            let path = folder.path().join("a.safetensors");
            write(&of(zero).expect("a ticket"), &path).expect("written");
            std::fs::read(path).expect("written")
        });
        assert!(bytes[0] == bytes[1]);
    }
    Ok(())
}

#[test]
fn a_sparse_network_is_a_small_file() -> Result<(), Error> {
    let folder = folder();
    let n = 1_000_000;
    let mask = Mask::from_fn([n], |i| i % 20 == 0)?;
    let weight = mask.apply(&Tensor::ones(n, DType::F32, &Device::Cpu)?)?;
    let ticket = ticket([("w".to_owned(), weight)], [("w".to_owned(), mask)].into_iter().collect());
    let path = folder.path().join("a.safetensors");
    ticket.write_compact(&path)?;
    let length = std::fs::metadata(&path).expect("written").len() as usize;
    // 5 % of the values at four bytes, a bit per weight, and a header.
    assert!(length < n / 20 * 4 + n / 8 + 1_000, "{length} bytes");
    Ok(())
}

#[test]
fn names_that_the_compact_form_keeps_for_itself_are_refused() -> Result<(), Error> {
    let folder = folder();
    let path = folder.path().join("a.safetensors");
    let ticket = ticket([("kept/w".to_owned(), Tensor::new(&[1f32], &Device::Cpu)?)], MaskSet::new());
    let message = ticket.write_compact(&path).expect_err("ambiguous").to_string();
    assert!(message.contains("`kept/w`"), "{message}");
    assert!(!path.exists());
    ticket.write(&path)?;
    Ok(())
}

fn tensor(values: &[f32], dtype: DType) -> Tensor {
    let tensor = Tensor::from_slice(values, values.len(), &Device::Cpu);
    tensor.and_then(|tensor| tensor.to_dtype(dtype)).expect("values")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Any mask, any place of zeros among what is kept, NaN and infinity, every float type.
    #[test]
    fn every_mask_comes_back_exactly(
        weights in proptest::collection::vec((any::<bool>(), prop_oneof![3 => Just(0f32), 1 => Just(-0f32), 2 => any::<f32>()]), 0..200),
        dtype in prop_oneof![Just(DType::F32), Just(DType::F64), Just(DType::F16), Just(DType::BF16)],
    ) {
        let folder = folder();
        let path = folder.path().join("a.safetensors");
        let mask = Mask::from_fn([weights.len()], |i| weights[i].0).expect("a mask");
        let values: Vec<f32> = weights.iter().map(|(keep, value)| if *keep { *value } else { 0.0 }).collect();
        let weight = tensor(&values, dtype);
        let bytes = lth_train::tensor_bytes(&weight).expect("on the CPU");
        let ticket = ticket([("w".to_owned(), weight)], [("w".to_owned(), mask.clone())].into_iter().collect());
        for write in FORMS {
            let content = write(&ticket, &path).expect("written").content_sha256;
            let read = Ticket::read(&path, &Device::Cpu).expect("read");
            prop_assert_eq!(read.masks.get("w"), Some(&mask));
            prop_assert_eq!(lth_train::tensor_bytes(&read.tensors["w"]).expect("on the CPU"), bytes.clone());
            prop_assert_eq!(read.tensors["w"].dtype(), dtype);
            prop_assert_eq!(read.content_sha256().expect("readable"), content);
        }
    }
}
