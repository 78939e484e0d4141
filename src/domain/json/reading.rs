//! What the parser returns: a value with what was tolerated, or an error that quotes none of the text.

use super::value::Json;
use crate::domain::variants::with_all;

with_all! {
    /// Something accepted although a strict parser refuses it, or parsers disagree about it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Tolerance {
        /// Half of a surrogate pair, read as U+FFFD.
        HalfSurrogate,
        /// A duplicate key in one object; the last wins.
        DuplicateKey,
        /// A byte order mark before the text.
        ByteOrderMark,
    }
}

impl Tolerance {
    /// Its name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Tolerance::HalfSurrogate => "half_surrogate",
            Tolerance::DuplicateKey => "duplicate_key",
            Tolerance::ByteOrderMark => "byte_order_mark",
        }
    }
}

/// One part of a place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPart {
    Member(String),
    /// Any element of an array.
    Element,
}

/// Something that was tolerated, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tolerated {
    pub what: Tolerance,
    /// From the outermost part inwards.
    pub path: Vec<PathPart>,
}

/// A text that was read.
#[derive(Debug)]
pub struct Reading<'a> {
    pub value: Json<'a>,
    /// In the order of the text; only the first of many.
    pub tolerated: Vec<Tolerated>,
    /// A text that every parser reads as this value. None: the text itself.
    pub normalised: Option<Vec<u8>>,
}

/// Why a text cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonFault {
    Syntax,
    EndsEarly,
    TooDeep,
    NumberTooGreat,
    NotUtf8,
}

/// A parse error: what is wrong, and where. Quotes none of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} (line {line}, column {column})", .fault.text())]
pub struct JsonError {
    pub fault: JsonFault,
    pub line: usize,
    pub column: usize,
}

impl JsonFault {
    fn text(self) -> &'static str {
        match self {
            JsonFault::Syntax => "it is not JSON",
            JsonFault::EndsEarly => "it ends too early",
            JsonFault::TooDeep => "it is nested deeper than 128",
            JsonFault::NumberTooGreat => "a number in it is out of range",
            JsonFault::NotUtf8 => "it is not UTF-8",
        }
    }
}
