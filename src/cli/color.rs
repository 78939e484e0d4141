//! Decides about colours: by `--color`, else by the usual variables, else only on a terminal.

use std::io::{IsTerminal as _, stderr, stdout};

use clap::ValueEnum;

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum When {
    /// On a terminal, unless NO_COLOR is set; also elsewhere when CLICOLOR_FORCE is
    #[default]
    Auto,
    /// Also into files and pipes
    Always,
    /// Nowhere
    Never,
}

/// Sets it for `console` and everything based on it, for the whole process.
pub(super) fn choose(when: When) {
    let is_dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
    let wanted = |is_terminal: bool| decide(when, set("NO_COLOR"), set("CLICOLOR_FORCE"), is_terminal && !is_dumb);
    console::set_colors_enabled(wanted(stdout().is_terminal()));
    console::set_colors_enabled_stderr(wanted(stderr().is_terminal()));
}

/// Whether a variable is set; `CLICOLOR_FORCE=0` counts as unset.
fn set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}

fn decide(when: When, no_color: bool, force: bool, is_terminal: bool) -> bool {
    match when {
        When::Always => true,
        When::Never => false,
        When::Auto => !no_color && (force || is_terminal),
    }
}

#[cfg(test)]
mod tests {
    use super::{When, decide};

    #[test]
    fn the_flag_overrides_the_variables_which_override_the_terminal() {
        assert!(decide(When::Always, true, false, false));
        assert!(!decide(When::Never, false, true, true));
        assert!(decide(When::Auto, false, false, true) && !decide(When::Auto, false, false, false));
        assert!(!decide(When::Auto, true, true, true));
        assert!(decide(When::Auto, false, true, false));
    }
}
