//! Random sequences of acts: the host engine does what the reference model does.

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tests::{
    case,
    host::HostEngine,
    model::{self, Pool},
    world::Kind,
};

const SEQUENCES: u32 = 10_000;
const ACTS: usize = 80;

fn agree(kinds: impl IntoIterator<Item = Kind>, pool: Pool) {
    for kind in kinds {
        let config = Config { cases: SEQUENCES, failure_persistence: None, ..Config::default() };
        let outcome = TestRunner::new(config).run(&model::acts(pool, ACTS), |acts| {
            case::run(&model::case(kind, pool, &acts), &mut HostEngine::default())
                .map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            Ok(())
        });

        if let Err(error) = outcome {
            panic!("{error}");
        }
    }
}

#[test]
fn tcp_flows_follow_the_model() {
    agree(Kind::tcp(), Pool::PLAIN);
}

#[test]
fn udp_flows_follow_the_model() {
    agree(Kind::udp(), Pool::PLAIN);
}

#[test]
fn flows_of_refused_clients_follow_the_model() {
    agree(Kind::tcp(), Pool::RETRYING);
}

#[test]
fn flows_of_backends_that_are_ejected_follow_the_model() {
    agree(Kind::tcp(), Pool::EJECTING);
}

#[test]
fn flows_follow_the_model_with_least_connections() {
    for pool in [Pool::LEAST, Pool::LEAST_LIMITED] {
        agree(Kind::tcp().into_iter().chain(Kind::udp()), pool);
    }
}

#[test]
fn flows_follow_the_model_with_pickers_that_hash() {
    agree(Kind::tcp().into_iter().chain(Kind::udp()), Pool::TWO);
    for pool in [Pool::HASHED, Pool::BY_SOURCE] {
        agree(Kind::tcp(), pool);
    }
}

#[test]
fn flows_of_backends_with_max_flows_follow_the_model() {
    agree(Kind::tcp().into_iter().chain(Kind::udp()), Pool::LIMITED);
}
