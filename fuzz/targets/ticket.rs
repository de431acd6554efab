//! Tickets, plain and compact.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    lth_fuzz::with_file(bytes, |path| lth_ticket::Ticket::read(path, &candle_core::Device::Cpu).map(drop));
});
