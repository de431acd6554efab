//! Tickets that are damaged or mean harm.

use candle_core::{Device, Tensor};
use lth_mask::{Mask, MaskSet};
use lth_ticket::Ticket;

use crate::file::{folder, ticket};
use crate::mutations::{Memory, check};

#[test]
fn tickets_survive_any_damage_in_both_forms() {
    let mask = Mask::from_bytes(vec![2, 3], &[0b10_1001]).expect("six bits");
    let weight = Tensor::new(&[[1f32, 0., 0.], [-2., 0., 0.]], &Device::Cpu).expect("six values");
    let masks: MaskSet = [("fc.weight".to_owned(), mask)].into_iter().collect();
    let ticket = Ticket { tensors: [("fc.weight".to_owned(), weight)].into(), masks, ..ticket() };
    let (content, place) = (ticket.content_sha256().expect("a checksum"), folder());
    for (n, write) in [Ticket::write, Ticket::write_compact].into_iter().enumerate() {
        let path = place.path().join(format!("{n}.safetensors"));
        write(&ticket, &path).expect("written");
        let valid = std::fs::read(&path).expect("it is there");
        check(&valid, 5_000, Memory { base: 256 << 10, per_byte: 64 }, |bytes| {
            std::fs::write(&path, bytes).expect("a small file");
            let read = Ticket::read(&path, &Device::Cpu).map_err(|error| error.to_string())?;
            // What is taken is what was written: only what others noted in the header may be another.
            assert_eq!(read.content_sha256().ok(), Some(content.clone()));
            Ok(())
        });
    }
}
