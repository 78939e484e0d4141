//! Waybill keeps a complete, queryable copy of what a marketplace knows about a seller's shop.

pub mod catalog;
pub mod domain;
pub mod sandbox;
