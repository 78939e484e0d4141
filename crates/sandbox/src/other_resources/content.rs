//! Generates a shop's other resources; everything follows from its shipments.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::clock::Millis;
use crate::content::Spec;
use crate::document::Method;
use crate::other_resources::types::{Kind, ShopDocument};
use crate::values::{ean, local_date, local_time, mix, shipment_id};

const DAY_MS: Millis = 24 * 3_600_000;
/// Maximum different products per shop; offers and stock refer to them.
const PRODUCTS_MAX: usize = 500;

fn value(form: &impl serde::Serialize) -> Value {
    serde_json::to_value(form).unwrap_or(Value::Null)
}

/// Adds fields to an object.
fn with(mut object: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut object, more) {
        fields.extend(more);
    }
    object
}

/// One return for every tenth shipment, a quarter of them unhandled. Oldest first.
pub(super) fn returns(shipments: &[Spec], now: Millis) -> Vec<ShopDocument> {
    let returned = shipments.iter().filter(|spec| spec.index % 10 == 3).map(|spec| {
        let number = spec.index * 2 + u64::from(spec.method == Method::Fbb);
        let at = (spec.at + 3 * DAY_MS).min(now - 60_000);
        let document = a_return(spec, number, at);
        if mix(number, 4).is_multiple_of(4) { document } else { handled(document, at + DAY_MS) }
    });
    let mut returned: Vec<ShopDocument> = returned.collect();
    returned.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    returned
}

/// An unhandled return of today.
pub(super) fn added_return(spec: &Spec, number: u64, now: Millis) -> ShopDocument {
    a_return(spec, 100_000_000 + number, now - now.rem_euclid(1000))
}

/// Its number among the returns of its shop and method. Indices of returns are multiples of ten, so they do not vary
/// the content.
fn returned_before(spec: &Spec) -> u64 {
    spec.index / 10
}

/// The customer fields of the detail; some customers only have an address and an email.
fn customer(spec: &Spec) -> Value {
    let (address, _) = spec.addresses();
    let mut customer = value(&address);
    if let Value::Object(fields) = &mut customer {
        let bare = spec.odd && returned_before(spec) % 4 == 2;
        let included = |name: &str| match bare {
            true => ["zipCode", "countryCode", "email"].contains(&name),
            false => !["language", "pickupPointName"].contains(&name),
        };
        fields.retain(|name, _| included(name));
    }
    customer
}

fn a_return(spec: &Spec, number: u64, at: Millis) -> ShopDocument {
    let (mut rows, mut items) = (Vec::new(), Vec::new());
    let nth = returned_before(spec);
    for (place, item) in spec.items().into_iter().take(3).enumerate() {
        let mut reason = json!({ "mainReason": "Niet naar verwachting" });
        // The specification requires the comments; real rows often lack them, and some details do.
        if nth.is_multiple_of(3) {
            reason["customerComments"] = "Past niet".into();
        }
        if nth % 4 != 1 {
            reason["detailedReason"] = "Te klein".into();
        }
        let row = json!({
            "rmaId": (31_000_000 + number * 16 + place as u64).to_string(), "orderId": spec.order_id(),
            "ean": item.product.ean, "expectedQuantity": item.quantity, "returnReason": reason, "handled": false,
        });
        let more = json!({ "title": item.product.title, "customerDetails": customer(spec) });
        let mut detail = with(row.clone(), more);
        if nth.is_multiple_of(2) {
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
    ShopDocument {
        id,
        at,
        parent: None,
        row: with(head.clone(), json!({ "returnItems": rows })),
        detail: Some(with(head, json!({ "returnItems": items }))),
    }
}

pub(super) fn is_handled(document: &ShopDocument) -> bool {
    document.row["returnItems"][0]["handled"] == true
}

/// The return after it was handled.
fn handled(mut document: ShopDocument, at: Millis) -> ShopDocument {
    for form in [Some(&mut document.row), document.detail.as_mut()].into_iter().flatten() {
        for item in form["returnItems"].as_array_mut().into_iter().flatten() {
            item["handled"] = true.into();
            item["processingResults"] = json!([{
                "quantity": item["expectedQuantity"], "processingResult": "ACCEPTED",
                "handlingResult": "RETURN_RECEIVED", "processingDateTime": local_time(at),
            }]);
        }
    }
    document
}

/// One replenishment for every twentieth shipment of the warehouse, plus two; none for a shop without such shipments.
pub(super) fn replenishments(seed: u64, shipments: &[Spec], now: Millis) -> Vec<ShopDocument> {
    let stored = shipments.iter().filter(|spec| spec.method == Method::Fbb).count();
    let sent = if stored == 0 { 0 } else { stored / 20 + 2 };
    (0..sent).map(|number| replenishment(seed, number as u64, now - (sent - number) as Millis * DAY_MS)).collect()
}

pub(super) fn replenishment(seed: u64, number: u64, at: Millis) -> ShopDocument {
    const STATES: [&str; 6] = ["ANNOUNCED", "IN_TRANSIT", "ARRIVED_AT_WH", "IN_PROGRESS_AT_WH", "CANCELLED", "DONE"];
    let id = (2_312_078_000 + number * 3).to_string();
    let state = STATES[(mix(number, 7) % 6) as usize];
    let eans: Vec<String> = (0..=number % 4).map(|line| ean(871_234_000_000 + number * 7 + line)).collect();
    let reference = format!("REP{number:05}-{:03}", mix(seed, number) % 1000);
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
    ShopDocument { id, at, parent: None, row, detail: Some(with(head, detail)) }
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

pub(super) fn inventory(seed: u64, shipments: &[Spec]) -> Vec<ShopDocument> {
    let stocked_products = products_of(shipments, Some(Method::Fbb)).into_iter();
    (0..).zip(stocked_products).map(|(number, (ean, title))| stocked(seed, number, ean, &title)).collect()
}

pub(super) fn stocked(seed: u64, number: u64, ean: String, title: &str) -> ShopDocument {
    let id = format!("2950{number:09}");
    let row = json!({
        "ean": ean, "bsku": id, "gradedStock": number % 3, "regularStock": mix(seed, number) % 50, "title": title,
    });
    ShopDocument { id, at: 0, parent: None, row, detail: None }
}

/// A product without any sale.
pub(super) fn made_up_ean(number: u64) -> String {
    ean(871_888_000_000 + number)
}

/// The invoice of some weeks ago. Times since 1970: seconds in one field, milliseconds in another.
pub(super) fn invoice(seed: u64, week: i64, now: Millis) -> ShopDocument {
    let at = now - now.rem_euclid(DAY_MS) - week * 7 * DAY_MS;
    an_invoice(seed, format!("4500{:09}", at / DAY_MS), at)
}

pub(super) fn added_invoice(seed: u64, number: u64, now: Millis) -> ShopDocument {
    an_invoice(seed, format!("9{number:012}"), now - now.rem_euclid(1000))
}

fn an_invoice(seed: u64, id: String, at: Millis) -> ShopDocument {
    let amount = |part: u64| {
        let cents = mix(seed, mix(at.unsigned_abs(), part)) % 1_000_000;
        json!({ "amount": -(cents as f64) / 100.0, "currencyID": "EUR" })
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
    ShopDocument { id, at, parent: None, row, detail: None }
}

/// The answer of the call for one invoice; the specification leaves its form open. The catalog reads rows only, so
/// this is not part of the expected documents.
pub(super) fn invoice_document(row: &Value) -> Value {
    let total = &row["legalMonetaryTotal"]["lineExtensionAmount"];
    let line = json!({ "lineId": "1", "description": "Commissie", "quantity": 1, "lineExtensionAmount": total });
    with(row.clone(), json!({ "accountingSupplierParty": { "name": "bol.com b.v." }, "invoiceLines": [line] }))
}

/// The id of the shipment, also used for its invoice request.
pub(super) fn shipment_of(spec: &Spec) -> String {
    shipment_id(spec.method, spec.index, spec.odd)
}

pub(super) fn invoice_requests(shipments: &[Spec]) -> Vec<ShopDocument> {
    let asked = shipments.iter().filter(|spec| spec.method == Method::Fbr && spec.index % 15 == 6);
    asked
        .rev()
        .map(|spec| {
            let mut request = invoice_request(spec);
            for _ in 0..mix(spec.index, 9) % 4 {
                request = changed(Kind::InvoiceRequests, request.clone(), request.at + DAY_MS).unwrap_or(request);
            }
            request
        })
        .collect()
}

pub(super) fn invoice_request(spec: &Spec) -> ShopDocument {
    let id = shipment_of(spec);
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
        "billingDetails": billing, "products": products, "status": "INVOICE_REQUESTED",
        "statusTransitions": [{ "status": "INVOICE_REQUESTED", "statusDateTime": local_time(spec.at) }],
    });
    ShopDocument { id, at: spec.at, parent: None, row, detail: None }
}

/// The start of a new shop's promotions.
pub(super) fn start_of_promotion(number: u64, now: Millis) -> Millis {
    now - now.rem_euclid(DAY_MS) - Millis::try_from(number).unwrap_or_default() * 9 * DAY_MS
}

/// A promotion; the types alternate.
pub(super) fn promotion(seed: u64, number: u64, at: Millis) -> ShopDocument {
    let id = (1000 + number * 7).to_string();
    let (from, until) = (local_time(at), local_time(at + 21 * DAY_MS));
    let row = json!({
        "promotionId": id, "title": format!("Actie {number}-{}", mix(seed, number) % 1000), "startDateTime": from,
        "endDateTime": until, "countries": [{ "countryCode": "NL" }, { "countryCode": "BE" }],
        "promotionType": if number.is_multiple_of(2) { "AWARENESS" } else { "PRICE_OFF" },
        "retailerSpecificPromotion": number.is_multiple_of(3),
        "campaign": { "name": format!("Campagne {number}"), "startDateTime": from, "endDateTime": until },
    });
    ShopDocument { id, at, parent: None, detail: Some(row.clone()), row }
}

/// The products of a promotion: zero to three pages.
pub(super) fn products(seed: u64, number: u64, promotion: &ShopDocument) -> Vec<ShopDocument> {
    (0..number * 17 % 136).map(|place| product(seed, number * 1000 + place, promotion)).collect()
}

pub(super) fn product(seed: u64, number: u64, promotion: &ShopDocument) -> ShopDocument {
    let id = ean(871_999_000_000 + number);
    let score = mix(seed, number) % 100;
    let row = json!({
        "ean": id, "maximumPrice": 10.0 + score as f64 / 4.0,
        "relevanceScores": [{ "countryCode": "NL", "relevanceScore": score }],
    });
    ShopDocument { id, at: promotion.at, parent: Some(promotion.id.clone()), row, detail: None }
}

pub(super) fn offers(seed: u64, shipments: &[Spec], now: Millis) -> Vec<ShopDocument> {
    let products = products_of(shipments, None);
    let offer = |(number, ean): (u64, &String)| {
        let at = now - Millis::try_from(number).unwrap_or_default() * 3_600_000;
        offer(&offer_id(number), ean, mix(seed, number) % 100, at)
    };
    (0..).zip(products.keys()).map(offer).collect()
}

pub(super) fn added_offer(seed: u64, number: u64, now: Millis) -> ShopDocument {
    offer(&offer_id(number), &made_up_ean(number), 1 + mix(seed, number) % 99, now)
}

fn offer_id(number: u64) -> String {
    format!("{:08x}-0000-4000-8000-{number:012x}", mix(number, 11) % (1 << 32))
}

pub(super) fn offer(id: &str, ean: &str, stock: u64, at: Millis) -> ShopDocument {
    let head = json!({ "offerId": id, "ean": ean, "reference": format!("REF-{ean}") });
    let row = with(head.clone(), json!({ "stock": { "amount": stock, "managedByRetailer": true } }));
    let detail = json!({
        "onHoldByRetailer": stock == 0, "unknownProductTitle": "", "economicOperatorId": format!("EO{stock:04}"),
        "pricing": { "bundlePrices": [{ "quantity": 1, "unitPrice": 19.95 }, { "quantity": 6, "unitPrice": 17.5 }] },
        "stock": { "amount": stock, "correctedStock": stock, "managedByRetailer": true },
        "fulfilment": { "method": "FBR", "deliveryCode": "24uurs-22", "schedule": "BOL_DELIVERY_PROMISE" },
        "product": { "bolProductId": format!("93{ean:0>14}") },
        "countryAvailabilities": [{ "countryCode": "NL", "forSale": stock > 0 }, { "countryCode": "BE", "forSale": false }],
        "store": { "productTitle": "Uit het assortiment", "visible": [{ "countryCode": "NL" }] },
        "condition": { "name": "NEW", "category": "NEW" },
        "notPublishableReasons": if stock == 0 { json!([{ "code": "4003", "description": "Geen voorraad" }]) } else { json!([]) },
    });
    ShopDocument { id: id.to_owned(), at, parent: None, row, detail: Some(with(head, detail)) }
}

/// Whether an offer can be bought.
pub(super) fn is_for_sale(document: &ShopDocument) -> bool {
    document.row["stock"]["amount"] != 0
}

/// A document after one change of its kind; None if it does not change any more.
pub(super) fn changed(kind: Kind, mut document: ShopDocument, now: Millis) -> Option<ShopDocument> {
    match kind {
        Kind::Returns => return (!is_handled(&document)).then(|| handled(document, now)),
        Kind::Replenishments => {
            let detail = document.detail.as_mut()?;
            let state = next_of(&detail["state"], &REPLENISHING)?;
            detail["state"] = state.into();
            let transitions = detail["stateTransitions"].as_array_mut()?;
            transitions.push(json!({ "state": state, "stateDateTime": local_time(now) }));
        }
        Kind::Inventory => document.row["regularStock"] = (document.row["regularStock"].as_u64()? + 1).into(),
        // Issued invoices do not change.
        Kind::Invoices => return None,
        Kind::InvoiceRequests => {
            let status = next_of(&document.row["status"], &REQUESTING)?;
            document.row["status"] = status.into();
            let transitions = document.row["statusTransitions"].as_array_mut()?;
            transitions.push(json!({ "status": status, "statusDateTime": local_time(now) }));
        }
        Kind::Promotions => {
            document.row["title"] = format!("{} +", document.row["title"].as_str()?).into();
            document.detail = Some(document.row.clone());
        }
        Kind::PromotionProducts => {
            document.row["maximumPrice"] = (document.row["maximumPrice"].as_f64()? + 0.25).into();
        }
        Kind::Offers => {
            let stock = document.row["stock"]["amount"].as_u64()?;
            return Some(offer(&document.id, document.row["ean"].as_str()?, stock + 1, document.at));
        }
    }
    Some(document)
}

const REPLENISHING: [&str; 5] = ["ANNOUNCED", "IN_TRANSIT", "ARRIVED_AT_WH", "IN_PROGRESS_AT_WH", "DONE"];
const REQUESTING: [&str; 4] = ["INVOICE_REQUESTED", "INVOICE_INCORRECT", "INVOICE_UPLOADED", "FINISHED"];

/// The next state; None after the last.
fn next_of(state: &Value, states: &[&'static str]) -> Option<&'static str> {
    let place = states.iter().position(|known| *state == *known)?;
    states.get(place + 1).copied()
}
