//! One owner: of any number of processes on one MySQL schema, one calls the marketplace and writes.
//!
//! | file | holds |
//! | --- | --- |
//! | `identity` | who this process is, and whether another one lives |
//! | `bounds` | the time bounds, and why they hold |
//! | `watch` | what follows from another's row in the register |
//! | `state` | the ownership of this process |
//! | `rebuild` | what the store needs after others owned the schema |
//! | `seat` | the row of a standby |
//! | `fitness` | whether a standby could go on: key and source |
//! | `claim` | becoming the owner: before any call, login or write |
//! | `hand_over` | leaving everything for the standby, and taking it |
//! | `heartbeat` | staying it, and stopping in time |
//!
//! The register and the fence are tables (`sink::mysql::register`, `sink::mysql::fence`). The register decides who calls;
//! the fence makes sure that a former owner writes nothing. Without MySQL the lock of the data directory is enough.
//! All of this holds on one writable primary: a failover to a server that lacks the last writes needs a look by people.

mod bounds;
mod claim;
mod fitness;
mod hand_over;
mod heartbeat;
mod identity;
mod rebuild;
mod seat;
mod state;
mod watch;

pub(super) use claim::{open, open_at_rest};
pub(crate) use hand_over::standby_of;
pub(crate) use state::Entry;
pub(super) use state::{Opened, Opening, Owner};
