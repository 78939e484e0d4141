//! Looks for pieces of credentials in all that a program left behind. Shares no code with what redacts them.

use std::collections::HashSet;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};

const PIECE: usize = 16;
/// The first bytes of what gzip made.
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
/// More of it is not unpacked.
const UNPACKED_MAX: u64 = 1 << 20;

/// The pieces of credentials in each form that the sandbox quotes them in.
pub(super) struct Scanner {
    begins: Vec<bool>,
    pieces: HashSet<[u8; PIECE]>,
}

impl Scanner {
    pub(super) fn of(secrets: &[Vec<u8>]) -> Scanner {
        let (mut begins, mut pieces) = (vec![false; 1 << 16], HashSet::new());
        for form in secrets.iter().flat_map(|secret| forms(secret)) {
            pieces.extend(form.windows(PIECE).map(|piece| <[u8; PIECE]>::try_from(piece).unwrap()));
        }
        for piece in &pieces {
            begins[usize::from(u16::from_be_bytes([piece[0], piece[1]]))] = true;
        }
        let scanner = Scanner { begins, pieces };
        secrets.iter().for_each(|secret| scanner.sees(secret));
        scanner
    }

    /// The first place with a piece, with what is around it.
    fn found_as_is(&self, bytes: &[u8]) -> Option<String> {
        let is_here = |piece: &[u8]| {
            self.begins[usize::from(u16::from_be_bytes([piece[0], piece[1]]))]
                && self.pieces.contains(&<[u8; PIECE]>::try_from(piece).unwrap())
        };
        let at = bytes.windows(PIECE).position(is_here)?;
        let around = &bytes[at.saturating_sub(120)..(at + 60).min(bytes.len())];
        Some(String::from_utf8_lossy(around).into_owned())
    }

    /// The same where letters may be escaped, and parts compressed.
    pub(super) fn found_in(&self, bytes: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(bytes);
        let plain = [unescaped(&text, "%", 2), unescaped(&text, "\\u", 4)];
        let packed = bytes.windows(GZIP.len()).enumerate().filter(|(_, begin)| *begin == GZIP);
        let unpacked = packed.map(|(at, _)| {
            let mut plain = Vec::new();
            drop(GzDecoder::new(&bytes[at..]).take(UNPACKED_MAX).read_to_end(&mut plain));
            plain
        });
        self.found_as_is(bytes).or_else(|| plain.into_iter().chain(unpacked).find_map(|form| self.found_as_is(&form)))
    }

    /// The scanner must not be blind: a scan that finds nothing would say nothing.
    fn sees(&self, secret: &[u8]) {
        let each = |format: &dyn Fn(u8) -> String| secret.iter().map(|byte| format(*byte)).collect::<String>();
        let escaped = each(&|byte| format!("\\u{byte:04x}"));
        let base64 = STANDARD_NO_PAD.encode([b"ab", secret].concat());
        let mut forms = vec![each(&|byte| format!("{byte:02X}")), base64.replace('/', "_").replace('+', "-"), base64];
        if secret.is_ascii() {
            forms.extend([each(&|byte| format!("%{byte:02X}")), escaped.replace('\\', "\\\\"), escaped]);
            forms.push(String::from_utf8(secret[2..PIECE + 4].to_vec()).unwrap());
        }
        let said = |form: &[u8]| [b"he said ", form, b"."].concat();
        let mut all: Vec<Vec<u8>> = forms.iter().map(|form| said(form.as_bytes())).chain([said(secret)]).collect();
        let mut packed = b"packed: ".to_vec();
        GzEncoder::new(said(secret).as_slice(), Compression::default()).read_to_end(&mut packed).unwrap();
        all.push(packed);
        for form in all {
            assert!(self.found_in(&form).is_some(), "the scanner sees nothing in {}", String::from_utf8_lossy(&form));
        }
        assert!(self.found_in(&said(&secret[..PIECE - 1])).is_none());
    }
}

fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![hex.to_uppercase(), hex];
    for offset in 0..3_usize {
        let text = STANDARD_NO_PAD.encode([vec![b'x'; offset], secret.to_vec()].concat());
        // Neighbouring bytes change the letters at both ends.
        let inner = text.get((offset * 8).div_ceil(6)..text.len() - 1).unwrap();
        forms.extend([inner.to_owned(), inner.replace('+', "-").replace('/', "_")]);
    }
    forms.into_iter().map(String::into_bytes).chain([secret.to_vec()]).collect()
}

fn unescaped(text: &str, before: &str, digits: usize) -> Vec<u8> {
    let mut parts = text.split(before);
    let mut plain = parts.next().unwrap().trim_end_matches('\\').as_bytes().to_vec();
    for part in parts {
        let code = part.get(..digits).and_then(|code| u32::from_str_radix(code, 16).ok());
        let byte = code.and_then(|code| u8::try_from(code).ok());
        plain.extend(byte);
        let rest = part.get(if byte.is_some() { digits } else { 0 }..).unwrap();
        plain.extend(rest.trim_end_matches('\\').as_bytes());
    }
    plain
}
