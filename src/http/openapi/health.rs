//! OpenAPI schemas of the health.

use serde_json::{Value, json};

use super::schemas::{object, text, text_or_null, time, time_or_null};
use crate::domain::health::{REASONS_MAX, State};

/// Schema of the health of the installation.
pub(super) fn health() -> Value {
    let reason = object(
        &json!({
            "code": {"type": "string", "description": "Stable, for example `refused` or `calls_fail`. New codes may be added."},
            "shop_id": {"type": ["string", "null"], "description": "Null: the reason concerns the whole installation."},
            "resource": {"type": ["string", "null"], "description": "Null: the reason concerns the whole shop or installation."},
            "since": time_or_null(),
            "text": text(),
            "remedy": {"type": "string", "description": "What to do about it."},
        }),
        &[],
    );
    object(
        &json!({
            "level": {"type": "string", "enum": ["ok", "attention", "failing"]},
            "reasons": {"type": "array", "items": reason, "maxItems": REASONS_MAX, "description": "Worst first."},
        }),
        &[],
    )
}

/// Schema of the health of one resource of a shop.
pub(super) fn resource_health() -> Value {
    let states: Vec<&str> = State::ALL.into_iter().map(State::name).collect();
    let mut error = object(&json!({"class": text(), "text": text(), "at": time()}), &[]);
    error["type"] = json!(["object", "null"]);
    object(
        &json!({
            "resource": text(),
            "state": {"type": "string", "enum": states, "description": "The worst state of its streams."},
            "since": time_or_null(),
            "last_success_at": {"type": ["string", "null"], "format": "date-time", "description": "When a run last succeeded."},
            "last_attempt_at": time_or_null(),
            "next_due_at": time_or_null(),
            "age_seconds": {"type": ["integer", "null"], "minimum": 0, "description": "Since the last success."},
            "last_error": error,
            "reason": text_or_null(),
            "remedy": text_or_null(),
        }),
        &[],
    )
}
