//! The binary `tidings`; everything is in the library.

fn main() -> std::process::ExitCode {
    tidings::cli::main()
}
