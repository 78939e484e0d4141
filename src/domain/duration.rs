//! Durations as people read and write them.

use std::time::Duration;

/// Parses a duration of a definition, the configuration or a command line: `500ms`, `90s`, `15min`, `24h` or `30d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.chars().take_while(char::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let count: u64 = count.parse().ok()?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    count.checked_mul(unit_ms).map(Duration::from_millis)
}

/// A time by our clock within which at least `time` passes by anybody else's, the API's above all. Ours may run up to a
/// thousandth fast, twice what NTP corrects a clock by; the rest is for timers and short windows.
pub fn with_clock_margin(time: Duration) -> Duration {
    time.saturating_add(time / 1_000).saturating_add(Duration::from_millis(10))
}

/// A duration in the largest unit of which it has two or more, rounded down.
pub fn rough_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{rough_duration, with_clock_margin};

    #[test]
    fn the_margin_covers_a_clock_that_runs_fast() {
        for (seconds, faster) in [(60, 1.0005), (60, 1.001), (3_600, 1.001), (5, 1.002), (1, 1.01)] {
            let time = Duration::from_secs(seconds);
            assert!(with_clock_margin(time).div_f64(faster) >= time, "{seconds} s, x {faster}");
        }
        assert_eq!(with_clock_margin(Duration::MAX), Duration::MAX);
    }

    #[test]
    fn a_rough_duration_has_two_or_more_of_its_unit() {
        let minute = 60;
        let times = [0, 119, 2 * minute, 119 * minute, 120 * minute, 47 * 60 * minute, 48 * 60 * minute];
        let shown = times.map(|seconds| rough_duration(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }
}
