//! Tests: the write-ahead log and what is pending, over an engine in memory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
use proptest::{collection, prop_oneof};

use super::{Change, Kv, Logged, NAME, Pairs, TAKEN_OVER, kv};
use crate::store::StoreError;
use crate::store::engine::format;
use crate::store::engine::memory::MemoryKv;

/// An engine that outlives its log, as a disk does.
#[derive(Clone, Default)]
struct Shared(Arc<MemoryKv>, Arc<AtomicBool>);

impl Kv for Shared {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }

    fn scan<'a>(&'a self, prefix: &[u8], from: &[u8]) -> Pairs<'a> {
        self.0.scan(prefix, from)
    }

    fn scan_back<'a>(&'a self, prefix: &[u8], before: &[u8]) -> Pairs<'a> {
        self.0.scan_back(prefix, before)
    }

    fn reserve(&self, _: &[Change]) -> Result<(), StoreError> {
        if self.1.load(Ordering::SeqCst) { Err(StoreError::Full) } else { Ok(()) }
    }

    fn apply(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.0.apply(changes)
    }

    fn look(&self, _: &[u8], _: usize) -> Result<kv::LookFrom, StoreError> {
        Ok(None)
    }

    fn size(&self) -> u64 {
        0
    }
}

fn open(engine: &Shared, directory: &Path) -> Result<Logged<Shared>, StoreError> {
    Logged::over(engine.clone(), directory)
}

/// Ends it as a kill does.
fn kill(logged: Logged<Shared>) {
    logged.has_failed.store(true, Ordering::SeqCst);
}

fn put(key: &str, value: &str) -> Change {
    (key.into(), Some(value.into()))
}

fn shown(kv: &dyn Kv, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    kv.scan(prefix, b"").map(Result::unwrap).filter(|(key, _)| key != TAKEN_OVER).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<Change>),
    MergeFrom,
    Kill,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (collection::vec(0u8..4, 1..3), any::<Option<u8>>())
        .prop_map(|(key, value)| -> Change { (key, value.map(|value| vec![value; usize::from(value)])) });
    let step = prop_oneof![
        6 => collection::vec(change, 1..5).prop_map(Step::Commit),
        1 => proptest::strategy::Just(Step::MergeFrom),
        1 => proptest::strategy::Just(Step::Kill),
        1 => proptest::strategy::Just(Step::Close),
    ];
    collection::vec(step, 1..30)
}

proptest! {
    /// Whatever the engine has taken over, and however the process ended, all commits are there.
    #[test]
    fn reads_equal_those_of_one_map(steps in steps()) {
        let (engine, directory) = (Shared::default(), tempfile::tempdir().unwrap());
        let mut logged = open(&engine, directory.path()).unwrap();
        let mut expected = BTreeMap::new();
        for step in steps {
            match step {
                Step::Commit(changes) => {
                    logged.reserve(&changes).unwrap();
                    logged.apply(&changes).unwrap();
                    for (key, value) in changes {
                        match value {
                            Some(value) => expected.insert(key, value),
                            None => expected.remove(&key),
                        };
                    }
                }
                Step::MergeFrom => logged.merge_from(&mut logged.wal()).unwrap(),
                Step::Kill => {
                    kill(logged);
                    logged = open(&engine, directory.path()).unwrap();
                }
                Step::Close => {
                    drop(logged);
                    logged = open(&engine, directory.path()).unwrap();
                    prop_assert_eq!(logged.pending().changes.len(), 0);
                }
            }
            for prefix in [&[][..], &[1], &[2, 0]] {
                let wanted: Vec<_> = expected.clone().into_iter().filter(|(key, _)| key.starts_with(prefix)).collect();
                prop_assert_eq!(&shown(&logged, prefix), &wanted);
                let end = [prefix, &[9]].concat();
                let back = logged.scan_back(prefix, &end).map(Result::unwrap).collect::<Vec<_>>();
                prop_assert_eq!(back, wanted.into_iter().rev().collect::<Vec<_>>());
            }
            for key in [[0, 0], [1, 2]] {
                prop_assert_eq!(logged.get(&key).unwrap(), expected.get(&key[..]).cloned());
            }
        }
    }
}

#[test]
fn a_scan_shows_what_the_engine_takes_over_meanwhile() {
    let (engine, directory) = (Shared::default(), tempfile::tempdir().unwrap());
    let logged = open(&engine, directory.path()).unwrap();
    logged.apply(&[put("ka", "1"), put("kd", "4")]).unwrap();
    logged.merge_from(&mut logged.wal()).unwrap();
    logged.apply(&[put("kb", "2"), put("kc", "3"), (b"kd".to_vec(), None), put("ke", "5")]).unwrap();
    let mut up = logged.scan(b"k", b"");
    let mut down = logged.scan_back(b"k", b"kf");
    assert_eq!(up.next().unwrap().unwrap().0, b"ka");
    assert_eq!(down.next().unwrap().unwrap().0, b"ke");
    logged.merge_from(&mut logged.wal()).unwrap();
    let keys = |scan: Pairs<'_>| scan.map(|pair| pair.unwrap().0).collect::<Vec<_>>();
    assert_eq!(keys(up), [b"kb", b"kc", b"ke"]);
    assert_eq!(keys(down), [b"kc", b"kb", b"ka"]);
}

#[test]
fn a_full_engine_refuses_and_loses_nothing() {
    let (engine, directory) = (Shared::default(), tempfile::tempdir().unwrap());
    let logged = open(&engine, directory.path()).unwrap();
    logged.apply(&[put("a", "1")]).unwrap();
    engine.1.store(true, Ordering::SeqCst);
    assert_eq!(logged.reserve(&[put("b", "2")]), Err(StoreError::Full));
    assert_eq!(logged.merge_from(&mut logged.wal()), Err(StoreError::Full));
    drop(logged);
    engine.1.store(false, Ordering::SeqCst);
    let logged = open(&engine, directory.path()).unwrap();
    assert_eq!(shown(&logged, b"a"), [(b"a".to_vec(), b"1".to_vec())]);
}

/// A log with these values of one key, a commit each, after a kill.
fn three_commits() -> (Shared, tempfile::TempDir, Vec<u8>) {
    let (engine, directory) = (Shared::default(), tempfile::tempdir().unwrap());
    let logged = open(&engine, directory.path()).unwrap();
    for value in ["1", "2", "3"] {
        logged.apply(&[put("a", value)]).unwrap();
    }
    kill(logged);
    let bytes = std::fs::read(directory.path().join(NAME)).unwrap();
    (engine, directory, bytes)
}

#[test]
fn a_torn_last_commit_is_left_out_and_an_earlier_one_is_damage() {
    let (engine, directory, whole) = three_commits();
    let file = directory.path().join(NAME);
    for (at, expected) in [(4096 * 2 + 5, Some("2")), (4096 * 2 + 30, Some("2")), (4096 + 30, None), (3, None)] {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&file, &changed).unwrap();
        match (open(&engine, directory.path()), expected) {
            (Ok(logged), Some(value)) => {
                assert_eq!(shown(&logged, b"a"), [(b"a".to_vec(), value.into())], "changed at {at}");
                logged.apply(&[put("b", "4")]).unwrap();
                kill(logged);
                let again = open(&engine, directory.path()).unwrap();
                assert_eq!(shown(&again, b"").len(), 2, "changed at {at}");
                kill(again);
            }
            (Err(StoreError::Damaged { .. }), None) => {}
            (opened, _) => panic!("changed at {at}: {:?}", opened.map(drop)),
        }
    }
}

#[test]
fn wherever_the_log_is_cut_a_whole_commit_is_its_end() {
    let (engine, directory, whole) = three_commits();
    for length in (0..4096 * 3 + 50).step_by(37) {
        std::fs::write(directory.path().join(NAME), &whole[..length]).unwrap();
        let logged = open(&engine, directory.path()).unwrap();
        let value = shown(&logged, b"a").into_iter().map(|(_, value)| value).next();
        logged.apply(&[put("b", "4")]).unwrap();
        kill(logged);
        let again = open(&engine, directory.path()).unwrap();
        assert_eq!(again.get(b"a").unwrap(), value, "cut at {length}");
        assert_eq!(again.get(b"b").unwrap().as_deref(), Some(&b"4"[..]), "cut at {length}");
        kill(again);
    }
}

#[test]
fn an_engine_that_was_emptied_is_damage() {
    let (_, directory, _) = three_commits();
    assert!(matches!(open(&Shared::default(), directory.path()), Err(StoreError::Damaged { .. })));
}

#[test]
fn large_commits_and_a_full_log_reach_the_engine() {
    let (engine, directory) = (Shared::default(), tempfile::tempdir().unwrap());
    let logged = open(&engine, directory.path()).unwrap();
    logged.apply(&[put("a", "1")]).unwrap();
    let large: Vec<u8> = (0..2_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    logged.apply(&[(b"l".to_vec(), Some(large.clone()))]).unwrap();
    assert_eq!(engine.get(b"l").unwrap().as_ref(), Some(&large));
    assert_eq!(engine.get(b"a").unwrap().as_deref(), Some(&b"1"[..]), "what came before it is there too");
    for number in 0..40u8 {
        logged.apply(&[(vec![b'n', number], Some(large[..500_000].to_vec()))]).unwrap();
    }
    assert!(engine.get(&[b'n', 0]).unwrap().is_some() && engine.get(&[b'n', 39]).unwrap().is_none());
    assert!(std::fs::metadata(directory.path().join(NAME)).unwrap().len() <= super::wal::WAL_BYTES);
    kill(logged);
    assert_eq!(shown(&open(&engine, directory.path()).unwrap(), b"n").len(), 40);
}

/// A program without the log would miss what is in it.
#[test]
fn an_engine_of_a_format_without_a_log_gets_the_next_one_before_its_first_commit() {
    let (engine, directory) = (Shared::default(), tempfile::tempdir().unwrap());
    let (key, _) = format::format();
    engine.apply(&[(key.clone(), Some(1u32.to_be_bytes().to_vec()))]).unwrap();
    let logged = open(&engine, directory.path()).unwrap();
    assert_eq!(engine.get(&key).unwrap().unwrap(), 1u32.to_be_bytes(), "opening changes nothing");
    logged.apply(&[put("a", "1")]).unwrap();
    assert_eq!(engine.get(&key).unwrap().unwrap(), 2u32.to_be_bytes());
    assert_eq!(engine.get(b"a").unwrap(), None);
}
