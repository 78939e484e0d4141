//! Pages and filters.

use std::collections::BTreeSet;

use serde_json::json;
use waybill::catalog::definition::Place;
use waybill::domain::ShopId;
use waybill::sink::ListQuery;

use super::{MS, NOW, entry, prepared, shipment};
use crate::support::mariadb::Database;

#[tokio::test]
async fn pages_contain_every_document_once() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let mut want = BTreeSet::new();
    let mut entries = Vec::new();
    for shop in ["a", "A", "b", "é"] {
        for n in 0..83 {
            let id = format!("{n}");
            entries.push(entry(shop, &id, 1, &shipment(&format!("o{n}"), &["1"])));
            want.insert((ShopId::from(shop), id));
        }
    }
    mysql.write(&entries).await.unwrap();
    for limit in [1, 7, 83, 332, 500] {
        let mut query = ListQuery { limit, ..ListQuery::default() };
        let mut seen = Vec::new();
        loop {
            let page = mysql.list("shipments", &query).await.unwrap();
            assert!(page.items.len() <= limit);
            seen.extend(page.items.into_iter().map(|item| (item.shop_id, item.id)));
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        assert!(seen.is_sorted());
        assert_eq!(seen.len(), want.len());
        assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), want);
    }
}

#[tokio::test]
async fn a_page_of_large_documents_ends_early_and_the_next_goes_on() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    for n in 0..6 {
        // One by one: a packet takes 16 MiB.
        let body = json!({"order": {"orderId": "o"}, "filler": "x".repeat(5 << 20)});
        mysql.write(&[entry("s", &n.to_string(), 1, &body)]).await.unwrap();
    }
    let mut query = ListQuery { limit: 500, ..ListQuery::default() };
    let mut pages = Vec::new();
    loop {
        let page = mysql.list("shipments", &query).await.unwrap();
        pages.push(page.items.iter().map(|item| item.id.clone()).collect::<Vec<_>>().join(","));
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    assert_eq!(pages, ["0,1,2,3", "4,5"], "16 MiB are enough for a page");
}

#[tokio::test]
async fn filters_find_the_matching_documents() {
    let database = Database::fresh().await;
    let mysql = prepared(&database).await;
    let at = |time: &str, order: &str, ean: &str, name: &str| {
        json!({"shipmentDateTime": time, "order": {"orderId": order}, "shipmentItems": [{"product": {"ean": ean}}],
            "shipmentDetails": {"surname": name}})
    };
    mysql
        .write(&[
            entry("s", "1", 1, &at("2026-11-22T01:00:00+01:00", "o1", "ean1", "Jansen")),
            entry("s", "2", 1, &at("2026-11-22T01:00:00.001+01:00", "O1", "ean2", "50%_Müller")),
            entry("s", "4", 1, &json!({"shipmentDateTime": "2026-11-21T01:00:00.123456Z"})),
            entry("t", "3", 1, &at("2026-11-23T00:00:00Z", "o2", "ean1", "de Vries")),
        ])
        .await
        .unwrap();
    let find = async |change: &dyn Fn(&mut ListQuery)| {
        let mut query = ListQuery { limit: 10, ..ListQuery::default() };
        change(&mut query);
        let page = mysql.list("shipments", &query).await.unwrap();
        page.items.into_iter().map(|item| item.id).collect::<Vec<_>>().join(",")
    };
    let column = |name: &str| Place::Column(name.to_owned());
    let ean = || Place::Child { table: "shipment_items".to_owned(), column: "ean".to_owned() };
    assert_eq!(find(&|_| ()).await, "1,2,4,3");
    assert_eq!(find(&|q| q.shops = Some(vec!["t".into()])).await, "3");
    assert_eq!(find(&|q| q.shops = Some(vec!["s".into(), "x".into()])).await, "1,2,4");
    assert_eq!(find(&|q| q.shops = Some(Vec::new())).await, "");
    assert_eq!(find(&|q| q.filters = vec![(column("order_id"), "o1".into())]).await, "1");
    assert_eq!(find(&|q| q.filters = vec![(column("order_id"), "o1' OR '1'='1".into())]).await, "");
    assert_eq!(find(&|q| q.filters = vec![(column("ship_to_surname"), "jansen".into())]).await, "");
    assert_eq!(find(&|q| q.filters = vec![(column("ship_to_surname"), "50%_Müller".into())]).await, "2");
    assert_eq!(find(&|q| q.filters = vec![(column("order_id"), "o1 ".into())]).await, "");
    assert_eq!(find(&|q| q.filters = vec![(ean(), "ean1".into())]).await, "1,3");
    assert_eq!(find(&|q| q.filters = vec![(ean(), "ean1".into()), (column("order_id"), "o2".into())]).await, "3");
    assert_eq!(find(&|q| q.filters = vec![(column("fulfilment_method"), "FBR".into())]).await, "1,2,4,3");
    assert_eq!(find(&|q| q.filters = vec![(Place::Id, "2".into())]).await, "2");
    assert_eq!(find(&|q| q.filters = vec![(Place::Id, "2 ".into())]).await, "");
    assert_eq!(find(&|q| q.from = Some(NOW + MS)).await, "2,3");
    assert_eq!(find(&|q| q.to = Some(NOW + MS)).await, "1,4");
    // As it is shown.
    let at = |text: &str| vec![(column("shipment_date_time"), text.to_owned())];
    assert_eq!(find(&|q| q.filters = at("2026-11-21T01:00:00.123456Z")).await, "4");
    assert_eq!(find(&|q| q.filters = at("2026-11-21T01:00:00.123Z")).await, "");
    assert_eq!(find(&|q| q.q = Some("JANS".into())).await, "1");
    assert_eq!(find(&|q| q.q = Some("o1".into())).await, "1,2");
    assert_eq!(find(&|q| q.q = Some("0%_m".into())).await, "2");
    assert_eq!(find(&|q| q.q = Some("%".into())).await, "2");
    assert_eq!(find(&|q| q.q = Some("!".into())).await, "");
}
