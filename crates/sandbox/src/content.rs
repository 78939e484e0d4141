//! Generates the content of shipments: everything follows from a [`Spec`], so a sandbox with the same seed and clock
//! always serves the same documents. All people are invented; mail addresses end in `.example`.

use crate::body::json;
use crate::clock::Millis;
use crate::document::{
    Address, Extra, Fulfilment, Method, Offer, OrderReference, Product, RowItem, RowTransport, Shipment, ShipmentItem,
    ShipmentRow, Transport, TransportEvent,
};
use crate::edge_cases;
use crate::values::{self, ean, local_date, local_time, mix, money, shipment_id};

const HOUR_MS: Millis = 3_600_000;

/// Time between the transport events of a shipment.
const EVENT_STEP_MS: Millis = 9 * HOUR_MS;

const FIRST_NAMES: [&str; 8] = ["Anouk", "Bram", "Carlijn", "Daan", "Esmée", "Floor", "Gijs", "Hülya"];
const SURNAMES: [&str; 8] =
    ["van der Proef", "Testema", "de Voorbeeld", "Demosma", "Specimen", "'t Monster", "Nepstra", "El-Fictie"];
const STREETS: [&str; 5] = ["Proefweg", "Voorbeeldlaan", "Demoplein", "Teststraat", "Fictiekade"];
const CITIES: [&str; 5] = ["Utrecht", "'s-Hertogenbosch", "Groningen", "Antwerpen", "Liège"];
const PRODUCTS: [&str; 6] = [
    "Bordspel Waybill",
    "Koffiemok 300 ml",
    "Fietslamp set",
    "Dekbedovertrek 140x200",
    "USB-C kabel 2 m",
    "Kamerplant",
];

/// Everything that determines a shipment's content.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// The sandbox's seed mixed with the shop.
    pub(crate) seed: u64,
    pub(crate) odd: bool,
    pub(crate) method: Method,
    /// 0 for the oldest of its shop and method.
    pub(crate) index: u64,
    pub(crate) at: Millis,
    pub(crate) placed: Millis,
    /// Times of the transport events, oldest first.
    pub(crate) events: Vec<Millis>,
    /// How often its list row was changed.
    pub(crate) revision: u32,
}

impl Spec {
    /// A number unique within a shop.
    fn number(&self) -> u64 {
        values::number(self.method, self.index)
    }

    /// Whether this shipment belongs to the same order as the previous one.
    pub(crate) fn shares_order(&self) -> bool {
        self.index % 10 == 7
    }

    pub(crate) fn order_id(&self) -> String {
        values::order_id(self.method, self.first_of_order())
    }

    /// The index of the first shipment of its order.
    pub(crate) fn first_of_order(&self) -> u64 {
        self.index - u64::from(self.shares_order())
    }

    /// The event codes of its transport, in order; the last is final.
    pub(crate) fn journey(&self) -> &'static [&'static str] {
        if self.odd && self.index % 23 == 7 {
            return &["PRE_ANNOUNCED", "HANDED_TO_ROBOT", "IN_TRANSIT", "DELIVERED_AT_CUSTOMER"];
        }
        match self.index % 29 {
            8 => &["PRE_ANNOUNCED", "AT_TRANSPORTER", "IN_TRANSIT", "RETURNED_TO_SENDER"],
            3 | 14 => &["PRE_ANNOUNCED", "AT_TRANSPORTER", "IN_TRANSIT", "DELIVERED_AT_NEIGHBOURS"],
            _ if self.pickup() => {
                &["PRE_ANNOUNCED", "AT_TRANSPORTER", "IN_TRANSIT", "AT_PICK_UP_POINT", "PICKED_UP_AT_PICK_UP_POINT"]
            }
            _ => &["PRE_ANNOUNCED", "AT_TRANSPORTER", "IN_TRANSIT", "DELIVERED_AT_CUSTOMER"],
        }
    }

    /// Whether it has a transport object, and so can have events.
    pub(crate) fn has_transport(&self) -> bool {
        !(self.odd && self.index % 15 == 6)
    }

    /// The events that a shipment of this age has had by `now`.
    pub(crate) fn events_until(&self, now: Millis) -> Vec<Millis> {
        if !self.has_transport() {
            return Vec::new();
        }
        (0..).zip(self.journey()).map(|(step, _)| self.at + step * EVENT_STEP_MS).take_while(|at| *at <= now).collect()
    }

    fn every(&self, nth: u64) -> bool {
        self.index.is_multiple_of(nth)
    }

    fn pickup(&self) -> bool {
        self.index % 7 == 2
    }

    fn rng(&self, purpose: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(mix(mix(self.seed, self.number()), purpose))
    }

    fn transport_id(&self) -> String {
        // Several shipments can travel as one transport.
        let index = self.index - u64::from(self.index % 6 == 2);
        (312_778_947 + values::number(self.method, index) * 3).to_string()
    }

    fn date_time(&self) -> Option<String> {
        (!(self.odd && self.index % 97 == 50)).then(|| local_time(self.at))
    }

    fn reference(&self) -> Option<String> {
        let revision = if self.revision == 0 { String::new() } else { format!("-R{}", self.revision) };
        // List rows of bol.com's demo environment lack it in three of four cases.
        if self.odd && self.revision == 0 && !self.every(4) {
            return None;
        }
        let odd = if self.odd && self.every(8) { edge_cases::text(self.index / 8) } else { String::new() };
        Some(format!("{odd}WB{:06}{revision}", self.number()))
    }

    fn order(&self) -> OrderReference {
        OrderReference { order_id: self.order_id(), order_placed_date_time: local_time(self.placed) }
    }

    fn row(&self) -> ShipmentRow {
        ShipmentRow {
            shipment_id: shipment_id(self.method, self.index, self.odd),
            shipment_date_time: self.date_time(),
            shipment_reference: self.reference(),
            order: self.order(),
            shipment_items: self
                .items()
                .into_iter()
                .map(|item| RowItem { order_item_id: item.order_item_id, ean: item.product.ean })
                .collect(),
            transport: self.has_transport().then(|| RowTransport { transport_id: self.transport_id() }),
        }
    }

    fn detail(&self) -> Shipment {
        let (ship_to, bill_to) = self.addresses();
        Shipment {
            shipment_id: shipment_id(self.method, self.index, self.odd),
            shipment_date_time: self.date_time(),
            shipment_reference: self.reference(),
            pickup_point: self.pickup(),
            order: self.order(),
            shipment_details: (!(self.odd && self.index % 31 == 9)).then_some(ship_to),
            billing_details: (!(self.odd && self.index % 4 == 1)).then_some(bill_to),
            shipment_items: self.items(),
            transport: self.has_transport().then(|| self.transport()),
            extra: if self.odd && self.index % 6 == 3 { edge_cases::extra(self.index) } else { Extra::new() },
        }
    }

    /// The delivery and billing addresses; orders show the same.
    pub(crate) fn addresses(&self) -> (Address, Address) {
        let mut rng = self.rng(1);
        let oddity = self.odd && self.every(3);
        let surname = if oddity { edge_cases::text(self.index / 3 + 1) } else { pick(&mut rng, &SURNAMES).to_owned() };
        let language = pick(&mut rng, &["nl", "nl-BE", "fr", "fr-BE"]);
        let common = Address {
            salutation: pick(&mut rng, &["MALE", "FEMALE", "UNKNOWN"]),
            first_name: pick(&mut rng, &FIRST_NAMES).to_owned(),
            surname,
            street_name: pick(&mut rng, &STREETS).to_owned(),
            house_number: rng.u32(1..400).to_string(),
            house_number_extension: self.every(5).then(|| if oddity { "bis; 3-hoog" } else { "B" }.to_owned()),
            zip_code: format!("{}{}{}", rng.u32(1000..9999), rng.uppercase(), rng.uppercase()),
            city: pick(&mut rng, &CITIES).to_owned(),
            country_code: if language.ends_with("BE") { "BE" } else { "NL" },
            email: Some(format!("{:016x}@verkopen.example", rng.u64(..))),
            ..Address::default()
        };
        let bill_to = Address {
            company: self.every(6).then(|| "Fictief & Zn. B.V.".to_owned()),
            vat_number: self.every(6).then(|| "NL999999999B99".to_owned()),
            kvk_number: self.every(12).then(|| "00112233".to_owned()),
            order_reference: oddity.then(|| edge_cases::text(self.index)),
            ..common.clone()
        };
        let ship_to = Address {
            pickup_point_name: self.pickup().then(|| "Afhaalpunt: UTRECHT".to_owned()),
            delivery_phone_number: self.every(2).then(|| format!("06{:08}", rng.u32(0..100_000_000))),
            extra_address_information: oddity.then(|| edge_cases::text(self.index + 5)),
            language: Some(language),
            ..common
        };
        (ship_to, bill_to)
    }

    /// The items; identical in row, detail and order.
    pub(crate) fn items(&self) -> Vec<ShipmentItem> {
        let mut rng = self.rng(2);
        let count = match (self.odd, self.index % 9) {
            (true, 5) => 12,
            (_, 1 | 7) => 2,
            (_, 8) => 3,
            _ => 1,
        };
        (0..count).map(|place| self.item(place, &mut rng)).collect()
    }

    fn item(&self, place: u64, rng: &mut fastrand::Rng) -> ShipmentItem {
        let (method, distribution_party) = match self.method {
            Method::Fbr => ("FBR", "RETAILER"),
            Method::Fbb => ("FBB", "BOL"),
        };
        let quantity = if self.index % 12 == 4 { rng.u32(2..=10) } else { 1 };
        let cents = match self.index % 25 {
            11 => 123_450,
            19 => 1_299_999,
            _ => rng.u64(99..20_000),
        };
        let title = match (self.odd, self.index % 50, place) {
            (true, 10, 0) => edge_cases::long_text(),
            (true, n, 0) if n % 4 == 2 => edge_cases::text(self.index / 4),
            _ => pick(rng, &PRODUCTS).to_owned(),
        };
        ShipmentItem {
            order_item_id: (2_012_345_678 + self.number() * 16 + place).to_string(),
            fulfilment: Fulfilment {
                method,
                distribution_party,
                latest_delivery_date: local_date(self.at + 24 * HOUR_MS),
                time_frame_type: None,
            },
            offer: Some(Offer {
                offer_id: format!(
                    "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
                    rng.u32(..),
                    rng.u16(..),
                    rng.u16(0..4096),
                    rng.u16(0..4096),
                    rng.u64(0..1 << 48)
                ),
                reference: (!self.odd || self.index % 3 != 1).then(|| format!("REF-{:05}", rng.u32(0..100_000))),
            }),
            product: Product {
                ean: ean(rng.u64(0..if self.every(3) { 100_000_000 } else { 1_000_000_000_000 })),
                title,
            },
            quantity,
            quantity_shipped: (!self.odd || self.index % 5 != 3).then_some(quantity),
            unit_price: money(cents),
            commission: (!self.odd || self.index % 8 != 2).then(|| money(cents / 8)),
        }
    }

    fn transport(&self) -> Transport {
        let mut rng = self.rng(3);
        let codes = self.journey();
        Transport {
            transport_id: self.transport_id(),
            transporter_code: Some(pick(&mut rng, &["TNT", "DHLFORYOU", "DPD-NL", "BPOST_BE", "BRIEFPOST"])),
            track_and_trace: (self.index % 5 != 4).then(|| format!("3SWB{:010}", rng.u64(0..10_000_000_000))),
            shipping_label_id: self.every(3).then(|| rng.u32(100_000_000..999_999_999).to_string()),
            transport_events: self
                .events
                .iter()
                .zip(codes)
                .map(|(at, code)| TransportEvent { event_code: code, event_date_time: local_time(*at) })
                .collect(),
        }
    }
}

/// The list row as JSON text.
pub(crate) fn row_json(spec: &Spec) -> Vec<u8> {
    json(&spec.row())
}

/// The detail as JSON text.
pub(crate) fn detail_json(spec: &Spec) -> Vec<u8> {
    json(&spec.detail())
}

fn pick(rng: &mut fastrand::Rng, from: &[&'static str]) -> &'static str {
    from[rng.usize(..from.len())]
}
