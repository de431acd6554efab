//! Whole experiments on the embedded digits, small enough for seconds.

mod arms;
mod connectivity;
mod looking;
mod lottery;
mod notebook;
mod refusals;
mod store;
mod support;
