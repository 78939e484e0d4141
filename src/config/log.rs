//! Reads `[log]`.

use super::checked::{Log, LogFormat};
use super::settings::Settings;

const LOG_LEVEL_DEFAULT: &str = "info";

pub(super) fn log(settings: &mut Settings) -> Option<Log> {
    let text = settings.text("log.format", "text");
    let format = match text.as_str() {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => {
            settings.problem_at("log.format", format!("`{text}` is not a format; use \"text\" or \"json\""));
            None
        }
    };
    let level = settings.text("log.level", LOG_LEVEL_DEFAULT);
    let is_level = |text: &str| matches!(text, "off" | "error" | "warn" | "info" | "debug" | "trace");
    let sound =
        level.split(',').all(|part| is_level(part.trim().rsplit_once('=').map_or(part.trim(), |(_, level)| level)));
    if !sound {
        settings.problem_at(
            "log.level",
            format!("`{level}` is not a level; use error, warn, info, debug or trace, or \"info,waybill::sync=debug\""),
        );
        return None;
    }
    Some(Log { format: format?, level, level_is_set: settings.is_set("log.level") })
}
