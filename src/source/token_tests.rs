//! Tokens and logins against a scripted login host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;

use super::test_server::{Server, answer, json};
use super::{Call, Credentials, Source, SourceConfig, SourceError, StoredToken, TokenStore};
use crate::domain::{Auth, Clock, SourceOrigin, SourceUrl, Timestamp};

/// A token store in memory, which notifies after each store.
#[derive(Default)]
pub(super) struct MemoryStore {
    pub(super) tokens: Mutex<HashMap<String, StoredToken>>,
    pub(super) stored: Notify,
    pub(super) pause: Mutex<Duration>,
}

impl TokenStore for MemoryStore {
    fn load(&self, client_id: &str) -> Option<StoredToken> {
        self.tokens.lock().unwrap().get(client_id).cloned()
    }

    fn store<'a>(&'a self, client_id: &'a str, token: StoredToken) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.tokens.lock().unwrap().insert(client_id.to_owned(), token);
            self.stored.notify_one();
        })
    }

    fn load_pause(&self) -> Duration {
        *self.pause.lock().unwrap()
    }

    fn store_pause(&self, length: Duration) -> BoxFuture<'_, ()> {
        *self.pause.lock().unwrap() = length;
        Box::pin(std::future::ready(()))
    }
}

/// Credentials that were proved at this source.
pub(super) fn credentials(source: &Source, client_id: &str, secret: &str) -> Credentials {
    let proved_at = Some(source.origin().clone());
    Credentials::new(client_id.to_owned(), SecretString::from(secret), proved_at)
}

pub(super) fn url(text: String) -> SourceUrl {
    SourceUrl::parse(&text, "").unwrap()
}

pub(super) fn call() -> Call {
    Call { path: "/things".to_owned(), query: Vec::new(), media_type: "application/vnd.any.v1+json".to_owned() }
}

pub(super) fn source(server: &Server, store: &Arc<MemoryStore>) -> Source {
    let config = SourceConfig {
        // Tests run side by side on few cores; the pace is tested elsewhere.
        logins_per_second: 1_000,
        ..SourceConfig::new(url(server.url("/api")), url(server.url("/token")))
    };
    let store: Arc<dyn TokenStore> = Arc::clone(store) as Arc<dyn TokenStore>;
    Source::new(config, store, Clock::manual(Timestamp::from_millis(1_000_000))).unwrap()
}

/// A login host that grants `t0`, `t1`, ..., and an API that accepts every token but those named.
async fn server(refused_tokens: &'static [&'static str]) -> Server {
    Server::start(move |number, seen| async move {
        if seen.line == "POST /token" {
            return json(&format!(r#"{{"access_token":"t{number}","token_type":"bearer","expires_in":599}}"#));
        }
        let token = seen.header("authorization").unwrap_or_default().to_owned();
        match refused_tokens.contains(&token.as_str()) {
            true => answer(401, &[("content-type", "application/json")], r#"{"title":"Expired JWT"}"#),
            false => json("{}"),
        }
    })
    .await
}

/// A login host that always answers this; no API.
async fn login_says(status: u16, headers: &'static [(&'static str, &'static str)], body: &'static str) -> Server {
    Server::start(move |_, _| async move { answer(status, headers, body) }).await
}

#[tokio::test]
async fn concurrent_calls_share_one_login_with_basic_authentication() {
    let server = server(&[]).await;
    let store = Arc::default();
    let source = source(&server, &store);
    let client = credentials(&source, "me", "s:e=c");
    let call = call();
    let outcomes = join_all((0..50).map(|_| source.get(&client, &call))).await;
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()), "{outcomes:?}");
    assert_eq!((server.count("POST /token"), server.count("GET /api/things")), (1, 50));
    let login = server.seen().into_iter().find(|seen| seen.line == "POST /token").unwrap();
    assert_eq!(login.header("authorization"), Some("Basic bWU6czplPWM="));
    assert_eq!(login.body, "grant_type=client_credentials");
    assert_eq!(login.header("content-type"), Some("application/x-www-form-urlencoded"));
    while store.tokens.lock().unwrap().is_empty() {
        store.stored.notified().await;
    }
    let stored = store.tokens.lock().unwrap()["me"].clone();
    assert_eq!(stored.token.expose_secret(), "t0");
    assert!((1_500_000..=1_599_000).contains(&stored.expires_at.as_millis()), "{:?}", stored.expires_at);
}

#[tokio::test]
async fn fifty_401s_cause_one_login() {
    let server = server(&["Bearer t0"]).await;
    let source = source(&server, &Arc::default());
    let client = credentials(&source, "me", "s");
    let call = call();
    let outcomes = join_all((0..50).map(|_| source.get(&client, &call))).await;
    assert!(outcomes.iter().all(|outcome| outcome.result == Err(SourceError::Unauthorized) && outcome.sent()));
    let outcomes = join_all((0..50).map(|_| source.get(&client, &call))).await;
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
    assert_eq!(server.count("POST /token"), 2);
}

#[tokio::test]
async fn an_api_that_rejects_every_token_does_not_cause_a_storm_of_logins() {
    let server = Server::start(|_, seen| async move {
        match seen.line.as_str() {
            "POST /token" => json(r#"{"access_token":"t","expires_in":599}"#),
            _ => answer(401, &[], ""),
        }
    })
    .await;
    let source = source(&server, &Arc::default());
    let client = credentials(&source, "me", "s");
    for _ in 0..2 {
        assert_eq!(source.get(&client, &call()).await.result, Err(SourceError::Unauthorized));
    }
    for _ in 0..10 {
        let outcome = source.get(&client, &call()).await;
        assert!(matches!(outcome.result, Err(SourceError::LoginUnavailable { .. })) && !outcome.sent());
    }
    assert_eq!(server.count("POST /token"), 2);
}

#[tokio::test]
async fn a_stored_token_saves_the_login_and_an_expired_one_does_not() {
    let server = server(&[]).await;
    let store: Arc<MemoryStore> = Arc::default();
    let source = source(&server, &store);
    let ours = source.origin().clone();
    let other = SourceOrigin::new(&url(server.url("/other")), &url(server.url("/token")), &Auth::default());
    for (client, expires_at, origin) in
        [("fresh", 1_300_000, ours.clone()), ("expired", 999_000, ours), ("elsewhere", 1_300_000, other)]
    {
        let expires_at = Timestamp::from_millis(expires_at);
        let stored = StoredToken { token: SecretString::from("stored"), expires_at, origin };
        store.tokens.lock().unwrap().insert(client.to_owned(), stored);
    }
    source.get(&credentials(&source, "fresh", "s"), &call()).await.result.unwrap();
    assert_eq!(server.count("POST /token"), 0);
    assert_eq!(server.seen()[0].header("authorization"), Some("Bearer stored"));
    source.get(&credentials(&source, "expired", "s"), &call()).await.result.unwrap();
    assert_eq!(server.count("POST /token"), 1);
    source.get(&credentials(&source, "elsewhere", "s"), &call()).await.result.unwrap();
    assert_eq!(server.count("POST /token"), 2, "a token of another source is not used");
    let with_it = server.seen().into_iter().filter(|seen| seen.header("authorization") == Some("Bearer stored"));
    assert_eq!(with_it.count(), 1);
}

#[tokio::test]
async fn credentials_are_sent_to_the_source_only_that_they_were_proved_at() {
    let (here, there) = (server(&[]).await, server(&[]).await);
    let by_call = |auth| {
        let config = SourceConfig { auth, ..SourceConfig::new(url(here.url("/api")), url(here.url("/token"))) };
        Source::new(config, Arc::<MemoryStore>::default(), Clock::manual(Timestamp::EPOCH)).unwrap()
    };
    let other = source(&there, &Arc::default());
    for (source, expected) in
        [(source(&here, &Arc::default()), 1), (by_call(Auth::Basic), 0), (by_call(Auth::Bearer), 0)]
    {
        let before = here.seen().len();
        let foreign = credentials(&other, "me", "s");
        assert!(matches!(source.prove(&foreign).await, Err(SourceError::Refused { .. })));
        let outcome = source.get(&foreign, &call()).await;
        assert!(matches!(outcome.result, Err(SourceError::Refused { .. })) && !outcome.sent(), "{outcome:?}");
        assert!(source.login(&foreign).is_none());
        // Given, and not proved yet: a proof may send them, and nothing else.
        let mut given = foreign;
        given.proved_at = None;
        let outcome = source.get(&given, &call()).await;
        assert!(matches!(outcome.result, Err(SourceError::Refused { .. })) && !outcome.sent(), "{outcome:?}");
        assert_eq!((here.seen().len() - before, there.seen().len()), (0, 0));
        source.prove(&given).await.unwrap();
        assert_eq!(here.seen().len() - before, expected);
        source.get(&credentials(&source, "me", "s"), &call()).await.result.unwrap();
    }
}

#[tokio::test]
async fn refused_credentials_are_not_sent_again_until_they_change() {
    let server = Server::start(|_, seen| async move {
        match (seen.line.as_str(), seen.header("authorization")) {
            // me:good
            ("POST /token", Some("Basic bWU6Z29vZA==")) => json(r#"{"access_token":"t","expires_in":599}"#),
            ("POST /token", _) => answer(401, &[], r#"{"error":"invalid_client","error_description":"got bad"}"#),
            _ => json("{}"),
        }
    })
    .await;
    let source = source(&server, &Arc::default());
    let bad = credentials(&source, "me", "bad");
    for _ in 0..3 {
        let outcome = source.get(&bad, &call()).await;
        let Err(SourceError::Refused { reason }) = &outcome.result else { panic!("{outcome:?}") };
        assert!(!reason.contains("bad"), "an echoed secret is withheld: {reason}");
        assert!(!outcome.sent());
    }
    assert_eq!(server.count("POST /token"), 1, "calls do not send a refused secret again");
    assert!(matches!(source.prove(&bad).await, Err(SourceError::Refused { .. })));
    assert_eq!(server.count("POST /token"), 2, "proving the credentials asks the host again");
    source.prove(&credentials(&source, "me", "good")).await.unwrap();
    source.get(&credentials(&source, "me", "good"), &call()).await.result.unwrap();
    assert_eq!(server.count("POST /token"), 3, "the proof's token serves the calls");
    // Trying a wrong secret does not disturb the client that works.
    assert!(source.prove(&credentials(&source, "me", "wrong")).await.is_err());
    source.get(&credentials(&source, "me", "good"), &call()).await.result.unwrap();
    assert_eq!(server.count("POST /token"), 4);
    assert_eq!(server.count("GET"), 2);
}

#[tokio::test]
async fn an_inactive_account_is_refused_with_the_hosts_reason() {
    let body = r#"{"title":"Forbidden","status":403,"detail":"Account is not active, access denied."}"#;
    let server = login_says(403, &[], body).await;
    let source = source(&server, &Arc::default());
    let refused = source.prove(&credentials(&source, "me", "a-secret")).await;
    let reason = "Forbidden; Account is not active, access denied (403)".to_owned();
    assert_eq!(refused, Err(SourceError::Refused { reason }));
}

#[tokio::test]
async fn a_blocked_address_pauses_the_logins_of_all_shops() {
    for (status, body) in [(404, ""), (404, r#"{"title":"Not Found"}"#), (403, "<html>no</html>"), (403, "")] {
        let server = Server::start(move |_, _| async move { answer(status, &[], body) }).await;
        let source = source(&server, &Arc::default());
        for client in ["a", "b", "c"] {
            let error = source.get(&credentials(&source, client, "s"), &call()).await.result.unwrap_err();
            let SourceError::LoginBlocked { after } = error else { panic!("{status}: {error}") };
            assert!(after > Duration::from_secs(590) && after <= Duration::from_secs(600));
        }
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn retry_after_of_the_login_host_holds_for_all_shops_and_for_the_next_process() {
    let server = login_says(429, &[("retry-after", "120")], "").await;
    let store = Arc::<MemoryStore>::default();
    let source = source(&server, &store);
    for client in ["a", "b"] {
        let error = source.prove(&credentials(&source, client, "s")).await.unwrap_err();
        assert!(
            matches!(&error, SourceError::LoginUnavailable { after, .. } if *after > Duration::from_secs(110)),
            "{error}"
        );
    }
    assert!(*store.pause.lock().unwrap() > Duration::from_secs(110));
    let next = super::token_tests::source(&server, &store);
    let next = next.prove(&credentials(&next, "c", "s")).await.unwrap_err();
    assert!(matches!(&next, SourceError::LoginBlocked { after } if *after > Duration::from_secs(110)), "{next}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn failed_logins_back_off() {
    for (status, body) in [
        (500, "<html>"),
        (302, ""),
        (200, "<html>"),
        (200, r#"{"access_token":"t","expires_in":0}"#),
        (200, r#"{"expires_in":599}"#),
    ] {
        let server = Server::start(move |_, _| async move { answer(status, &[("location", "/x")], body) }).await;
        let source = source(&server, &Arc::default());
        let client = credentials(&source, "me", "s");
        let mut pauses = Vec::new();
        for _ in 0..3 {
            // A person asks for the proof, so it does not wait for the pause; the calls behind it do.
            let Err(SourceError::LoginUnavailable { after, reason }) = source.prove(&client).await else {
                panic!("{status}")
            };
            assert!(!reason.is_empty());
            pauses.push(after.as_secs());
            assert!(matches!(source.get(&client, &call()).await.result, Err(SourceError::LoginUnavailable { .. })));
        }
        assert_eq!(pauses, [1, 2, 4], "{status} {body}");
        assert_eq!(server.seen().len(), 3);
    }
}

#[tokio::test]
async fn dropping_a_waiter_does_not_cancel_the_login() {
    let asked = Arc::new(Notify::new());
    let go = Arc::new(Notify::new());
    let server = Server::start({
        let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
        move |_, seen| {
            let (asked, go) = (Arc::clone(&asked), Arc::clone(&go));
            async move {
                if seen.line == "POST /token" {
                    asked.notify_one();
                    go.notified().await;
                    return json(r#"{"access_token":"t","expires_in":599}"#);
                }
                json("{}")
            }
        }
    })
    .await;
    let source = Arc::new(source(&server, &Arc::default()));
    let start = |source: &Arc<Source>| {
        let source = Arc::clone(source);
        tokio::spawn(async move { source.get(&credentials(&source, "me", "s"), &call()).await })
    };
    let first = start(&source);
    asked.notified().await;
    let second = start(&source);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    go.notify_one();
    second.await.unwrap().result.unwrap();
    source.get(&credentials(&source, "me", "s"), &call()).await.result.unwrap();
    assert_eq!(server.count("POST /token"), 1);
}

#[tokio::test]
async fn a_token_is_renewed_in_the_background_before_it_expires() {
    let server = Server::start(|number, seen| async move {
        match seen.line.as_str() {
            "POST /token" => json(&format!(r#"{{"access_token":"t{number}","expires_in":599}}"#)),
            _ => json("{}"),
        }
    })
    .await;
    let store: Arc<MemoryStore> = Arc::default();
    let source = source(&server, &store);
    let client = credentials(&source, "me", "s");
    source.get(&client, &call()).await.result.unwrap();
    store.stored.notified().await;
    // Real sockets under a moved clock: no timer may be pending while time is paused.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(570)).await;
    tokio::time::resume();
    source.get(&client, &call()).await.result.unwrap();
    store.stored.notified().await;
    source.get(&client, &call()).await.result.unwrap();
    let tokens: Vec<String> = server
        .seen()
        .iter()
        .filter(|seen| seen.line.starts_with("GET"))
        .filter_map(|seen| seen.header("authorization").map(str::to_owned))
        .collect();
    assert_eq!(tokens[..2], ["Bearer t0", "Bearer t0"], "until the new token is there the old one serves");
    assert!(tokens[2] == "Bearer t2" || tokens[2] == "Bearer t3", "{tokens:?}");
    assert_eq!(server.count("POST /token"), 2);
    // An expired token is not used.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(598)).await;
    tokio::time::resume();
    source.get(&client, &call()).await.result.unwrap();
    assert_eq!(server.count("POST /token"), 3);
}

#[test]
fn no_secret_shows_in_debug_output() {
    let address = url("http://127.0.0.1:9".to_owned());
    let origin = SourceOrigin::new(&address, &address, &Auth::default());
    let client_secret = SecretString::from("hunter2");
    let client = Credentials::new("me".to_owned(), client_secret, Some(origin.clone()));
    let expires_at = Timestamp::from_millis(1);
    let stored = StoredToken { token: SecretString::from("tok-en"), expires_at, origin };
    let shown = format!("{client:?} {stored:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("tok-en"), "{shown}");
}
