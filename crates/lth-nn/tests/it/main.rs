//! Integration tests of lth-nn.

mod drop_in;
#[path = "../../../lth-files/tests/it/faults.rs"]
mod faults;
mod files;
mod golden;
mod hostile;
mod inference;
#[path = "../../../lth-files/tests/it/mutations.rs"]
mod mutations;
mod named;
mod networks;
mod papers;
mod randomness;
mod sparse;
mod transformer;
mod weights;
#[path = "../../../lth-files/tests/it/writers.rs"]
mod writers;
