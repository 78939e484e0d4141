//! Searches bytes for secrets: plain, in base64 at any alignment and of both alphabets, in hex, percent-encoded, and escaped
//! as in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shorter pieces could occur by chance.
const LENGTH_MIN: usize = 8;

/// The patterns, by their first two bytes.
pub(crate) struct Needles {
    begins: Vec<bool>,
    forms: Vec<(String, Vec<u8>)>,
}

impl Needles {
    pub(crate) fn of<T: AsRef<str>>(secrets: impl Iterator<Item = T>) -> Needles {
        let forms: Vec<(String, Vec<u8>)> = secrets.flat_map(|secret| forms(secret.as_ref())).collect();
        let mut begins = vec![false; 1 << 16];
        for (_, form) in &forms {
            begins[usize::from(u16::from_be_bytes([form[0], form[1]]))] = true;
        }
        Needles { begins, forms }
    }

    /// Describes the secrets found.
    pub(crate) fn found_in(&self, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for (at, pair) in bytes.windows(2).enumerate() {
            if self.begins[usize::from(u16::from_be_bytes([pair[0], pair[1]]))] {
                let here = self.forms.iter().filter(|(_, form)| bytes[at..].starts_with(form));
                found.extend(here.map(|(name, _)| format!("{name} at byte {at}")));
            }
        }
        found
    }
}

fn forms(secret: &str) -> Vec<(String, Vec<u8>)> {
    let each = |form: &dyn Fn(u8) -> String| secret.bytes().map(form).collect::<String>().into_bytes();
    let mut forms = vec![
        (format!("`{secret}`"), secret.as_bytes().to_vec()),
        (format!("`{secret}` in hex"), each(&|byte| format!("{byte:02x}"))),
        (format!("`{secret}` in hex"), each(&|byte| format!("{byte:02X}"))),
        (format!("`{secret}` percent-encoded"), each(&|byte| format!("%{byte:02x}"))),
        (format!("`{secret}` percent-encoded"), each(&|byte| format!("%{byte:02X}"))),
        (format!("`{secret}` escaped"), each(&|byte| format!("\\u{byte:04x}"))),
    ];
    for offset in 0..3 {
        // Neighbouring bytes change the letters at both ends, which are left out.
        let shifted = [vec![b'x'; offset], secret.as_bytes().to_vec()].concat();
        for text in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            let inner = text.as_bytes()[(offset * 8).div_ceil(6)..text.len() - 1].to_vec();
            forms.push((format!("`{secret}` in base64"), inner));
        }
    }
    forms.retain(|(_, form)| form.len() >= LENGTH_MIN);
    // Most read the same in both alphabets.
    forms.dedup();
    forms
}

pub(crate) fn sees() {
    let needles = Needles::of(["canary-secret"].iter());
    for before in ["", "a", "ab", "abc"] {
        let text = STANDARD_NO_PAD.encode(format!("{before}canary-secret:more"));
        assert_eq!(needles.found_in(text.as_bytes()).len(), 1, "{text}");
    }
    assert_eq!(needles.found_in(b"--canary-secret--").len(), 1);
    assert_eq!(needles.found_in(b"--63616e6172792d736563726574").len(), 1);
    assert_eq!(needles.found_in(b"--%63%61%6e%61%72%79%2d%73%65%63%72%65%74").len(), 1);
    let escaped: String = "canary-secret".bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    assert_eq!(needles.found_in(escaped.as_bytes()).len(), 1);
    // Letters that the alphabets have apart.
    let other = Needles::of(["<<???>>"].iter());
    assert_eq!(other.found_in(b"PDw_Pz8-Pg").len(), 1);
    assert!(needles.found_in(b"canary-secre").is_empty());
}
