//! Files, folders and what breaks them.

mod atomic;
mod faults;
mod hostile;
mod lock;
mod mutations;
mod safetensors;
mod sha256;
mod syncs;
mod writers;
