//! Two network namespaces joined by a cable: the marketplace in one, the service in the other, and a path between them
//! that can lose packets.
//!
//! They are removed on drop, also after a failure; what a rig left that was killed itself is removed by the next.

use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::net::TcpListener;

use crate::disk::run;

/// Where `ip` keeps the names of namespaces.
const NAMES: &str = "/var/run/netns";
/// Of the names of ours; the rig's process follows.
const PREFIX: &str = "waybill-rig-";
const CABLE: &str = "cable0";
const MARKET: &str = "10.111.0.1";
const SERVICE: &str = "10.111.0.2";
const MARKET_LINK: &str = "02:00:00:00:00:01";
/// A link address that no one has.
const NO_LINK: &str = "02:00:00:00:00:99";
/// The marketplace's name in the service's hosts file: http without TLS needs a local one.
pub(crate) const MARKET_HOST: &str = "market.localhost";
/// More than the flags of an end of a connection count for.
const REQUEST_MIN: u64 = 16;

/// The namespaces of one world.
pub(crate) struct Network {
    market: String,
    service: String,
}

impl Network {
    /// Creates fresh ones. Fails where the machine does not allow it.
    pub(crate) fn new() -> Result<Network, String> {
        static CREATED: AtomicUsize = AtomicUsize::new(0);
        remove_leftovers();
        let name = format!("{PREFIX}{}-{}", std::process::id(), CREATED.fetch_add(1, Ordering::Relaxed));
        // Drop removes what there is of it, should a later step fail.
        let network = Network { market: format!("{name}-market"), service: format!("{name}-service") };
        let (market, service) = (&network.market, &network.service);
        ip(&["netns", "add", market])?;
        ip(&["netns", "add", service])?;
        ip(&["-n", market, "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", service])?;
        ip(&["-n", market, "link", "set", CABLE, "address", MARKET_LINK])?;
        for (name, address) in [(market, MARKET), (service, SERVICE)] {
            ip(&["-n", name, "addr", "add", &format!("{address}/30"), "dev", CABLE])?;
            ip(&["-n", name, "link", "set", CABLE, "up"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    /// A socket of the marketplace's side.
    pub(crate) fn listen(&self) -> TcpListener {
        let name = File::open(Path::new(NAMES).join(&self.market)).unwrap();
        // A namespace is entered by one thread; the socket belongs to it whoever uses it.
        let listen = move || {
            move_into_link_name_space(name.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            std::net::TcpListener::bind((MARKET, 0)).unwrap()
        };
        let listener = std::thread::spawn(listen).join().unwrap();
        listener.set_nonblocking(true).unwrap();
        TcpListener::from_std(listener).unwrap()
    }

    /// The command that runs another on the service's side, where a name leads to the marketplace. It stays the same
    /// process. `hosts` is the file for that name.
    pub(crate) fn command(&self, hosts: &Path) -> Vec<String> {
        fs::write(hosts, format!("127.0.0.1 localhost\n{MARKET} {MARKET_HOST}\n")).unwrap();
        let mount = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let words = ["nsenter", &self.net(), "unshare", "--mount", "sh", "-c", mount, &hosts.display().to_string()];
        words.map(str::to_owned).to_vec()
    }

    /// Loses every packet to the marketplace from now on. Those from it still arrive.
    pub(crate) fn lose_packets(&self) {
        self.send_to(NO_LINK);
    }

    /// Loses no packet from now on.
    pub(crate) fn deliver_packets(&self) {
        self.send_to(MARKET_LINK);
    }

    fn send_to(&self, link: &str) {
        ip(&["-n", &self.service, "neigh", "replace", MARKET, "lladdr", link, "dev", CABLE, "nud", "permanent"])
            .unwrap();
    }

    /// Connections with a request that the marketplace's host has not acknowledged, also of processes that are gone.
    pub(crate) fn unacknowledged(&self) -> usize {
        let output = Command::new("nsenter").args([&self.net(), "cat", "/proc/net/tcp"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().filter(|line| has_request(line)).count()
    }

    fn net(&self) -> String {
        format!("--net={NAMES}/{}", self.service)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in [&self.market, &self.service] {
            drop(ip(&["netns", "delete", name]));
        }
    }
}

/// Whether a line of `/proc/net/tcp` is a connection whose send queue holds more than its end.
fn has_request(line: &str) -> bool {
    // Its state and its queues, in hexadecimal; 2: it is being established.
    let mut fields = line.split_whitespace().skip(3);
    let (state, queues) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    let unsent = queues.split(':').next().and_then(|queue| u64::from_str_radix(queue, 16).ok());
    state != "02" && unsent.is_some_and(|bytes| bytes >= REQUEST_MIN)
}

/// Removes what rigs left that are gone.
fn remove_leftovers() {
    for entry in fs::read_dir(NAMES).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            drop(ip(&["netns", "delete", &name]));
        }
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run("ip", arguments)
}
