//! The tests of the rig: their requirements, the number of runs in each tier, and the time limits.

use std::future::Future;
use std::pin::Pin;
use std::process::Command;
use std::time::Duration;

use crate::run::Run;
use crate::{
    answers, backlog, browser, dark, database, disk, edge_content, failover, fast_clock, kill, mysql_stress, network,
    pages, power, process, rates, rot, rotate, scale, schema, standby, sweep, tamper, tokens, triggers, upstream,
};

type Body = fn(Run) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// A test: its name, what the machine must have, how often it runs in each tier.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) needs: &'static [Need],
    /// It measures speed or size, so no other run may use the machine at the same time.
    pub(crate) alone: bool,
    pub(crate) runs: [usize; 3],
    pub(crate) at_most: [Duration; 3],
    pub(crate) body: Body,
}

/// A requirement that a machine may lack.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    MariaDb,
    /// Copies one database server to another.
    MariaDbDump,
    LoopMounts,
    Strace,
    FakeTime,
    Chromium,
    Namespaces,
    Compiler,
}

impl Need {
    /// The reason why it is missing, if it is.
    pub(crate) fn missing(self) -> Option<&'static str> {
        match self {
            Need::MariaDb if std::env::var("WAYBILL_TEST_MYSQL").is_ok() || runs("mariadbd", &["--version"]) => None,
            Need::MariaDb => Some("no MariaDB server on this machine"),
            Need::MariaDbDump if runs("mariadb-dump", &["--version"]) => None,
            Need::MariaDbDump => Some("no mariadb-dump"),
            Need::LoopMounts => disk::Disk::new(8, 5).err().map(|_| "no loop mounts: needs root, mkfs.ext4 and mount"),
            Need::Strace
                if rustix::process::geteuid().is_root() && runs("strace", &["-D", "-f", "-o", "/dev/null", "true"]) =>
            {
                None
            }
            Need::FakeTime if rates::library().is_some() => None,
            Need::FakeTime => Some("no libfaketime"),
            Need::Namespaces => {
                network::Network::new().err().map(|_| "no network namespaces: needs root, ip, nsenter and veth")
            }
            Need::Compiler if runs("cc", &["--version"]) => None,
            Need::Compiler => Some("no C compiler"),
            Need::Chromium if browser::program().is_some() => None,
            Need::Chromium => Some("no Chromium"),
            Need::Strace => Some("no strace, or no root: the service cannot be traced by its own user"),
        }
    }
}

/// Whether a command can be run here.
pub(crate) fn runs(command: &str, arguments: &[&str]) -> bool {
    Command::new(command).args(arguments).output().is_ok_and(|output| output.status.success())
}

const fn minutes(p: u64, release: u64, soak: u64) -> [Duration; 3] {
    [Duration::from_secs(p * 60), Duration::from_secs(release * 60), Duration::from_secs(soak * 60)]
}

/// In the order in which they run.
pub(crate) const TESTS: &[Test] = &[
    Test {
        name: "kill_archive",
        needs: &[],
        alone: false,
        runs: [1, 10, 10],
        at_most: minutes(4, 15, 60),
        body: |run| Box::pin(kill::archive(run)),
    },
    Test {
        name: "kill_mysql",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 10, 10],
        at_most: minutes(4, 15, 60),
        body: |run| Box::pin(kill::mysql(run)),
    },
    Test {
        name: "triggers",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 25, 100],
        at_most: minutes(3, 4, 4),
        body: |run| Box::pin(triggers::every(run)),
    },
    Test {
        name: "power_archive",
        needs: &[Need::LoopMounts],
        alone: false,
        runs: [1, 12, 40],
        at_most: minutes(2, 4, 4),
        body: |run| Box::pin(power::archive(run)),
    },
    Test {
        name: "power_mysql",
        needs: &[Need::LoopMounts, Need::MariaDb],
        alone: false,
        runs: [1, 12, 40],
        at_most: minutes(2, 4, 4),
        body: |run| Box::pin(power::mysql(run)),
    },
    Test {
        name: "mysql_outages",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 20, 60],
        at_most: minutes(3, 6, 12),
        body: |run| Box::pin(database::outages(run)),
    },
    Test {
        name: "mysql_failover",
        needs: &[Need::MariaDb, Need::MariaDbDump],
        alone: false,
        runs: [1, 6, 10],
        at_most: minutes(3, 8, 15),
        body: |run| Box::pin(failover::failovers(run)),
    },
    Test {
        name: "mysql_set_back",
        needs: &[Need::MariaDb, Need::MariaDbDump],
        alone: false,
        runs: [1, 5, 5],
        at_most: minutes(4, 6, 8),
        body: |run| Box::pin(failover::set_back(run)),
    },
    Test {
        name: "mysql_contention",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 10, 10],
        at_most: minutes(3, 4, 6),
        body: |run| Box::pin(mysql_stress::contention(run)),
    },
    Test {
        name: "mysql_unknown_commits",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 10, 10],
        at_most: minutes(3, 6, 12),
        body: |run| Box::pin(database::unknown_commits(run)),
    },
    Test {
        name: "mysql_bad_network",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 10, 10],
        at_most: minutes(3, 6, 12),
        body: |run| Box::pin(database::bad_network(run)),
    },
    Test {
        name: "mysql_codes",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 3, 6],
        at_most: minutes(3, 12, 12),
        body: |run| Box::pin(database::codes(run)),
    },
    Test {
        name: "mysql_disk_full",
        needs: &[Need::LoopMounts, Need::MariaDb],
        alone: false,
        runs: [1, 5, 20],
        at_most: minutes(4, 6, 8),
        body: |run| Box::pin(mysql_stress::disk_full(run)),
    },
    Test {
        name: "mysql_disk_full_at_start",
        needs: &[Need::LoopMounts, Need::MariaDb],
        alone: false,
        runs: [1, 5, 20],
        at_most: minutes(4, 6, 8),
        body: |run| Box::pin(mysql_stress::disk_full_at_start(run)),
    },
    Test {
        name: "mysql_slow",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 5, 3],
        at_most: minutes(3, 6, 30),
        body: |run| Box::pin(mysql_stress::slow(run)),
    },
    Test {
        name: "mysql_backlog",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 1, 3],
        at_most: minutes(4, 12, 12),
        body: |run| Box::pin(backlog::backlog(run)),
    },
    Test {
        name: "sweep_kills",
        needs: &[Need::Strace],
        alone: false,
        runs: [1, 1, 3],
        at_most: minutes(3, 60, 60),
        body: |run| Box::pin(sweep::kills(run)),
    },
    Test {
        name: "sweep_errors",
        needs: &[Need::Strace],
        alone: false,
        runs: [1, 1, 1],
        at_most: minutes(3, 60, 60),
        body: |run| Box::pin(sweep::errors(run)),
    },
    Test {
        name: "rates",
        needs: &[],
        alone: false,
        runs: [1, 4, 4],
        at_most: minutes(3, 8, 35),
        body: |run| Box::pin(rates::windows(run)),
    },
    Test {
        name: "rates_use",
        needs: &[],
        alone: true,
        runs: [1, 4, 4],
        at_most: minutes(2, 8, 30),
        body: |run| Box::pin(rates::used(run)),
    },
    Test {
        name: "clock",
        needs: &[Need::FakeTime],
        alone: false,
        runs: [1, 10, 30],
        at_most: minutes(3, 4, 4),
        body: |run| Box::pin(rates::clock(run)),
    },
    Test {
        name: "clock_with_retries",
        needs: &[Need::FakeTime],
        alone: false,
        runs: [1, 10, 30],
        at_most: minutes(3, 4, 4),
        body: |run| Box::pin(rates::clock_with_retries(run)),
    },
    Test {
        name: "dark",
        needs: &[Need::Namespaces],
        alone: false,
        runs: [1, 10, 20],
        at_most: minutes(3, 4, 4),
        body: |run| Box::pin(dark::dark(run)),
    },
    Test {
        name: "fast_clock",
        needs: &[Need::Compiler],
        alone: false,
        runs: [1, 10, 20],
        at_most: minutes(3, 4, 4),
        body: |run| Box::pin(fast_clock::fast_clock(run)),
    },
    Test {
        name: "drift_arrivals",
        needs: &[],
        alone: false,
        runs: [1, 10, 40],
        at_most: minutes(3, 8, 20),
        body: |run| Box::pin(upstream::arrivals(run)),
    },
    Test {
        name: "drift_removals",
        needs: &[],
        alone: false,
        runs: [1, 10, 40],
        at_most: minutes(3, 8, 20),
        body: |run| Box::pin(upstream::removals(run)),
    },
    Test {
        name: "drift_empty",
        needs: &[],
        alone: false,
        runs: [1, 5, 20],
        at_most: minutes(4, 10, 30),
        body: |run| Box::pin(upstream::empty(run)),
    },
    Test {
        name: "poison",
        needs: &[],
        alone: false,
        runs: [1, 10, 30],
        at_most: minutes(3, 3, 3),
        body: |run| Box::pin(upstream::poison(run)),
    },
    Test {
        name: "answers",
        needs: &[],
        alone: false,
        runs: [1, 2, 2],
        at_most: minutes(3, 8, 8),
        body: |run| Box::pin(answers::answers(run)),
    },
    Test {
        name: "tokens",
        needs: &[],
        alone: false,
        runs: [1, 10, 20],
        at_most: minutes(4, 6, 6),
        body: |run| Box::pin(tokens::tokens(run)),
    },
    Test {
        name: "tokens_blocked",
        needs: &[],
        alone: false,
        runs: [1, 5, 5],
        at_most: minutes(2, 6, 6),
        body: |run| Box::pin(tokens::blocked(run)),
    },
    Test {
        name: "odd_content",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 5, 5],
        at_most: minutes(3, 3, 3),
        body: |run| Box::pin(edge_content::content(run)),
    },
    Test {
        name: "odd_pages",
        needs: &[Need::Chromium],
        alone: false,
        runs: [1, 5, 5],
        at_most: minutes(3, 3, 3),
        body: |run| Box::pin(pages::pages(run)),
    },
    Test {
        name: "schema_mutations",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 1, 1],
        at_most: minutes(3, 10, 40),
        body: |run| Box::pin(schema::mutations(run)),
    },
    Test {
        name: "rotate_master",
        needs: &[Need::MariaDb],
        alone: false,
        runs: [1, 1, 2],
        at_most: minutes(4, 30, 60),
        body: |run| Box::pin(rotate::kills(run)),
    },
    Test {
        name: "tamper",
        needs: &[],
        alone: false,
        runs: [1, 2, 3],
        at_most: minutes(3, 12, 30),
        body: |run| Box::pin(tamper::tamper(run)),
    },
    Test {
        name: "fair",
        needs: &[],
        alone: true,
        runs: [1, 3, 3],
        at_most: minutes(4, 6, 6),
        body: |run| Box::pin(scale::fair(run)),
    },
    Test {
        name: "scale",
        needs: &[],
        alone: true,
        runs: [0, 1, 1],
        at_most: minutes(30, 45, 180),
        body: |run| Box::pin(scale::scale(run)),
    },
    Test {
        name: "disk_full",
        needs: &[Need::LoopMounts],
        alone: false,
        runs: [1, 10, 30],
        at_most: minutes(2, 4, 4),
        body: |run| Box::pin(process::disk_full(run)),
    },
    Test {
        name: "two_processes",
        needs: &[],
        alone: false,
        runs: [1, 10, 10],
        at_most: minutes(2, 2, 2),
        body: |run| Box::pin(process::two_processes(run)),
    },
    Test {
        name: "standby",
        needs: &[Need::MariaDb, Need::Namespaces],
        alone: false,
        runs: [1, 1, 2],
        at_most: minutes(5, 60, 170),
        body: |run| Box::pin(standby::rounds(run)),
    },
    Test {
        name: "stopped",
        needs: &[],
        alone: false,
        runs: [1, 5, 20],
        at_most: minutes(2, 12, 12),
        body: |run| Box::pin(process::stopped(run)),
    },
    Test {
        name: "bit_rot_changed",
        needs: &[],
        alone: false,
        runs: [1, 5, 5],
        at_most: minutes(3, 12, 60),
        body: |run| Box::pin(rot::changed(run)),
    },
    Test {
        name: "bit_rot_shortened",
        needs: &[],
        alone: false,
        runs: [1, 5, 5],
        at_most: minutes(3, 12, 60),
        body: |run| Box::pin(rot::shortened(run)),
    },
];
