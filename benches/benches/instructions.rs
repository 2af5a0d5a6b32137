//! How many instructions our own hot paths may take, as valgrind counts them: more than that fails. The counts are of the
//! profile of the tests, so that nothing is compiled for them alone:
//! `cargo bench -p fleet-benches --bench instructions --profile dev`.

#![expect(
    missing_docs,
    unused_qualifications,
    reason = "what gungraun's macros make of it"
)]

use fleet_benches::{check, count, decode, ledger, parse, record, sync_answer};
use fleet_load::ledger::{Counts, Ledger};
use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use std::hint::black_box;

/// A fifth above what was counted, as a limit.
fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]));
    config
}

#[library_benchmark(config = at_most(6_300_000))]
#[bench::busy_room(sync_answer())]
fn decode_sync(answer: Vec<u8>) -> usize {
    black_box(decode(black_box(&answer)))
}

#[library_benchmark(config = at_most(108_000_000))]
#[bench::ten_thousand(ledger())]
fn judge_ledger(ledger: Ledger) -> Counts {
    black_box(count(black_box(&ledger)))
}

#[library_benchmark(config = at_most(81_000_000))]
#[bench::two_hundred(record())]
fn check_history(record: fleet_benches::Record) -> usize {
    black_box(check(black_box(&record)).doubts.len())
}

#[library_benchmark(config = at_most(24_300_000))]
#[bench::ten(())]
fn parse_runbooks((): ()) -> usize {
    black_box(parse())
}

library_benchmark_group!(
    name = hot_paths,
    benchmarks = [decode_sync, judge_ledger, check_history, parse_runbooks]
);
main!(library_benchmark_groups = hot_paths);
