//! Which streams an engine works on: all, or those that a command chose.

use crate::domain::ShopId;

/// A choice of streams. The default takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only this shop.
    pub shop: Option<ShopId>,
    /// Only this resource.
    pub resource: Option<String>,
}

impl Selection {
    /// Whether it takes the streams of this resource of this shop.
    pub fn takes(&self, shop: &str, resource: &str) -> bool {
        self.takes_shop(shop) && self.resource.as_ref().is_none_or(|only| only == resource)
    }

    pub(super) fn takes_shop(&self, shop: &str) -> bool {
        self.shop.as_ref().is_none_or(|only| only == shop)
    }

    /// Whether it takes everything.
    pub fn is_all(&self) -> bool {
        *self == Selection::default()
    }
}
