//! How long our own hot paths take, for people: `cargo bench -p fleet-benches --bench wall`.

use criterion::{Criterion, criterion_group, criterion_main};
use fleet_benches::{check, count, decode, ledger, parse, record, sync_answer};
use std::hint::black_box;

fn hot_paths(criterion: &mut Criterion) {
    let (answer, ledger, record) = (sync_answer(), ledger(), record());
    criterion.bench_function("decode a sync of 100 messages", |bench| {
        bench.iter(|| decode(black_box(&answer)));
    });
    criterion.bench_function("judge a ledger of 10,000 deliveries", |bench| {
        bench.iter(|| count(black_box(&ledger)));
    });
    criterion.bench_function("check a history of 200 messages", |bench| {
        bench.iter(|| check(black_box(&record)));
    });
    criterion.bench_function("parse ten runbooks", |bench| {
        bench.iter(|| black_box(parse()));
    });
}

criterion_group!(benches, hot_paths);
criterion_main!(benches);
