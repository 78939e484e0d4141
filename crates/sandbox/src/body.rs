//! Bodies of answers: media types, and our own types as JSON.

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
