//! Our networks against candle's own.

mod networks;
mod tickets;
