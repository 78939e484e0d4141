//! One binary for all integration tests; a file a feature.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod all_at_once;
mod api_contract;
mod archive;
mod catalog_whole;
mod command_line;
mod commands;
mod completeness;
mod config;
mod definitions;
mod described;
mod foreign_state;
mod front_door;
mod fuzz;
mod infer;
mod keep_current;
mod kill;
mod model;
mod mysql;
mod other_api;
mod outage;
mod parsers;
mod prism;
mod quiet_stop;
mod restore;
mod sandbox;
mod schema_time;
mod senseless;
mod support;
mod sync;
mod tidy;
mod tls;
mod unreadable;
mod views;
mod walk_through;
mod wire;
