//! What the program was built from: `build.rs` beside `src` finds it.

use lth_runs::BuildRecord;

/// What the records say of the program.
pub(crate) fn build() -> BuildRecord {
    let known = |text: &str| Some(text).filter(|text| !text.is_empty()).map(str::to_owned);
    BuildRecord {
        commit: known(env!("LTH_COMMIT")),
        is_modified: !env!("LTH_MODIFIED").is_empty(),
        compiler: known(env!("LTH_RUSTC")),
        candle: known(env!("LTH_CANDLE")),
        ..BuildRecord::of(concat!("lth ", env!("CARGO_PKG_VERSION")))
    }
}

/// What `--version` prints after the name: "0.1.0 (commit 8c9a131d42f0, rustc 1.95.0 (…), candle 0.11.1)".
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("LTH_ABOUT"), ")");
