//! Reads `[schedule]`.

use super::settings::Settings;
use crate::domain::schedule::{Schedule, Timetable, time_zone};

const SYNC_DEFAULT: &str = "0 */15 * * * *";
/// At night, when the budget is not needed for new rows.
const RECONCILE_DEFAULT: &str = "0 30 3 * * *";
const TIMEZONE_DEFAULT: &str = "Europe/Amsterdam";

pub(super) fn schedule(settings: &mut Settings) -> Option<Timetable> {
    let zone = settings.parsed("schedule.timezone", TIMEZONE_DEFAULT, time_zone);
    // The expressions are checked also when the zone is wrong.
    let read = |text: &str| Schedule::parse(text, zone.unwrap_or_default());
    let sync = settings.parsed("schedule.sync", SYNC_DEFAULT, read);
    let reconcile = settings.parsed("schedule.reconcile", RECONCILE_DEFAULT, read);
    zone.and(Some(Timetable { sync: sync?, reconcile: reconcile? }))
}
