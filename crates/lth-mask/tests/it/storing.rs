use lth_mask::{Mask, MaskSet, Result};

use crate::writers::check_writer;

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() -> Result<()> {
    let masks: MaskSet = [("w".to_owned(), Mask::from_fn([9], |i| i % 2 == 0)?)].into_iter().collect();
    check_writer("a.masks.safetensors", |path| masks.save(path).map_err(|error| error.to_string()));
    Ok(())
}
