//! The machine from outside: one binary, one module per concern.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and their numbers are small"
)]

mod bounds;
mod codec;
mod digests;
mod golden;
mod history;
mod levels;
mod model;
mod real_hunt;
mod sessions;
mod support;
mod text;
