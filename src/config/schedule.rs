//! Reads `[schedule]`. A schedule that never fires is refused.

use chrono::{DateTime, Datelike as _};
use croner::Cron;
use croner::parser::CronParser;

use super::checked::Schedule;
use super::settings::Settings;

const SYNC_DEFAULT: &str = "0 */15 * * * *";
/// At night, when the budget is not needed for new rows.
const RECONCILE_DEFAULT: &str = "0 30 3 * * *";
const TIMEZONE_DEFAULT: &str = "Europe/Amsterdam";
/// 2000-01-01. A day that none of the next ten years has does not exist.
const FIRST_DAY_S: i64 = 946_684_800;
const YEARS_LOOKED: i32 = 10;

pub(super) fn schedule(settings: &mut Settings) -> Option<Schedule> {
    let sync = cron(settings, "schedule.sync", SYNC_DEFAULT);
    let reconcile = cron(settings, "schedule.reconcile", RECONCILE_DEFAULT);
    let timezone = settings.text("schedule.timezone", TIMEZONE_DEFAULT);
    if let Err(error) = jiff::tz::TimeZone::get(&timezone) {
        settings.problem_at(
            "schedule.timezone",
            format!("`{timezone}` is not known here ({error}); use an IANA name like \"Europe/Amsterdam\" or \"UTC\""),
        );
        return None;
    }
    Some(Schedule { sync: sync?, reconcile: reconcile?, timezone })
}

/// Six fields with seconds; five are taken as second 0.
fn cron(settings: &mut Settings, key: &str, default: &str) -> Option<String> {
    let text = settings.text(key, default);
    let fields: Vec<&str> = text.split_whitespace().collect();
    let six = match fields.len() {
        5 => format!("0 {}", fields.join(" ")),
        6 => fields.join(" "),
        count => {
            let example = "six: second minute hour day month weekday, like \"0 */15 * * * *\"";
            settings.problem_at(key, format!("`{text}` has {count} fields; a schedule has {example}"));
            return None;
        }
    };
    let cron = match CronParser::builder().build().parse(&six) {
        Ok(cron) => cron,
        Err(error) => {
            settings.problem_at(key, format!("`{text}` is not a schedule: {error}; write it like \"0 */15 * * * *\""));
            return None;
        }
    };
    if !ever_fires(&cron) {
        settings.problem_at(key, format!("`{text}` never fires: no year has such a day; name one that exists"));
        return None;
    }
    Some(six)
}

/// Whether an expression ever fires; 29 February comes every fourth year.
fn ever_fires(cron: &Cron) -> bool {
    let first = DateTime::from_timestamp(FIRST_DAY_S, 0);
    let next = first.and_then(|first| cron.find_next_occurrence(&first, true).ok());
    first.zip(next).is_some_and(|(first, next)| next.year() < first.year() + YEARS_LOOKED)
}
