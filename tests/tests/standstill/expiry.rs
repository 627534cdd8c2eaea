//! A search for flows that have expired, while their clients send again.

use tests::{
    case::{Opens, Returns},
    world::WEB_1,
};

use crate::{at_every_access, both, lives, the_last_record};

#[test]
fn a_search_retires_no_flow_that_has_got_the_record_of_an_expired_one() {
    at_every_access(both(), |kind| {
        let (old, new, case) = the_last_record(kind, "a search, and a client whose flow has expired");
        // It searches, and is then refused.
        let refused = new.first().with(|packet| packet.hops = 1);
        let case = case.step(old.first(), Opens(WEB_1)).after_s(121);
        let case = case
            .preempted(refused, |case| case.step(old.first(), Opens(WEB_1)).step(old.answer(WEB_1), Returns));
        lives(case, old)
    });
}
