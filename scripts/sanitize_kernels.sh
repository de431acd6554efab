#!/usr/bin/env bash
# The kernels' tests under AddressSanitizer: reads and writes outside of what was allocated end them. Needs a nightly
# toolchain, and builds candle once more for it, into target/asan.
set -euo pipefail
cd "$(dirname "$0")/.."
RUSTFLAGS='-Zsanitizer=address' cargo +nightly test --target x86_64-unknown-linux-gnu --target-dir target/asan \
    --test kernels "$@"
