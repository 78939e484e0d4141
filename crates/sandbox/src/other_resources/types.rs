//! The kinds of documents, and one document.

use serde_json::Value;

use crate::clock::Millis;

/// The resources, by their names in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Returns,
    Replenishments,
    Inventory,
    Invoices,
    InvoiceRequests,
    Promotions,
    PromotionProducts,
    Offers,
}

impl Kind {
    pub(super) fn named(name: &str) -> Option<Kind> {
        Some(match name {
            "returns" => Kind::Returns,
            "replenishments" => Kind::Replenishments,
            "inventory" => Kind::Inventory,
            "invoices" => Kind::Invoices,
            "invoice_requests" => Kind::InvoiceRequests,
            "promotions" => Kind::Promotions,
            "promotion_products" => Kind::PromotionProducts,
            "offers" => Kind::Offers,
            _ => return None,
        })
    }
}

/// One document: its list row and its detail.
#[derive(Clone, Debug)]
pub(super) struct ShopDocument {
    pub(super) id: String,
    pub(super) at: Millis,
    /// The promotion of a product.
    pub(super) parent: Option<String>,
    pub(super) row: Value,
    /// None if there is no detail call.
    pub(super) detail: Option<Value>,
}

impl ShopDocument {
    /// The complete document, as a reader of everything sees it.
    pub(super) fn truth(&self) -> (String, Value) {
        (self.key(), self.detail.clone().unwrap_or_else(|| self.row.clone()))
    }

    /// Its id within its kind.
    pub(super) fn key(&self) -> String {
        self.parent.as_ref().map_or_else(|| self.id.clone(), |parent| format!("{parent}:{}", self.id))
    }
}
