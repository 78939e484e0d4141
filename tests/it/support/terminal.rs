//! A real terminal of a given size: a pseudo-terminal that a command runs on, and the screen it leaves.

#![expect(clippy::unwrap_used, reason = "a test fails by panic")]

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Tall enough that nothing of a test scrolls away.
const ROWS: u16 = 400;

/// What a command left on its terminal.
pub(crate) struct Shown {
    pub(crate) code: Option<i32>,
    /// As it was written, with all control sequences.
    pub(crate) raw: String,
    /// As a person sees it; lines that the terminal itself wrapped stay apart.
    pub(crate) lines: Vec<String>,
}

impl Shown {
    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// Runs a command to its end on a terminal of this width, and types `input` first.
pub(crate) fn run(command: Command, columns: u16, input: &str) -> Shown {
    run_resized(command, (columns, columns), input)
}

/// Runs a command to its end on a terminal, and types an answer when it asks.
pub(crate) fn run_asked(command: Command, columns: u16, question: &str, answer: &str) -> Shown {
    run_with(command, (columns, columns), Some((question, answer)), "")
}

/// The same on a terminal that gets another width as soon as something of a bar is seen.
pub(crate) fn run_resized(command: Command, widths: (u16, u16), input: &str) -> Shown {
    run_with(command, widths, None, input)
}

fn run_with(
    mut command: Command,
    (columns, later): (u16, u16),
    mut question: Option<(&str, &str)>,
    input: &str,
) -> Shown {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
    let side = || Stdio::from(OpenOptions::new().read(true).write(true).open(path).unwrap());
    command.env("TERM", "xterm-256color").env_remove("COLUMNS").env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
    command.stdin(side()).stdout(side()).stderr(side());
    let mut child = command.spawn().unwrap();
    // The command holds the other side; with it the terminal ends.
    drop(command);
    let mut screen = File::from(master);
    let mut keyboard = screen.try_clone().unwrap();
    keyboard.write_all(input.as_bytes()).unwrap();
    let (mut raw, mut part) = (Vec::new(), [0; 4096]);
    let mut parser = vt100::Parser::new(ROWS, columns, 0);
    let mut is_resized = columns == later;
    // A terminal without another side answers with an error.
    while let Ok(count @ 1..) = screen.read(&mut part) {
        raw.extend_from_slice(&part[..count]);
        parser.process(&part[..count]);
        if let Some((_, answer)) = question.take_if(|(asked, _)| parser.screen().contents().contains(*asked)) {
            // A command that hides what is typed drops what was typed before.
            std::thread::sleep(std::time::Duration::from_millis(500));
            keyboard.write_all(answer.as_bytes()).unwrap();
        }
        if !is_resized && parser.screen().contents().contains("] ") {
            is_resized = true;
            tcsetwinsize(&screen, Winsize { ws_col: later, ..size }).unwrap();
            parser.screen_mut().set_size(ROWS, later);
        }
    }
    let status = child.wait().unwrap();
    let mut lines: Vec<String> = parser.screen().rows(0, later).map(|line| line.trim_end().to_owned()).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    Shown { code: status.code(), raw: String::from_utf8_lossy(&raw).into_owned(), lines }
}
