//! Orders, derived from the shipments: the order of each shipment is handled, and the next few future shipments are
//! open orders (`docs/bol-api.md`, "Orders").
//!
//! An order changes when its shipment arrives, moving from open to handled under one id, and when a control changes
//! it. The id encodes the order's index and shipments are sorted by time, so no call scans all of them.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::Value;

use crate::body::json;
use crate::clock::Millis;
use crate::content::Spec;
use crate::document::{Fulfilment, Method, Order, OrderItem, OrderRow, OrderRowItem, ShipmentItem};
use crate::error::SandboxError;
use crate::query::{Asked, Query, collection, cut};
use crate::shop::Shop;
use crate::state::{Sandbox, Settings};
use crate::stock::{OrderChange, Stock};
use crate::values::{local_date, local_time, money, place_of_order};
use crate::wire::Answer;

/// How long handled orders are listed without `latest-change-date`.
const SHOWN_MS: Millis = 48 * 3_600_000;
const DAY_MS: Millis = 24 * 3_600_000;
const METHODS: [Method; 2] = [Method::Fbr, Method::Fbb];

/// One order with its present or future shipments.
struct OrderOf {
    specs: Vec<Spec>,
    open: bool,
    /// Time of its first item.
    change: Option<OrderChange>,
}

/// One item of an order.
struct ItemOf {
    item: ShipmentItem,
    method: Method,
    cancellation_request: bool,
    changed: String,
}

impl OrderOf {
    /// Time of its latest change: the last shipment, its placing if open, or a control.
    fn changed(&self) -> Millis {
        self.change.map_or(self.moved(), |change| change.at.max(self.moved()))
    }

    fn moved(&self) -> Millis {
        self.specs.iter().map(|spec| if self.open { spec.placed } else { spec.at }).max().unwrap_or_default()
    }

    fn first(&self) -> &Spec {
        &self.specs[0]
    }

    fn shipped(&self, quantity: u32) -> u32 {
        if self.open { 0 } else { quantity }
    }

    fn items(&self) -> impl Iterator<Item = ItemOf> {
        let items = self.specs.iter().flat_map(|spec| spec.items().into_iter().map(|item| (item, spec.method)));
        items.enumerate().map(|(place, (item, method))| ItemOf {
            item,
            method,
            cancellation_request: place == 0 && self.change.is_some_and(|change| change.times % 2 == 1),
            changed: local_time(if place == 0 { self.changed() } else { self.moved() }),
        })
    }

    fn row(&self) -> Bytes {
        let items = self.items().map(|ItemOf { item, method, cancellation_request, changed }| OrderRowItem {
            order_item_id: item.order_item_id,
            ean: item.product.ean,
            fulfilment_method: method.name(),
            fulfilment_status: if self.open { "OPEN" } else { "HANDLED" },
            quantity: item.quantity,
            quantity_shipped: self.shipped(item.quantity),
            quantity_cancelled: 0,
            cancellation_request,
            latest_changed_date_time: changed,
        });
        let row = OrderRow {
            order_id: self.first().order_id(),
            order_placed_date_time: local_time(self.first().placed),
            order_items: items.collect(),
        };
        json(&row).into()
    }

    fn detail(&self) -> Bytes {
        let (shipment_details, billing_details) = self.first().addresses();
        let items = self.items().map(|ItemOf { item, cancellation_request, changed, .. }| {
            let cents = item.unit_price.get().replace('.', "").parse::<u64>().unwrap_or_default();
            OrderItem {
                order_item_id: item.order_item_id,
                cancellation_request,
                fulfilment: Fulfilment { time_frame_type: Some("REGULAR"), ..item.fulfilment },
                offer: item.offer,
                product: item.product,
                quantity: item.quantity,
                quantity_shipped: self.shipped(item.quantity),
                quantity_cancelled: 0,
                unit_price: item.unit_price,
                total_price: money(cents * u64::from(item.quantity)),
                discounts: Vec::new(),
                commission: money(cents / 8),
                latest_changed_date_time: changed,
            }
        });
        let order = Order {
            order_id: self.first().order_id(),
            pickup_point: shipment_details.pickup_point_name.is_some(),
            order_placed_date_time: local_time(self.first().placed),
            order_items: items.collect(),
            shipment_details,
            billing_details: Some(billing_details),
        };
        json(&order).into()
    }
}

impl Sandbox {
    pub(crate) fn list_orders(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
        const KNOWN: [&str; 6] =
            ["page", "fulfilment-method", "status", "change-interval-minute", "latest-change-date", "vvb-only"];
        let mut query = Query::new(asked, &KNOWN);
        let page = query.page();
        let method = query.choice("fulfilment-method", &["FBR", "FBB", "ALL"]);
        let status = query.choice("status", &["OPEN", "SHIPPED", "ALL"]);
        let interval = query.number("change-interval-minute", 1, 60);
        let vvb_only = query.choice("vvb-only", &["true", "false"]);
        let day = query.date("latest-change-date");
        if let Some(refusal) = query.refusal() {
            return refusal;
        }
        let now = self.0.clock.now();
        let since = interval.map(|minutes| now - Millis::try_from(minutes).unwrap_or_default() * 60_000);
        let methods = match method.as_deref() {
            Some("ALL") => &METHODS[..],
            Some("FBB") => &METHODS[1..],
            _ => &METHODS[..1],
        };
        let (from, until) = match day.as_deref().and_then(midnight) {
            // A day is in Dutch time, so it starts and ends earlier than in UTC.
            Some(midnight) => (midnight - DAY_MS, midnight + DAY_MS),
            None => (since.unwrap_or(now - SHOWN_MS), Millis::MAX),
        };
        let stock = self.stock(shop);
        let mut orders: Vec<OrderOf> =
            methods.iter().flat_map(|method| orders(&stock, *method, [from, until], now)).collect();
        drop(stock);
        orders.retain(|order| {
            let by_status = match status.as_deref() {
                Some("ALL") => true,
                Some("SHIPPED") => !order.open,
                _ => order.open,
            };
            let by_change = match (&day, since) {
                (Some(day), _) => local_date(order.changed()) == *day,
                (None, Some(since)) => order.changed() >= since,
                (None, None) => order.open || order.changed() >= now - SHOWN_MS,
            };
            by_status && by_change && vvb_only.as_deref() != Some("true")
        });
        orders.sort_by_key(|order| std::cmp::Reverse(order.first().placed));
        let rows: Vec<Bytes> = cut(orders.iter(), page).map(OrderOf::row).collect();
        collection("orders", rows.into_iter(), settings)
    }

    /// All orders that some list may show: id and detail, newest of each method first.
    pub(crate) fn all_orders(&self, shop: &Shop) -> Vec<(String, Value)> {
        let now = self.0.clock.now();
        let stock = self.stock(shop);
        let all = METHODS.into_iter().flat_map(|method| orders(&stock, method, [Millis::MIN, Millis::MAX], now));
        all.map(|order| (order.first().order_id(), serde_json::from_slice(&order.detail()).unwrap_or_default()))
            .collect()
    }

    /// The order's detail, if the shop has such an order.
    pub(crate) fn order(&self, shop: &Shop, id: &str) -> Option<Bytes> {
        let (method, index) = place_of_order(id)?;
        let order = order_at(&self.stock(shop), method, index, self.0.clock.now());
        order.filter(|order| order.first().order_id() == id).map(|order| order.detail())
    }

    /// Places an open order; returns its id.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn add_order(&self, client_id: &str, method: Method) -> Result<String, SandboxError> {
        let shop = self.known(client_id)?;
        let mut stock = self.stock(&shop);
        let index = stock.place_order(method, self.0.clock.now());
        Ok(stock.upcoming(method, index).map(|spec| spec.order_id()).unwrap_or_default())
    }

    /// Toggles the cancellation request of an order's first item and sets its `latestChangedDateTime` to now. False if
    /// no call shows the order.
    ///
    /// # Errors
    /// The shop is unknown.
    pub fn change_order(&self, client_id: &str, id: &str) -> Result<bool, SandboxError> {
        let shop = self.known(client_id)?;
        let now = self.0.clock.now();
        let mut stock = self.stock(&shop);
        let Some((method, index)) = place_of_order(id) else { return Ok(false) };
        let known = order_at(&stock, method, index, now).is_some_and(|order| order.first().order_id() == id);
        if known {
            stock.change_order(method, index, now);
        }
        Ok(known)
    }
}

/// The start of a day in UTC.
fn midnight(day: &str) -> Option<Millis> {
    let date = day.parse::<jiff::civil::Date>().ok()?;
    date.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp().as_millisecond())
}

/// The order whose first shipment has that index.
fn order_at(stock: &Stock, method: Method, index: u64, now: Millis) -> Option<OrderOf> {
    let change = stock.order_change(method, index);
    if let Some(spec) = stock.upcoming(method, index) {
        return (!spec.shares_order()).then(|| OrderOf { specs: vec![spec], open: true, change });
    }
    let shipped = [index, index + 1].into_iter().filter_map(|index| stock.shown(method, index, now));
    let specs: Vec<Spec> =
        shipped.filter(|shipment| shipment.spec.first_of_order() == index).map(|one| one.spec.clone()).collect();
    (!specs.is_empty()).then_some(OrderOf { specs, open: false, change })
}

/// The orders of one method that are open, were changed by a control, or have a shipment between two times; newest
/// first.
fn orders(stock: &Stock, method: Method, [from, until]: [Millis; 2], now: Millis) -> Vec<OrderOf> {
    let mut firsts: BTreeSet<u64> = stock.open(method).chain(stock.changed_orders(method)).collect();
    firsts.extend(stock.between(method, from, until).iter().map(|shipment| shipment.spec.first_of_order()));
    firsts.into_iter().rev().filter_map(|index| order_at(stock, method, index, now)).collect()
}
