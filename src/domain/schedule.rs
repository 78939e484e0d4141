//! Cron schedules: when walks are due.
//!
//! A schedule is a cron expression of six fields (seconds first; five are read as second 0) in a time zone. Around a DST
//! change it does what people expect:
//! - an expression whose hour is free (`0 */15 * * * *`) follows real time: it fires in both passes of a repeated hour,
//!   and not in a skipped one;
//! - an expression with fixed hours (`0 30 2 * * *`) fires exactly once a day for each: in the first pass of a repeated
//!   hour, and at the end of a skipped one.
//!
//! Croner matches the fields and chrono-tz knows the zones. Croner's own search in a zone is not used, for two reasons that
//! a test below shows: in the second pass of a repeated hour it goes back to the first, and it takes `0 0 2,14 * * *` for
//! an interval, so that a day without an hour 2 misses that tick.

use chrono::offset::{LocalResult, Offset as _};
use chrono::{DateTime, Datelike as _, FixedOffset, NaiveDateTime, TimeZone as _};
use chrono_tz::{GapInfo, Tz};
use croner::Cron;
use croner::parser::CronParser;

use super::timestamp::Timestamp;

const EXAMPLE: &str = "\"0 */15 * * * *\"";
/// 2000-01-01. A day that none of the next ten years has does not exist.
const FIRST_DAY_S: i64 = 946_684_800;
const YEARS_LOOKED: i32 = 10;

/// A cron expression in a time zone. It fires sometime.
#[derive(Clone, Debug)]
pub struct Schedule {
    expression: String,
    cron: Cron,
    zone: Tz,
    hour_is_free: bool,
}

/// The two schedules of the engine.
#[derive(Clone, Debug)]
pub struct Timetable {
    /// Incremental runs.
    pub sync: Schedule,
    /// Full runs.
    pub reconcile: Schedule,
}

/// The time zone of an IANA name, in upper or lower case.
///
/// # Errors
/// There is no such zone; says how to write it.
pub fn time_zone(name: &str) -> Result<Tz, String> {
    let found = jiff::tz::TimeZone::get(name).ok();
    let canonical = found.as_ref().and_then(jiff::tz::TimeZone::iana_name);
    canonical
        .and_then(|name| name.parse().ok())
        .ok_or_else(|| format!("`{name}` is not a time zone; use an IANA name like \"Europe/Amsterdam\" or \"UTC\""))
}

impl Schedule {
    /// Parses an expression.
    ///
    /// # Errors
    /// What is wrong and how to write it; also an expression that never fires.
    pub fn parse(expression: &str, zone: Tz) -> Result<Schedule, String> {
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let expression = match fields.len() {
            5 => format!("0 {}", fields.join(" ")),
            6 => fields.join(" "),
            count => {
                return Err(format!(
                    "`{expression}` has {count} fields; a schedule has six: second minute hour day month weekday, like {EXAMPLE}"
                ));
            }
        };
        let shown = fields.join(" ");
        let cron = CronParser::builder()
            .build()
            .parse(&expression)
            .map_err(|error| format!("`{shown}` is not a schedule: {error}; write it like {EXAMPLE}"))?;
        if !ever_fires(&cron) {
            return Err(format!("`{shown}` never fires: no year has such a day; name one that exists"));
        }
        let hour_is_free = expression.split(' ').nth(2).is_some_and(|hour| hour.starts_with('*'));
        Ok(Schedule { expression, cron, zone, hour_is_free })
    }

    /// The expression, with six fields.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// The parsed expression.
    pub fn cron(&self) -> &Cron {
        &self.cron
    }

    /// Where its times are local.
    pub fn zone(&self) -> Tz {
        self.zone
    }

    /// The first tick after an instant; None: there is none any more.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = DateTime::from_timestamp(after.as_millis().div_euclid(1000), 0)?.with_timezone(&self.zone);
        let next = if self.hour_is_free { self.next_in_real_time(&after) } else { self.next_by_local_time(&after) };
        Some(Timestamp::from_millis(next?.timestamp_millis()))
    }

    /// The next tick of fixed hours: a repeated local time counts once, a skipped one when the skip ends.
    fn next_by_local_time(&self, after: &DateTime<Tz>) -> Option<DateTime<Tz>> {
        let mut local = after.naive_local();
        loop {
            local = self.next_local(local)?;
            let at = match self.zone.from_local_datetime(&local) {
                LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => at,
                LocalResult::None => GapInfo::new(&local, &self.zone)?.end?,
            };
            // In the second pass of a repeated hour, local times of the first are found again.
            if at > *after {
                return Some(at);
            }
        }
    }

    fn next_local(&self, after: NaiveDateTime) -> Option<NaiveDateTime> {
        self.cron.find_next_occurrence(&after.and_utc(), false).ok().map(|found| found.naive_utc())
    }

    /// The next instant whose local time matches. When the offset changes before it, looks again at the new offset.
    fn next_in_real_time(&self, after: &DateTime<Tz>) -> Option<DateTime<Tz>> {
        let here = after.offset().fix();
        let found = self.next_at_offset(after, here)?;
        let there = found.offset().fix();
        if there == here {
            return Some(found);
        }
        let mut at_new_offset =
            std::iter::successors(self.next_at_offset(after, there), |at| self.next_at_offset(at, there));
        at_new_offset.find(|at| at.offset().fix() == there)
    }

    /// The next match if the offset did not change.
    fn next_at_offset(&self, after: &DateTime<Tz>, offset: FixedOffset) -> Option<DateTime<Tz>> {
        let found = self.cron.find_next_occurrence(&after.with_timezone(&offset), false).ok()?;
        Some(found.with_timezone(&self.zone))
    }
}

/// Whether an expression ever fires; 29 February comes every fourth year.
fn ever_fires(cron: &Cron) -> bool {
    let first = DateTime::from_timestamp(FIRST_DAY_S, 0);
    let next = first.and_then(|first| cron.find_next_occurrence(&first, true).ok());
    first.zip(next).is_some_and(|(first, next)| next.year() < first.year() + YEARS_LOOKED)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Schedule, time_zone};
    use crate::domain::clock::rfc3339;
    use crate::domain::timestamp::Timestamp;

    fn at(text: &str) -> Timestamp {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    fn schedule(expression: &str, zone: &str) -> Schedule {
        Schedule::parse(expression, time_zone(zone).unwrap()).unwrap()
    }

    fn ticks(expression: &str, zone: &str, from: &str, until: &str) -> Vec<String> {
        let schedule = schedule(expression, zone);
        let (mut now, until) = (at(from), at(until));
        let mut found = Vec::new();
        while let Some(next) = schedule.next(now).filter(|next| *next < until) {
            assert!(next > now, "{expression}: a tick must lie ahead");
            found.push(rfc3339(next));
            now = next;
        }
        found
    }

    /// Ticks within one local day, given by its bounds in UTC.
    fn count(expression: &str, from: &str, until: &str) -> usize {
        let before = rfc3339(at(from) - Duration::from_secs(1));
        ticks(expression, "Europe/Amsterdam", &before, until).len()
    }

    #[test]
    fn a_fixed_hour_fires_once_a_day_over_both_dst_changes() {
        // 2026-03-29: 02:00 -> 03:00. 2026-10-25: 03:00 -> 02:00.
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Amsterdam", "2026-03-27T12:00:00Z", "2026-03-31T12:00:00Z"),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z", "2026-03-31T00:30:00Z"]
        );
        assert_eq!(
            ticks("0 30 2 * * *", "Europe/Amsterdam", "2026-10-23T12:00:00Z", "2026-10-27T12:00:00Z"),
            ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z", "2026-10-27T01:30:00Z"]
        );
        let from_second_pass = schedule("0 30 2 * * *", "Europe/Amsterdam").next(at("2026-10-25T01:10:00Z"));
        assert_eq!(from_second_pass, Some(at("2026-10-26T01:30:00Z")), "not the first pass again");
        assert_eq!(count("0 30 3 * * *", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"), 1);
        assert_eq!(count("0 0 2,14 * * *", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"), 2);
        assert_eq!(count("0 0 2,14 * * *", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"), 2);
    }

    #[test]
    fn quarter_hours_follow_real_time_over_both_dst_changes() {
        assert_eq!(count("0 */15 * * * *", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"), 92);
        assert_eq!(count("0 */15 * * * *", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"), 100);
        assert_eq!(count("*/15 * * * *", "2026-06-01T22:00:00Z", "2026-06-02T22:00:00Z"), 96);
        assert_eq!(count("7 * * * * *", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"), 25 * 60);
    }

    #[test]
    fn dst_changes_of_half_an_hour_are_handled() {
        // Lord Howe moves by half an hour.
        assert_eq!(
            ticks("0 45 1 * * *", "Australia/Lord_Howe", "2026-04-03T00:00:00Z", "2026-04-06T00:00:00Z").len(),
            3
        );
        assert_eq!(
            ticks("0 15 2 * * *", "Australia/Lord_Howe", "2026-10-02T00:00:00Z", "2026-10-05T00:00:00Z").len(),
            3
        );
        assert_eq!(ticks("0 0 0 1 1 *", "UTC", "2026-01-02T00:00:00Z", "2028-06-01T00:00:00Z").len(), 2);
        // A month in the other half of the year.
        assert_eq!(ticks("0 0 * 15 7 *", "Europe/Amsterdam", "2026-01-02T00:00:00Z", "2026-12-01T00:00:00Z").len(), 24);
    }

    #[test]
    fn croner_alone_goes_back_in_a_repeated_hour_and_misses_a_skipped_one() {
        let quarters = schedule("0 */15 * * * *", "Europe/Amsterdam");
        let second_pass = chrono::DateTime::from_timestamp_millis(at("2026-10-25T01:05:00Z").as_millis()).unwrap();
        let found = quarters.cron.find_next_occurrence(&second_pass.with_timezone(&quarters.zone), false).unwrap();
        assert_eq!(
            found.timestamp_millis(),
            at("2026-10-25T00:15:00Z").as_millis(),
            "50 minutes before the start of the search"
        );
        assert_eq!(quarters.next(at("2026-10-25T01:05:00Z")), Some(at("2026-10-25T01:15:00Z")));

        let twice = schedule("0 0 2,14 * * *", "Europe/Amsterdam");
        let before_skip = chrono::DateTime::from_timestamp_millis(at("2026-03-29T00:30:00Z").as_millis()).unwrap();
        let found = twice.cron.find_next_occurrence(&before_skip.with_timezone(&twice.zone), false).unwrap();
        assert_eq!(found.timestamp_millis(), at("2026-03-29T12:00:00Z").as_millis(), "hour 2 is missed");
        assert_eq!(twice.next(at("2026-03-29T00:30:00Z")), Some(at("2026-03-29T01:00:00Z")));
    }

    #[test]
    fn an_invalid_schedule_is_rejected_with_an_example() {
        let error = |text: &str| Schedule::parse(text, chrono_tz::UTC).unwrap_err();
        assert!(error("every day").contains("0 */15 * * * *"));
        assert!(error("0 99 * * * *").contains("0 */15 * * * *"));
        assert!(error("0 0 0 30 2 *").contains("never fires"));
        assert!(time_zone("Europe/Rotterdam").unwrap_err().contains("Europe/Amsterdam"));
        assert_eq!(time_zone("europe/amsterdam"), Ok(chrono_tz::Europe::Amsterdam));
    }
}
