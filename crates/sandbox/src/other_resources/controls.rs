//! The controls of documents: what every resource should have, and additions and changes by its catalog name.

use serde_json::Value;

use crate::clock::Millis;
use crate::content::Spec;
use crate::document::Method;
use crate::error::SandboxError;
use crate::other_resources::content;
use crate::other_resources::documents::OtherResources;
use crate::other_resources::types::{Kind, ShopDocument};
use crate::state::Sandbox;

impl Sandbox {
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
