//! Our networks against the stock ones, in `tests/`: what is trained and saved here must run unchanged elsewhere.
//!
//! candle-transformers takes minutes to compile, so it is a dependency of this crate alone, and this crate is no default
//! member: `cargo test --workspace --test parity`, which shares the build of everything else (`-p parity` would not).
