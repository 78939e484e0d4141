//! Error bodies, as recorded: Problems of the application, shorter ones of the gateway.

use serde_json::{Value, json};

use crate::body::{MEDIA_TYPE, json as text};
use crate::wire::Answer;

/// A Problem of the application; `instance` is path and query of the request.
pub(crate) fn problem(status: u16, title: &str, detail: &str, instance: &str) -> Answer {
    Answer::new(status, MEDIA_TYPE, text(&form(status, title, detail, instance)))
}

/// A 400 with its violations, each as (name, reason); a name may be missing.
pub(crate) fn violations(found: &[(Option<&str>, String)], instance: &str) -> Answer {
    let mut body = form(
        400,
        "Error validating request. Consult the bol.com API documentation for more information.",
        "Bad request",
        instance,
    );
    let violations = found.iter().map(|(name, reason)| match name {
        Some(name) => json!({ "name": name, "reason": reason }),
        None => json!({ "reason": reason }),
    });
    body["violations"] = violations.collect();
    Answer::new(400, MEDIA_TYPE, text(&body))
}

/// A gateway error: title, status and detail only.
pub(crate) fn gateway(status: u16, title: &str, detail: &str) -> Answer {
    Answer::new(status, MEDIA_TYPE, text(&json!({ "title": title, "status": status, "detail": detail })))
}

/// The answer for a deactivated shop; the login host answers the same.
pub(crate) fn not_active() -> Answer {
    let body = json!({
        "title": "Forbidden",
        "status": 403,
        "detail": "Account is not active, access denied. Please contact partnerservice if this is unexpected.",
        "host": "Instance-112",
    });
    Answer::new(403, MEDIA_TYPE, text(&body))
}

fn form(status: u16, title: &str, detail: &str, instance: &str) -> Value {
    json!({
        "type": "https://api.bol.com/problems",
        "title": title,
        "status": status,
        "detail": detail,
        "host": "Instance-111",
        "instance": format!("https://api.bol.com{instance}"),
    })
}
