//! `link-emulator`: a link between two network namespaces. See the library for what it does to
//! packets, and `--help`.

#[cfg(target_os = "linux")]
mod emulator;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    emulator::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("link-emulator: Linux only: it needs network namespaces and TUN devices");
    std::process::ExitCode::from(125)
}
