//! Requests and replies of known and of new flows: every mode, family and protocol.

use crate::{
    case::{Case, Reaches, Returns},
    dialogue::Dialogue,
    world::{Kind, WEB_1, World},
};

/// Every kind. The simplest rows: look at these first if others fail as well.
pub fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for kind in Kind::all() {
        let one = Dialogue::new(kind);
        let world = World::new(kind);
        rows.extend([
            Case::new(
                format!("{kind}: a flow goes to its backend and back, over two interfaces"),
                world.clone(),
            )
            .establish(one, WEB_1)
            .step(one.later(), Reaches(WEB_1))
            .step(one.later_answer(WEB_1), Returns)
            .step(one.later(), Reaches(WEB_1)),
            Case::new(
                format!("{kind}: a flow goes to its backend and back, over one interface"),
                world.clone().with_one_interface(),
            )
            .establish(one, WEB_1)
            .step(one.later_answer(WEB_1), Returns)
            .step(one.later(), Reaches(WEB_1)),
            Case::new(
                format!("{kind}: a client on the backends' network is served through one interface"),
                world,
            )
            .establish(one.client(kind.ip.inside(77)), WEB_1)
            .step(one.client(kind.ip.inside(77)).later_answer(WEB_1), Returns),
        ]);
    }
    rows
}
