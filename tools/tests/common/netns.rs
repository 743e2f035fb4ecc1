//! Commands in network namespaces, made and removed with `ip`.

use std::process::{Command, Stdio};

/// `command`, to be run in a namespace.
pub fn inside(space: &str, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", space]);
    inside.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => inside.env(key, value),
            None => inside.env_remove(key),
        };
    }
    inside
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
