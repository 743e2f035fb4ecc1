//! `trunkline completions` and `trunkline man`: made of the very definition that reads the command
//! line, so that they never differ from it.

use crate::cli::Cli;
use crate::exit::{Exit, Failure};
use crate::print;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// What `trunkline completions --help` ends with.
pub const COMPLETIONS_HELP: &str = "\
Examples:
  trunkline completions bash > ~/.local/share/bash-completion/completions/trunkline
  trunkline completions zsh > ~/.zfunc/_trunkline
  trunkline completions fish > ~/.config/fish/completions/trunkline.fish

Exit codes: 0 printed, 1 the output could not be written, 2 usage";

/// What `trunkline man --help` ends with.
pub const MAN_HELP: &str = "\
Examples:
  trunkline man --dir ~/.local/share/man/man1   then: man trunkline-bench
  trunkline man | man -l -                      only the page of trunkline itself

Exit codes: 0 written, 1 a page could not be written, 2 usage";

/// Options of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For which shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for every command into this folder [default: print that of trunkline].
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}

/// The subcommand `completions`.
pub fn completions(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "trunkline", &mut script);
    io::stdout().write_all(&script).map_err(print::failure)?;
    Ok(Exit::Done)
}

/// The subcommand `man`.
pub fn man(args: &ManArgs) -> Result<Exit, Failure> {
    let mut command = Cli::command();
    command.build();
    let Some(dir) = &args.dir else {
        let page = page(command).map_err(|e| Failure::local(e.to_string()))?;
        io::stdout().write_all(&page).map_err(print::failure)?;
        return Ok(Exit::Done);
    };
    fs::create_dir_all(dir).map_err(|e| Failure::cannot_write(dir, &e))?;
    let mut names = Vec::new();
    write_all(dir, command, &mut names)?;
    println!("{} pages in {}", names.len(), dir.display());
    Ok(Exit::Done)
}

/// The page of a command and those of its subcommands.
fn write_all(dir: &Path, command: clap::Command, names: &mut Vec<String>) -> Result<(), Failure> {
    let subcommands: Vec<clap::Command> =
        command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned().collect();
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let path = dir.join(format!("{name}.1"));
    let page = page(command).map_err(|e| Failure::cannot_write(&path, &e))?;
    fs::write(&path, page).map_err(|e| Failure::cannot_write(&path, &e))?;
    names.push(name);
    for sub in subcommands {
        write_all(dir, sub, names)?;
    }
    Ok(())
}

fn page(command: clap::Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).manual("Trunkline").render(&mut page)?;
    Ok(page)
}
