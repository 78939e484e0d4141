//! One binary for all integration tests; a file a feature.

mod api_contract;
mod command_line;
mod config;
mod fuzz;
mod kill;
mod mysql;
mod prism;
mod quiet_stop;
mod sandbox;
mod support;
mod tidy;
