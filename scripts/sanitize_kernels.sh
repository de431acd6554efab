#!/usr/bin/env bash
# The kernels' tests under AddressSanitizer: reads and writes outside of what was allocated end them. Needs a nightly
# toolchain, and builds candle once more for it, into target/asan.
#
# Left out: the test of deep graphs, since candle's recursion needs more than a thread's stack with the sanitizer's larger
# frames, and that of the C library's allocator, which the sanitizer replaces.
set -euo pipefail
cd "$(dirname "$0")/.."
RUSTFLAGS='-Zsanitizer=address' cargo +nightly test --target x86_64-unknown-linux-gnu --target-dir target/asan \
    --test kernels -- --skip a_deep_graph --skip memory:: "$@"
