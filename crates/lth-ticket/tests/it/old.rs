//! Tickets of schema 1: the masks in a second file, a header that was of square pictures.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::Device;
use lth_ticket::{Error, Preprocessing, Ticket};

use crate::file::{folder, ticket};

/// Writes the two files as version 0.1.0 did.
fn write_old(ticket: &Ticket, path: &Path) {
    let json = |value: serde_json::Value| value.to_string();
    let fields = [
        ("stage", "trained".to_owned()),
        (
            "network",
            r#"{"name":"lenet","head":"fc","image_size":8,"mean":[0.5],"std":[0.25],"class_names":["zero","\"one\"","42"]}"#
                .to_owned(),
        ),
        ("pruning", json(serde_json::to_value(&ticket.header.pruning).expect("JSON"))),
        ("seed", ticket.header.seed.to_string()),
        ("dataset", json(serde_json::to_value(&ticket.header.dataset).expect("JSON"))),
        ("parent", ticket.header.parent.clone().expect("it has one")),
        ("content_sha256", ticket.content_sha256().expect("readable")),
        ("format", "pt".to_owned()),
        ("lth_version", "0.1.0".to_owned()),
        ("author", "me".to_owned()),
    ];
    let fields: BTreeMap<String, String> = fields.map(|(name, text)| (name.to_owned(), text)).into();
    ticket.masks.save(path.with_extension("masks.safetensors")).expect("room for a small file");
    lth_train::save_safetensors(path, &ticket.tensors, &fields).expect("room for a small file");
}

#[test]
fn a_ticket_of_two_files_is_still_read() -> Result<(), Error> {
    let (folder, ticket) = (folder(), ticket());
    let path = folder.path().join("a.safetensors");
    write_old(&ticket, &path);
    let read = Ticket::read(&path, &Device::Cpu)?;
    // What was an image of 8 x 8 pixels in one channel is the same input today.
    assert_eq!(read.header, ticket.header);
    assert_eq!(read.header.network.preprocessing, Some(Preprocessing { mean: vec![0.5], std: vec![0.25] }));
    assert_eq!(read.masks, ticket.masks);
    // Written again it is one file.
    std::fs::remove_file(path.with_extension("masks.safetensors")).expect("it is there");
    read.write(&path)?;
    assert_eq!(Ticket::read(&path, &Device::Cpu)?.content_sha256()?, ticket.content_sha256()?);
    Ok(())
}

#[test]
fn missing_or_swapped_masks_of_an_old_ticket_are_noticed() {
    let (folder, ticket) = (folder(), ticket());
    let path = folder.path().join("a.safetensors");
    let masks = path.with_extension("masks.safetensors");
    write_old(&ticket, &path);
    lth_mask::random_like(&ticket.masks, 1).save(&masks).expect("room for a small file");
    assert!(matches!(Ticket::read(&path, &Device::Cpu), Err(Error::Damaged { .. })));
    std::fs::remove_file(&masks).expect("it is there");
    let error = Ticket::read(&path, &Device::Cpu).expect_err("its masks are gone");
    assert!(matches!(&error, Error::NoMasks { masks: named, .. } if *named == masks), "{error}");
}

#[test]
fn a_header_without_its_fields_is_damaged() {
    let (folder, ticket) = (folder(), ticket());
    let path = folder.path().join("a.safetensors");
    for name in ["stage", "network", "seed", "dataset", "content_sha256"] {
        write_old(&ticket, &path);
        crate::file::rewrite(&path, |fields| {
            fields.remove(name);
        });
        assert!(matches!(Ticket::read(&path, &Device::Cpu), Err(Error::Damaged { .. })), "{name}");
    }
}
