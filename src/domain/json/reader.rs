//! A lenient JSON parser that reports what it tolerated.
//!
//! Beyond RFC 8259 it accepts a leading byte order mark, half a surrogate pair (as U+FFFD), and duplicate keys in one
//! object (the last wins). It keeps numbers as their digits. Everything else that is not JSON is refused; errors name
//! the kind and position and never quote content.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::number::Number;
use super::reading::{JsonError, JsonFault, PathPart, Reading, Tolerance, Tolerated};
use super::value::Json;

/// How deep arrays and objects may be nested.
const DEPTH_MAX: usize = 128;
/// Places reported per text; more would add no information.
pub(super) const NOTED_MAX: usize = 100;
/// The byte order mark that some editors and servers write before a text.
const BYTE_ORDER_MARK: &str = "\u{feff}";
const REPLACEMENT: char = '\u{fffd}';

impl<'a> Json<'a> {
    /// Parses a whole text leniently.
    ///
    /// # Errors
    /// Not JSON, nested deeper than 128, or a number beyond 64-bit floats.
    pub fn parse(text: &'a [u8]) -> Result<Json<'a>, JsonError> {
        Json::read(text).map(|reading| reading.value)
    }

    /// Parses a whole text leniently, and reports what it tolerated.
    ///
    /// # Errors
    /// As [`Json::parse`].
    pub fn read(text: &'a [u8]) -> Result<Reading<'a>, JsonError> {
        read(text)
    }
}

/// Strips a leading byte order mark; true if there was one.
pub fn without_mark(text: &[u8]) -> (&[u8], bool) {
    text.strip_prefix(BYTE_ORDER_MARK.as_bytes()).map_or((text, false), |rest| (rest, true))
}

/// Reads a whole text.
pub(super) fn read(text: &[u8]) -> Result<Reading<'_>, JsonError> {
    let error = |fault, at| error(text, fault, at);
    // Checking the whole once is cheaper than checking each string.
    let sound = std::str::from_utf8(text).map_err(|fault| error(JsonFault::NotUtf8, fault.valid_up_to() + 1))?;
    let mut reader = Reader::new(sound);
    if sound.starts_with(BYTE_ORDER_MARK) {
        reader.at = BYTE_ORDER_MARK.len();
        reader.note(Tolerance::ByteOrderMark);
        reader.cuts.push(Cut { from: 0, to: reader.at, with: "" });
    }
    match reader.whole() {
        Ok(value) => {
            reader.noted.iter_mut().for_each(|noted| noted.path.reverse());
            let normalised = normalised(sound, &mut reader.cuts);
            Ok(Reading { value, tolerated: reader.noted, normalised })
        }
        Err(fault) => Err(error(fault, reader.at)),
    }
}

fn error(text: &[u8], fault: JsonFault, at: usize) -> JsonError {
    let before = text.get(..at).unwrap_or(text);
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
    let column = before.iter().rev().take_while(|byte| **byte != b'\n').count();
    JsonError { fault, line, column }
}

/// A part of the text that other parsers read differently, and its replacement.
struct Cut {
    from: usize,
    to: usize,
    with: &'static str,
}

fn normalised(text: &str, cuts: &mut [Cut]) -> Option<Vec<u8>> {
    if cuts.is_empty() {
        return None;
    }
    cuts.sort_unstable_by_key(|cut| cut.from);
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    // A cut within a part that is left out goes with it.
    for cut in cuts {
        if cut.from >= at {
            out.extend_from_slice(text.as_bytes().get(at..cut.from).unwrap_or_default());
            out.extend_from_slice(cut.with.as_bytes());
            at = cut.to;
        }
    }
    out.extend_from_slice(text.as_bytes().get(at..).unwrap_or_default());
    Some(out)
}

struct Reader<'a> {
    text: &'a str,
    /// Bytes read so far.
    at: usize,
    depth: usize,
    /// Start positions of the members of the open objects.
    starts: Vec<usize>,
    /// Their paths from the inside out.
    noted: Vec<Tolerated>,
    cuts: Vec<Cut>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Reader<'a> {
        Reader { text, at: 0, depth: 0, starts: Vec::new(), noted: Vec::new(), cuts: Vec::new() }
    }

    fn whole(&mut self) -> Result<Json<'a>, JsonFault> {
        self.space();
        let value = self.value()?;
        self.space();
        if self.peek().is_some() {
            return Err(self.unexpected());
        }
        Ok(value)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// The fault of an unexpected next byte, at its position.
    fn unexpected(&mut self) -> JsonFault {
        if self.peek().is_none() {
            return JsonFault::EndsEarly;
        }
        self.at += 1;
        JsonFault::Syntax
    }

    fn expect(&mut self, wanted: u8) -> Result<(), JsonFault> {
        if self.peek() != Some(wanted) {
            return Err(self.unexpected());
        }
        self.at += 1;
        Ok(())
    }

    fn note(&mut self, what: Tolerance) {
        if self.noted.len() < NOTED_MAX {
            self.noted.push(Tolerated { what, path: Vec::new() });
        }
    }

    /// Adds this part to the path of everything noted since then.
    fn within(&mut self, since: usize, part: &PathPart) {
        for noted in self.noted.iter_mut().skip(since) {
            noted.path.push(part.clone());
        }
    }

    fn value(&mut self) -> Result<Json<'a>, JsonFault> {
        match self.peek() {
            Some(b'"') => self.string().map(Json::Text),
            Some(b'{') => self.nested(Reader::object),
            Some(b'[') => self.nested(Reader::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            _ => Err(self.unexpected()),
        }
    }

    fn word(&mut self, word: &str, value: Json<'a>) -> Result<Json<'a>, JsonFault> {
        word.bytes().try_for_each(|byte| self.expect(byte))?;
        Ok(value)
    }

    fn nested(&mut self, inner: fn(&mut Reader<'a>) -> Result<Json<'a>, JsonFault>) -> Result<Json<'a>, JsonFault> {
        self.at += 1;
        if self.depth == DEPTH_MAX {
            return Err(JsonFault::TooDeep);
        }
        self.depth += 1;
        self.space();
        let value = inner(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn array(&mut self) -> Result<Json<'a>, JsonFault> {
        let mut elements = Vec::new();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(elements));
        }
        loop {
            let since = self.noted.len();
            elements.push(self.value()?);
            if self.noted.len() > since {
                self.within(since, &PathPart::Element);
            }
            self.space();
            if self.peek() == Some(b']') {
                self.at += 1;
                return Ok(Json::Array(elements));
            }
            self.expect(b',')?;
            self.space();
        }
    }

    fn object(&mut self) -> Result<Json<'a>, JsonFault> {
        let mut members: Vec<(Cow<'a, str>, Json<'a>)> = Vec::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(members));
        }
        let base = self.starts.len();
        loop {
            let (start, since) = (self.at, self.noted.len());
            if self.peek() != Some(b'"') {
                return Err(self.unexpected());
            }
            let key = self.string()?;
            self.space();
            self.expect(b':')?;
            self.space();
            let value = self.value()?;
            if self.noted.len() > since {
                self.within(since, &PathPart::Member(key.clone().into_owned()));
            }
            self.starts.push(start);
            members.push((key, value));
            self.space();
            if self.peek() == Some(b'}') {
                self.at += 1;
                break;
            }
            self.expect(b',')?;
            self.space();
        }
        // Stable: the last of equal keys stays last.
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        if members.windows(2).any(|pair| matches!(pair, [(one, _), (other, _)] if one == other)) {
            self.cut_earlier(base);
            members = last_of_equals(members);
        }
        self.starts.truncate(base);
        Ok(Json::Object(members))
    }

    /// Cuts all but the last of equal keys from the text, so that no parser uses them.
    fn cut_earlier(&mut self, base: usize) {
        let starts = self.starts.split_off(base);
        let mut seen: BTreeMap<Cow<'a, str>, usize> = BTreeMap::new();
        for (place, start) in starts.iter().enumerate() {
            let mut again = Reader { at: *start, ..Reader::new(self.text) };
            let Ok(key) = again.string() else { continue };
            let Some(earlier) = seen.insert(key.clone(), place) else { continue };
            if let Some((from, to)) = starts.get(earlier).zip(starts.get(earlier + 1)) {
                self.cuts.push(Cut { from: *from, to: *to, with: "" });
            }
            let since = self.noted.len();
            self.note(Tolerance::DuplicateKey);
            self.within(since, &PathPart::Member(key.into_owned()));
        }
    }

    fn number(&mut self) -> Result<Json<'a>, JsonFault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        Number::new(text).map(Json::Number).ok_or(JsonFault::NumberTooGreat)
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(self.unexpected());
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    /// Borrows from the text where nothing is escaped.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonFault> {
        self.at += 1;
        let mut out: Option<String> = None;
        loop {
            let start = self.at;
            let rest = self.text.as_bytes().get(start..).unwrap_or_default();
            let length = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
            self.at += length;
            let plain = self.text.get(start..self.at).unwrap_or_default();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(match out {
                        None => Cow::Borrowed(plain),
                        Some(out) => Cow::Owned(out + plain),
                    });
                }
                Some(b'\\') => {
                    let out = out.get_or_insert_default();
                    out.push_str(plain);
                    let letter = self.escape()?;
                    out.push(letter);
                }
                _ => return Err(self.unexpected()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonFault> {
        self.at += 1;
        let letter = match self.peek() {
            Some(letter @ (b'"' | b'\\' | b'/')) => char::from(letter),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            _ => return Err(self.unexpected()),
        };
        self.at += 1;
        Ok(letter)
    }

    fn unicode(&mut self) -> Result<char, JsonFault> {
        let from = self.at - 1;
        let unit = self.hex()?;
        if let Some(letter) = char::from_u32(unit) {
            return Ok(letter);
        }
        let (first_end, is_first) = (self.at, unit < 0xdc00);
        if is_first && self.text.as_bytes().get(first_end..first_end + 2) == Some(br"\u") {
            self.at += 1;
            let second = self.hex()?;
            if (0xdc00..0xe000).contains(&second) {
                let code = 0x1_0000 + ((unit - 0xd800) << 10) + (second - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(REPLACEMENT));
            }
            // The next escape is parsed by itself.
            self.at = first_end;
        }
        self.note(Tolerance::HalfSurrogate);
        self.cuts.push(Cut { from, to: first_end, with: r"\ufffd" });
        Ok(REPLACEMENT)
    }

    /// The four digits after a `u`.
    fn hex(&mut self) -> Result<u32, JsonFault> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            let Some(digit) = digit else { return Err(self.unexpected()) };
            unit = unit << 4 | digit;
            self.at += 1;
        }
        Ok(unit)
    }
}

fn last_of_equals<'a>(members: Vec<(Cow<'a, str>, Json<'a>)>) -> Vec<(Cow<'a, str>, Json<'a>)> {
    let mut kept: Vec<(Cow<'a, str>, Json<'a>)> = Vec::with_capacity(members.len());
    for member in members {
        match kept.last_mut() {
            Some(last) if last.0 == member.0 => *last = member,
            _ => kept.push(member),
        }
    }
    kept
}
