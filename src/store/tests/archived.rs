//! With the embedded archive, a document is in it with the commit that settles its job.

use super::{fixture, page};
use crate::domain::{CallKind, Entry, Mode, Next};

#[tokio::test]
async fn settling_moves_what_it_adds_to_the_outbox_into_the_archive() {
    let f = fixture().await;
    let before = f.store.outbox_positions(10, usize::MAX).unwrap().len();
    assert_eq!(before, 1, "the shop waits for the writer");
    f.start(Mode::Full).await;
    f.store.archive_when_settling();
    f.page(&[("a", 1, 0), ("b", 1, 0)], Next::End).await;
    assert!(f.store.outbox_positions(10, usize::MAX).unwrap().is_empty(), "the shop and the checkpoint");
    assert_eq!(f.read_details().await, ["a", "b"]);
    let archived = f.store.archived("things", Some(&f.stream.shop), None, 10).unwrap().documents;
    assert_eq!(archived.iter().map(|document| document.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let counters = f.store.counters().unwrap();
    assert_eq!((counters.outbox, counters.outbox_bytes), (0, 0));
    let run = f.store.runs(None, 1, |_| true).unwrap().remove(0);
    assert_eq!((run.fetched, run.written), (2, 2));
}

#[tokio::test]
async fn what_waits_from_before_is_moved_first() {
    let f = fixture().await;
    f.start(Mode::Full).await;
    f.page(&[("a", 1, 0)], Next::End).await;
    f.read_details().await;
    f.start(Mode::Full).await;
    f.store.archive_when_settling();
    let lease = f.lease(CallKind::List, 1).await.remove(0);
    f.settle(lease, page(&[("a", 2, 0)], Next::End)).await;
    let first = f.store.archived_one("things", &f.stream.shop, "a").unwrap().unwrap();
    f.read_details().await;
    let second = f.store.archived_one("things", &f.stream.shop, "a").unwrap().unwrap();
    assert!(second.version > first.version);
    assert!(f.store.outbox_positions(10, usize::MAX).unwrap().is_empty());
}

#[tokio::test]
async fn the_move_to_mysql_marks_what_is_no_longer_listed() {
    let f = fixture().await;
    let archive = async || f.store.archive(f.store.outbox_positions(100, usize::MAX).unwrap()).await.unwrap();
    let both = [("2", 1, 0), ("1", 1, 9)];
    for passes in [&[&both[..]][..], &[&both[..1], &both[..1]]] {
        f.start(Mode::Full).await;
        for rows in passes {
            f.page(rows, Next::End).await;
            f.sweep().await;
        }
        f.read_details().await;
        archive().await;
    }
    assert!(f.drain().await.is_empty());
    let moved = f.store.move_archived(&["things".to_owned()]).await.unwrap();
    assert_eq!((moved.count, moved.is_last), (2, true));
    let (mut documents, mut marks) = (Vec::new(), Vec::new());
    for entry in f.drain().await {
        match entry {
            Entry::Document(document) => documents.push(document.id),
            Entry::Listing { id, no_longer_listed_at, .. } => marks.push((id, no_longer_listed_at.is_some())),
            _ => {}
        }
    }
    assert_eq!(documents, ["1", "2"]);
    assert_eq!(marks, [("1".to_owned(), true)]);
}
