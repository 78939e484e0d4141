//! The marketplace's documents as types: list rows and details, with the API's own names.
//!
//! [`super::content`] fills them. None is serialised as an absent key, never as `null`, as the API does. Prices are
//! raw JSON numerals, so that `1234.50` keeps its second decimal.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Fields missing from the specification; the API adds some at any time.
pub(super) type Extra = BTreeMap<String, Value>;

/// A row of `GET /retailer/shipments`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShipmentRow {
    pub(super) shipment_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shipment_date_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shipment_reference: Option<String>,
    pub(super) order: OrderReference,
    pub(super) shipment_items: Vec<RowItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transport: Option<RowTransport>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrderReference {
    pub(super) order_id: String,
    pub(super) order_placed_date_time: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RowItem {
    pub(super) order_item_id: String,
    pub(super) ean: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RowTransport {
    pub(super) transport_id: String,
}

/// The answer of `GET /retailer/shipments/{id}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shipment {
    pub(super) shipment_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shipment_date_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shipment_reference: Option<String>,
    pub(super) pickup_point: bool,
    pub(super) order: OrderReference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shipment_details: Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) billing_details: Option<Address>,
    pub(super) shipment_items: Vec<ShipmentItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transport: Option<Transport>,
    #[serde(flatten)]
    pub(super) extra: Extra,
}

/// Both address blocks; each uses its own subset of the optional fields.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Address {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pickup_point_name: Option<String>,
    pub(super) salutation: &'static str,
    pub(super) first_name: String,
    pub(super) surname: String,
    pub(super) street_name: String,
    pub(super) house_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) house_number_extension: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extra_address_information: Option<String>,
    pub(super) zip_code: String,
    pub(super) city: String,
    pub(super) country_code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) company: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) delivery_phone_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) language: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vat_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kvk_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) order_reference: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShipmentItem {
    pub(super) order_item_id: String,
    pub(super) fulfilment: Fulfilment,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offer: Option<Offer>,
    pub(super) product: Product,
    pub(super) quantity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quantity_shipped: Option<u32>,
    pub(super) unit_price: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) commission: Option<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fulfilment {
    pub(super) method: &'static str,
    pub(super) distribution_party: &'static str,
    pub(super) latest_delivery_date: String,
    /// Orders only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time_frame_type: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Offer {
    pub(super) offer_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reference: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Product {
    pub(super) ean: String,
    pub(super) title: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Transport {
    pub(super) transport_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) transporter_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) track_and_trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shipping_label_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) transport_events: Vec<TransportEvent>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TransportEvent {
    pub(super) event_code: &'static str,
    pub(super) event_date_time: String,
}

/// A row of `GET /retailer/orders`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrderRow {
    pub(super) order_id: String,
    pub(super) order_placed_date_time: String,
    pub(super) order_items: Vec<OrderRowItem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrderRowItem {
    pub(super) order_item_id: String,
    pub(super) ean: String,
    pub(super) fulfilment_method: &'static str,
    pub(super) fulfilment_status: &'static str,
    pub(super) quantity: u32,
    pub(super) quantity_shipped: u32,
    pub(super) quantity_cancelled: u32,
    pub(super) cancellation_request: bool,
    pub(super) latest_changed_date_time: String,
}

/// The answer of `GET /retailer/orders/{id}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Order {
    pub(super) order_id: String,
    pub(super) pickup_point: bool,
    pub(super) order_placed_date_time: String,
    pub(super) shipment_details: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) billing_details: Option<Address>,
    pub(super) order_items: Vec<OrderItem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OrderItem {
    pub(super) order_item_id: String,
    pub(super) cancellation_request: bool,
    pub(super) fulfilment: Fulfilment,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offer: Option<Offer>,
    pub(super) product: Product,
    pub(super) quantity: u32,
    pub(super) quantity_shipped: u32,
    pub(super) quantity_cancelled: u32,
    pub(super) unit_price: Box<RawValue>,
    pub(super) total_price: Box<RawValue>,
    pub(super) discounts: Vec<Value>,
    pub(super) commission: Box<RawValue>,
    pub(super) latest_changed_date_time: String,
}
