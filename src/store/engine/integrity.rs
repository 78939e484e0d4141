//! Finds damage in the engine that no read meets as an error.
//!
//! When the engine opens, it silently skips unreadable parts in the middle of its log. Some pages are then older than
//! others that refer to them: keys are missing from a scan and found one by one, or missing from a forward scan and not
//! from a reverse one. So each range is read in all three ways. (A page that is whole but old shows in none of them; what
//! it lacks is found by the next full walk and by the completeness check after it.)
//!
//! Called by `ops::scrub`, when the store opens and in the background.

use std::ops::Bound;
use std::panic::AssertUnwindSafe;

use crate::store::engine::kv::LookFrom;
use crate::store::error::StoreError;

/// Looks at the next `limit` keys from `from` on. Exact while nothing is written.
///
/// # Errors
/// [`StoreError::Unsound`], or the engine's read errors.
pub(crate) fn look(db: &sled::Db, from: &[u8], limit: usize) -> Result<LookFrom, StoreError> {
    let looked = std::panic::catch_unwind(AssertUnwindSafe(|| look_bare(db, from, limit)));
    looked.unwrap_or_else(|_| Err(unsound("the engine panicked while reading")))
}

fn look_bare(db: &sled::Db, from: &[u8], limit: usize) -> Result<LookFrom, StoreError> {
    let mut upwards: Vec<sled::IVec> = Vec::new();
    for pair in db.range(from..).take(limit) {
        let (key, value) = pair.map_err(met)?;
        if upwards.last().is_some_and(|last| *last >= key) {
            return Err(unsound("its keys are out of order"));
        }
        if db.get(&key).map_err(met)?.as_ref() != Some(&value) {
            return Err(unsound("what a scan finds is not what is found by its key"));
        }
        upwards.push(key);
    }
    // None: the scan came to the end.
    let last = upwards.last().filter(|_| upwards.len() == limit);
    let until = last.map_or(Bound::Unbounded, |last| Bound::Included(last.as_ref()));
    same(&upwards, db.range::<&[u8], _>((Bound::Included(from), until)).rev())?;
    Ok(last.map(|last| [last.as_ref(), &[0]].concat()))
}

/// Whether a reverse scan finds what a forward scan found.
fn same(
    upwards: &[sled::IVec],
    downwards: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
) -> Result<(), StoreError> {
    let mut expected = upwards.iter().rev();
    for pair in downwards {
        if expected.next() != Some(&pair.map_err(met)?.0) {
            return Err(unsound("a scan downwards finds other keys than one upwards"));
        }
    }
    if expected.next().is_some() { Err(unsound("a scan downwards finds fewer keys than one upwards")) } else { Ok(()) }
}

fn met(error: sled::Error) -> StoreError {
    match error {
        // An error of the system may be temporary.
        sled::Error::Io(error) => StoreError::Engine(error.to_string()),
        error => unsound(&error.to_string()),
    }
}

fn unsound(detail: &str) -> StoreError {
    StoreError::Unsound(detail.to_owned())
}

#[cfg(test)]
mod tests {
    use super::look;
    use crate::store::StoreError;

    #[test]
    fn a_sound_engine_is_seen_to_its_end_in_steps() {
        let directory = tempfile::tempdir().unwrap();
        let db = sled::open(directory.path()).unwrap();
        assert_eq!(look(&db, b"", 10).unwrap(), None, "nothing is there");
        for number in 0..2_500u32 {
            db.insert(number.to_be_bytes(), vec![0; number as usize % 90]).unwrap();
        }
        let (mut from, mut steps) = (Vec::new(), 0);
        while let Some(next) = look(&db, &from, 100).unwrap() {
            assert!(next > from);
            (from, steps) = (next, steps + 1);
        }
        assert_eq!(steps, 25, "and one that finds nothing more");
        assert_eq!(look(&db, b"", 2_501).unwrap(), None);
    }

    #[test]
    fn a_scan_that_differs_is_unsound() {
        let key = |number: u8| sled::IVec::from(&[number]);
        let pairs = |numbers: &'static [u8]| numbers.iter().map(move |number| Ok((key(*number), key(0))));
        let upwards = [key(1), key(2), key(3)];
        assert_eq!(super::same(&upwards, pairs(&[3, 2, 1])), Ok(()));
        for differing in [&[3, 1][..], &[3, 2], &[], &[4, 3, 2, 1], &[3, 2, 1, 0]] {
            assert!(matches!(super::same(&upwards, pairs(differing)), Err(StoreError::Unsound(_))), "{differing:?}");
        }
    }
}
