//! Serves a shop's other resources: lists with pages, filters and validation, and documents.

use bytes::Bytes;
use serde_json::Value;

use crate::clock::Millis;
use crate::other_resources::content::{invoice_document, is_for_sale, is_handled};
use crate::other_resources::types::{Kind, ShopDocument};
use crate::query::{Asked, Query, collection, collection_and, cut, percent_decoded};
use crate::shop::Shop;
use crate::state::{Sandbox, Settings};
use crate::values::{local_date, mix};
use crate::wire::Answer;

const DAY_MS: Millis = 24 * 3_600_000;
const REPLENISHMENT_STATES: [&str; 6] =
    ["ANNOUNCED", "IN_TRANSIT", "ARRIVED_AT_WH", "IN_PROGRESS_AT_WH", "CANCELLED", "DONE"];
/// Stock from this number on counts as sufficient. The documentation does not say; any bound will do for a test.
const SUFFICIENT: u64 = 5;
/// Maximum days of invoices per request.
const PERIOD_DAYS_MAX: i32 = 31;

fn bytes(rows: &[Value]) -> impl ExactSizeIterator<Item = Bytes> {
    rows.iter().map(|row| Bytes::from(row.to_string()))
}

fn in_state(replenishment: &ShopDocument, state: &str) -> bool {
    replenishment.detail.as_ref().is_some_and(|detail| detail["state"] == state)
}

/// Parses a range like `0-10`.
fn range(text: &str) -> Option<(u64, u64)> {
    let (least, most) = text.split_once('-')?;
    Some((least.parse().ok()?, most.parse().ok()?)).filter(|(least, most)| least <= most)
}

fn has_text(value: &Value, key: &str, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| value[key] == wanted)
}

/// Splits a path below the API into the kind of document, its name in error texts, and its encoded id.
pub(crate) fn document_at(path: &str) -> Option<(Kind, &'static str, &str)> {
    let (resource, id) = path.split_once('/')?;
    let (kind, what) = match resource {
        "returns" => (Kind::Returns, "Return for return id"),
        "replenishments" => (Kind::Replenishments, "Replenishment for replenishment id"),
        "invoices" => (Kind::Invoices, "Invoice for invoice id"),
        "promotions" => (Kind::Promotions, "Promotion for promotion id"),
        "offers" => (Kind::Offers, "Offer for offer id"),
        _ => return None,
    };
    Some((kind, what, id))
}

impl Sandbox {
    /// Answers a list, if the path is one of these resources.
    pub(crate) fn list_other_resource(
        &self,
        path: &str,
        shop: &Shop,
        asked: &mut Asked<'_>,
        settings: &Settings,
    ) -> Option<Answer> {
        Some(match path {
            "returns" => self.list_returns(shop, asked, settings),
            "replenishments" => self.list_replenishments(shop, asked, settings),
            "inventory" => self.list_inventory(shop, asked, settings),
            "invoices" => self.list_invoices(shop, asked, settings),
            "shipments/invoices/requests" => self.list_invoice_requests(shop, asked, settings),
            "promotions" => self.list_promotions(shop, asked, settings),
            "offers" => self.list_offers(shop, asked, settings),
            _ => {
                let promotion = path.strip_prefix("promotions/")?.strip_suffix("/products")?;
                self.list_products(shop, &percent_decoded(promotion), asked, settings)
            }
        })
    }

    /// The body of one document; None if there is no such id.
    pub(crate) fn other_document(&self, shop: &Shop, kind: Kind, id: &str) -> Option<Bytes> {
        self.other_resources(shop, |others, _| {
            let document = others.get(kind, id)?;
            match (kind, &document.detail) {
                (Kind::Invoices, _) => Some(Bytes::from(invoice_document(&document.row).to_string())),
                (_, detail) => detail.as_ref().map(|detail| Bytes::from(detail.to_string())),
            }
        })
    }

    /// The rows of a page: the matching ones in stored order, dated kinds newest first.
    fn page_of(&self, shop: &Shop, kind: Kind, page: u64, wanted: impl Fn(&ShopDocument) -> bool) -> Vec<Value> {
        self.other_resources(shop, |others, _| {
            let documents = others.of(kind).iter();
            let row = |document: &ShopDocument| document.row.clone();
            match kind {
                Kind::Replenishments | Kind::InvoiceRequests => {
                    cut(documents.rev().filter(|document| wanted(document)), page).map(row).collect()
                }
                _ => cut(documents.filter(|document| wanted(document)), page).map(row).collect(),
            }
        })
    }

    fn list_returns(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page", "handled", "fulfilment-method"]);
        let page = query.page();
        let handled = query.choice("handled", &["true", "false"]).as_deref() == Some("true");
        let method = query.choice("fulfilment-method", &["FBR", "FBB"]).unwrap_or_else(|| "FBR".to_owned());
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let wanted = |document: &&ShopDocument| {
            is_handled(document) == handled && document.row["fulfilmentMethod"] == method.as_str()
        };
        let rows: Vec<Value> = self.other_resources(shop, |others, _| {
            let rows = others.of(Kind::Returns).iter();
            // Handled ones come newest first, the others oldest first.
            if handled {
                cut(rows.rev().filter(wanted), page).map(|document| document.row.clone()).collect()
            } else {
                cut(rows.filter(wanted), page).map(|document| document.row.clone()).collect()
            }
        });
        collection("returns", bytes(&rows), settings)
    }

    fn list_replenishments(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page", "reference", "ean", "start-date", "end-date", "state"]);
        let page = query.page();
        let (reference, ean) = (query.text("reference"), query.text("ean"));
        let states = query.choices("state", &REPLENISHMENT_STATES);
        let (from, until) = (query.date("start-date"), query.date("end-date"));
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let wanted = |document: &ShopDocument| {
            let has_ean = |ean: &String| {
                document.row["lines"].as_array().into_iter().flatten().any(|line| line["ean"] == ean.as_str())
            };
            let day = local_date(document.at);
            has_text(&document.row, "reference", reference.as_deref())
                && (states.is_empty() || states.iter().any(|state| in_state(document, state)))
                && ean.as_ref().is_none_or(has_ean)
                && from.as_ref().is_none_or(|from| day >= *from)
                && until.as_ref().is_none_or(|until| day <= *until)
        };
        let rows = self.page_of(shop, Kind::Replenishments, page, wanted);
        collection("replenishments", bytes(&rows), settings)
    }

    fn list_inventory(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page", "quantity", "stock", "state", "query"]);
        let page = query.page();
        let level = query.choice("stock", &["SUFFICIENT", "INSUFFICIENT"]);
        let state = query.choice("state", &["REGULAR", "GRADED"]);
        let searched = query.text("query").map(|text| text.to_lowercase());
        let quantities = query.several("quantity");
        let ranges: Vec<_> = quantities.iter().filter_map(|text| range(text)).collect();
        if ranges.len() < quantities.len() {
            query.violation(Some("quantity"), "Use ranges like 0-10,20-30.".to_owned());
        }
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let counted = if state.as_deref() == Some("GRADED") { "gradedStock" } else { "regularStock" };
        let wanted = |document: &ShopDocument| {
            let count = document.row[counted].as_u64().unwrap_or_default();
            let title = document.row["title"].as_str().unwrap_or_default().to_lowercase();
            let found = |text: &String| document.row["ean"] == text.as_str() || title.contains(text.as_str());
            searched.as_ref().is_none_or(found)
                && (state.is_none() || count > 0)
                && level.as_deref().is_none_or(|level| (level == "SUFFICIENT") == (count >= SUFFICIENT))
                && (ranges.is_empty() || ranges.iter().any(|(least, most)| (*least..=*most).contains(&count)))
        };
        let rows = self.page_of(shop, Kind::Inventory, page, wanted);
        collection("inventory", bytes(&rows), settings)
    }

    fn list_invoices(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["period-start-date", "period-end-date"]);
        query.unnumbered(0, 1);
        let now = self.0.clock.now();
        let from = query.date("period-start-date");
        let until = query.date("period-end-date");
        if from.is_some() != until.is_some() {
            query.violation(None, "Use period-start-date and period-end-date together.".to_owned());
        }
        let until = until.unwrap_or_else(|| local_date(now));
        let from = from.unwrap_or_else(|| local_date(now - 28 * DAY_MS));
        let days = |text: &str| text.parse::<jiff::civil::Date>().ok();
        if let Some((first, last)) = days(&from).zip(days(&until)) {
            // The period includes its last day.
            let length = first.until(last).map_or(i32::MAX, |span| span.get_days()) + 1;
            if !(1..=PERIOD_DAYS_MAX).contains(&length) {
                query.violation(Some("period-end-date"), "The period must be of 1 to 31 days.".to_owned());
            }
        }
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let wanted = |document: &&ShopDocument| (from.clone()..=until.clone()).contains(&local_date(document.at));
        let rows: Vec<Value> = self.other_resources(shop, |others, _| {
            others.of(Kind::Invoices).iter().filter(wanted).map(|document| document.row.clone()).collect()
        });
        let period = Some(("period", Value::from(format!("{from}/{until}"))));
        collection_and("invoiceListItems", bytes(&rows), period, settings)
    }

    fn list_invoice_requests(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page", "state", "shipment-id"]);
        let page = query.page();
        let state = query.choice("state", &["OPEN", "UPLOAD_ERROR", "ALL"]);
        let shipment = query.text("shipment-id");
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let wanted = |document: &ShopDocument| {
            let status = &document.row["status"];
            let by_state = match state.as_deref() {
                Some("OPEN") => *status == "INVOICE_REQUESTED",
                Some("UPLOAD_ERROR") => *status == "INVOICE_INCORRECT" || *status == "INVOICE_VIRUS_DETECTED",
                _ => true,
            };
            by_state && has_text(&document.row, "shipmentId", shipment.as_deref())
        };
        let rows = self.page_of(shop, Kind::InvoiceRequests, page, wanted);
        collection("invoiceRequests", bytes(&rows), settings)
    }

    fn list_promotions(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page", "promotion-type"]);
        let page = query.page();
        let kind = query.choice("promotion-type", &["AWARENESS", "PRICE_OFF"]);
        if kind.is_none() {
            query.violation(Some("promotion-type"), "Request is missing the required parameter.".to_owned());
        }
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let rows = self.page_of(shop, Kind::Promotions, page, |document| {
            has_text(&document.row, "promotionType", kind.as_deref())
        });
        collection("promotions", bytes(&rows), settings)
    }

    fn list_products(&self, shop: &Shop, promotion: &str, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page"]);
        let page = query.page();
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        if !self.other_resources(shop, |others, _| others.get(Kind::Promotions, promotion).is_some()) {
            return asked.not_found("Promotion for promotion id", promotion);
        }
        let rows =
            self.page_of(shop, Kind::PromotionProducts, page, |document| document.parent.as_deref() == Some(promotion));
        collection("products", bytes(&rows), settings)
    }

    fn list_offers(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page-size", "cursor", "eans", "for-sale"]);
        let size = query.number("page-size", 1, 100).and_then(|size| usize::try_from(size).ok()).unwrap_or(50);
        let for_sale = query.choice("for-sale", &["true", "false"]).map(|text| text == "true");
        let eans = query.several("eans");
        if eans.iter().any(|ean| ean.len() != 13 || !ean.bytes().all(|digit| digit.is_ascii_digit())) {
            query.violation(Some("eans"), "Request contains an invalid EAN.".to_owned());
        }
        // The cursor encodes how many offers preceded it, the query and the shop.
        let question = format!("{} {size} {for_sale:?} {eans:?}", shop.client_id);
        let seal = question.bytes().fold(7, |seal, byte| mix(seal, u64::from(byte)));
        let cursor_at = |place: usize| format!("{place:x}-{:016x}", mix(seal, place as u64));
        let cursor = query.text("cursor");
        let place = |cursor: &str| usize::from_str_radix(cursor.split_once('-')?.0, 16).ok();
        let mut before = cursor.as_deref().and_then(place).unwrap_or_default();
        if cursor.is_some_and(|cursor| cursor != cursor_at(before)) {
            query.violation(Some("cursor"), "Request contains an invalid cursor.".to_owned());
        }
        if query.unnumbered(before, size) {
            before = 0;
        }
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let wanted = |document: &&ShopDocument| {
            for_sale.is_none_or(|for_sale| is_for_sale(document) == for_sale)
                && (eans.is_empty() || eans.iter().any(|ean| document.row["ean"] == ean.as_str()))
        };
        let (rows, more) = self.other_resources(shop, |others, _| {
            let mut found = others.of(Kind::Offers).iter().filter(wanted).skip(before);
            let rows: Vec<Value> = found.by_ref().take(size).map(|document| document.row.clone()).collect();
            (rows, found.next().is_some())
        });
        let next = more.then(|| ("page", serde_json::json!({ "nextCursor": cursor_at(before + size) })));
        collection_and("offers", bytes(&rows), next, settings)
    }
}
