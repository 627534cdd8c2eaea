//! Thousands of services: each has a port of its own, and the web server of each backend listens on all of them.

use std::{ops::RangeInclusive, time::Duration};

use lb_common::{
    limits::{DEFAULT_SLOTS, Room},
    net::Protocol,
    service::Mode,
};

use super::{
    Config, Family, Lab,
    config::{Check, Health, Limits, Service},
};

/// The port of the first service.
const FIRST_PORT: u16 = 10_000;

/// The ports of this many services.
pub const fn ports(services: u16) -> RangeInclusive<u16> {
    FIRST_PORT..=FIRST_PORT + services - 1
}

/// The name of the service at a port.
pub fn name(port: u16) -> String {
    format!("service-{port}")
}

/// This many IPv4 services over all backends, with an http check every 5 seconds.
pub fn config(lab: &Lab, services: u16) -> Config {
    let mut config = Config::new(lab);
    config.limits = Limits { room: Some(room(lab, services)), ..Limits::of_flows(262_144, 1024, 65_536) };
    config.services = ports(services).map(|port| service(lab, port)).collect();
    config
}

fn room(lab: &Lab, services: u16) -> Room {
    let services = u32::from(services);
    Room { services, backends: services * lab.backends.len() as u32, slots: DEFAULT_SLOTS }
}

fn service(lab: &Lab, port: u16) -> Service {
    let health = Health {
        check: Check::Http { path: "/healthz" },
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(5),
        rise: 2,
        fall: 3,
    };
    let service = Service::over(lab, &name(port), Protocol::Tcp, Mode::FullNat, port, port);
    Service { health, ..service.only(Family::V4) }
}
