//! Explains what to do when another process has locked the data directory.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::anyhow;

use crate::app::{Holder, holder};

/// How a running server does the same as a command.
#[derive(Clone, Copy)]
pub(super) enum Alternative {
    /// With this call: method, path, and the body if it takes one.
    Call(&'static str),
    /// Not at all: advice on what to do instead.
    Advice(&'static str),
}

/// For commands that lock the data directory and that no call replaces.
pub(super) const AT_REST_ONLY: Alternative =
    Alternative::Advice("It has no call for this: stop it, run this command, and start it again");

/// The address of the holder, if it is a server.
pub(super) fn server(holder: Option<&Holder>) -> Option<SocketAddr> {
    holder.filter(|holder| holder.command.as_deref() == Some("serve")).and_then(Holder::address)
}

/// Explains an "already in use" error; returns other errors unchanged.
pub(super) fn explain(
    error: anyhow::Error,
    data_dir: &Path,
    listen: SocketAddr,
    alternative: Alternative,
) -> anyhow::Error {
    match holder(&error) {
        Some(holder) => anyhow!(text(holder, data_dir, listen, alternative)),
        None => error,
    }
}

/// Explains that a data directory is in use. `holder`: None if it is unknown which process has it.
pub(super) fn text(holder: Option<&Holder>, data_dir: &Path, listen: SocketAddr, alternative: Alternative) -> String {
    let data_dir = data_dir.display();
    match (holder, server(holder)) {
        (Some(holder), Some(address)) => {
            let advice = advice(address, alternative);
            format!("{data_dir} is already in use by {holder}, and one process at a time may use it. {advice}")
        }
        (Some(holder), None) => format!(
            "{data_dir} is already in use by {holder}, and one process at a time may use it; wait until it ends, or stop it"
        ),
        (None, _) => {
            let advice = advice(listen, alternative);
            format!(
                "{data_dir} is already in use by another Waybill process, and one at a time may use it; wait until it ends, \
                 or stop it. If it is a server: {advice}"
            )
        }
    }
}

fn advice(address: SocketAddr, alternative: Alternative) -> String {
    let call = match alternative {
        Alternative::Call(call) => call,
        Alternative::Advice(what) => return what.to_owned(),
    };
    let mut words = call.splitn(3, ' ');
    let (method, path) = (words.next().unwrap_or("GET"), words.next().unwrap_or_default());
    let body =
        words.next().map(|body| format!(" -H \"Content-Type: application/json\" -d '{body}'")).unwrap_or_default();
    format!(
        "Ask the server instead:\n  curl -X {method} -H \"Authorization: Bearer $KEY\"{body} http://{address}{path}\nor stop it first"
    )
}

#[cfg(test)]
mod tests {
    use super::{Alternative, explain};
    use crate::app::Holder;
    use crate::store::StoreError;

    fn said(holder: Option<Holder>, alternative: Alternative) -> String {
        let error = anyhow::Error::from(StoreError::InUse { path: "data".into(), holder }).context("store");
        explain(error, "data".as_ref(), ([127, 0, 0, 1], 8080).into(), alternative).to_string()
    }

    const PAUSE: Alternative = Alternative::Call("PATCH /api/v1/shops/x {\"paused\": true}");

    #[test]
    fn if_a_server_holds_the_data_directory_its_call_is_shown() {
        let listen = Some("0.0.0.0:9000".parse().unwrap());
        let holder = Holder { pid: 7, command: Some("serve".into()), listen };
        let text = said(Some(holder.clone()), PAUSE);
        assert!(text.starts_with("data is already in use by `waybill serve` (process 7)"), "{text}");
        assert!(text.contains(
            "curl -X PATCH -H \"Authorization: Bearer $KEY\" -H \"Content-Type: application/json\" \
                 -d '{\"paused\": true}' http://127.0.0.1:9000/api/v1/shops/x\n"
        ));
        let text = said(Some(holder), Alternative::Advice("It has no call for this"));
        assert!(text.ends_with("It has no call for this"), "{text}");
    }

    #[test]
    fn if_a_command_holds_the_data_directory_waiting_is_advised() {
        let text = said(Some(Holder { pid: 7, command: Some("sync".into()), listen: None }), PAUSE);
        assert!(text.contains("`waybill sync` (process 7)") && text.contains("wait until it ends"), "{text}");
        assert!(!text.contains("server"), "{text}");
        let text = said(None, PAUSE);
        assert!(text.contains("another Waybill process") && text.contains("http://127.0.0.1:8080/api/v1/shops/x"));
    }

    #[test]
    fn other_errors_are_unchanged() {
        let error = explain(anyhow::anyhow!("no space left"), "data".as_ref(), ([127, 0, 0, 1], 1).into(), PAUSE);
        assert_eq!(error.to_string(), "no space left");
    }
}
