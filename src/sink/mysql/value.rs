//! Converts values to and from the server, and splits rows into statements.

use jiff::civil::DateTime;
use mysql_async::Value;

use crate::catalog::definition::ColumnKind;
use crate::catalog::extract::Cell;
use crate::catalog::filter::cut_fraction;
use crate::domain::Timestamp;
use crate::domain::datetime;

use super::statements::Sized;

/// Bytes of a value beside its own: type, length, its bit in the NULL bitmap.
const OVERHEAD_BYTES: usize = 12;

pub(super) fn text_value(text: &str) -> Value {
    Value::Bytes(text.as_bytes().to_vec())
}

/// Converts a cell for a column of this kind.
pub(super) fn cell_value(cell: Cell, kind: ColumnKind) -> Value {
    match cell {
        Cell::Null => Value::NULL,
        Cell::Integer(number) => Value::Int(number),
        Cell::Boolean(flag) => Value::Int(i64::from(flag)),
        Cell::Decimal(mut text) => {
            if let ColumnKind::Decimal { scale, .. } = kind {
                cut_fraction(&mut text, usize::from(scale));
            }
            Value::Bytes(text.into_bytes())
        }
        Cell::Text(text) | Cell::Datetime(text) | Cell::Date(text) | Cell::Json(text) => {
            Value::Bytes(text.into_bytes())
        }
    }
}

/// `DATETIME(6)` in UTC; a time out of range becomes 1970, as everywhere.
pub(super) fn datetime_value(at: Timestamp) -> Value {
    let civil = datetime::civil(at).unwrap_or(DateTime::constant(1970, 1, 1, 0, 0, 0, 0));
    let small = |number: i8| u8::try_from(number).unwrap_or(0);
    Value::Date(
        u16::try_from(civil.year()).unwrap_or(1970),
        small(civil.month()),
        small(civil.day()),
        small(civil.hour()),
        small(civil.minute()),
        small(civil.second()),
        u32::try_from(civil.subsec_nanosecond() / 1000).unwrap_or(0),
    )
}

/// NULL for None.
pub(super) fn optional_datetime_value(at: Option<Timestamp>) -> Value {
    at.map_or(Value::NULL, datetime_value)
}

/// Parses a `DATETIME(6)` as the server sends it. None for NULL and for anything else.
pub(super) fn timestamp_of(value: &Value) -> Option<Timestamp> {
    let Value::Date(year, month, day, hour, minute, second, micros) = *value else { return None };
    let small = |number: u8| i8::try_from(number).ok();
    let civil = DateTime::new(
        i16::try_from(year).ok()?,
        small(month)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        small(second)?,
        i32::try_from(micros).ok()?.checked_mul(1000)?,
    )
    .ok()?;
    Some(datetime::timestamp(civil))
}

/// State of a row that is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    New,
    Known,
    /// It belongs to a newer document, and stays.
    Newer,
}

/// Rows of one table, value after value, with the bytes of each row.
pub(super) struct RowBuffer {
    width: usize,
    values: Vec<Value>,
    bytes: Vec<usize>,
}

impl RowBuffer {
    pub(super) fn new(width: usize) -> RowBuffer {
        RowBuffer { width, values: Vec::new(), bytes: Vec::new() }
    }

    /// Adds a row of `width` values; returns its bytes.
    pub(super) fn push(&mut self, row: impl Iterator<Item = Value>) -> usize {
        let from = self.values.len();
        self.values.extend(row);
        let bytes = self.values.iter().skip(from).map(value_bytes).sum();
        self.bytes.push(bytes);
        bytes
    }

    /// Splits the rows, by index, into new and existing ones.
    pub(super) fn divide(self, there: impl Fn(usize) -> There) -> (RowBuffer, RowBuffer) {
        // As in most batches; then no value moves.
        if (0..self.bytes.len()).all(|place| there(place) == There::New) {
            let none = RowBuffer::new(self.width);
            return (self, none);
        }
        let RowBuffer { width, values, bytes } = self;
        let (mut new, mut known) = (RowBuffer::new(width), RowBuffer::new(width));
        let mut values = values.into_iter();
        for (place, bytes) in bytes.into_iter().enumerate() {
            let row = values.by_ref().take(width);
            let part = match there(place) {
                There::New => &mut new,
                There::Known => &mut known,
                There::Newer => {
                    row.for_each(drop);
                    continue;
                }
            };
            part.values.extend(row);
            part.bytes.push(bytes);
        }
        (new, known)
    }

    /// Splits the rows, in order, into statements of the given sizes, none above `bytes_max` unless it is a single
    /// row.
    pub(super) fn cut(self, sizes: &[Sized], bytes_max: usize) -> impl Iterator<Item = (&str, Vec<Value>)> {
        let RowBuffer { width, values, bytes } = self;
        let mut values = values.into_iter();
        let mut done = 0;
        std::iter::from_fn(move || {
            let left = bytes.get(done..)?;
            let sized = fitting(sizes, left, bytes_max)?;
            done += sized.rows;
            Some((sized.text.as_str(), values.by_ref().take(sized.rows * width).collect()))
        })
    }
}

/// The largest size that needs no more rows than are left and no more bytes than allowed; a single row always fits.
/// None if no row is left.
fn fitting<'a>(sizes: &'a [Sized], left: &[usize], bytes_max: usize) -> Option<&'a Sized> {
    sizes.iter().find(|sized| {
        left.get(..sized.rows).is_some_and(|rows| sized.rows == 1 || rows.iter().sum::<usize>() <= bytes_max)
    })
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Bytes(bytes) => bytes.len() + OVERHEAD_BYTES,
        _ => OVERHEAD_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::{RowBuffer, Sized, There, cell_value, datetime_value, timestamp_of};
    use crate::catalog::definition::ColumnKind;
    use crate::catalog::extract::Cell;
    use crate::domain::Timestamp;
    use mysql_async::Value;

    fn sizes() -> Vec<Sized> {
        [256, 64, 16, 4, 1].map(|rows| Sized { rows, text: rows.to_string() }).into()
    }

    #[test]
    fn a_decimal_is_cut_to_its_column() {
        let kind = ColumnKind::Decimal { digits: 3, scale: 1 };
        assert_eq!(cell_value(Cell::Decimal("99.99".into()), kind), Value::Bytes(b"99.9".to_vec()));
    }

    #[test]
    fn a_time_out_of_range_is_1970() {
        assert_eq!(timestamp_of(&datetime_value(Timestamp::MAX)), Some(Timestamp::EPOCH));
        assert_eq!(timestamp_of(&Value::NULL), None);
    }

    #[test]
    fn rows_are_split_into_new_and_existing_ones() {
        let mut buffer = RowBuffer::new(2);
        for row in 0..5u64 {
            buffer.push([Value::UInt(row), Value::Bytes(vec![0; row as usize])].into_iter());
        }
        let fates = [There::Known, There::New, There::Newer, There::New, There::Known];
        let (new, known) = buffer.divide(|place| fates[place]);
        let firsts = |rows: &RowBuffer| rows.values.iter().step_by(2).cloned().collect::<Vec<_>>();
        assert_eq!((firsts(&new), firsts(&known)), ([1, 3].map(Value::UInt).into(), [0, 4].map(Value::UInt).into()));
        assert_eq!((new.bytes, known.bytes), (vec![25, 27], vec![24, 28]));
    }

    proptest! {
        #[test]
        fn times_survive_the_server(at in -62_135_596_800_000i64..253_402_300_800_000) {
            let at = Timestamp::from_millis(at);
            prop_assert_eq!(timestamp_of(&datetime_value(at)), Some(at));
        }

        #[test]
        fn splitting_loses_and_duplicates_no_row(lengths in proptest::collection::vec(0usize..3000, 0..700)) {
            let mut buffer = RowBuffer::new(2);
            for (index, length) in lengths.iter().enumerate() {
                buffer.push([Value::UInt(index as u64), Value::Bytes(vec![0; *length])].into_iter());
            }
            let sizes = sizes();
            let mut seen = 0u64;
            for (text, values) in buffer.cut(&sizes, 40_000) {
                prop_assert_eq!(text.parse::<usize>().unwrap() * 2, values.len());
                let bytes: usize = values.iter().map(super::value_bytes).sum();
                prop_assert!(values.len() == 2 || bytes <= 40_000);
                for pair in values.chunks(2) {
                    prop_assert_eq!(&pair[0], &Value::UInt(seen));
                    seen += 1;
                }
            }
            prop_assert_eq!(seen as usize, lengths.len());
        }
    }
}
