//! `peers`: see the library.

#[cfg(feature = "peers")]
fn main() -> std::process::ExitCode {
    trunkline_peers::program::main()
}

#[cfg(not(feature = "peers"))]
fn main() -> std::process::ExitCode {
    eprintln!(
        "built without the other transports; this builds and runs everything:\n  \
         cargo run --release -p trunkline-peers --features peers -- --help"
    );
    std::process::ExitCode::FAILURE
}
