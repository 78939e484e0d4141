//! A shop's other resources: returns, replenishments, stock, invoices, promotions, offers.
//!
//! Generated at the first access from the shop's initial shipments, so the moment of that access makes no difference;
//! then stored, and changed on request only. `content` builds the documents, `documents` holds them, `lists` serves
//! them, `controls` adds and changes them.

mod content;
mod controls;
pub(crate) mod documents;
pub(crate) mod lists;
mod types;
