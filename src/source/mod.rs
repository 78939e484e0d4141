//! The marketplace side: authentication, rate limits, calls, paging and what each failure means.
//!
//! | file | holds |
//! | --- | --- |
//! | [`client`] | [`Source`]: one call, one request, one [`Outcome`] |
//! | [`token`] | access tokens: one per credential, shared, renewed early, persisted by a [`TokenStore`] |
//! | `credentials` | [`Credentials`], and the trait [`TokenStore`] |
//! | `auth` | request authentication |
//! | `http` | header values that are never logged; percent-encoding |
//! | `body` | response bodies, decompressed and bounded |
//! | `login` | one login and what its answer means; the gate that closes for all shops when the address is blocked |
//! | [`budget`] | [`Budget`]: the slots of one rate rule of one account, pure |
//! | [`headers`] | quota and `Retry-After` |
//! | [`position`] | how far a walk is within a list: parent, days, page; pure |
//! | [`pages`] | from a definition to calls, from bodies to rows and documents, pure |
//! | [`problem`] | [`SourceError`] and what each case means for the job |
//! | `json`, `split`, `pointer` | JSON with its digest; its parts; values at pointers |
//! | `envelope`, `rows`, `paging` | where the rows of a page are; what they are; whether the list continues, and what proves its end |
//! | `pace` | steady pace of calls to one host |
//! | `redact` | cuts out of an answer's texts what we sent, in each form in which a host may quote it |
//!
//! A lane takes free slots of its budget, makes that use durable, calls [`Source::get`] and hands each
//! [`Outcome`] back to the budget with [`Outcome::settle`]. This module does not know the store:
//! tokens are persisted through a trait. `ratelimit` is used nowhere else, `reqwest` only by
//! `waybill status --server` too.

mod auth;
mod body;
pub mod budget;
#[cfg(test)]
mod budget_tests;
pub mod client;
mod client_config;
#[cfg(test)]
mod client_tests;
mod credentials;
mod dates;
mod envelope;
pub mod headers;
mod http;
mod json;
mod login;
mod outcome;
mod pace;
pub mod pages;
#[cfg(test)]
mod pages_tests;
mod paging;
#[cfg(test)]
mod paging_tests;
mod pointer;
pub mod position;
pub mod problem;
mod redact;
mod rows;
mod split;
#[cfg(test)]
mod test_server;
pub mod token;
#[cfg(test)]
mod token_tests;

pub use budget::{Budget, BudgetView, Overdrawn, SlotsLeft};
pub use client::{Source, Upstream};
pub use client_config::{SourceConfig, SourceConfigError};
pub use credentials::{Credentials, StoredToken, TokenStore};
pub use headers::Quota;
pub(crate) use http::build_client;
pub use outcome::{Call, Ending, Outcome};
pub use position::{Position, Walk, news_since, stretches};
pub use problem::SourceError;
pub(crate) use problem::root_cause;
pub(crate) use redact::Sent;
