//! Passive ejection in the reference.

/// Failures in a row that eject a backend.
const FAILURES: u32 = 3;
/// For how long, when it is ejected and after each probe.
const EJECTED_S: [u64; 5] = [1, 2, 4, 8, 8];

/// What is known of a backend's failures since its last answer.
#[derive(Clone, Default)]
struct Failures {
    in_a_row: u32,
    /// How often it was probed, and until when it gets no flow.
    ejected: Option<(usize, u64)>,
    /// When it last answered.
    answered_s: Option<u64>,
}

/// All backends of a pool.
pub struct Ejections(Vec<Failures>);

impl Ejections {
    /// Of this many backends, none has failed.
    pub fn new(backends: usize) -> Self {
        Self(vec![Failures::default(); backends])
    }

    /// Is this backend ejected?
    pub fn has(&self, backend: usize) -> bool {
        self.0[backend].ejected.is_some()
    }

    /// The backend has failed. `most` backends may be ejected at the same time.
    pub fn failed(&mut self, backend: usize, most: usize, now_s: u64) {
        let ejected = self.0.iter().filter(|it| it.ejected.is_some()).count();
        let it = &mut self.0[backend];
        it.in_a_row += 1;
        if it.in_a_row >= FAILURES && it.ejected.is_none() && ejected < most {
            it.ejected = Some((0, now_s + EJECTED_S[0]));
        }
    }

    /// The backend has answered.
    pub fn answered(&mut self, backend: usize, now_s: u64) {
        self.0[backend] = Failures { answered_s: Some(now_s), ..Failures::default() };
    }

    /// Has the backend answered at this time or later?
    pub fn has_answered_since(&self, backend: usize, since_s: u64) -> bool {
        self.0[backend].answered_s.is_some_and(|answered_s| answered_s >= since_s)
    }

    /// May a flow get this backend? If it is ejected, the flow is the only probe until the backend may be probed again.
    pub fn admits(&mut self, backend: usize, now_s: u64) -> bool {
        let Some((probes, until_s)) = &mut self.0[backend].ejected else { return true };
        if now_s <= *until_s {
            return false;
        }
        *probes = (*probes + 1).min(EJECTED_S.len() - 1);
        *until_s = now_s + EJECTED_S[*probes];
        true
    }
}
