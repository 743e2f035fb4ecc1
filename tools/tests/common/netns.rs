//! Commands in network namespaces, made and removed with `ip`.

use std::process::{Command, Stdio};

/// `command`, to be run where the test is.
pub fn here(command: &Command) -> Command {
    with_all_of(Command::new(command.get_program()), command)
}

/// `command`, to be run in a namespace.
pub fn inside(space: &str, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", space]).arg(command.get_program());
    with_all_of(inside, command)
}

/// Gives `to` the arguments and the environment of another command.
fn with_all_of(mut to: Command, other: &Command) -> Command {
    to.args(other.get_args()).stdin(Stdio::null());
    for (key, value) in other.get_envs() {
        match value {
            Some(value) => to.env(key, value),
            None => to.env_remove(key),
        };
    }
    to
}

/// `ip` with these arguments.
pub fn ip(args: &str) -> Result<(), String> {
    succeed(Command::new("ip").args(args.split(' ')), &format!("ip {args}"))
}

/// Runs a command that has to succeed; `what` names it in the error.
pub fn succeed(command: &mut Command, what: &str) -> Result<(), String> {
    let output = command.output().map_err(|e| format!("{what}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
