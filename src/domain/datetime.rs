//! Parses ISO 8601 and RFC 3339 dates and times, for all years from 0 to 9999.

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use super::timestamp::Timestamp;

/// A date, or a date and time, as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The day as written, whatever the offset.
    pub date: Date,
    time: Option<Time>,
    /// Seconds east of UTC.
    offset: Option<i32>,
}

impl Written {
    /// Parses a calendar date, alone or with a time and an offset. Week dates, ordinal dates and trailing text are
    /// refused.
    pub fn parse(text: &str) -> Option<Written> {
        let mut cursor = Cursor(text.as_bytes());
        let date = cursor.date()?;
        let time =
            if cursor.take(|byte| matches!(byte, b'T' | b't' | b' ')).is_some() { Some(cursor.time()?) } else { None };
        if time.is_some() && cursor.0.len() > 1 {
            // As in `2026-06-30 22:30:00 +0200`.
            cursor.take(|byte| byte == b' ');
        }
        let offset = if matches!(cursor.0, [] | [b'[', ..]) { None } else { Some(cursor.offset()?) };
        // RFC 9557 appends the zone's name to the offset, which is enough by itself.
        let is_named = matches!(cursor.0, [b'[', .., b']']) && time.is_some() && offset.is_some();
        (cursor.0.is_empty() || is_named).then_some(Written { date, time, offset })
    }

    /// Whether it is a date and a time without an offset.
    pub fn lacks_offset(&self) -> bool {
        self.time.is_some() && self.offset.is_none()
    }

    /// The point in time, in UTC. `zone` is the time zone of a time without an offset: a local time that a DST change
    /// skips is read an hour later, one that it repeats is the first. None: a date alone, a time with neither offset
    /// nor zone, or a year beyond 9999.
    pub fn utc(&self, zone: Option<&TimeZone>) -> Option<DateTime> {
        let local = self.date.to_datetime(self.time?);
        let utc = match (self.offset, zone) {
            (Some(seconds), _) => local.checked_sub(SignedDuration::from_secs(i64::from(seconds))).ok()?,
            (None, Some(zone)) if *zone == TimeZone::UTC => local,
            (None, Some(zone)) => {
                let at = zone.to_ambiguous_timestamp(local).compatible().ok()?;
                jiff::tz::Offset::UTC.to_datetime(at)
            }
            (None, None) => return None,
        };
        (utc.year() >= 0).then_some(utc)
    }
}

/// A point in time as a civil datetime in UTC. None: before the year 0 or after 9999.
pub fn civil(at: Timestamp) -> Option<DateTime> {
    let civil = epoch().checked_add(SignedDuration::from_millis(at.as_millis())).ok()?;
    (civil.year() >= 0).then_some(civil)
}

/// `2026-11-22 15:04:05.123000`, the form MySQL's `DATETIME(6)` takes.
pub fn sql_datetime(at: Timestamp) -> String {
    civil(at).map_or_else(|| sql_datetime(Timestamp::EPOCH), sql_text)
}

/// The point in time of a civil datetime in UTC, rounded down.
pub fn timestamp(utc: DateTime) -> Timestamp {
    let millis = utc.duration_since(epoch()).as_nanos().div_euclid(1_000_000);
    i64::try_from(millis).map_or(Timestamp::MAX, Timestamp::from_millis)
}

/// `2026-11-22 15:04:05.123000`, the form that `DATETIME(6)` takes; finer fractions are cut, as MySQL would round them
/// into another second.
pub fn sql_text(utc: DateTime) -> String {
    let (date, time) = (utc.date(), utc.time());
    let mut text = String::with_capacity("2026-11-22 15:04:05.123000".len());
    // By hand: every document has several of these.
    let mut push = |number: u32, digits: u32, behind: &str| {
        for place in (0..digits).rev() {
            text.push(char::from_digit(number / 10_u32.pow(place) % 10, 10).unwrap_or('0'));
        }
        text.push_str(behind);
    };
    push(date.year().unsigned_abs().into(), 4, "-");
    push(date.month().unsigned_abs().into(), 2, "-");
    push(date.day().unsigned_abs().into(), 2, " ");
    push(time.hour().unsigned_abs().into(), 2, ":");
    push(time.minute().unsigned_abs().into(), 2, ":");
    push(time.second().unsigned_abs().into(), 2, ".");
    push(time.subsec_nanosecond().unsigned_abs() / 1000, 6, "");
    text
}

fn epoch() -> DateTime {
    DateTime::constant(1970, 1, 1, 0, 0, 0, 0)
}

/// The unread rest of a text.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !wanted(*first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }

    fn digits(&mut self, count: usize) -> Option<i32> {
        (0..count).try_fold(0, |number, _| {
            let digit = self.take(|byte| byte.is_ascii_digit())?;
            Some(number * 10 + i32::from(digit - b'0'))
        })
    }

    fn small(&mut self) -> Option<i8> {
        self.digits(2).and_then(|number| i8::try_from(number).ok())
    }

    /// `2026-06-30` or `20260630`; a year with a sign has six digits.
    fn date(&mut self) -> Option<Date> {
        let year = match self.take(|byte| matches!(byte, b'+' | b'-')) {
            None => self.digits(4)?,
            Some(b'+') => self.digits(6)?,
            Some(_) => -self.digits(6)?,
        };
        let year = i16::try_from(year).ok().filter(|year| (0..=9999).contains(year))?;
        let is_extended = self.take(|byte| byte == b'-').is_some();
        let month = self.small()?;
        if is_extended {
            self.take(|byte| byte == b'-')?;
        }
        Date::new(year, month, self.small()?).ok()
    }

    /// `22:30`, `22:30:00.5` or `223000`.
    fn time(&mut self) -> Option<Time> {
        let hour = self.small()?;
        let is_extended = self.take(|byte| byte == b':').is_some();
        let has_minute = is_extended || self.0.first().is_some_and(u8::is_ascii_digit);
        let minute = if has_minute { self.small()? } else { 0 };
        let has_second = if is_extended {
            self.take(|byte| byte == b':').is_some()
        } else {
            self.0.first().is_some_and(u8::is_ascii_digit)
        };
        let (mut second, mut nanos) = (0, 0);
        if has_second {
            second = self.small()?;
            if self.take(|byte| matches!(byte, b'.' | b',')).is_some() {
                nanos = self.fraction()?;
            }
        }
        // A leap second reads as the last instant before it.
        if second == 60 {
            (second, nanos) = (59, 999_999_999);
        }
        Time::new(hour, minute, second, nanos).ok()
    }

    fn fraction(&mut self) -> Option<i32> {
        let mut nanos = self.digits(1)?;
        let mut count = 1;
        while let Some(digit) = self.take(|byte| byte.is_ascii_digit()) {
            if count < 9 {
                nanos = nanos * 10 + i32::from(digit - b'0');
                count += 1;
            }
        }
        Some(nanos * 10_i32.pow(9 - count))
    }

    /// `Z`, `+02:00`, `+0200` or `+02`.
    fn offset(&mut self) -> Option<i32> {
        if self.take(|byte| matches!(byte, b'Z' | b'z')).is_some() {
            return Some(0);
        }
        let sign = if self.take(|byte| matches!(byte, b'+' | b'-'))? == b'-' { -1 } else { 1 };
        let hours = self.digits(2).filter(|hours| *hours < 24)?;
        let has_minutes = self.take(|byte| byte == b':').is_some() || self.0.first().is_some_and(u8::is_ascii_digit);
        let minutes = if has_minutes { self.digits(2).filter(|minutes| *minutes < 60)? } else { 0 };
        Some(sign * (hours * 3600 + minutes * 60))
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Written, civil, sql_text, timestamp};
    use crate::domain::Timestamp;

    fn utc(text: &str, zone: Option<&str>) -> Option<String> {
        let zone = zone.map(|name| TimeZone::get(name).unwrap());
        Written::parse(text)?.utc(zone.as_ref()).map(sql_text)
    }

    #[test]
    fn each_form_of_a_date_time_is_the_same_point_in_time() {
        for text in [
            "2026-06-30T22:30:00Z",
            "2026-06-30t22:30:00z",
            "2026-06-30 22:30:00Z",
            "2026-06-30 22:30:00 +0000",
            "2026-06-30T22:30Z",
            "2026-06-30T22:30:00.000000000000Z",
            "2026-06-30T22:30:00,0Z",
            "2026-06-30T22:30:00-00:00",
            "2026-07-01T00:30:00+02:00",
            "2026-07-01T00:30:00+0200",
            "2026-07-01T00:30:00+02",
            "20260701T003000+0200",
            "20260701T0030+02",
            "+002026-06-30T22:30:00Z",
            "2026-07-01T00:30:00+02:00[Europe/Amsterdam]",
        ] {
            assert_eq!(utc(text, None).as_deref(), Some("2026-06-30 22:30:00.000000"), "{text}");
        }
        assert_eq!(utc("2026-06-30T22:30:00.123456789Z", None).unwrap(), "2026-06-30 22:30:00.123456");
        assert_eq!(utc("2016-12-31T23:59:60Z", None).unwrap(), "2016-12-31 23:59:59.999999");
        for text in ["2026-06-30", "2026-06-30Z", "2026-06-30T22:30:00", "2026-06-30T22:30:00[Europe/Amsterdam]"] {
            assert_eq!(utc(text, None), None, "{text}");
        }
    }

    #[test]
    fn the_date_is_the_one_written_whatever_the_offset() {
        for text in [
            "2026-06-30",
            "20260630",
            "2026-06-30Z",
            "2026-06-30+02:00",
            "2026-06-30T22:30:00Z",
            "2026-06-30T23:30:00-10:00",
            "2026-06-30T00:30:00+14:00",
            "2026-06-30t22:30:00.5z",
            "2026-06-30 22:30",
        ] {
            assert_eq!(Written::parse(text).unwrap().date.to_string(), "2026-06-30", "{text}");
        }
    }

    #[test]
    fn anything_but_a_calendar_date_is_refused() {
        for text in [
            "",
            "2026",
            "2026-06",
            "2026-6-30",
            "2026-W27-2",
            "2026W272",
            "2026-181",
            "2026181",
            "2026-02-30",
            "2026-13-01",
            "26-06-30",
            "30-06-2026",
            "06/30/2026",
            "2026-06-30T",
            "2026-06-30T24:00:00Z",
            "2026-06-30T22:60:00Z",
            "2026-06-30T22:30:00+24:00",
            "2026-06-30T22:30:00+02:60",
            "2026-06-30T22:30:00 UTC",
            "2026-06-30T22:30:00ZZ",
            " 2026-06-30",
            "2026-06-30 ",
            "2026-06-30T22:30:00.Z",
            "2026-06-30x",
            "-000001-01-01",
            "+010000-01-01",
            "10000-01-01",
            "2026-06-30T22:30:00Z\0",
            "２０２６-06-30",
        ] {
            assert_eq!(Written::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_without_an_offset_is_read_in_the_given_zone() {
        let amsterdam = Some("Europe/Amsterdam");
        assert_eq!(utc("2026-06-30T22:30:00", Some("UTC")).unwrap(), "2026-06-30 22:30:00.000000");
        assert_eq!(utc("2026-06-30 22:30:00", amsterdam).unwrap(), "2026-06-30 20:30:00.000000");
        assert_eq!(utc("2026-06-30T22:30:00Z", amsterdam).unwrap(), "2026-06-30 22:30:00.000000", "an offset wins");
        assert_eq!(
            utc("2026-03-29T02:30:00", amsterdam).unwrap(),
            "2026-03-29 01:30:00.000000",
            "skipped: an hour later"
        );
        assert_eq!(utc("2026-10-25T02:30:00", amsterdam).unwrap(), "2026-10-25 00:30:00.000000", "twice: the first");
        assert!(Written::parse("2026-06-30T22:30:00").unwrap().lacks_offset());
        assert!(!Written::parse("2026-06-30").unwrap().lacks_offset());
    }

    #[test]
    fn the_first_and_last_instants_of_the_calendar_are_accepted_and_none_beyond() {
        assert_eq!(utc("9999-12-31T23:59:59.999999Z", None).unwrap(), "9999-12-31 23:59:59.999999");
        assert_eq!(utc("0000-01-01T00:00:00Z", None).unwrap(), "0000-01-01 00:00:00.000000");
        assert_eq!(utc("9999-12-31T23:59:59-00:01", None), None);
        assert_eq!(utc("0000-01-01T00:00:00+00:01", None), None);
        assert_eq!((civil(Timestamp::MAX), civil(Timestamp::MIN)), (None, None));
        assert_eq!(sql_text(civil(Timestamp::from_millis(253_402_300_799_999)).unwrap()), "9999-12-31 23:59:59.999000");
        assert_eq!(civil(Timestamp::from_millis(253_402_300_800_000)), None);
        assert_eq!(sql_text(civil(Timestamp::from_millis(-62_135_596_800_000)).unwrap()), "0001-01-01 00:00:00.000000");
    }

    proptest! {
        #[test]
        fn points_in_time_survive_the_calendar(at in -62_167_219_200_000i64..253_402_300_800_000) {
            let at = Timestamp::from_millis(at);
            let utc = civil(at).unwrap();
            prop_assert_eq!(timestamp(utc), at);
            let (date, time, micros) = (utc.date(), utc.time(), utc.subsec_nanosecond() / 1000);
            let text = format!("{date} {:02}:{:02}:{:02}.{micros:06}", time.hour(), time.minute(), time.second());
            prop_assert_eq!(sql_text(utc), text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9TtZz+:. ,\\[\\]W-]{0,32}", other in any::<String>()) {
            for text in [text, other] {
                if let Some(written) = Written::parse(&text) {
                    written.utc(Some(&TimeZone::UTC));
                }
            }
        }
    }
}
