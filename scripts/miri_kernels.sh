#!/usr/bin/env bash
# The convolutions' portable kernels under Miri: undefined behaviour ends them. Needs a nightly toolchain with the
# components miri and rust-src, and checks candle once more for it, in target/miri.
#
# Tree borrows, since crossbeam, which rayon stands on, does not hold the stricter model's rules. Left out: what runs
# candle's own multiplication, which has no portable path, and the test that asks the system for all memory that is kept.
set -euo pipefail
cd "$(dirname "$0")/.."
export MIRIFLAGS='-Zmiri-disable-isolation -Zmiri-tree-borrows -Zmiri-permissive-provenance'
cargo +nightly miri test -p lth-kernels --target-dir target/miri --lib -- \
    conv::tests conv::mend conv::cost parallel layout::tests::sixteen norm::kernel "$@"
