//! The marketplace's documents as types: list rows and details, with the API's own names.
//!
//! `content` fills them. None is serialised as an absent key, never as `null`, as the API does. Prices are
//! raw JSON numerals, so that `1234.50` keeps its second decimal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Who fulfils an order: the retailer or bol.com.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    #[serde(rename = "FBR")]
    Fbr = 0,
    #[serde(rename = "FBB")]
    Fbb = 1,
}

impl Method {
    /// `FBR` or `FBB`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Fbr => "FBR",
            Method::Fbb => "FBB",
        }
    }
}

/// Fields missing from the specification; the API adds some at any time.
pub(crate) type Extra = BTreeMap<String, Value>;

/// A row of `GET /retailer/shipments`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShipmentRow {
    pub(crate) shipment_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shipment_date_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shipment_reference: Option<String>,
    pub(crate) order: OrderReference,
    pub(crate) shipment_items: Vec<RowItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transport: Option<RowTransport>,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrderReference {
    pub(crate) order_id: String,
    pub(crate) order_placed_date_time: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RowItem {
    pub(crate) order_item_id: String,
    pub(crate) ean: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RowTransport {
    pub(crate) transport_id: String,
}

/// The answer of `GET /retailer/shipments/{id}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shipment {
    pub(crate) shipment_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shipment_date_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shipment_reference: Option<String>,
    pub(crate) pickup_point: bool,
    pub(crate) order: OrderReference,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shipment_details: Option<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) billing_details: Option<Address>,
    pub(crate) shipment_items: Vec<ShipmentItem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transport: Option<Transport>,
    #[serde(flatten)]
    pub(crate) extra: Extra,
}

/// Both address blocks; each uses its own subset of the optional fields.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Address {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pickup_point_name: Option<String>,
    pub(crate) salutation: &'static str,
    pub(crate) first_name: String,
    pub(crate) surname: String,
    pub(crate) street_name: String,
    pub(crate) house_number: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) house_number_extension: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) extra_address_information: Option<String>,
    pub(crate) zip_code: String,
    pub(crate) city: String,
    pub(crate) country_code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) company: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delivery_phone_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) language: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vat_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kvk_number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order_reference: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShipmentItem {
    pub(crate) order_item_id: String,
    pub(crate) fulfilment: Fulfilment,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offer: Option<Offer>,
    pub(crate) product: Product,
    pub(crate) quantity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quantity_shipped: Option<u32>,
    pub(crate) unit_price: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commission: Option<Box<RawValue>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fulfilment {
    pub(crate) method: &'static str,
    pub(crate) distribution_party: &'static str,
    pub(crate) latest_delivery_date: String,
    /// Orders only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time_frame_type: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Offer {
    pub(crate) offer_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reference: Option<String>,
}

#[derive(Serialize)]
pub(crate) struct Product {
    pub(crate) ean: String,
    pub(crate) title: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Transport {
    pub(crate) transport_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) transporter_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) track_and_trace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shipping_label_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) transport_events: Vec<TransportEvent>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TransportEvent {
    pub(crate) event_code: &'static str,
    pub(crate) event_date_time: String,
}

/// A row of `GET /retailer/orders`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrderRow {
    pub(crate) order_id: String,
    pub(crate) order_placed_date_time: String,
    pub(crate) order_items: Vec<OrderRowItem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrderRowItem {
    pub(crate) order_item_id: String,
    pub(crate) ean: String,
    pub(crate) fulfilment_method: &'static str,
    pub(crate) fulfilment_status: &'static str,
    pub(crate) quantity: u32,
    pub(crate) quantity_shipped: u32,
    pub(crate) quantity_cancelled: u32,
    pub(crate) cancellation_request: bool,
    pub(crate) latest_changed_date_time: String,
}

/// The answer of `GET /retailer/orders/{id}`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Order {
    pub(crate) order_id: String,
    pub(crate) pickup_point: bool,
    pub(crate) order_placed_date_time: String,
    pub(crate) shipment_details: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) billing_details: Option<Address>,
    pub(crate) order_items: Vec<OrderItem>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrderItem {
    pub(crate) order_item_id: String,
    pub(crate) cancellation_request: bool,
    pub(crate) fulfilment: Fulfilment,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offer: Option<Offer>,
    pub(crate) product: Product,
    pub(crate) quantity: u32,
    pub(crate) quantity_shipped: u32,
    pub(crate) quantity_cancelled: u32,
    pub(crate) unit_price: Box<RawValue>,
    pub(crate) total_price: Box<RawValue>,
    pub(crate) discounts: Vec<Value>,
    pub(crate) commission: Box<RawValue>,
    pub(crate) latest_changed_date_time: String,
}
