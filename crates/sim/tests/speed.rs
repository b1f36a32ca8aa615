//! What makes runs faster changes nothing in them.

use florin_sim::{Options, Report, run, run_without_memory};

#[test]
fn the_memory_changes_no_event() {
    // With e-cash and channels, and attackers on both; and a larger committee.
    let usual = (4..=5).map(|seed| Options { seconds: 4, ..Options::new(seed) });
    for options in usual.chain([Options { seconds: 2, authorities: 7, ..Options::new(2) }]) {
        let (with, without) = (run(options.clone()), run_without_memory(options));
        assert_eq!(with, without);
        assert!(with.violations.is_empty(), "{with}");
    }
}

#[test]
fn slow_clients_do_less_and_finish_all_the_same() {
    let options = |pace| Options { seconds: 20, pace, ..Options::new(4) };
    let (usual, slow): (Report, Report) = (run(options(1)), run(options(20)));
    assert!(slow.violations.is_empty(), "{slow}");
    let (often, seldom) = (usual.operations.signed, slow.operations.signed);
    assert!(seldom > 10 && seldom * 4 < often, "{often} orders, {seldom} orders");
    assert_eq!(slow.operations.finals, seldom, "{slow}");
}
