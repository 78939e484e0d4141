//! Reads `[http]`. An address that others can reach needs a TLS proxy in front.

use std::net::SocketAddr;

use super::settings::Settings;

/// Loopback: the first start must not be reachable from outside.
const LISTEN_DEFAULT: &str = "127.0.0.1:8080";

/// The addresses of the HTTP side.
pub(super) struct Http {
    pub(super) listen: SocketAddr,
    pub(super) metrics_listen: Option<SocketAddr>,
    pub(super) behind_proxy: bool,
}

pub(super) fn http(settings: &mut Settings) -> Option<Http> {
    let behind_proxy = settings.flag("http.behind_proxy", false);
    let address = settings.text("http.listen", LISTEN_DEFAULT);
    let listen = listen(settings, "http.listen", &address, behind_proxy);
    let metrics_listen = metrics_listen(settings, behind_proxy);
    Some(Http { listen: listen?, metrics_listen: metrics_listen?, behind_proxy })
}

fn listen(settings: &mut Settings, key: &str, text: &str, behind_proxy: bool) -> Option<SocketAddr> {
    let Ok(listen) = text.parse::<SocketAddr>() else {
        settings.problem_at(key, format!("`{text}` is not an address with a port; write it like \"127.0.0.1:8080\""));
        return None;
    };
    if !listen.ip().is_loopback() && !behind_proxy {
        settings.problem_at(
            key,
            format!("{listen} can be reached from outside, in clear text; listen on 127.0.0.1, or put a TLS proxy in front and set http.behind_proxy = true"),
        );
        return None;
    }
    Some(listen)
}

/// `Some(None)`: not set.
fn metrics_listen(settings: &mut Settings, behind_proxy: bool) -> Option<Option<SocketAddr>> {
    let text = settings.text("http.metrics_listen", "");
    if text.is_empty() {
        return Some(None);
    }
    if text == settings.text("http.listen", LISTEN_DEFAULT) && !text.ends_with(":0") {
        settings.problem_at("http.metrics_listen", format!("{text} is also http.listen; use another port"));
        return None;
    }
    listen(settings, "http.metrics_listen", &text, behind_proxy).map(Some)
}
