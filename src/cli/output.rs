//! Prints results to standard output, one line at a time. All commands print through it.
//!
//! A closed pipe (`waybill shops list | head -1`) is not an error: the rest is dropped silently. Any other write error
//! is returned, so that a full disk behind a redirect is noticed.

use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal as _, Write};
use std::time::Duration;

use console::Term;
use serde::Serialize;
use tracing::Level;

use super::log::{self, Stream};
use super::table::{self, OutputPage, TableCell};

/// Width of a terminal that does not report its own.
const WIDTH_DEFAULT: usize = 80;

/// Standard output, or a buffer in tests.
pub(super) struct Out {
    to: Box<dyn Write + Send>,
    reader_left: bool,
    is_terminal: bool,
    /// Set in a service, whose output never blocks.
    stream: Option<Stream>,
}

impl Out {
    pub(super) fn stdout() -> Out {
        let is_terminal = io::stdout().is_terminal();
        Out { to: Box::new(io::stdout()), reader_left: false, is_terminal, stream: None }
    }

    /// Standard output that never blocks: lines that nothing reads are dropped.
    pub(super) fn service() -> Out {
        let stream = Stream::stdout();
        Out { to: Box::new(stream.clone()), stream: Some(stream), ..Out::stdout() }
    }

    /// Waits up to `at_most` for all lines to be written; returns whether they were.
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

    /// Prints one line and flushes it, so that a waiting script sees it.
    ///
    /// # Errors
    /// Any write error but a closed pipe.
    pub(super) fn line(&mut self, text: impl Display) -> io::Result<()> {
        if self.reader_left {
            return Ok(());
        }
        // One write per line: a service drops only whole lines.
        match self.to.write_all(format!("{text}\n").as_bytes()).and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.reader_left = true;
                Ok(())
            }
            written => written,
        }
    }

    /// Prints a sentence, wrapped between words on a terminal, with a hanging indent.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub(super) fn sentence(&mut self, text: &str, indent: usize) -> io::Result<()> {
        match self.is_terminal {
            true => table::wrap(text, terminal_width(), indent).into_iter().try_for_each(|line| self.line(line)),
            false => self.line(text),
        }
    }

    /// Prints a table as wide as the terminal; without one, each row on one line.
    ///
    /// # Errors
    /// As [`Out::line`].
    pub(super) fn table<C: Clone + Into<TableCell>>(&mut self, heads: &[&str], rows: &[Vec<C>]) -> io::Result<()> {
        let rows: Vec<Vec<TableCell>> =
            rows.iter().map(|row| row.iter().map(|cell| cell.clone().into()).collect()).collect();
        let page = OutputPage { width: self.is_terminal.then(terminal_width), has_colors: self.has_colors() };
        let lines = table::render(heads, &rows, page);
        lines.into_iter().try_for_each(|line| self.line(line))
    }

    /// The rows to show as an example: all, or `blocks_max` if each would be a block of lines.
    pub(super) fn example<'a, C: Clone + Into<TableCell>>(
        &self,
        heads: &[&str],
        rows: &'a [Vec<C>],
        blocks_max: usize,
    ) -> &'a [Vec<C>] {
        let cells: Vec<Vec<TableCell>> =
            rows.iter().map(|row| row.iter().map(|cell| cell.clone().into()).collect()).collect();
        let page = OutputPage { width: self.is_terminal.then(terminal_width), has_colors: false };
        let shown = if table::side_by_side(heads, &cells, page).is_some() { rows.len() } else { blocks_max };
        rows.get(..shown).unwrap_or(rows)
    }

    /// Prints one JSON document.
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

/// The width that the terminal reports, else COLUMNS, which a shell may not keep up to date.
fn terminal_width() -> usize {
    let said = Term::stdout().size_checked().map(|(_, columns)| usize::from(columns)).filter(|columns| *columns > 0);
    let variable = || std::env::var("COLUMNS").ok()?.parse().ok().filter(|columns| *columns > 0);
    said.or_else(variable).unwrap_or(WIDTH_DEFAULT)
}

/// Prints a line to standard error: a problem, or progress. Errors are ignored, as there is nowhere to report them.
pub(super) fn print_stderr(text: impl Display) {
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
    fn a_closed_pipe_is_no_error_but_a_full_disk_is() {
        let mut out = Out::to(Box::new(Fails(ErrorKind::BrokenPipe)));
        assert!(out.line("a").is_ok() && out.line("b").is_ok());
        let mut out = Out::to(Box::new(Fails(ErrorKind::StorageFull)));
        assert_eq!(out.line("a").unwrap_err().kind(), ErrorKind::StorageFull);
    }
}
