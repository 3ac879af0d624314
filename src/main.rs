//! Entry point: parse, set up the log, dispatch, exit code.
fn main() {}
