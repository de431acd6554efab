//! Which kernels this machine can run, and so which of them tests and timings on it have covered.
//!
//! `cargo run --example instruction_sets`
#![allow(clippy::print_stdout)] // an example talks to its reader

use lth_kernels::InstructionSet;

fn main() {
    println!("Kernels by default: {:?}", InstructionSet::detect());
    for set in InstructionSet::ALL {
        let tested =
            if set.is_available() { "run and tested here" } else { "NOT tested: this machine does not have it" };
        println!("   {set:?}: {tested}");
    }
}
