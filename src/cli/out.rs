//! The one way the commands print: results go to standard output, one line at a time.
//!
//! A reader that went away (`waybill shops list | head -1`) is no failure: the rest is dropped
//! silently. Any other write error is returned, so that a full disk behind a redirect shows.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::time::Duration;

use console::Term;
use serde::Serialize;
use tracing::Level;

use super::log::{self, Stream};
use super::table::{self, Cell, Page};

/// Columns of a terminal that does not say how many it has.
const WIDTH_DEFAULT: usize = 80;

/// Standard output, or a buffer in tests.
pub(super) struct Out {
    to: Box<dyn Write + Send>,
    reader_left: bool,
    is_terminal: bool,
    /// Present in a service, whose lines wait for no reader.
    stream: Option<Stream>,
}

impl Out {
    pub(super) fn stdout() -> Out {
        let is_terminal = io::stdout().is_terminal();
        Out { to: Box::new(io::stdout()), reader_left: false, is_terminal, stream: None }
    }

    /// Standard output that never blocks: a line that its reader does not take is dropped.
    pub(super) fn service() -> Out {
        let stream = Stream::stdout();
        Out { to: Box::new(stream.clone()), stream: Some(stream), ..Out::stdout() }
    }

    /// Whether all lines have been written, waiting at most so long.
    pub(super) async fn drained(&self, at_most: Duration) -> bool {
        match &self.stream {
            Some(stream) => stream.drained(at_most).await,
            None => true,
        }
    }

    #[cfg(test)]
    fn to(to: Box<dyn Write + Send>) -> Out {
        Out { to, reader_left: false, is_terminal: false, stream: None }
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// One line, and flushed: a script that waits for it gets it.
    ///
    /// # Errors
    /// What the system says, except for a reader that left.
    pub(super) fn line(&mut self, text: impl Display) -> io::Result<()> {
        if self.reader_left {
            return Ok(());
        }
        // One write a line: a service drops whole ones or none.
        match self.to.write_all(format!("{text}\n").as_bytes()).and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.reader_left = true;
                Ok(())
            }
            written => written,
        }
    }

    /// A sentence, which wraps between words on a terminal; what follows its first line is indented.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub(super) fn sentence(&mut self, text: &str, indent: usize) -> io::Result<()> {
        match self.is_terminal {
            true => table::wrap(text, terminal_width(), indent).into_iter().try_for_each(|line| self.line(line)),
            false => self.line(text),
        }
    }

    /// A table, as wide as the terminal; each row on one line where there is none.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub(super) fn table<C: Clone + Into<Cell>>(&mut self, heads: &[&str], rows: &[Vec<C>]) -> io::Result<()> {
        let rows: Vec<Vec<Cell>> =
            rows.iter().map(|row| row.iter().map(|cell| cell.clone().into()).collect()).collect();
        let page = Page { width: self.is_terminal.then(terminal_width), has_colors: self.has_colors() };
        let lines = table::render(heads, &rows, page);
        lines.into_iter().try_for_each(|line| self.line(line))
    }

    /// One JSON document.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        self.line(serde_json::to_string_pretty(value)?)
    }

    /// Whether colours are wanted.
    pub(super) fn has_colors(&self) -> bool {
        console::colors_enabled()
    }
}

/// The terminal's own word; then COLUMNS, which a shell may not keep up to date.
fn terminal_width() -> usize {
    let said = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns)).filter(|columns| *columns > 0);
    let variable = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| *columns > 0);
    said.or_else(variable).unwrap_or(WIDTH_DEFAULT)
}

/// A line on standard error: what went wrong, or what is awaited. When even that is closed, there
/// is nobody left to tell.
pub(super) fn tell(text: impl Display) {
    log::say(Level::INFO, text);
}

#[cfg(test)]
mod tests {
    use super::Out;
    use std::io::{self, ErrorKind, Write};

    struct Fails(ErrorKind);

    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_no_failure_and_a_full_disk_is_one() {
        let mut out = Out::to(Box::new(Fails(ErrorKind::BrokenPipe)));
        assert!(out.line("a").is_ok() && out.line("b").is_ok());
        let mut out = Out::to(Box::new(Fails(ErrorKind::StorageFull)));
        assert_eq!(out.line("a").unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
