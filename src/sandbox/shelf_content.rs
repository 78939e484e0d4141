//! The forms of what lies on the shelf (API.md, sections 4 and 5): everything follows from the shop's shipments.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Method;
use super::content::{Spec, local_date, local_time, mix};
use super::shelf::Thing;
use crate::domain::clock::Millis;

const DAY_MS: Millis = 24 * 3_600_000;
/// No shop has more different products; offers and stock are of them.
const PRODUCTS_MAX: usize = 500;

fn value(form: &impl serde::Serialize) -> Value {
    serde_json::to_value(form).unwrap_or(Value::Null)
}

/// Adds to an object.
fn with(mut object: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut object, more) {
        fields.extend(more);
    }
    object
}

/// One return for every tenth shipment; a quarter of them unhandled. Oldest first.
pub(super) fn returns(shipments: &[Spec], now: Millis) -> Vec<Thing> {
    let mut returned: Vec<Thing> =
        shipments.iter().filter(|spec| spec.index % 10 == 3).map(|spec| a_return(spec, now)).collect();
    returned.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    returned
}

fn a_return(spec: &Spec, now: Millis) -> Thing {
    let number = spec.index * 2 + u64::from(spec.method == Method::Fbb);
    let at = (spec.at + 3 * DAY_MS).min(now - 60_000);
    let (address, _) = spec.addresses();
    let (mut rows, mut items) = (Vec::new(), Vec::new());
    for (place, item) in spec.items().into_iter().take(3).enumerate() {
        let mut reason = json!({ "mainReason": "Niet naar verwachting" });
        // The specification calls the comments required; real rows often lack them, and the details at times.
        if number.is_multiple_of(3) {
            reason["customerComments"] = "Past niet".into();
        }
        if !number.is_multiple_of(5) {
            reason["detailedReason"] = "Te klein".into();
        }
        let row = json!({
            "rmaId": (31_000_000 + number * 16 + place as u64).to_string(), "orderId": spec.order_id(),
            "ean": item.product.ean, "expectedQuantity": item.quantity, "returnReason": reason, "handled": false,
        });
        let customer = with(value(&address), json!({}));
        let mut detail = with(row.clone(), json!({ "title": item.product.title, "customerDetails": customer }));
        if let Value::Object(customer) = &mut detail["customerDetails"] {
            customer.remove("language");
            customer.remove("pickupPointName");
        }
        if number.is_multiple_of(2) {
            detail["trackAndTrace"] = format!("3SRET{number:08}").into();
            detail["transporterName"] = "PostNL".into();
        }
        rows.push(row);
        items.push(detail);
    }
    let id = (1_000_000 + number).to_string();
    let head = json!({
        "returnId": id, "registrationDateTime": local_time(at), "fulfilmentMethod": spec.method.name(),
    });
    let thing = Thing {
        id,
        at,
        parent: None,
        row: with(head.clone(), json!({ "returnItems": rows })),
        detail: Some(with(head, json!({ "returnItems": items }))),
    };
    if mix(number, 4).is_multiple_of(4) { thing } else { handled(thing, at + DAY_MS) }
}

pub(super) fn is_handled(thing: &Thing) -> bool {
    thing.row["returnItems"][0]["handled"] == true
}

/// The return after it was handled.
pub(super) fn handled(mut thing: Thing, at: Millis) -> Thing {
    for form in [Some(&mut thing.row), thing.detail.as_mut()].into_iter().flatten() {
        for item in form["returnItems"].as_array_mut().into_iter().flatten() {
            item["handled"] = true.into();
            item["processingResults"] = json!([{
                "quantity": item["expectedQuantity"], "processingResult": "ACCEPTED",
                "handlingResult": "RETURN_RECEIVED", "processingDateTime": local_time(at),
            }]);
        }
    }
    thing
}

/// One for every twentieth shipment of the warehouse, and two more.
pub(super) fn replenishments(shipments: &[Spec], now: Millis) -> Vec<Thing> {
    let sent = shipments.iter().filter(|spec| spec.method == Method::Fbb).count() / 20 + 2;
    (0..sent).map(|number| replenishment(number as u64, now - (sent - number) as Millis * DAY_MS)).collect()
}

fn replenishment(number: u64, at: Millis) -> Thing {
    const STATES: [&str; 6] = ["ANNOUNCED", "IN_TRANSIT", "ARRIVED_AT_WH", "IN_PROGRESS_AT_WH", "CANCELLED", "DONE"];
    let id = (2_312_078_000 + number * 3).to_string();
    let state = STATES[(mix(number, 7) % 6) as usize];
    let eans: Vec<String> = (0..=number % 4).map(|line| format!("8712345{:06}", number * 7 + line)).collect();
    let reference = format!("REP{number:05}");
    let head = json!({ "replenishmentId": id, "creationDateTime": local_time(at), "reference": reference });
    let lines = |full: bool| -> Vec<Value> {
        let line = |ean: &String| {
            let counts = json!({
                "lineState": "ANNOUNCED", "quantityAnnounced": 5, "quantityReceived": 2, "quantityInProgress": 1,
                "quantityWithGradedState": 0, "quantityWithRegularState": 2,
            });
            if full { with(json!({ "ean": ean }), counts) } else { json!({ "ean": ean }) }
        };
        eans.iter().map(line).collect()
    };
    let warehouse = json!({
        "streetName": "Mechie Trommelenweg", "houseNumber": "1", "houseNumberExtension": "A", "zipCode": "5145ND", "city": "Waalwijk",
        "countryCode": "NL", "attentionOf": "t.a.v. bol.com",
    });
    let detail = json!({
        "labelingByBol": number.is_multiple_of(2), "state": state, "numberOfLoadCarriers": 1,
        "deliveryInformation": {
            "expectedDeliveryDate": local_date(at + 4 * DAY_MS), "transporterCode": "POSTNL",
            "destinationWarehouse": warehouse,
        },
        "loadCarriers": [{
            "sscc": format!("0{:017}", number), "transportLabelTrackAndTrace": format!("3SREP{number:06}"),
            "transportState": "ANNOUNCED", "transportStateUpdateDateTime": local_time(at),
        }],
        "lines": lines(true), "invalidLines": [],
        "stateTransitions": [{ "state": "DRAFT", "stateDateTime": local_time(at) }, { "state": state, "stateDateTime": local_time(at + 3_600_000) }],
    });
    let row = with(head.clone(), json!({ "lines": lines(false), "invalidLines": [] }));
    Thing { id, at, parent: None, row, detail: Some(with(head, detail)) }
}

/// Different products by EAN, with a title, in the order of EANs.
fn products_of(shipments: &[Spec], method: Option<Method>) -> BTreeMap<String, String> {
    let mut products = BTreeMap::new();
    for spec in shipments.iter().filter(|spec| method.is_none_or(|method| spec.method == method)) {
        if products.len() >= PRODUCTS_MAX {
            break;
        }
        products.extend(spec.items().into_iter().map(|item| (item.product.ean, item.product.title)));
    }
    products
}

pub(super) fn inventory(shipments: &[Spec]) -> Vec<Thing> {
    let stocked = products_of(shipments, Some(Method::Fbb)).into_iter().enumerate();
    let thing = |(number, (ean, title)): (usize, (String, String))| {
        let id = format!("2950{number:09}");
        let row = json!({
            "ean": ean, "bsku": id, "gradedStock": number % 3, "regularStock": mix(number as u64, 3) % 50, "title": title,
        });
        Thing { id, at: 0, parent: None, row, detail: None }
    };
    stocked.map(thing).collect()
}

/// The invoice of so many weeks ago. Times since 1970: seconds in one place, milliseconds in another.
pub(super) fn invoice(week: i64, now: Millis) -> Thing {
    let at = now - now.rem_euclid(DAY_MS) - week * 7 * DAY_MS;
    let id = format!("4500{:09}", at / DAY_MS);
    let amount = |cents: u64| {
        let amount = -((mix(week.unsigned_abs(), cents) % 1_000_000) as f64) / 100.0;
        json!({ "amount": amount, "currencyID": "EUR" })
    };
    let row = json!({
        "invoiceId": id, "invoiceType": "ALL_IN_ONE", "issueDate": at / 1000,
        "invoicePeriod": { "startDate": at - 7 * DAY_MS, "endDate": at },
        "invoiceMediaTypes": { "availableMediaTypes": ["application/json", "application/pdf"] },
        "specificationMediaTypes": { "availableMediaTypes": ["application/json"] },
        "legalMonetaryTotal": {
            "lineExtensionAmount": amount(1), "taxExclusiveAmount": amount(2), "taxInclusiveAmount": amount(3),
            "payableAmount": amount(3),
        },
    });
    Thing { id, at, parent: None, row, detail: None }
}

pub(super) fn invoice_requests(shipments: &[Spec]) -> Vec<Thing> {
    let asked = shipments.iter().filter(|spec| spec.method == Method::Fbr && spec.index % 15 == 6);
    let thing = |spec: &Spec| {
        let id = super::content::shipment_id(spec.method, spec.index, spec.odd);
        let (_, bill_to) = spec.addresses();
        let mut billing = value(&bill_to);
        if let Value::Object(billing) = &mut billing {
            ["email", "orderReference", "extraAddressInformation"].iter().for_each(|key| drop(billing.remove(*key)));
        }
        let products: Vec<Value> = spec
            .items()
            .iter()
            .map(|item| json!({ "description": item.product.title, "quantity": item.quantity, "unitPrice": value(&item.unit_price) }))
            .collect();
        let row = json!({
            "shipmentId": id, "orderId": spec.order_id(), "customerAccountNumber": format!("K{:07}", spec.index),
            "billingDetails": billing, "products": products, "status": "OPEN",
            "statusTransitions": [{ "status": "INVOICE_REQUESTED", "statusDateTime": local_time(spec.at) }],
        });
        Thing { id, at: spec.at, parent: None, row, detail: None }
    };
    asked.map(thing).collect()
}

/// Half of them of each type.
pub(super) fn promotion(number: u64, now: Millis) -> Thing {
    let at = now - now.rem_euclid(DAY_MS) - Millis::try_from(number).unwrap_or_default() * 9 * DAY_MS;
    let id = (1000 + number * 7).to_string();
    let (from, until) = (local_time(at), local_time(at + 21 * DAY_MS));
    let row = json!({
        "promotionId": id, "title": format!("Actie {number}"), "startDateTime": from, "endDateTime": until,
        "countries": [{ "countryCode": "NL" }, { "countryCode": "BE" }],
        "promotionType": if number.is_multiple_of(2) { "AWARENESS" } else { "PRICE_OFF" },
        "retailerSpecificPromotion": number.is_multiple_of(3),
        "campaign": { "name": format!("Campagne {number}"), "startDateTime": from, "endDateTime": until },
    });
    Thing { id, at, parent: None, detail: Some(row.clone()), row }
}

/// From none to three pages of them.
pub(super) fn products(number: u64, promotion: &Thing) -> Vec<Thing> {
    let product = |place: u64| {
        let id = format!("8719999{:06}", number * 1000 + place);
        let row = json!({
            "ean": id, "maximumPrice": 10.0 + place as f64 / 4.0,
            "relevanceScores": [{ "countryCode": "NL", "relevanceScore": place % 10 }],
        });
        Thing { id, at: promotion.at, parent: Some(promotion.id.clone()), row, detail: None }
    };
    (0..number * 17).map(product).collect()
}

pub(super) fn offers(shipments: &[Spec], now: Millis) -> Vec<Thing> {
    let products = products_of(shipments, None);
    let offer = |(number, ean): (usize, &String)| {
        let id = format!("{:08x}-0000-4000-8000-{number:012x}", mix(number as u64, 11) as u32);
        offer(&id, ean, mix(number as u64, 12) % 100, now - number as Millis * 3_600_000)
    };
    products.keys().enumerate().map(offer).collect()
}

pub(super) fn offer(id: &str, ean: &str, stock: u64, at: Millis) -> Thing {
    let head = json!({ "offerId": id, "ean": ean, "reference": format!("REF-{ean}") });
    let row = with(head.clone(), json!({ "stock": { "amount": stock, "managedByRetailer": true } }));
    let detail = json!({
        "onHoldByRetailer": stock == 0, "unknownProductTitle": "", "economicOperatorId": format!("EO{stock:04}"),
        "pricing": { "bundlePrices": [{ "quantity": 1, "unitPrice": 19.95 }, { "quantity": 6, "unitPrice": 17.5 }] },
        "stock": { "amount": stock, "correctedStock": stock, "managedByRetailer": true },
        "fulfilment": { "method": "FBR", "deliveryCode": "24uurs-22" },
        "store": { "productTitle": "Uit het assortiment", "visible": [{ "countryCode": "NL" }] },
        "condition": { "name": "NEW", "category": "NEW" },
        "notPublishableReasons": if stock == 0 { json!([{ "code": "4003", "description": "Geen voorraad" }]) } else { json!([]) },
    });
    Thing { id: id.to_owned(), at, parent: None, row, detail: Some(with(head, detail)) }
}
