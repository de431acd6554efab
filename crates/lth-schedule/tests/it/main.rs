//! The crate against golden values and properties.
#![allow(missing_docs)]

mod golden;
mod own;
mod properties;
