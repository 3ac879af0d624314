//! Runs a workload described by rt-app JSON and reports how each job fared.
fn main() {}
