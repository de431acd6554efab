//! Checkpoints that mean harm; those that are damaged are `checkpoint`'s.

use crate::checkpoint::{Result, in_folder, state};
use crate::mutations::{Memory, check};

#[test]
fn checkpoints_survive_any_damage() -> Result {
    let folder = tempfile::tempdir()?;
    let checkpoint = in_folder(folder.path());
    checkpoint.write(&state()?)?;
    let valid = std::fs::read(checkpoint.path())?;
    check(&valid, 5_000, Memory { base: 256 << 10, per_byte: 64 }, |bytes| {
        std::fs::write(checkpoint.path(), bytes).map_err(|error| error.to_string())?;
        let state = checkpoint.read().map_err(|error| error.to_string())?;
        state.map(drop).ok_or_else(|| "overlooked".to_owned())
    });
    Ok(())
}
