//! A shop's other resources: returns, replenishments, stock, invoices, promotions, offers.
//!
//! Generated at the first access from the shop's initial shipments, so the moment of that access makes no difference;
//! then stored, and changed on request only. `content` builds the documents, `api` serves them.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

mod api;
mod content;
mod types;

pub(super) use api::document_at;
use types::{Kind, ShopDocument};

use super::content::Spec;
use super::{Method, Sandbox, SandboxError, Shop, lock};
use crate::domain::clock::Millis;

/// All documents of one kind, oldest first.
#[derive(Debug, Default)]
struct DocumentList {
    all: Vec<ShopDocument>,
    places: HashMap<String, usize>,
}

impl DocumentList {
    /// Replaces the document with the same key, or appends.
    fn put(&mut self, document: ShopDocument) {
        match self.places.get(&document.key()).and_then(|place| self.all.get_mut(*place)) {
            Some(known) => *known = document,
            None => {
                self.places.insert(document.key(), self.all.len());
                self.all.push(document);
            }
        }
    }
}

/// All documents of a shop.
#[derive(Debug)]
pub(super) struct OtherResources {
    /// The shop's seed, so that two shops differ under equal ids.
    seed: u64,
    kinds: BTreeMap<Kind, DocumentList>,
}

impl OtherResources {
    /// Generates the documents; none for a shop without shipments.
    fn new(seed: u64, shipments: &[Spec], now: Millis) -> OtherResources {
        let mut others = OtherResources { seed, kinds: BTreeMap::new() };
        let (weeks, promotions) = if shipments.is_empty() { (0, 0) } else { (26, 8) };
        others.fill(Kind::Returns, content::returns(shipments, now));
        others.fill(Kind::Replenishments, content::replenishments(seed, shipments, now));
        others.fill(Kind::Inventory, content::inventory(seed, shipments));
        others.fill(Kind::Invoices, (0..weeks).rev().map(|week| content::invoice(seed, week, now)).collect());
        others.fill(Kind::InvoiceRequests, content::invoice_requests(shipments));
        for number in 0..promotions {
            others.add_promotion(number, content::start_of_promotion(number, now));
        }
        others.fill(Kind::Offers, content::offers(seed, shipments, now));
        others
    }

    fn fill(&mut self, kind: Kind, documents: Vec<ShopDocument>) {
        let stored = self.kinds.entry(kind).or_default();
        for document in documents {
            stored.put(document);
        }
    }

    fn of(&self, kind: Kind) -> &[ShopDocument] {
        self.kinds.get(&kind).map(|documents| documents.all.as_slice()).unwrap_or_default()
    }

    fn get(&self, kind: Kind, key: &str) -> Option<&ShopDocument> {
        let documents = self.kinds.get(&kind)?;
        documents.all.get(*documents.places.get(key)?)
    }

    fn put(&mut self, kind: Kind, document: ShopDocument) {
        self.kinds.entry(kind).or_default().put(document);
    }

    fn add_promotion(&mut self, number: u64, at: Millis) -> String {
        let promotion = content::promotion(self.seed, number, at);
        let id = promotion.id.clone();
        self.fill(Kind::PromotionProducts, content::products(self.seed, number, &promotion));
        self.put(Kind::Promotions, promotion);
        id
    }

    /// Adds a current document; returns its key. None if no shipment is left to base it on.
    fn add(&mut self, kind: Kind, shipments: &[Spec], now: Millis) -> Option<String> {
        let number = self.of(kind).len() as u64;
        let document = match kind {
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
        let key = document.key();
        self.put(kind, document);
        Some(key)
    }

    /// Changes a document now. False if the key is unknown, or such a document does not change any more.
    fn change(&mut self, kind: Kind, key: &str, now: Millis) -> bool {
        let Some(changed) = self.get(kind, key).and_then(|document| content::changed(kind, document.clone(), now))
        else {
            return false;
        };
        self.put(kind, changed);
        true
    }
}

impl Sandbox {
    /// Accesses a shop's documents, generating them first.
    pub(super) fn other_resources<R>(&self, shop: &Shop, look: impl FnOnce(&mut OtherResources, Millis) -> R) -> R {
        let now = self.0.clock.now();
        let mut others = lock(&shop.other_resources);
        let others = others.get_or_insert_with(|| {
            let stock = self.stock(shop);
            OtherResources::new(stock.seed(), &stock.first(), stock.born())
        });
        look(others, now)
    }

    fn change_other<R>(
        &self,
        client_id: &str,
        change: impl FnOnce(&mut OtherResources, Millis) -> R,
    ) -> Result<R, SandboxError> {
        let shop = self.known(client_id)?;
        Ok(self.other_resources(&shop, change))
    }

    /// Whether there is a resource of that name.
    pub fn serves(resource: &str) -> bool {
        ["shipments", "orders"].contains(&resource) || Kind::named(resource).is_some()
    }

    /// Returns every document of a shop's resource: id and document. Without a detail call, the document is its row.
    /// Empty for an unknown shop or resource.
    pub fn truth_of(&self, client_id: &str, resource: &str) -> Vec<(String, Value)> {
        let Some(shop) = self.shop(client_id) else { return Vec::new() };
        match (resource, Kind::named(resource)) {
            ("shipments", _) => self.truth(client_id).into_iter().map(|(_, id, document)| (id, document)).collect(),
            ("orders", _) => self.all_orders(&shop),
            (_, Some(kind)) => {
                self.other_resources(&shop, |others, _| others.of(kind).iter().map(ShopDocument::truth).collect())
            }
            (_, None) => Vec::new(),
        }
    }

    /// Adds one document to any resource; returns its id as in [`Sandbox::truth_of`].
    ///
    /// # Errors
    /// The shop or the resource is unknown, or the shop has no shipment to base it on.
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
                self.other_resources(&shop, |others, now| others.add(kind, &newest, now)).ok_or_else(missing)
            }
        }
    }

    /// Changes one document of any resource: row and detail. False if the id is unknown, or the document does not
    /// change any more (handled returns, finished invoice requests, completed replenishments, all invoices).
    ///
    /// # Errors
    /// The shop or the resource is unknown.
    pub fn change_document(&self, client_id: &str, resource: &str, id: &str) -> Result<bool, SandboxError> {
        match resource {
            "shipments" => self.change_row(client_id, id),
            "orders" => self.change_order(client_id, id),
            _ => {
                let kind = Kind::named(resource).ok_or_else(|| SandboxError::UnknownResource(resource.to_owned()))?;
                self.change_other(client_id, |others, now| others.change(kind, id, now))
            }
        }
    }

    /// Adds an unhandled return of the newest shipment; returns its id.
    ///
    /// # Errors
    /// The shop is unknown or has no shipment.
    pub fn add_return(&self, client_id: &str) -> Result<String, SandboxError> {
        self.add_document(client_id, "returns")
    }

    /// Handles a return: it moves to the other list, with its results. False if it is unknown or already handled.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn handle_return(&self, client_id: &str, id: &str) -> Result<bool, SandboxError> {
        self.change_document(client_id, "returns", id)
    }

    /// Adds an offer at the end of the list; returns its id.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn add_offer(&self, client_id: &str) -> Result<String, SandboxError> {
        self.add_document(client_id, "offers")
    }

    /// Increases the stock of an offer by one. False if the offer is unknown.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn change_offer(&self, client_id: &str, id: &str) -> Result<bool, SandboxError> {
        self.change_document(client_id, "offers", id)
    }

    /// Adds an offer, or changes its stock.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn put_offer(&self, client_id: &str, id: &str, stock: u64) -> Result<(), SandboxError> {
        self.change_other(client_id, |others, now| {
            let known = others.get(Kind::Offers, id);
            let at = known.map_or(now, |document| document.at);
            let ean = known.and_then(|document| document.row["ean"].as_str()).unwrap_or("9789076174082").to_owned();
            others.put(Kind::Offers, content::offer(id, &ean, stock, at));
        })
    }

    /// Adds an invoice of today; returns its id.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn add_invoice(&self, client_id: &str) -> Result<String, SandboxError> {
        self.add_document(client_id, "invoices")
    }
}
