//! Reads `[log]`.

use super::checked::{Log, LogFormat};
use super::settings::Settings;

const LOG_LEVEL_DEFAULT: &str = "info";

pub(super) fn log(settings: &mut Settings) -> Option<Log> {
    let format = settings.parsed("log.format", "text", |text| match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("`{text}` is not a format; use \"text\" or \"json\"")),
    });
    let level = settings.parsed("log.level", LOG_LEVEL_DEFAULT, level);
    Some(Log { format: format?, level: level?, level_is_set: settings.is_set("log.level") })
}

/// A level, or a list of them by module.
fn level(text: &str) -> Result<String, String> {
    let is_level = |text: &str| matches!(text, "off" | "error" | "warn" | "info" | "debug" | "trace");
    let part = |part: &str| is_level(part.trim().rsplit_once('=').map_or(part.trim(), |(_, level)| level));
    if !text.split(',').all(part) {
        return Err(format!(
            "`{text}` is not a level; use error, warn, info, debug or trace, or \"info,waybill::sync=debug\""
        ));
    }
    Ok(text.to_owned())
}
