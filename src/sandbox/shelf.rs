//! What a shop has beside shipments and orders: returns, replenishments, stock, invoices, promotions, offers.
//!
//! Made at the first look from the shop's shipments of that moment, and from then on kept as values; it changes on
//! request only. `shelf_content` knows the forms, `shelf_api` serves them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::content::Spec;
use super::shelf_content as content;
use super::{Sandbox, SandboxError, Shop, lock};
use crate::domain::clock::Millis;

/// The resources on the shelf, by the names that the catalog gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
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
    fn named(name: &str) -> Option<Kind> {
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

/// One thing: what a list shows of it, and what its own call does.
#[derive(Clone, Debug)]
pub(super) struct Thing {
    pub(super) id: String,
    pub(super) at: Millis,
    /// The promotion that a product belongs to.
    pub(super) parent: Option<String>,
    pub(super) row: Value,
    /// None: there is no call for one.
    pub(super) detail: Option<Value>,
}

impl Thing {
    /// What somebody who reads all of it has.
    fn truth(&self) -> (String, Value) {
        let id = self.parent.as_ref().map_or_else(|| self.id.clone(), |parent| format!("{parent}:{}", self.id));
        (id, self.detail.clone().unwrap_or_else(|| self.row.clone()))
    }
}

/// All of a shop, oldest first.
#[derive(Debug, Default)]
pub(super) struct Shelf(BTreeMap<Kind, Vec<Thing>>);

impl Shelf {
    fn new(shipments: &[Spec], now: Millis) -> Shelf {
        let mut shelf = BTreeMap::new();
        shelf.insert(Kind::Returns, content::returns(shipments, now));
        shelf.insert(Kind::Replenishments, content::replenishments(shipments, now));
        shelf.insert(Kind::Inventory, content::inventory(shipments));
        shelf.insert(Kind::Invoices, (0..26).rev().map(|week| content::invoice(week, now)).collect());
        shelf.insert(Kind::InvoiceRequests, content::invoice_requests(shipments));
        let promotions: Vec<Thing> = (0..8).map(|number| content::promotion(number, now)).collect();
        let products = (0..8).zip(&promotions).flat_map(|(number, promotion)| content::products(number, promotion));
        shelf.insert(Kind::PromotionProducts, products.collect());
        shelf.insert(Kind::Promotions, promotions);
        shelf.insert(Kind::Offers, content::offers(shipments, now));
        Shelf(shelf)
    }

    pub(super) fn of(&self, kind: Kind) -> &[Thing] {
        self.0.get(&kind).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn get(&self, kind: Kind, id: &str) -> Option<&Thing> {
        self.of(kind).iter().find(|thing| thing.id == id)
    }

    /// Puts a thing in the place of the one with its id, else at the end.
    fn put(&mut self, kind: Kind, thing: Thing) {
        let things = self.0.entry(kind).or_default();
        match things.iter_mut().find(|known| known.id == thing.id && known.parent == thing.parent) {
            Some(known) => *known = thing,
            None => things.push(thing),
        }
    }
}

impl Sandbox {
    /// Looks at, or changes, a shop's shelf, and fills it first.
    pub(super) fn shelf<R>(&self, shop: &Shop, look: impl FnOnce(&mut Shelf, Millis) -> R) -> R {
        let now = self.0.clock.now();
        let mut shelf = lock(&shop.shelf);
        let shelf = shelf.get_or_insert_with(|| {
            let shipments: Vec<Spec> = self.stock(shop).all().map(|shipment| shipment.spec.clone()).collect();
            Shelf::new(&shipments, now)
        });
        look(shelf, now)
    }

    fn change_shelf<R>(
        &self,
        client_id: &str,
        change: impl FnOnce(&mut Shelf, Millis) -> R,
    ) -> Result<R, SandboxError> {
        let shop = self.shop(client_id).ok_or_else(|| SandboxError::UnknownShop(client_id.to_owned()))?;
        Ok(self.shelf(&shop, change))
    }

    /// Everything a shop holds of a resource, by the catalog's name of it: id and document. Where there is no call for
    /// one document, the document is its row. Empty for an unknown shop or resource.
    pub fn truth_of(&self, client_id: &str, resource: &str) -> Vec<(String, Value)> {
        let Some(shop) = self.shop(client_id) else { return Vec::new() };
        match (resource, Kind::named(resource)) {
            ("shipments", _) => self.truth(client_id).into_iter().map(|(_, id, document)| (id, document)).collect(),
            ("orders", _) => self.all_orders(&shop),
            (_, Some(kind)) => self.shelf(&shop, |shelf, _| shelf.of(kind).iter().map(Thing::truth).collect()),
            (_, None) => Vec::new(),
        }
    }

    /// A return is handled: it moves to the other list, with its results. False: no such return, or it was handled.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn handle_return(&self, client_id: &str, id: &str) -> Result<bool, SandboxError> {
        self.change_shelf(client_id, |shelf, now| {
            let Some(open) = shelf.get(Kind::Returns, id).filter(|thing| !content::is_handled(thing)) else {
                return false;
            };
            let handled = content::handled(open.clone(), now);
            shelf.put(Kind::Returns, handled);
            true
        })
    }

    /// A new offer, or the change of one; its id.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn put_offer(&self, client_id: &str, id: &str, stock: u64) -> Result<(), SandboxError> {
        self.change_shelf(client_id, |shelf, now| {
            let known = shelf.get(Kind::Offers, id);
            let at = known.map_or(now, |thing| thing.at);
            let ean = known.and_then(|thing| thing.row["ean"].as_str()).unwrap_or("9789076174082").to_owned();
            shelf.put(Kind::Offers, content::offer(id, &ean, stock, at));
        })
    }

    /// An invoice of today; its id.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn add_invoice(&self, client_id: &str) -> Result<String, SandboxError> {
        self.change_shelf(client_id, |shelf, now| {
            let mut invoice = content::invoice(0, now);
            invoice.id = format!("9{:012}", shelf.of(Kind::Invoices).len());
            invoice.at = now;
            invoice.row["invoiceId"] = invoice.id.clone().into();
            invoice.row["issueDate"] = (now / 1000).into();
            let id = invoice.id.clone();
            shelf.put(Kind::Invoices, invoice);
            id
        })
    }
}
