//! Reads `[schedule]`.

use super::settings::Settings;
use crate::domain::schedule::{Schedule, Timetable, time_zone};

const SYNC_DEFAULT: &str = "0 */15 * * * *";
/// At night, when the budget is not needed for new rows.
const RECONCILE_DEFAULT: &str = "0 30 3 * * *";
const TIMEZONE_DEFAULT: &str = "Europe/Amsterdam";

pub(super) fn schedule(settings: &mut Settings) -> Option<Timetable> {
    let zone = valid(settings, "schedule.timezone", TIMEZONE_DEFAULT, time_zone);
    // The expressions are checked also when the zone is wrong.
    let read = |text: &str| Schedule::parse(text, zone.unwrap_or_default());
    let sync = valid(settings, "schedule.sync", SYNC_DEFAULT, read);
    let reconcile = valid(settings, "schedule.reconcile", RECONCILE_DEFAULT, read);
    zone.and(Some(Timetable { sync: sync?, reconcile: reconcile? }))
}

/// The value of a key that `read` accepts; otherwise that is a problem.
fn valid<T>(settings: &mut Settings, key: &str, default: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
    let value = read(&settings.text(key, default));
    value.map_err(|what| settings.problem_at(key, what)).ok()
}
