use proptest::prelude::*;

use super::*;
use crate::{
    problem::{Problem, ProblemKind},
    spec::{self, BackendPatch, NewBackend, ShareFlows},
};

#[test]
fn an_empty_overlay_changes_nothing() {
    let file = file(&[A, B]);

    let applied = Overlay::default().apply(&file);

    assert_eq!(applied.spec, file);
    assert!(applied.admin_states.is_empty() && applied.log.is_empty() && applied.warnings.is_empty());
}

#[test]
fn changes_are_applied_and_listed() {
    let file = file(&[A, B]);
    let mut overlay = Overlay::default();

    overlay.add(&file, &name("c"), &new("10.0.0.13:80")).unwrap();
    overlay.remove(&file, &name("b")).unwrap();
    overlay.patch(&file, &name("a"), &weight(7)).unwrap();
    overlay.patch(&file, &name("a"), &admin(AdminState::Drain)).unwrap();

    let applied = overlay.apply(&file);
    assert_eq!(told(&applied.spec), ["a 10.0.0.11:80 7", "c 10.0.0.13:80 100"]);
    assert_eq!(applied.admin_states, BTreeMap::from([(name("a"), AdminState::Drain)]));
    assert_eq!(
        overlay.differences(),
        ["web/a: weight 7 (file: 100), drain", "web/b: removed", "web/c: added, 10.0.0.13:80 weight 100"]
    );
}

#[test]
fn the_file_wins_if_its_definition_has_changed() {
    struct Row {
        change: fn(&mut Overlay, &Spec) -> Result<(), Problem>,
        then: &'static [&'static str],
        backends: &'static [&'static str],
        log: &'static [&'static str],
    }
    let rows = [
        Row {
            change: |overlay, file| overlay.patch(file, &name("a"), &weight(7)),
            then: &["a 10.0.0.11:80 50", B],
            backends: &["a 10.0.0.11:80 50", B],
            log: &[
                "web/a: changed in the configuration file: the command's change `weight 7 (file: 100)` is dropped",
            ],
        },
        Row {
            change: |overlay, file| overlay.patch(file, &name("a"), &weight(7)),
            then: &["a 10.0.0.11:80 7", B],
            backends: &["a 10.0.0.11:80 7", B],
            log: &[],
        },
        Row {
            change: |overlay, file| overlay.patch(file, &name("a"), &weight(7)),
            then: &[B],
            backends: &[B],
            log: &[
                "web/a: no longer in the configuration file: the command's change `weight 7 (file: 100)` is dropped",
            ],
        },
        Row {
            change: |overlay, file| overlay.patch(file, &name("a"), &weight(7)),
            then: &[A, "b 10.0.0.99:80 100"],
            backends: &["a 10.0.0.11:80 7", "b 10.0.0.99:80 100"],
            log: &[],
        },
        Row {
            change: |overlay, file| overlay.remove(file, &name("a")),
            then: &[A, B, "c 10.0.0.13:80 100"],
            backends: &[B, "c 10.0.0.13:80 100"],
            log: &[],
        },
        Row {
            change: |overlay, file| overlay.remove(file, &name("a")),
            then: &["a 10.0.0.21:80 100", B],
            backends: &["a 10.0.0.21:80 100", B],
            log: &["web/a: changed in the configuration file: the command's change `removed` is dropped"],
        },
        Row {
            change: |overlay, file| overlay.remove(file, &name("a")),
            then: &[B],
            backends: &[B],
            log: &[],
        },
        Row {
            change: |overlay, file| overlay.add(file, &name("c"), &new("10.0.0.13:80")),
            then: &[A, B, "c 10.0.0.33:80 5"],
            backends: &[A, B, "c 10.0.0.33:80 5"],
            log: &[
                "web/c: now defined in the configuration file: the command's change `added, 10.0.0.13:80 weight 100` is dropped",
            ],
        },
        Row {
            change: |overlay, file| overlay.add(file, &name("c"), &new("10.0.0.13:80")),
            then: &[B],
            backends: &[B, "c 10.0.0.13:80 100"],
            log: &[],
        },
    ];

    for row in rows {
        let mut overlay = Overlay::default();
        (row.change)(&mut overlay, &file(&[A, B])).unwrap();

        let applied = overlay.apply(&file(row.then));

        assert_eq!(told(&applied.spec), row.backends);
        assert_eq!(applied.log, row.log);
    }
}

#[test]
fn overridden_changes_do_not_come_back_with_the_old_file() {
    let mut overlay = Overlay::default();
    overlay.patch(&file(&[A]), &name("a"), &weight(7)).unwrap();

    let applied = overlay.apply(&file(&["a 10.0.0.11:80 50"]));

    assert_eq!(told(&applied.overlay.apply(&file(&[A])).spec), [A]);
}

#[test]
fn drain_and_maint_hold_until_ready_whatever_the_file_does() {
    let mut overlay = Overlay::default();
    overlay.patch(&file(&[A, B]), &name("a"), &admin(AdminState::Maint)).unwrap();

    for then in [&["a 10.0.0.21:80 5", B] as &[_], &[B], &[A, B]] {
        let applied = overlay.apply(&file(then));
        let is_there = then.len() == 2;

        assert_eq!(applied.admin_states.contains_key(&name("a")), is_there);
        assert_eq!(applied.log, [""; 0]);
        overlay = applied.overlay;
    }

    assert_eq!(overlay.differences(), ["web/a: maint"]);
    assert_eq!(
        overlay.apply(&file(&[B])).overlay.differences(),
        ["web/a: maint (no longer in the configuration file)"]
    );
    overlay.patch(&file(&[B]), &name("a"), &admin(AdminState::Ready)).unwrap();
    assert_eq!(overlay, Overlay::default());
}

#[test]
fn changes_that_are_undone_leave_no_entry() {
    let file = file(&[A, B]);
    let mut overlay = Overlay::default();

    overlay.patch(&file, &name("a"), &admin(AdminState::Drain)).unwrap();
    overlay.patch(&file, &name("a"), &admin(AdminState::Ready)).unwrap();
    overlay.patch(&file, &name("a"), &weight(0)).unwrap();
    overlay.patch(&file, &name("a"), &weight(100)).unwrap();
    overlay.add(&file, &name("c"), &new("10.0.0.13:80")).unwrap();
    overlay.patch(&file, &name("c"), &admin(AdminState::Maint)).unwrap();
    overlay.remove(&file, &name("c")).unwrap();
    overlay.remove(&file, &name("b")).unwrap();
    overlay.add(&file, &name("b"), &new("10.0.0.12:80")).unwrap();

    assert_eq!(overlay, Overlay::default());
}

#[test]
fn a_backend_that_moved_gives_its_old_address_away() {
    let file = file(&[A, B]);
    let mut overlay = Overlay::default();

    overlay.remove(&file, &name("a")).unwrap();
    overlay.add(&file, &name("a"), &new("10.0.0.21:80")).unwrap();
    overlay.add(&file, &name("c"), &new("10.0.0.11:80")).unwrap();

    let applied = overlay.apply(&file);
    assert_eq!(told(&applied.spec), ["a 10.0.0.21:80 100", B, "c 10.0.0.11:80 100"]);
    assert_eq!(overlay.differences()[0], "web/a: address 10.0.0.21:80 (file: 10.0.0.11:80)");
}

#[test]
fn a_change_that_cannot_be_applied_is_kept_and_reported() {
    let mut overlay = Overlay::default();
    overlay.add(&file(&[A]), &name("c"), &new("10.0.0.13:80")).unwrap();
    let taken = file(&[A, "d 10.0.0.13:80 100"]);

    let applied = overlay.apply(&taken);

    assert_eq!(told(&applied.spec), [A, "d 10.0.0.13:80 100"]);
    let reason = "`10.0.0.13:80` is already the address of web/d";
    let line = format!("web/c: `added, 10.0.0.13:80 weight 100` is not applied: {reason}");
    assert_eq!(applied.warnings, [line]);
    assert_eq!(told(&applied.overlay.apply(&file(&[A])).spec), [A, "c 10.0.0.13:80 100"]);
}

#[test]
fn a_change_of_weight_does_not_lose_the_address_to_a_waiting_backend() {
    let mut overlay = Overlay::default();
    overlay.add(&file(&[B]), &name("a0"), &new("10.0.0.11:80")).unwrap();
    let file = file(&[B, "z 10.0.0.11:80 100"]);

    overlay.patch(&file, &name("z"), &weight(7)).unwrap();

    assert_eq!(told(&overlay.apply(&file).spec), [B, "z 10.0.0.11:80 7"]);
}

#[test]
fn a_change_without_its_service_can_be_removed() {
    let mut overlay = Overlay::default();
    overlay.add(&file(&[A]), &name("c"), &new("10.0.0.13:80")).unwrap();
    let mut without = file(&[A]);
    without.services[0].name = "other".to_owned();

    assert_eq!(overlay.apply(&without).warnings.len(), 1);
    overlay.remove(&without, &name("c")).unwrap();

    assert_eq!(overlay, Overlay::default());
}

#[test]
fn a_backend_replies_for_one_service_whose_flows_are_computed() {
    let mut file = file(&[A]);
    let mut shop = Service::clone(&file.services[0]);
    shop.name = "shop".to_owned();
    file.services.push(shop.into());
    let mut add = |shares: [ShareFlows; 2]| {
        (0..2).for_each(|place| file.services[place].share_flows = shares[place]);
        // What `shop` has, once `web` has lost it.
        file.services[0].backends.clear();
        Overlay::default().add(&file, &name("c"), &new("10.0.0.11:80"))
    };

    let refused = add([ShareFlows::Exceptions; 2]).unwrap_err();
    assert_eq!(refused.kind, ProblemKind::Conflict);
    assert!(refused.detail.contains("already the address of shop/a"), "{}", refused.detail);
    add([ShareFlows::All, ShareFlows::Exceptions]).unwrap();
    add([ShareFlows::Exceptions, ShareFlows::All]).unwrap();
}

#[test]
fn a_rejected_change_has_a_kind_and_changes_nothing() {
    use ProblemKind::{Conflict, Invalid, NotFound};
    type Edit = fn(&mut Overlay, &Spec) -> Result<(), Problem>;
    let rows: [(Edit, ProblemKind, &str); 15] = [
        (|o, f| o.add(f, &BackendName::new("no", "c"), &new("10.0.0.13:80")), NotFound, "no service `no`"),
        (|o, f| o.add(f, &name("a"), &new("10.0.0.13:80")), Conflict, "web/a already exists"),
        (|o, f| o.add(f, &name("c"), &new("10.0.0.11:80")), Conflict, "already the address of web/a"),
        (|o, f| o.add(f, &name("c"), &new("[fd00::1]:80")), Invalid, "does not listen on IPv6"),
        (|o, f| o.add(f, &name("c"), &new("127.0.0.1:80")), Invalid, "loopback"),
        (|o, f| o.add(f, &name("c"), &new("10.0.0.13:0")), Invalid, "port"),
        (|o, f| o.add(f, &name("c"), &new("192.0.2.10:81")), Invalid, "listen address of service `web`"),
        (|o, f| o.add(f, &name("c/d"), &new("10.0.0.13:80")), Invalid, "is not a valid name"),
        (
            |o, f| o.add(f, &name("c"), &NewBackend { weight: 1001, ..new("10.0.0.13:80") }),
            Invalid,
            "0 to 1000",
        ),
        (|o, f| o.remove(f, &name("c")), NotFound, "no backend `web/c`"),
        (|o, f| o.remove(f, &BackendName::new("no", "c")), NotFound, "no service `no`"),
        (|o, f| o.patch(f, &name("c"), &weight(1)), NotFound, "no backend `web/c`"),
        (|o, f| o.patch(f, &name("c"), &admin(AdminState::Ready)), NotFound, "no backend `web/c`"),
        (|o, f| o.patch(f, &name("a"), &weight(1001)), Invalid, "0 to 1000"),
        (|o, f| o.patch(f, &name("a"), &BackendPatch::default()), Invalid, "nothing to change"),
    ];

    for (edit, kind, detail) in rows {
        let mut overlay = Overlay::default();

        let problem = edit(&mut overlay, &file(&[A, B])).unwrap_err();

        assert_eq!(problem.kind, kind, "{problem:?}");
        assert!(problem.detail.contains(detail), "{problem:?}");
        assert_eq!(overlay, Overlay::default());
    }
}

#[test]
fn a_removed_backend_is_not_found_until_it_is_added_again() {
    let file = file(&[A, B]);
    let mut overlay = Overlay::default();
    overlay.remove(&file, &name("a")).unwrap();

    assert_eq!(overlay.remove(&file, &name("a")).unwrap_err().kind, ProblemKind::NotFound);
    assert_eq!(overlay.patch(&file, &name("a"), &weight(1)).unwrap_err().kind, ProblemKind::NotFound);
    overlay.add(&file, &name("a"), &new("10.0.0.21:80")).unwrap();

    assert_eq!(told(&overlay.apply(&file).spec), ["a 10.0.0.21:80 100", B]);
}

#[test]
fn the_number_of_changes_is_limited() {
    let file = file(&[A, B]);
    let waiting = Change { file: None, command: None, admin_state: AdminState::Drain };
    let gone = |number: usize| (name(&format!("gone-{number}")), waiting.clone());
    let mut overlay = Overlay { entries: (0..MAX_CHANGES).map(gone).collect() };

    let problem = overlay.patch(&file, &name("a"), &weight(1)).unwrap_err();

    assert_eq!(problem.kind, ProblemKind::Conflict);
    overlay.remove(&file, &name("gone-0")).unwrap();
    overlay.patch(&file, &name("a"), &weight(1)).unwrap();
}

proptest! {
    #[test]
    fn apply_is_idempotent_and_its_outcome_makes_sense(edits in edits(), then in files()) {
        let (first, then) = (file(&[A, B]), file(&then.iter().map(String::as_str).collect::<Vec<_>>()));
        let mut overlay = Overlay::default();
        for edit in edits {
            let _ = edit.make(&mut overlay, &first);
        }

        let once = overlay.apply(&then);
        let twice = once.overlay.apply(&then);

        prop_assert_eq!(&twice.spec, &once.spec);
        prop_assert_eq!(&twice.overlay, &once.overlay);
        prop_assert_eq!(&twice.warnings, &once.warnings);
        prop_assert!(twice.log.is_empty());
        let backends = &once.spec.services[0].backends;
        for (place, backend) in backends.iter().enumerate() {
            prop_assert!(backends[..place].iter().all(|it| it.name != backend.name && it.address != backend.address));
        }
        for name in once.admin_states.keys() {
            prop_assert!(once.spec.definition(name).is_some());
        }
    }

    #[test]
    fn undoing_all_changes_leaves_no_entry(edits in edits()) {
        let file = file(&[A, B]);
        let mut overlay = Overlay::default();
        for edit in edits {
            let _ = edit.make(&mut overlay, &file);
        }

        for name in overlay.entries.clone().into_keys() {
            let _ = overlay.patch(&file, &name, &admin(AdminState::Ready));
            let _ = overlay.remove(&file, &name);
        }
        for it in &file.services[0].backends {
            let body = NewBackend { address: it.address, weight: it.weight, backup: it.backup, max_flows: it.max_flows };
            let _ = overlay.add(&file, &name(&it.name), &body);
        }

        prop_assert_eq!(overlay, Overlay::default());
    }
}

/// `NAME ADDRESS WEIGHT`
const A: &str = "a 10.0.0.11:80 100";
const B: &str = "b 10.0.0.12:80 100";

#[derive(Clone, Debug)]
enum Edit {
    Add(u8, u8),
    Remove(u8),
    Weight(u8, u32),
    Admin(u8, AdminState),
}

impl Edit {
    fn make(&self, overlay: &mut Overlay, file: &Spec) -> Result<(), Problem> {
        match *self {
            Self::Add(it, host) => overlay.add(file, &letter(it), &new(&format!("10.0.0.{}:80", 11 + host))),
            Self::Remove(it) => overlay.remove(file, &letter(it)),
            Self::Weight(it, to) => overlay.patch(file, &letter(it), &weight(to)),
            Self::Admin(it, state) => overlay.patch(file, &letter(it), &admin(state)),
        }
    }
}

/// Few names and addresses, so that they collide.
fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let states = prop_oneof![Just(AdminState::Ready), Just(AdminState::Drain), Just(AdminState::Maint)];
    let edit = prop_oneof![
        (0..4u8, 0..4u8).prop_map(|(it, host)| Edit::Add(it, host)),
        (0..4u8).prop_map(Edit::Remove),
        (0..4u8, 0..3u32).prop_map(|(it, to)| Edit::Weight(it, to)),
        (0..4u8, states).prop_map(|(it, state)| Edit::Admin(it, state)),
    ];
    proptest::collection::vec(edit, 0..12)
}

/// Some of four backends at some of four addresses, each used once at most.
fn files() -> impl Strategy<Value = Vec<String>> {
    let hosts = Just([0, 1, 2, 3]).prop_shuffle();
    (hosts, proptest::array::uniform4(proptest::option::of(0..3u32))).prop_map(|(hosts, weights)| {
        let backend = |it: usize| {
            Some(format!("{} 10.0.0.{}:80 {}", letter(it as u8).backend, 11 + hosts[it], weights[it]?))
        };
        let some: Vec<_> = (0..4).filter_map(backend).collect();
        if some.is_empty() { vec![A.to_owned()] } else { some }
    })
}

fn letter(number: u8) -> BackendName {
    name(&char::from(b'a' + number).to_string())
}

fn name(backend: &str) -> BackendName {
    BackendName::new("web", backend)
}

fn new(address: &str) -> NewBackend {
    NewBackend { address: address.parse().unwrap(), weight: 100, backup: false, max_flows: 0 }
}

fn weight(weight: u32) -> BackendPatch {
    BackendPatch { weight: Some(weight), ..BackendPatch::default() }
}

fn admin(state: AdminState) -> BackendPatch {
    BackendPatch { admin_state: Some(state), ..BackendPatch::default() }
}

fn told(spec: &Spec) -> Vec<String> {
    let tell = |it: &Backend| format!("{} {} {}", it.name, it.address, it.weight);
    spec.services[0].backends.iter().map(tell).collect()
}

fn file(backends: &[&str]) -> Spec {
    let mut text = String::from(
        "version = 1\n[[interface]]\nname = 'eth0'\n\
         [[service]]\nname = 'web'\nlisten = ['192.0.2.10:80']\nsource = ['10.0.0.1']\n",
    );
    for backend in backends {
        let mut words = backend.split(' ');
        let [name, address, weight] = std::array::from_fn(|_| words.next().unwrap());
        text += &format!("[[service.backend]]\nname = '{name}'\naddress = '{address}'\nweight = {weight}\n");
    }
    spec::parse("test.toml", &text).unwrap()
}
