//! Reads `[limits]` and `alerts.stale_after`.

use std::time::Duration;

use super::checked::Limits;
use super::settings::Settings;
use crate::domain::parse_duration;

/// About 100,000 documents of 2 KB; above it fetching pauses.
const OUTBOX_MAX_BYTES_DEFAULT: u64 = 256 << 20;
const ATTEMPTS_MAX_DEFAULT: u64 = 8;
/// More than a bad day parks, yet few enough to look through.
const PARKED_MAX_DEFAULT: u64 = 10_000;
/// A service supervisor waits 30 to 90 s before it kills.
const DRAIN_DEFAULT: &str = "20s";
const DRAIN_MAX: Duration = Duration::from_secs(600);

/// `alerts.stale_after`; `Some(None)`: not set.
pub(super) fn stale_after(settings: &mut Settings) -> Option<Option<Duration>> {
    settings.parsed("alerts.stale_after", "", |text| {
        if text.is_empty() {
            return Ok(None);
        }
        let limit = parse_duration(text).filter(|limit| !limit.is_zero());
        limit.map(Some).ok_or_else(|| format!("`{text}` is not a duration; write it like \"2h\""))
    })
}

pub(super) fn limits(settings: &mut Settings) -> Option<Limits> {
    // An outbox smaller than one page of documents would block forever.
    let outbox = settings.bounded("limits.outbox_max_bytes", OUTBOX_MAX_BYTES_DEFAULT, 1 << 20..=1 << 40);
    let attempts = settings.bounded("limits.attempts_max", ATTEMPTS_MAX_DEFAULT, 1..=100);
    let parked = settings.bounded("limits.parked_max", PARKED_MAX_DEFAULT, 1..=10_000_000);
    let drain = settings.parsed("limits.drain", DRAIN_DEFAULT, |text| {
        let drain = parse_duration(text).filter(|drain| *drain <= DRAIN_MAX);
        drain.ok_or_else(|| format!("`{text}` is not a duration up to 10 min; write it like \"20s\""))
    });
    let attempts_max = u32::try_from(attempts?).ok()?;
    Some(Limits { outbox_max_bytes: outbox?, attempts_max, parked_max: parked?, drain: drain? })
}
