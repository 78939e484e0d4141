//! Orders, made from the same shipments: each shipment's order is handled, and the next few shipments
//! to come are open orders (API.md, section 4).
//!
//! An order changes when its shipment comes, so it moves from open to handled under one id.

use std::sync::Arc;

use bytes::Bytes;

use super::api::{Asked, Query, collection, cut};
use super::content::{Spec, json, local_date, local_time, money};
use super::document::{Fulfilment, Order, OrderItem, OrderRow, OrderRowItem, ShipmentItem};
use super::shop::{Shipment, Stock};
use super::wire::Answer;
use super::{Method, Sandbox, Settings, Shop};
use crate::domain::clock::Millis;

/// Handled orders are shown this long without `latest-change-date`.
const SHOWN_MS: Millis = 48 * 3_600_000;
/// Open orders per method.
const OPEN: u64 = 3;

/// One order: the shipments it has, or will have.
struct OrderOf {
    specs: Vec<Spec>,
    open: bool,
}

impl OrderOf {
    /// Its latest change: the last shipment, or for an open one its placing.
    fn changed(&self) -> Millis {
        self.specs.iter().map(|spec| if self.open { spec.placed } else { spec.at }).max().unwrap_or_default()
    }

    fn first(&self) -> &Spec {
        &self.specs[0]
    }

    fn shipped(&self, quantity: u32) -> u32 {
        if self.open { 0 } else { quantity }
    }

    fn items(&self) -> impl Iterator<Item = (ShipmentItem, Method)> {
        self.specs.iter().flat_map(|spec| spec.items().into_iter().map(|item| (item, spec.method)))
    }

    fn row(&self) -> Bytes {
        let items = self.items().map(|(item, method)| OrderRowItem {
            order_item_id: item.order_item_id,
            ean: item.product.ean,
            fulfilment_method: method.name(),
            fulfilment_status: if self.open { "OPEN" } else { "HANDLED" },
            quantity: item.quantity,
            quantity_shipped: self.shipped(item.quantity),
            quantity_cancelled: 0,
            cancellation_request: false,
            latest_changed_date_time: local_time(self.changed()),
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
        let items = self.items().map(|(item, _)| {
            let cents = item.unit_price.get().replace('.', "").parse::<u64>().unwrap_or_default();
            OrderItem {
                order_item_id: item.order_item_id,
                cancellation_request: false,
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
                latest_changed_date_time: local_time(self.changed()),
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
    pub(super) fn list_orders(&self, shop: &Shop, asked: &mut Asked<'_>, settings: &Settings) -> Answer {
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
        let stock = self.stock(shop);
        let mut orders: Vec<OrderOf> = match method.as_deref() {
            Some("ALL") => {
                [Method::Fbr, Method::Fbb].into_iter().flat_map(|method| orders(&stock, method, now)).collect()
            }
            Some("FBB") => orders(&stock, Method::Fbb, now),
            _ => orders(&stock, Method::Fbr, now),
        };
        drop(stock);
        orders.retain(|order| {
            let by_status = match status.as_deref() {
                Some("ALL") => true,
                Some("SHIPPED") => !order.open,
                _ => order.open,
            };
            let by_change = match (&day, interval) {
                (Some(day), _) => local_date(order.changed()) == *day,
                (None, Some(minutes)) => {
                    order.changed() >= now - Millis::try_from(minutes).unwrap_or_default() * 60_000
                }
                (None, None) => order.open || order.changed() >= now - SHOWN_MS,
            };
            by_status && by_change && vvb_only.as_deref() != Some("true")
        });
        orders.sort_by_key(|order| std::cmp::Reverse(order.first().placed));
        let rows: Vec<Bytes> = cut(orders.iter(), page).map(OrderOf::row).collect();
        collection("orders", rows.into_iter(), settings)
    }

    /// All orders that some list may show: id and detail.
    pub(super) fn all_orders(&self, shop: &Shop) -> Vec<(String, serde_json::Value)> {
        let now = self.0.clock.now();
        let stock = self.stock(shop);
        let both = [Method::Fbr, Method::Fbb].into_iter().flat_map(|method| orders(&stock, method, now));
        both.map(|order| (order.first().order_id(), serde_json::from_slice(&order.detail()).unwrap_or_default()))
            .collect()
    }

    /// The order's detail, if the shop has such an order.
    pub(super) fn order(&self, shop: &Shop, id: &str) -> Option<Bytes> {
        let now = self.0.clock.now();
        let stock = self.stock(shop);
        let of = |method| orders(&stock, method, now).into_iter().find(|order| order.first().order_id() == id);
        of(Method::Fbr).or_else(|| of(Method::Fbb)).map(|order| order.detail())
    }
}

/// All orders of one method: open ones, then handled ones, newest first.
fn orders(stock: &Stock, method: Method, now: Millis) -> Vec<OrderOf> {
    let mut orders: Vec<OrderOf> = Vec::new();
    let shipped: Vec<Spec> = stock.listed(method, now).map(|shipment: &Arc<Shipment>| shipment.spec.clone()).collect();
    // Oldest first, so that the second shipment of an order finds the first.
    for spec in shipped.into_iter().rev() {
        match orders.last_mut() {
            Some(order) if spec.shares_order() && order.first().order_id() == spec.order_id() => order.specs.push(spec),
            _ => orders.push(OrderOf { specs: vec![spec], open: false }),
        }
    }
    orders.reverse();
    let open = (0..OPEN).map(|ahead| stock.upcoming(method, ahead, now)).filter(|spec| !spec.shares_order());
    let mut all: Vec<OrderOf> = open.map(|spec| OrderOf { specs: vec![spec], open: true }).collect();
    all.append(&mut orders);
    all
}
