//! Waybill keeps a complete, queryable copy of what a marketplace knows about a seller's shop.
//!
//! Modules, in reading order; imports point one way, from the bottom of this list to its top:
//!
//! | module | what it is |
//! | --- | --- |
//! | [`domain`] | the shared types: shop, stream, run, job, document, retry; pure |
//! | [`catalog`] | the resources that ship with the binary, their rate rules, and the reader of definitions |
//! | [`supervisor`] | a part that panics stops the process; the store holds the one of each process |
//! | [`gate`] | whether this process may call: a deadline that only the owner of a schema moves on |
//! | [`config`] | file and environment in, a checked configuration out |
//! | [`source`] | the marketplace side: tokens, budgets, calls, pagination and the meaning of failures |
//! | [`store`] | the embedded side: one encrypted tree behind a write-ahead log; jobs, ledger, outbox, checkpoints |
//! | [`sink`] | where documents go: MySQL or the embedded archive; and the writer |
//! | [`sync`] | schedules, lanes, and the steps that run jobs |
//! | [`service`] | what the API and the command line ask for: shops, keys, runs, documents, completeness, health |
//! | [`http`] | the API and the dashboard |
//! | [`app`] | builds, starts and stops the parts; the only module that sees them all |
//! | [`cli`] | one file per subcommand |
//!
//! `crates/sandbox` is a crate of its own, which knows nothing of this one: a strict local stand-in for the marketplace,
//! for the demo and the tests.
//!
//! # The path of one document
//!
//! 1. A cron tick ([`sync::schedule`]) enqueues `ListPage{1}` for each stream that has no open walk. It makes no call.
//! 2. The lane of (account, list rule) ([`sync::lane`]) takes free slots and leases that many jobs: one commit, before the calls.
//! 3. An attempt (`sync::attempt`) reads one page and returns the job and what it read as one value ([`domain::step`]).
//! 4. The committer (`store::tx::committer`) applies the outputs of many steps as one durable batch: jobs for new and
//!    changed rows, the next page, or the end of the walk with its checkpoint (`store::ops`).
//! 5. The lane of (account, detail rule) leases the details, the most urgent first; each adds a document to the outbox.
//! 6. The writer ([`sink::writer`]) writes a batch in one transaction of the sink, and then acknowledges it.
//!
//! A crash between any two of these repeats one step, and every step may be repeated. `docs/architecture.md` has the
//! pictures and a glossary; the head of `store/keyspace.rs` has the keys of the store.
//!
//! # What always holds
//!
//! Each with the test that proves it; `it::` are the integration tests, rig: tests of `tests/rig`.
//!
//! - **One commit.** A job's end, its follow-up jobs, its ledger rows, its outbox entries and the checkpoint change together.
//!   `it::kill::kill_nine_loses_nothing_on_the_way_to_mysql`
//! - **Durable means fdatasync.** Nothing is answered, called or acknowledged before its batch is durable, in the
//!   write-ahead log or in the engine. `store::tests::cut::a_copy_of_an_open_store_has_every_commit`,
//!   `store::engine::write_ahead::tests::reads_equal_those_of_one_map`
//! - **Checkpoint.** What was seen at or before it is in the sink, in the outbox, has a live job, or is parked; it never moves back.
//!   `store::tests::a_first_walk_lists_fetches_and_ends_with_a_checkpoint`
//! - **Fence.** Only the current attempt may commit. `store::tests::a_late_attempt_is_fenced_off`
//! - **Acknowledge after commit; newer wins.** `it::outage::a_mysql_that_is_killed_in_the_middle_loses_nothing`,
//!   `it::mysql::write::an_older_document_never_overwrites_a_newer_one_nor_its_children`
//! - **The budget is exact**, over restarts too. `source::budget_tests`, `it::sync::the_budget_is_used_whole_and_never_overdrawn`
//! - **One owner.** Of any number of processes on one MySQL schema one calls and writes. `it::one_owner`
//! - **`Retry-After` is obeyed**, over a restart too. `it::shutdown::a_wish_to_wait_is_obeyed_over_a_restart`
//! - **Invariants are checked** in release builds too: a violation pauses its shop.
//!   `store::tests::books::a_run_that_has_more_than_it_asked_for_pauses_its_shop_and_no_other`
//! - **One token a credential**, renewed before it expires. `it::sync::tokens_that_end_during_a_run_are_renewed_before_they_do`
//! - **One source an installation.** No secret and no token reaches a host that it was not proved at. `it::one_source`
//! - **A whole list is proved, not assumed.** A walk without proof that it reached the end is `unproved`, never complete.
//!   `it::whole_list`
//! - **An error is not the end of a list**, and a list that repeats itself ends with that reason.
//!   `it::outage::an_api_that_repeats_its_first_page_for_ever_fails_the_run_with_that_reason`
//! - **A list that moves is read again.** `store::tests::a_walk_passes_again_until_nothing_was_missed`, rig: `drift_removals`
//! - **Absence is not deletion.** `it::keep_current::what_a_full_walk_no_longer_sees_is_noted_and_kept`
//! - **A full disk is survived.** Nothing reaches the engine without room for it. Rig: `disk_full`
//! - **Nothing vanishes.** Listed = in the sink, on its way, parked, or unknown to the API; exceptions are reported.
//!   `it::completeness::rows_that_vanish_from_mysql_are_named_and_brought_back`
//! - **Durable data is not forgotten.** A log that lost commits is reported as damage, not opened as an older state.
//!   `store::tests::cut::a_log_that_lost_its_last_commit_is_damaged_whatever_that_was_about`, rig: `bit_rot_changed`
//! - **A document that moves from one list to another is still listed.**
//!   `store::tests::walks::what_moved_from_one_list_to_another_is_still_listed`
//! - **No field is lost silently.** A field without a column is in `document`, reported and counted.
//!   `it::schema_time::what_no_column_takes_and_what_does_not_fit_is_named_and_nothing_is_parked`
//! - **One health**, computed in one place, is what the status, the metrics, the log, the dashboard and the exit code of
//!   `waybill status` report. `domain::health::tests`, `it::fault_matrix`
//! - **Idle is idle.** Without a commit nothing is written. `store::engine::churn::nothing_is_written_without_a_commit`
//! - **A value is exact, or NULL and counted.** A value that its column cannot hold is never altered to fit.
//!   `it::values::kept::what_a_column_cannot_hold_is_null_and_counted_and_never_something_else_in_both_sinks`
//! - **Restorable.** With MySQL, an empty or damaged data directory is rebuilt from it and the API.
//!   `it::restore::a_lost_data_directory_comes_back_from_mysql`
//! - **Everything is bounded**: attempts, batches, pages, bodies, outbox, what is parked, drain. `it::outage`, `it::shutdown`
//! - **Reading is fair.** However much one API key asks for, another's lists and the sync go on. `sink::turns::tests`
//! - **The index is no other archive.** It finds what reading every document finds. `store::tests::archive_index`
//! - **Nothing is half alive.** A panic in a long-running part ends the process.
//!   `supervisor::tests`
//! - **Keys end.** The data key of a purged shop is in no file when the purge is answered.
//!   `it::secrets_at_rest::after_a_purge_data_directory_and_master_key_open_nothing_of_the_shop`
//! - **Quiet.** No secret and no customer data in a log, an error or a file in clear text.
//!   `it::shutdown::no_secret_and_no_customer_is_in_any_output_or_file`
//! - **The engine knows no marketplace's words.** `it::tidy::the_engine_has_never_heard_of_a_marketplace`

pub mod app;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod domain;
pub mod gate;
pub mod http;
pub mod service;
pub mod sink;
pub mod source;
pub mod store;
pub mod supervisor;
pub mod sync;
