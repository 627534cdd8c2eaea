//! The pools that the model knows.

use lb_common::{pool::Picker, service::Reject};

use crate::world::{Kind, World};

/// The backends of a run, and what protects clients from those that fail.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// How many clients there are.
    pub clients: u16,
    /// How many backends there are.
    pub backends: usize,
    /// Does a client that is refused get another backend?
    pub retries: bool,
    /// Are backends that fail ejected?
    pub ejects: bool,
    /// The maximum number of flows of each backend. 0: no limit.
    pub max_flows: u32,
    /// How a new flow gets its backend.
    pub picker: Picker,
    /// The weights of all backends, again and again. The pickers that compare loads use them.
    pub weights: &'static [u32],
    /// What happens to packets without a flow or a backend.
    pub reject: Reject,
}

impl Pool {
    /// With eight backends, a reopening flow seldom gets that of the closing one.
    pub const PLAIN: Self = Self {
        clients: 2,
        backends: NAMES.len(),
        retries: false,
        ejects: false,
        max_flows: 0,
        picker: Picker::Turn,
        weights: &[100],
        reject: Reject::Reset,
    };
    /// A refused client gets another backend, up to two times.
    pub const RETRYING: Self = Self { retries: true, backends: 5, ..Self::PLAIN };
    /// The same, and up to half of the backends are ejected. There are few for the clients, so that they fail again and again.
    pub const EJECTING: Self = Self { ejects: true, clients: 4, backends: 3, ..Self::RETRYING };
    /// Less room than the clients need.
    pub const LIMITED: Self = Self { max_flows: 1, backends: 3, ..Self::PLAIN };
    /// The fewest flows for the weight, and packets without a flow are dropped.
    pub const LEAST: Self = Self {
        picker: Picker::LeastOfAll,
        weights: &[1, 2, 3],
        reject: Reject::Drop,
        clients: 6,
        backends: 3,
        ..Self::PLAIN
    };
    /// The same with room for fewer flows than the clients need.
    pub const LEAST_LIMITED: Self = Self { max_flows: 1, ..Self::LEAST };
    /// The fewest flows of two.
    pub const TWO: Self = Self { picker: Picker::LeastOfTwo, backends: 5, ..Self::LEAST };
    /// By the hash of the tuple, with retries and ejection.
    pub const HASHED: Self = Self { picker: Picker::FlowHash, ..Self::EJECTING };
    /// By the hash of the client's address.
    pub const BY_SOURCE: Self = Self { picker: Picker::SourceHash, ..Self::EJECTING };

    /// A world with this pool.
    pub fn world(self, kind: Kind) -> World {
        let mut world = World::new(kind);
        for (number, name) in (11..).zip(NAMES).take(self.backends).skip(world.services[0].backends.len()) {
            world = world.backend(name, kind.ip.inside(number));
        }
        world.with(|world| {
            let service = &mut world.services[0];
            (service.retries, service.ejects) = (self.retries, self.ejects);
            (service.picker, service.reject) = (self.picker, self.reject);
            for (backend, weight) in service.backends.iter_mut().zip(self.weights.iter().cycle()) {
                (backend.max_flows, backend.weight) = (self.max_flows, *weight);
            }
        })
    }
}

/// The names of backends, by their numbers.
pub const NAMES: [&str; 8] = ["web-1", "web-2", "web-3", "web-4", "web-5", "web-6", "web-7", "web-8"];
