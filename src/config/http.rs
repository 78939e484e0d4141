//! Reads `[http]`. An address that others can reach needs a TLS proxy in front.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::settings::Settings;

/// Loopback: the first start must not be reachable from outside.
const LISTEN_DEFAULT: &str = "127.0.0.1:8080";

/// The addresses of the HTTP side.
pub(super) struct Http {
    pub(super) listen: SocketAddr,
    pub(super) metrics_listen: Option<SocketAddr>,
    pub(super) behind_proxy: bool,
    pub(super) trusted_proxies: Vec<IpNet>,
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
    let trusted_proxies = proxies(settings);
    Some(Http { listen: listen?, metrics_listen: metrics_listen?, behind_proxy, trusted_proxies: trusted_proxies? })
}

/// Addresses and networks of proxies; each one that is wrong is a problem.
fn proxies(settings: &mut Settings) -> Option<Vec<IpNet>> {
    const KEY: &str = "http.trusted_proxies";
    let read = settings.list(KEY, &[]).iter().map(|text| network(text)).collect::<Vec<_>>();
    let wrong: Vec<&String> = read.iter().filter_map(|read| read.as_ref().err()).collect();
    wrong.iter().for_each(|what| settings.problem_at(KEY, what));
    wrong.is_empty().then(|| read.into_iter().flatten().collect())
}

fn network(text: &str) -> Result<IpNet, String> {
    let example = "write it like \"127.0.0.1\" or \"10.0.0.0/8\"";
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => text.parse().map_err(|_| format!("`{text}` is neither an address nor a network; {example}"))?,
    };
    if network.prefix_len() == 0 {
        return Err(format!("`{text}` would let every client choose its address; name the proxies only, {example}"));
    }
    Ok(network.trunc())
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
