//! A shop: one seller registration. This type never holds its secret; the store keeps that sealed.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::shop_id::ShopId;
use super::timestamp::Timestamp;

/// Whether a shop is synced, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShopState {
    /// Synced on schedule.
    Active,
    /// Paused on request; nothing is called until it is resumed.
    Paused,
    /// The login host refused the credentials. `PATCH` makes it active again: with `paused` false if the host accepts the
    /// stored secret by now, or with a new `client_secret`.
    Refused,
}

impl ShopState {
    /// Why no call may be made for the shop, and the fix; None when it is active.
    pub fn inactive_reason(&self) -> Option<&'static str> {
        match self {
            ShopState::Active => None,
            ShopState::Paused => Some("the shop is paused; resume it first"),
            ShopState::Refused => Some(
                "the shop's credentials were refused; resume it first, which tries its secret again, or give it a new one",
            ),
        }
    }
}

/// One seller registration, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shop {
    pub id: ShopId,
    pub name: String,
    pub client_id: String,
    /// The account whose rate budget its calls use; shops of one account share it. Default: `client_id`.
    pub account: String,
    /// Names of the resources to sync; empty: all configured resources, including ones added later.
    pub resources: Vec<String>,
    pub state: ShopState,
    /// Why it is not active, for people. Never holds a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

impl Shop {
    /// Whether an operator paused it; Waybill itself gives a reason when it pauses a shop.
    pub fn is_paused_on_request(&self) -> bool {
        self.state == ShopState::Paused && self.reason.is_none()
    }

    /// Whether a resource is synced for this shop.
    pub fn syncs(&self, resource: &str) -> bool {
        self.resources.is_empty() || self.resources.iter().any(|name| name == resource)
    }
}
