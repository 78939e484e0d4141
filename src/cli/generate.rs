//! `waybill generate`: completions and man pages, generated from the argument definitions.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use clap_complete::Shell;

use super::command_error::CommandResult;
use super::output::Out;

/// Write shell completions or man pages.
///
/// `scripts/install` puts both in place. They are generated from the arguments of this version.
#[derive(clap::Args)]
#[command(arg_required_else_help = true)]
#[command(after_long_help = "Examples:\n  waybill generate completions bash > /etc/bash_completion.d/waybill\n  \
    waybill generate man /usr/local/share/man/man1\n\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(super) struct Args {
    #[command(subcommand)]
    act: Act,
}

#[derive(Subcommand)]
enum Act {
    /// Print the completions of a shell
    Completions { shell: Shell },
    /// Write a man page for each command into a folder, which is created
    Man { dir: PathBuf },
}

/// `program`: the whole command line.
pub(super) fn run(args: Args, mut program: clap::Command, mut out: Out) -> CommandResult {
    match args.act {
        Act::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut program, "waybill", &mut text);
            out.line(String::from_utf8_lossy(&text).trim_end())?;
        }
        Act::Man { dir } => {
            std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            clap_mangen::generate_to(program, &dir).with_context(|| dir.display().to_string())?;
        }
    }
    Ok(())
}
