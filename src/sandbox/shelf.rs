//! What a shop has beside shipments and orders: returns, replenishments, stock, invoices, promotions, offers.
//!
//! Made at the first look from the shipments that the shop was made with, so the moment of that look changes nothing;
//! from then on kept as values, which change on request only. `shelf_content` knows the forms, `shelf_api` serves
//! them.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::content::Spec;
use super::shelf_content as content;
use super::{Method, Sandbox, SandboxError, Shop, lock};
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
        (self.key(), self.detail.clone().unwrap_or_else(|| self.row.clone()))
    }

    /// Its id within its kind.
    fn key(&self) -> String {
        self.parent.as_ref().map_or_else(|| self.id.clone(), |parent| format!("{parent}:{}", self.id))
    }
}

/// All things of one kind, oldest first.
#[derive(Debug, Default)]
struct Things {
    all: Vec<Thing>,
    places: HashMap<String, usize>,
}

impl Things {
    /// In the place of the one with its key, else at the end.
    fn put(&mut self, thing: Thing) {
        match self.places.get(&thing.key()).and_then(|place| self.all.get_mut(*place)) {
            Some(known) => *known = thing,
            None => {
                self.places.insert(thing.key(), self.all.len());
                self.all.push(thing);
            }
        }
    }
}

/// All of a shop.
#[derive(Debug)]
pub(super) struct Shelf {
    /// The shop's; so that two shops differ under equal ids.
    seed: u64,
    kinds: BTreeMap<Kind, Things>,
}

impl Shelf {
    /// A shop without shipments has nothing at all.
    fn new(seed: u64, shipments: &[Spec], now: Millis) -> Shelf {
        let mut shelf = Shelf { seed, kinds: BTreeMap::new() };
        let (weeks, promotions) = if shipments.is_empty() { (0, 0) } else { (26, 8) };
        shelf.fill(Kind::Returns, content::returns(shipments, now));
        shelf.fill(Kind::Replenishments, content::replenishments(seed, shipments, now));
        shelf.fill(Kind::Inventory, content::inventory(seed, shipments));
        shelf.fill(Kind::Invoices, (0..weeks).rev().map(|week| content::invoice(seed, week, now)).collect());
        shelf.fill(Kind::InvoiceRequests, content::invoice_requests(shipments));
        for number in 0..promotions {
            shelf.add_promotion(number, content::start_of_promotion(number, now));
        }
        shelf.fill(Kind::Offers, content::offers(seed, shipments, now));
        shelf
    }

    fn fill(&mut self, kind: Kind, things: Vec<Thing>) {
        let shelved = self.kinds.entry(kind).or_default();
        for thing in things {
            shelved.put(thing);
        }
    }

    pub(super) fn of(&self, kind: Kind) -> &[Thing] {
        self.kinds.get(&kind).map(|things| things.all.as_slice()).unwrap_or_default()
    }

    pub(super) fn get(&self, kind: Kind, key: &str) -> Option<&Thing> {
        let things = self.kinds.get(&kind)?;
        things.all.get(*things.places.get(key)?)
    }

    fn put(&mut self, kind: Kind, thing: Thing) {
        self.kinds.entry(kind).or_default().put(thing);
    }

    fn add_promotion(&mut self, number: u64, at: Millis) -> String {
        let promotion = content::promotion(self.seed, number, at);
        let id = promotion.id.clone();
        self.fill(Kind::PromotionProducts, content::products(self.seed, number, &promotion));
        self.put(Kind::Promotions, promotion);
        id
    }

    /// Adds a thing of now; its key. None: there is no shipment that it could be of.
    fn add(&mut self, kind: Kind, shipments: &[Spec], now: Millis) -> Option<String> {
        let number = self.of(kind).len() as u64;
        let thing = match kind {
            Kind::Returns => content::added_return(shipments.first()?, number, now),
            Kind::Replenishments => content::replenishment(self.seed, number, now),
            Kind::Inventory => content::stocked(self.seed, number, content::made_up_ean(number), "Nieuw op voorraad"),
            Kind::Invoices => content::added_invoice(self.seed, number, now),
            Kind::InvoiceRequests => {
                let fresh = |spec: &&Spec| self.get(kind, &content::shipment_of(spec)).is_none();
                content::invoice_request(shipments.iter().find(fresh)?)
            }
            Kind::Promotions => return Some(self.add_promotion(number, now - now.rem_euclid(1000))),
            Kind::PromotionProducts => {
                let promotion = self.of(Kind::Promotions).last()?;
                content::product(self.seed, 900_000 + number, promotion)
            }
            Kind::Offers => content::added_offer(self.seed, number, now),
        };
        let key = thing.key();
        self.put(kind, thing);
        Some(key)
    }

    /// Changes a thing now. False: there is none with that key, or such a thing does not change any more.
    fn change(&mut self, kind: Kind, key: &str, now: Millis) -> bool {
        let Some(changed) = self.get(kind, key).and_then(|thing| content::changed(kind, thing.clone(), now)) else {
            return false;
        };
        self.put(kind, changed);
        true
    }
}

impl Sandbox {
    /// Looks at, or changes, a shop's shelf, and fills it first.
    pub(super) fn shelf<R>(&self, shop: &Shop, look: impl FnOnce(&mut Shelf, Millis) -> R) -> R {
        let now = self.0.clock.now();
        let mut shelf = lock(&shop.shelf);
        let shelf = shelf.get_or_insert_with(|| {
            let stock = self.stock(shop);
            Shelf::new(stock.seed(), &stock.first(), stock.born())
        });
        look(shelf, now)
    }

    fn change_shelf<R>(
        &self,
        client_id: &str,
        change: impl FnOnce(&mut Shelf, Millis) -> R,
    ) -> Result<R, SandboxError> {
        let shop = self.known(client_id)?;
        Ok(self.shelf(&shop, change))
    }

    /// Whether there is a resource of that name.
    pub fn serves(resource: &str) -> bool {
        ["shipments", "orders"].contains(&resource) || Kind::named(resource).is_some()
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

    /// Adds one document to any resource, by the catalog's name of it; its id as [`Sandbox::truth_of`] tells it.
    ///
    /// # Errors
    /// The shop or the resource is unknown, or the shop has no shipment that it could be of.
    pub fn add_document(&self, client_id: &str, resource: &str) -> Result<String, SandboxError> {
        let missing = || SandboxError::NothingFor(resource.to_owned());
        match resource {
            "shipments" => self.add_shipments(client_id, Method::Fbr, 1)?.pop().ok_or_else(missing),
            "orders" => self.add_order(client_id, Method::Fbr),
            _ => {
                let kind = Kind::named(resource).ok_or_else(|| SandboxError::UnknownResource(resource.to_owned()))?;
                let shop = self.known(client_id)?;
                let newest: Vec<Spec> = match kind {
                    Kind::Returns => self.stock(&shop).all().take(1).map(|shipment| shipment.spec.clone()).collect(),
                    Kind::InvoiceRequests => self.stock(&shop).all().map(|shipment| shipment.spec.clone()).collect(),
                    _ => Vec::new(),
                };
                self.shelf(&shop, |shelf, now| shelf.add(kind, &newest, now)).ok_or_else(missing)
            }
        }
    }

    /// Changes one document of any resource: row and detail. False: the id is unknown, or the document does not change
    /// any more (handled returns, finished invoice requests, replenishments that are done, all invoices).
    ///
    /// # Errors
    /// The shop or the resource is unknown.
    pub fn change_document(&self, client_id: &str, resource: &str, id: &str) -> Result<bool, SandboxError> {
        match resource {
            "shipments" => self.change_row(client_id, id),
            "orders" => self.change_order(client_id, id),
            _ => {
                let kind = Kind::named(resource).ok_or_else(|| SandboxError::UnknownResource(resource.to_owned()))?;
                self.change_shelf(client_id, |shelf, now| shelf.change(kind, id, now))
            }
        }
    }

    /// A new unhandled return of the newest shipment; its id.
    ///
    /// # Errors
    /// The shop is unknown or has no shipment.
    pub fn add_return(&self, client_id: &str) -> Result<String, SandboxError> {
        self.add_document(client_id, "returns")
    }

    /// A return is handled: it moves to the other list, with its results. False: no such return, or it was handled.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn handle_return(&self, client_id: &str, id: &str) -> Result<bool, SandboxError> {
        self.change_document(client_id, "returns", id)
    }

    /// A new offer at the end of the list; its id.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn add_offer(&self, client_id: &str) -> Result<String, SandboxError> {
        self.add_document(client_id, "offers")
    }

    /// One more of an offer lies in stock. False: no such offer.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn change_offer(&self, client_id: &str, id: &str) -> Result<bool, SandboxError> {
        self.change_document(client_id, "offers", id)
    }

    /// A new offer, or the change of one: so many in stock.
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
        self.add_document(client_id, "invoices")
    }
}
