//! Zero-copy JSON: texts borrow from the bytes they were parsed from.
//!
//! Documents are parsed twice (on arrival, and when they are laid out in columns), so this is a hot path: it costs
//! about a third of an owned tree. Objects are sorted by key, without duplicate keys. Numbers keep the digits that
//! were sent. Called by the source for bodies and by [`crate::catalog::extract`] for columns.

mod number;
mod reader;
#[cfg(test)]
mod reader_tests;
mod reading;
mod value;

pub use number::Number;
pub use reader::without_mark;
pub use reading::{JsonError, JsonFault, PathPart, Reading, Tolerance, Tolerated};
pub use value::{Json, element_at};
