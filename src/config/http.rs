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
    let listen = settings.parsed("http.listen", LISTEN_DEFAULT, |text| address(text, behind_proxy));
    let api = settings.text("http.listen", LISTEN_DEFAULT);
    let metrics_listen = settings.parsed("http.metrics_listen", "", |text| match text {
        "" => Ok(None),
        text if text == api && !text.ends_with(":0") => Err(format!("{text} is also http.listen; use another port")),
        text => address(text, behind_proxy).map(Some),
    });
    Some(Http { listen: listen?, metrics_listen: metrics_listen?, behind_proxy })
}

fn address(text: &str, behind_proxy: bool) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| format!("`{text}` is not an address with a port; write it like \"127.0.0.1:8080\""))?;
    if !address.ip().is_loopback() && !behind_proxy {
        return Err(format!(
            "{address} can be reached from outside, in clear text; listen on 127.0.0.1, or put a TLS proxy in front and \
             set http.behind_proxy = true"
        ));
    }
    Ok(address)
}
