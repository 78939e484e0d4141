//! Serves what lies on the shelf: the lists with their pages, filters and refusals, and the documents.

use bytes::Bytes;
use serde_json::Value;

use super::api::{Asked, Query, collection, cut};
use super::content::local_date;
use super::shelf::{Kind, Thing};
use super::shelf_content::is_handled;
use super::wire::Answer;
use super::{Sandbox, Settings, Shop};
use crate::domain::clock::Millis;

const DAY_MS: Millis = 24 * 3_600_000;
/// The invoices of so many days may be asked for at once.
const PERIOD_DAYS_MAX: i32 = 31;

fn bytes(rows: &[Value]) -> impl ExactSizeIterator<Item = Bytes> {
    rows.iter().map(|row| Bytes::from(row.to_string()))
}

fn has_text(value: &Value, key: &str, wanted: Option<&str>) -> bool {
    wanted.is_none_or(|wanted| value[key] == wanted)
}

impl Sandbox {
    /// The list at a path, if it is one of the shelf's.
    pub(super) fn shelf_list(
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
                self.list_products(shop, promotion, asked, settings)
            }
        })
    }

    /// The document at a path, if it is one of the shelf's: its body; none: there is no such document.
    pub(super) fn shelf_document(&self, path: &str, shop: &Shop) -> Option<(&'static str, Option<Bytes>)> {
        let (resource, id) = path.split_once('/')?;
        let (kind, what) = match resource {
            "returns" => (Kind::Returns, "Return for return id"),
            "replenishments" => (Kind::Replenishments, "Replenishment for replenishment id"),
            "promotions" => (Kind::Promotions, "Promotion for promotion id"),
            "offers" => (Kind::Offers, "Offer for offer id"),
            _ => return None,
        };
        let body = self.shelf(shop, |shelf, _| {
            let detail = shelf.get(kind, id).and_then(|thing| thing.detail.as_ref());
            detail.map(|detail| Bytes::from(detail.to_string()))
        });
        Some((what, body))
    }

    /// The rows of a page: those that are wanted, in the order of the shelf.
    fn page_of(&self, shop: &Shop, kind: Kind, page: u64, wanted: impl Fn(&Thing) -> bool) -> Vec<Value> {
        self.shelf(shop, |shelf, _| {
            let rows = shelf.of(kind).iter().filter(|thing| wanted(thing)).map(|thing| thing.row.clone());
            cut(rows, page).collect()
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
        let wanted = |thing: &&Thing| is_handled(thing) == handled && thing.row["fulfilmentMethod"] == method.as_str();
        let rows: Vec<Value> = self.shelf(shop, |shelf, _| {
            let rows = shelf.of(Kind::Returns).iter();
            // Handled ones come newest first, the others oldest first.
            if handled {
                cut(rows.rev().filter(wanted), page).map(|thing| thing.row.clone()).collect()
            } else {
                cut(rows.filter(wanted), page).map(|thing| thing.row.clone()).collect()
            }
        });
        collection("returns", bytes(&rows), settings)
    }

    fn list_replenishments(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page", "reference", "ean", "start-date", "end-date", "state"]);
        let page = query.page();
        let (reference, state, ean) = (query.text("reference"), query.text("state"), query.text("ean"));
        let (from, until) = (query.date("start-date"), query.date("end-date"));
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let wanted = |thing: &Thing| {
            let has_ean = |ean: &String| {
                thing.row["lines"].as_array().into_iter().flatten().any(|line| line["ean"] == ean.as_str())
            };
            let day = local_date(thing.at);
            has_text(&thing.row, "reference", reference.as_deref())
                && thing.detail.as_ref().is_some_and(|detail| has_text(detail, "state", state.as_deref()))
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
        query.choice("stock", &["SUFFICIENT", "INSUFFICIENT"]);
        let state = query.choice("state", &["REGULAR", "GRADED"]);
        let searched = query.text("query");
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let wanted = |thing: &Thing| {
            let found = |text: &String| thing.row["ean"] == text.as_str() || thing.row["bsku"] == text.as_str();
            searched.as_ref().is_none_or(found) && (state.as_deref() != Some("GRADED") || thing.row["gradedStock"] != 0)
        };
        let rows = self.page_of(shop, Kind::Inventory, page, wanted);
        collection("inventory", bytes(&rows), settings)
    }

    fn list_invoices(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["period-start-date", "period-end-date"]);
        let now = self.0.clock.now();
        let from = query.date("period-start-date");
        let until = query.date("period-end-date").unwrap_or_else(|| local_date(now));
        let from = from.unwrap_or_else(|| local_date(now - 28 * DAY_MS));
        let days = |text: &str| text.parse::<jiff::civil::Date>().ok();
        if let Some((first, last)) = days(&from).zip(days(&until)) {
            // The last day belongs to the period.
            let length = first.until(last).map_or(i32::MAX, |span| span.get_days()) + 1;
            if !(1..=PERIOD_DAYS_MAX).contains(&length) {
                query.violation(Some("period-end-date"), "The period must be of 1 to 31 days.".to_owned());
            }
        }
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let wanted = |thing: &&Thing| (from.clone()..=until.clone()).contains(&local_date(thing.at));
        let rows: Vec<Value> = self.shelf(shop, |shelf, _| {
            shelf.of(Kind::Invoices).iter().filter(wanted).map(|thing| thing.row.clone()).collect()
        });
        collection("invoiceListItems", bytes(&rows), settings)
    }

    fn list_invoice_requests(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page", "state", "shipment-id"]);
        let page = query.page();
        let state = query.choice("state", &["OPEN", "UPLOAD_ERROR", "ALL"]);
        let shipment = query.text("shipment-id");
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let wanted = |thing: &Thing| {
            let by_state = state.as_deref().is_none_or(|state| state == "ALL" || thing.row["status"] == state);
            by_state && has_text(&thing.row, "shipmentId", shipment.as_deref())
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
        let rows =
            self.page_of(shop, Kind::Promotions, page, |thing| has_text(&thing.row, "promotionType", kind.as_deref()));
        collection("promotions", bytes(&rows), settings)
    }

    fn list_products(&self, shop: &Shop, promotion: &str, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page"]);
        let page = query.page();
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        if !self.shelf(shop, |shelf, _| shelf.get(Kind::Promotions, promotion).is_some()) {
            return asked.not_found("Promotion for promotion id", promotion);
        }
        let rows =
            self.page_of(shop, Kind::PromotionProducts, page, |thing| thing.parent.as_deref() == Some(promotion));
        collection("products", bytes(&rows), settings)
    }

    fn list_offers(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        let mut query = Query::new(asked, &["page-size", "cursor", "eans", "for-sale"]);
        let size = query.number("page-size", 1, 100).unwrap_or(50);
        query.choice("for-sale", &["true", "false"]);
        let eans = query.text("eans");
        // A cursor says how many offers came before it, and that we made it.
        let cursor = query.text("cursor");
        let before = cursor.as_deref().map_or(Some(0), |cursor| cursor.strip_prefix("c-")?.parse::<usize>().ok());
        if before.is_none() {
            query.violation(Some("cursor"), "Request contains an invalid cursor.".to_owned());
        }
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let (before, size) = (before.unwrap_or_default(), usize::try_from(size).unwrap_or(50));
        let wanted = |thing: &&Thing| {
            let ean = thing.row["ean"].as_str().unwrap_or_default();
            eans.as_deref().is_none_or(|eans| eans.split(',').any(|one| one == ean))
        };
        let (rows, all) = self.shelf(shop, |shelf, _| {
            let found: Vec<&Thing> = shelf.of(Kind::Offers).iter().filter(wanted).collect();
            let rows: Vec<Value> = found.iter().skip(before).take(size).map(|thing| thing.row.clone()).collect();
            (rows, found.len())
        });
        let mut answer = collection("offers", bytes(&rows), settings);
        if before + size < all {
            let next = format!(",\"page\":{{\"nextCursor\":\"c-{}\"}}}}", before + size);
            let body = answer.body.strip_suffix(b"}").unwrap_or(&answer.body);
            answer.body = [body, next.as_bytes()].concat().into();
        }
        answer
    }
}
