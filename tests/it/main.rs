//! One binary for all integration tests; a file a feature.

mod api_contract;
mod config;
mod kill;
mod mysql;
mod sandbox;
mod support;
mod tidy;
