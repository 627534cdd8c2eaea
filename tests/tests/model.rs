//! Random sequences of acts: the host engine does what the reference model does.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tests::{case, host::HostEngine, model, world::Kind};

const SEQUENCES: u32 = 10_000;
const ACTS: usize = 80;

fn agrees(kind: Kind) {
    let mut runner =
        TestRunner::new(Config { cases: SEQUENCES, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&model::acts(ACTS), |acts| {
        case::run(&model::case(kind, &acts), &mut HostEngine::default())
            .map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
        Ok(())
    });

    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn tcp_flows_follow_the_model() {
    Kind::tcp().into_iter().for_each(agrees);
}

#[test]
fn udp_flows_follow_the_model() {
    Kind::udp().into_iter().for_each(agrees);
}
