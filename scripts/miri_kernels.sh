#!/usr/bin/env bash
# The convolutions' portable kernels under Miri: undefined behaviour ends them. Needs a nightly toolchain with the
# components miri and rust-src, and checks candle once more for it, in target/miri.
#
# What is checked: bounds, alignment, memory that was not written, numbers that are none. References that overlap only with
# ALIASING=-Zmiri-tree-borrows, which takes many times longer (the stricter model ends in crossbeam, which rayon stands on).
# Left out: what runs candle's own multiplication, which has no portable path, and the test that asks the system for all
# memory that is kept, and that of long ranges. One worker, since idle ones would take the interpreter's time; it lives as long
# as the process, so that leaks are not looked at.
set -euo pipefail
cd "$(dirname "$0")/.."
export RAYON_NUM_THREADS=1
export MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance -Zmiri-ignore-leaks ${ALIASING:--Zmiri-disable-stacked-borrows}"
cargo +nightly miri test -p lth-kernels --target-dir target/miri --lib -- \
    conv::tests conv::mend conv::cost parallel::tests::a_filled layout::tests::sixteen "$@"
