//! Settles what detail calls answer about the documents' existence: one that is "not found" is gone only if the call is
//! known to work (`domain::detail_proof`), or if the list does not show it any more either.
//!
//! Else its read is parked. It is tried again with others of its kind as soon as the call sends a document, and a few at
//! a time after walks until then (`retry`).

use crate::domain::{DetailProof, FetchDetail, Job, NotFound, Priority, Timestamp, Verdict};
use crate::store::codec::decode;
use crate::store::error::StoreError;
use crate::store::keyspace;
use crate::store::ops::detail;
use crate::store::ops::listing_state::{self, ListingState};
use crate::store::ops::park::{self, Parking};
use crate::store::ops::retry;
use crate::store::ops::run_progress::RunCounts;
use crate::store::ops::stream_status;
use crate::store::records::detail_proofs;
use crate::store::records::jobs::new_job;
use crate::store::records::ledger::{DocumentNote, GONE};
use crate::store::tx::transaction::Tx;

/// Notes that the call sent a document. Reads that waited for that are tried again.
pub(crate) fn answered(
    tx: &mut Tx<'_>,
    shop: &str,
    resource: &str,
    endpoint: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    let known = detail_proofs::read(tx, shop, resource)?;
    let mut proof = known.clone().unwrap_or_default().for_endpoint(endpoint);
    proof.answered();
    if proof.parked {
        proof.parked = retry::retry_doubted(tx, shop, resource, now)?;
    }
    if known.as_ref() == Some(&proof) { Ok(()) } else { detail_proofs::put(tx, shop, resource, &proof) }
}

/// Applies the answer that the API does not know a document.
pub(crate) fn apply(
    tx: &mut Tx<'_>,
    job: Job<FetchDetail>,
    answer: &NotFound,
    counts: &mut RunCounts,
    now: Timestamp,
) -> Result<(), StoreError> {
    let (shop, resource, id) = (job.shop.clone(), job.resource.clone(), job.kind.id.clone());
    // The list says the same.
    if let ListingState::Unlisted(_) = listing_state::listing_state(tx, &shop, &resource, &id)? {
        return detail::apply_gone(tx, &job, counts, now);
    }
    let known = detail_proofs::read(tx, &shop, &resource)?;
    let mut proof = match &known {
        Some(known) => known.clone().for_endpoint(answer.endpoint.digest),
        None => of_the_past(tx, &shop, &resource, answer.endpoint.digest)?,
    };
    let is_news = job.auto_retries == 0 && !detail::is_unknown(tx, &shop, &resource, &id)?;
    let verdict = proof.not_found(&job.kind, is_news);
    if known.as_ref() != Some(&proof) {
        detail_proofs::put(tx, &shop, &resource, &proof)?;
    }
    let earlier = match verdict {
        Verdict::Gone => {
            stream_status::call_answered(tx, &job.clone().any_kind())?;
            return detail::apply_gone(tx, &job, counts, now);
        }
        Verdict::Doubtful { earlier } => earlier,
    };
    let cause = proof.doubt(&resource, answer);
    let job = job.any_kind();
    stream_status::call_failed(tx, &job, &cause, now)?;
    let mut doubted = vec![job];
    for read in earlier {
        // Its run counted it as gone.
        doubted.push(new_job(tx, &shop, &resource, Priority::Changed, FetchDetail { run: None, ..read })?);
    }
    for job in doubted {
        detail::forget_gone(tx, &shop, &resource, job.document().unwrap_or_default())?;
        let parking = Parking { cause: cause.clone(), transient: true, walk_continues: false, doubted: true };
        park::park_job(tx, job, parking, now)?;
    }
    Ok(())
}

/// The record of a call that has none yet: a document in the ledger proves that it works, since an earlier version, which
/// kept no record, has read it.
fn of_the_past(tx: &Tx<'_>, shop: &str, resource: &str, endpoint: u64) -> Result<DetailProof, StoreError> {
    let prefix = keyspace::document(shop, resource, "");
    for pair in tx.pairs(&prefix, &prefix) {
        let note: DocumentNote = decode("a ledger document", &pair?.1)?;
        if note.version != GONE {
            return Ok(DetailProof::of_the_past(endpoint));
        }
    }
    Ok(DetailProof::default().for_endpoint(endpoint))
}
