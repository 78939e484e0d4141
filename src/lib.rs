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
//! | [`store`] | the embedded side: one tree behind a write-ahead log, one committer, queue, ledger, outbox, all sealed |
//! | [`sink`] | where documents go: MySQL, or the embedded archive; and the writer |
//! | [`sync`] | when walks start, which jobs run when, and what each step does |
//! | [`http`] | the API and the dashboard, over one trait |
//! | [`sandbox`] | a strict local stand-in for the marketplace, for the demo and the tests |
//! | [`app`] | the only place that sees all parts |
//! | [`cli`] | one file a subcommand |
//!
//! # The path of one document
//!
//! 1. A cron tick ([`sync::schedule`]) enqueues `ListPage{1}` for each stream that has no open walk. It makes no call.
//! 2. The lane of (account, list rule) ([`sync::lane`]) takes free slots and leases that many jobs: one commit, before the calls.
//! 3. A step ([`sync::step`]) reads one page and returns its effects as a value.
//! 4. The committer (`store::tx::committer`) applies the effects of many steps as one batch, on the disk: jobs for new and
//!    changed rows, the next page, or the end of the walk with its checkpoint (`store::ops`).
//! 5. The lane of (account, detail rule) leases the details, the most urgent first; effects: a document in the outbox.
//! 6. The writer ([`sink::writer`]) writes a batch in one transaction of the sink, and then acknowledges it.
//!
//! A crash between any two arrows repeats one step, and every step may be repeated.
//!
//! # What always holds
//!
//! Each with the test that guards it; `it::` are the tests through the front door.
//!
//! - **One commit.** A job's end, its follow-up jobs, its ledger rows, its outbox entries and the checkpoint change together.
//!   `it::kill::kill_nine_loses_nothing_on_the_way_to_mysql`
//! - **Durable means fdatasync.** Nothing is answered, called or acknowledged before its batch is on the disk: in the
//!   write-ahead log, or in the engine. `store::tests::cut::a_copy_of_an_open_store_has_every_commit`,
//!   `store::engine::write_ahead::tests::reads_equal_those_of_one_map`
//! - **Checkpoint.** What was seen at or before it is in the sink, in the outbox, has a live job, or is parked; it never moves back.
//!   `store::tests::a_first_walk_lists_fetches_and_ends_with_a_checkpoint`
//! - **Fence.** Only the current attempt may commit. `store::tests::a_late_attempt_is_fenced_off`
//! - **Acknowledge after commit; newer wins.** `it::outage::a_mysql_that_is_killed_in_the_middle_loses_nothing`,
//!   `it::mysql::write::an_older_document_never_overwrites_a_newer_one_nor_its_children`
//! - **The budget is exact**, over restarts too. `source::budget_tests`, `it::sync::the_budget_is_used_whole_and_never_overdrawn`
//! - **A wish to wait is obeyed**, over a restart too. `it::quiet_stop::a_wish_to_wait_is_obeyed_over_a_restart`
//! - **The books are watched** in release builds too: a breach pauses its shop.
//!   `store::tests::books::a_run_that_has_more_than_it_asked_for_pauses_its_shop_and_no_other`
//! - **One token a credential**, renewed before its end. `it::sync::tokens_that_end_during_a_run_are_renewed_before_they_do`
//! - **A whole list is proved, not assumed.** A walk without a proof of its end is `unproved`, and never counts as complete.
//!   `it::whole_list`
//! - **An error is not the end of a list**, and a list that repeats itself ends with that reason.
//!   `it::outage::an_api_that_repeats_its_first_page_for_ever_fails_the_run_with_that_reason`
//! - **A list that moves is read again.** `store::tests::a_walk_passes_again_until_nothing_was_missed`, rig: `drift_removals`
//! - **Absence is not deletion.** `it::keep_current::what_a_full_walk_no_longer_sees_is_noted_and_kept`
//! - **A full disk is borne.** Nothing reaches the engine for which there is no room. Rig: `disk_full`
//! - **Nothing vanishes.** Listed = in the sink, on its way, parked, or unknown to the API; the rest is named.
//!   `it::completeness::rows_that_vanish_from_mysql_are_named_and_brought_back`
//! - **What was on the disk is not forgotten.** A log that lost commits is damage, not an older state.
//!   `store::tests::cut::a_log_that_lost_its_last_commit_is_damaged_whatever_that_was_about`, rig: `bit_rot_changed`
//! - **What moves from one list to another is still listed.**
//!   `store::tests::walks::what_moved_from_one_list_to_another_is_still_listed`
//! - **No field is lost unseen.** What no column takes is in `document`, named and counted.
//!   `it::schema_time::what_no_column_takes_and_what_does_not_fit_is_named_and_nothing_is_parked`
//! - **Said as it is.** One health, computed in one place, is what the status, the metrics, the log, the dashboard and the exit
//!   code of `waybill status` say. `domain::health::tests`, `it::fault_matrix`
//! - **Rest is rest.** Without a commit nothing is written. `store::engine::churn::nothing_is_written_without_a_commit`
//! - **A value is exact, or NULL and counted.** What a column cannot hold never becomes something else.
//!   `it::values::kept::what_a_column_cannot_hold_is_null_and_counted_and_never_something_else_in_both_sinks`
//! - **Rebuildable.** With MySQL, an empty or damaged data directory heals from it and the API.
//!   `it::restore::a_lost_data_directory_comes_back_from_mysql`
//! - **Everything is bounded**: attempts, batches, pages, bodies, outbox, what is parked, drain. `it::outage`, `it::quiet_stop`
//! - **Nothing is half alive.** A panic in a part that works as long as the process does ends the process.
//!   `store::alive::tests`
//! - **Quiet.** No secret and no customer in a log, an error or a file in clear.
//!   `it::quiet_stop::no_secret_and_no_customer_is_in_any_output_or_file`
//! - **The engine knows no marketplace's words.** `it::tidy::the_engine_has_never_heard_of_a_marketplace`

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
