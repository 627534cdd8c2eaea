//! TCP without a flow opens none, whatever its flags. [`super::reject`] has what is answered.

use lb_common::reason::Reason;
use lb_ebpf::packet::tcp::{ACK, FIN, RST, SYN};

use crate::{
    case::{Case, Drops, Opens, Passes, Resets},
    dialogue::Dialogue,
    packet::Packet,
    world::{Kind, WEB_1, World, network::BACK},
};

const URG_PSH: u8 = 0x28;

/// TCP over both families with full-nat: flags that open no flow, and backends' packets without a flow.
pub fn rows() -> Vec<Case> {
    let mut rows = Vec::new();
    for kind in Kind::tcp() {
        let one = Dialogue::new(kind);
        let world = World::new(kind);
        let flags = [
            ("ACK", ACK),
            ("SYN-ACK", SYN | ACK),
            ("FIN", FIN | ACK),
            ("RST", RST),
            ("SYN-FIN", SYN | FIN),
            ("SYN-RST", SYN | RST),
            ("URG-PSH", URG_PSH),
            ("segment without flags", 0),
        ];
        rows.extend(flags.map(|(name, flags)| {
            let is_reset = flags & RST != 0;
            let expected = if is_reset { Drops(Reason::NoFlow) } else { Resets(Reason::NoFlow) };
            Case::new(format!("{kind}: a {name} without a flow opens none"), world.clone())
                .step(one.ack(1).with(|packet| packet.tcp_mut().flags = flags), expected)
                .records(0)
                .step(one.syn(), Opens(WEB_1))
        }));
        let backend = world.find(WEB_1).address;
        let source = std::net::SocketAddr::new(kind.ip.source(), 2000);
        rows.push(
            Case::new(format!("{kind}: a backend's packet without a flow is passed to the host"), world)
                .step((BACK, Packet::tcp(backend, source, SYN | ACK)), Passes(Reason::NotService))
                .step((BACK, Packet::tcp(backend, source, SYN)), Passes(Reason::NotService))
                .records(0),
        );
    }
    rows
}
