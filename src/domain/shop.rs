//! A shop: one seller registration. Its secret never stands in this type; the store keeps it sealed.

use serde::{Deserialize, Serialize};

use super::clock::Millis;

/// Random, opaque, 12 letters and digits. Not a count, so that it tells nothing.
pub type ShopId = String;

/// Whether a shop's streams are walked, and if not, whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShopState {
    /// Synced on schedule.
    Active,
    /// Paused on request; nothing is called until it is resumed.
    Paused,
    /// The login host refused the credentials. A new secret (`PATCH`) makes it active again.
    Refused,
}

impl ShopState {
    /// Why nothing may be called for the shop, and the mend; none: it may.
    pub fn hindrance(&self) -> Option<&'static str> {
        match self {
            ShopState::Active => None,
            ShopState::Paused => Some("the shop is paused; resume it first"),
            ShopState::Refused => Some("the shop's credentials were refused; give it a new secret first"),
        }
    }
}

/// One seller registration, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shop {
    pub id: ShopId,
    pub name: String,
    pub client_id: String,
    /// Whose budget its calls use; shops that name the same account share one. Default: `client_id`.
    pub account: String,
    /// Names of the resources that are synced for it; none: all that are configured, those of tomorrow too.
    pub resources: Vec<String>,
    pub state: ShopState,
    /// Why it is not active, for people; never holds a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub created_at: Millis,
    pub updated_at: Millis,
}

impl Shop {
    /// Whether a resource is synced for it.
    pub fn takes(&self, resource: &str) -> bool {
        self.resources.is_empty() || self.resources.iter().any(|name| name == resource)
    }
}
