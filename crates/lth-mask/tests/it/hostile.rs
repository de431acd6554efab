//! Mask files that are damaged or mean harm.

use lth_mask::{Mask, MaskSet, Result};

use crate::mutations::{Memory, check};

#[test]
fn mask_files_survive_any_damage() -> Result<()> {
    let masks: MaskSet = [
        ("conv.weight".to_owned(), Mask::from_bytes(vec![3, 2, 2], &[0b1010_0110, 0b0000_1001])?),
        ("fc.weight".to_owned(), Mask::from_bytes(vec![2, 5], &[0xff, 0b10])?),
    ]
    .into_iter()
    .collect();
    check(&masks.to_bytes()?, 20_000, Memory { base: 64 << 10, per_byte: 64 }, |bytes| {
        let read = MaskSet::from_bytes(bytes).map_err(|error| error.to_string())?;
        // Both the bits and their SHA-256 are in the file: what is taken is what was written.
        assert_eq!(read.sha256(), masks.sha256());
        Ok(())
    });
    Ok(())
}
