//! A shop's documents of all other resources: generated once, then changed on request only.

use std::collections::{BTreeMap, HashMap};

use crate::clock::Millis;
use crate::content::Spec;
use crate::other_resources::content;
use crate::other_resources::types::{Kind, ShopDocument};

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
pub(crate) struct OtherResources {
    /// The shop's seed, so that two shops differ under equal ids.
    seed: u64,
    kinds: BTreeMap<Kind, DocumentList>,
}

impl OtherResources {
    /// Generates the documents; none for a shop without shipments.
    pub(crate) fn new(seed: u64, shipments: &[Spec], now: Millis) -> OtherResources {
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

    pub(super) fn of(&self, kind: Kind) -> &[ShopDocument] {
        self.kinds.get(&kind).map(|documents| documents.all.as_slice()).unwrap_or_default()
    }

    pub(super) fn get(&self, kind: Kind, key: &str) -> Option<&ShopDocument> {
        let documents = self.kinds.get(&kind)?;
        documents.all.get(*documents.places.get(key)?)
    }

    pub(super) fn put(&mut self, kind: Kind, document: ShopDocument) {
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
    pub(super) fn add(&mut self, kind: Kind, shipments: &[Spec], now: Millis) -> Option<String> {
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
    pub(super) fn change(&mut self, kind: Kind, key: &str, now: Millis) -> bool {
        let Some(changed) = self.get(kind, key).and_then(|document| content::changed(kind, document.clone(), now))
        else {
            return false;
        };
        self.put(kind, changed);
        true
    }
}
