//! The fields of a fault rule, and each kind with an example: for the help of the program that runs the sandbox.
//!
//! Tests hold the lists complete, and `docs/sandbox.md` to them.

/// The fields of a rule and what they mean.
pub const FAULT_FIELDS: [(&str, &str); 6] = [
    ("match", "prefix of the path, like /retailer/shipments/ or /token; with a ? also of the query"),
    ("kind", "how the call fails: one of the kinds below"),
    ("client_id", "only calls of this shop; default: of every shop"),
    ("skip", "matching calls that succeed before the first fault; default 0"),
    ("times", "number of calls that fail; default: every one"),
    ("probability", "chance of each matching call to fail, above 0 and up to 1; default 1"),
];

/// Each kind: its name, an example, and what the client sees.
pub const FAULT_KINDS: [(&str, &str, &str); 17] = [
    (
        "status",
        r#"{"status": {"code": 503, "body": "html", "headers": {"Retry-After": "4"}}}"#,
        "another status; body is \"json\" (default), \"html\", \"empty\" or {\"text\": \"...\"}; headers are optional",
    ),
    ("garbage", r#""garbage""#, "200 with bytes that are neither JSON nor UTF-8"),
    ("nested", r#"{"nested": {"depth": 100000}}"#, "200 with deeply nested JSON"),
    ("huge", r#"{"huge": {"bytes": 50000000}}"#, "200 with a JSON text of this many bytes"),
    ("gzip_bomb", r#"{"gzip_bomb": {"bytes": 1000000000}}"#, "200 with a little gzip that unpacks to this many bytes"),
    ("cut", r#"{"cut": {"after": 300}}"#, "the right answer, but its body ends after this many bytes"),
    ("slow", r#"{"slow": {"ms": 5000}}"#, "the right answer, this many milliseconds late"),
    (
        "drip",
        r#"{"drip": {"bytes": 10, "ms": 100}}"#,
        "the right answer, a few bytes at a time with a pause after each",
    ),
    ("reset", r#""reset""#, "the connection is reset before any answer"),
    ("reset_after", r#"{"reset_after": {"bytes": 300}}"#, "the connection is reset after this many bytes of the body"),
    (
        "wrong_content_length",
        r#"{"wrong_content_length": {"by": 10}}"#,
        "the right body with a Content-Length that is off by this much; may be negative",
    ),
    ("bad_chunk", r#""bad_chunk""#, "the right body in chunks, the second with an invalid size"),
    (
        "insert",
        r#"{"insert": {"text": "\"shipmentId\": NaN,"}}"#,
        "the right body with this text after its first brace",
    ),
    ("redirect", r#"{"redirect": {"to": "https://example.com/"}}"#, "302 to another address"),
    ("same_page", r#""same_page""#, "lists answer as if page 1 had been requested"),
    ("reversed", r#""reversed""#, "the list of shipments is reversed, as if every row had moved"),
    (
        "echo",
        r#"{"echo": {"form": "plain"}}"#,
        "the answer quotes the credentials of its request: \"plain\", \"base64\", \"hex\", \"percent\", \"json\" or \
         \"prefix\" in an error, which may come in \"chunks\" or as \"gzip\", in \"headers\" or as the content \"type\", in \
         \"broken\" JSON, in a \"redirect\", or in the right \"document\"",
    ),
];

#[cfg(test)]
mod tests {
    use super::{FAULT_FIELDS, FAULT_KINDS};
    use crate::fault::{EchoForm, Fault, FaultKind};

    /// The names that serde lists in the error about an unknown one.
    fn known<T: serde::de::DeserializeOwned>(wrong: &str) -> Vec<String> {
        let error = serde_json::from_str::<T>(wrong).err().unwrap().to_string();
        error.split('`').skip(3).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_field_and_kind_is_listed_with_an_example_of_it() {
        let mut fields = FAULT_FIELDS.map(|(name, _)| name.to_owned()).to_vec();
        let mut all = known::<Fault>(r#"{"qq":1}"#);
        fields.sort();
        all.sort();
        assert_eq!(fields, all);
        assert_eq!(FAULT_KINDS.map(|(name, ..)| name.to_owned()).to_vec(), known::<FaultKind>(r#""qq""#));
        for (name, example, _) in FAULT_KINDS {
            let kind: FaultKind = serde_json::from_str(example).unwrap_or_else(|error| panic!("{name}: {error}"));
            let value = serde_json::to_value(&kind).unwrap();
            let found = value.as_str().or_else(|| value.as_object()?.keys().next().map(String::as_str));
            assert_eq!(found, Some(name));
        }
        let (_, _, echo) = FAULT_KINDS[16];
        for form in EchoForm::ALL {
            let form = serde_json::to_string(&form).unwrap();
            assert!(echo.contains(&form), "{form}");
        }
    }
}
