//! Files, folders and what breaks them.

mod atomic;
mod faults;
mod lock;
mod safetensors;
mod sha256;
