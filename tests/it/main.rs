//! One binary for all integration tests; a file a feature.

mod api_contract;
mod archive;
mod config;
mod keep_current;
mod mysql;
mod outage;
mod sandbox;
mod support;
mod sync;
mod tidy;
