//! Bodies of answers: media types, and our own types as JSON.

use bytes::Bytes;

/// The media type of every resource but offers; the only one that they accept.
pub const MEDIA_TYPE: &str = "application/vnd.retailer.v10+json";
/// `Content-Type` of the application's own answers.
pub(crate) const ANSWER_TYPE: &str = "application/vnd.retailer.v10+json;charset=UTF-8";
/// Offers use the next API version.
pub(crate) const OFFERS_MEDIA_TYPE: &str = "application/vnd.retailer.v11+json";
pub(crate) const OFFERS_ANSWER_TYPE: &str = "application/vnd.retailer.v11+json;charset=UTF-8";

/// Serialises one of our own types as JSON.
#[expect(clippy::expect_used, reason = "forms with text keys and no own Serialize cannot fail to serialise")]
pub(crate) fn json(form: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(form).expect("plain forms always serialise")
}

/// Inserts the text after the body's first brace, or at the start if there is none.
pub(crate) fn insert(body: &[u8], text: &str) -> Bytes {
    let at = body.iter().position(|byte| *byte == b'{').map_or(0, |at| at + 1);
    let (before, after) = body.split_at(at);
    let mut whole = before.to_vec();
    for letter in text.chars() {
        match u8::try_from(u32::from(letter)) {
            Ok(byte) => whole.push(byte),
            Err(_) => whole.extend(letter.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    whole.extend(after);
    whole.into()
}
