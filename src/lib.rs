//! Waybill keeps a complete, queryable copy of what a marketplace knows about a seller's shop.
//!
//! Modules, in reading order; imports point one way, from the bottom of this list to its top:
//!
//! | module | what it is |
//! | --- | --- |
//! | [`domain`] | the words: shop, stream, run, job, effects, document, retry; pure |
//! | [`catalog`] | the resources that ship with the binary, their rate rules, and the reader of definitions |
//! | [`config`] | file and environment in, a checked configuration out |
//! | [`source`] | the marketplace side: tokens, budgets, calls, pages and what failures mean |
//! | [`store`] | the embedded side: one tree, one committer, queue, ledger, outbox, all sealed |
//! | [`sink`] | where documents go: MySQL, or the embedded archive; and the writer |
//! | [`sync`] | when walks start, which jobs run when, and what each step does |
//! | [`http`] | the API and the dashboard, over one trait |
//! | [`sandbox`] | a strict local stand-in for the marketplace, for the demo and the tests |
//! | [`app`] | the only place that sees all parts |
//! | [`cli`] | one file a subcommand |

pub mod app;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod domain;
pub mod http;
pub mod sandbox;
pub mod sink;
pub mod source;
pub mod store;
pub mod sync;
