//! A flow between its plain value and the message.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::net::Protocol;

use super::Flow;
use crate::datapath::{Ending, Resets, SharedFlow};

/// Why a flow that was received cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Not one that xlb balances.
    #[error("protocol {0}")]
    Protocol(u32),
    /// Neither of IPv4 nor of IPv6.
    #[error("an address of {0} bytes")]
    Address(usize),
    /// A flow is of one family.
    #[error("addresses of both families")]
    Families,
    /// Not one of a packet.
    #[error("port {0}")]
    Port(u32),
}

impl From<&SharedFlow> for Flow {
    fn from(flow: &SharedFlow) -> Self {
        let SharedFlow { protocol, client, listen, backend, source, answer, idle } = flow;
        Self {
            protocol: protocol.number().into(),
            client: bytes(client.ip()),
            listen: bytes(listen.ip()),
            backend: bytes(backend.ip()),
            source: bytes(source.ip()),
            client_port: client.port().into(),
            listen_port: listen.port().into(),
            backend_port: backend.port().into(),
            source_port: source.port().into(),
            answer: *answer,
            // 49 days: longer than any flow lives without a packet.
            idle_ms: u32::try_from(idle.as_millis()).unwrap_or(u32::MAX),
            ending: 0,
        }
    }
}

/// The endings of flows, by number.
const ENDINGS: [Ending; 5] = [
    Ending::Closed,
    Ending::Removed,
    Ending::Reset(Resets::Client),
    Ending::Reset(Resets::Backend),
    Ending::Reset(Resets::Both),
];

impl Flow {
    /// A flow that has ended.
    pub fn ended(flow: &SharedFlow, ending: Ending) -> Self {
        let number = ENDINGS.iter().position(|it| *it == ending).unwrap_or_default();
        Self { ending: number as u32, ..flow.into() }
    }

    /// How it has ended. A later version may know other ways.
    pub fn ending(&self) -> Ending {
        ENDINGS.get(self.ending as usize).copied().unwrap_or(Ending::Closed)
    }
}

impl TryFrom<&Flow> for SharedFlow {
    type Error = Invalid;

    fn try_from(flow: &Flow) -> Result<Self, Invalid> {
        let number = u8::try_from(flow.protocol).ok();
        let shared = Self {
            protocol: number.and_then(Protocol::from_number).ok_or(Invalid::Protocol(flow.protocol))?,
            client: endpoint(&flow.client, flow.client_port)?,
            listen: endpoint(&flow.listen, flow.listen_port)?,
            backend: endpoint(&flow.backend, flow.backend_port)?,
            source: endpoint(&flow.source, flow.source_port)?,
            answer: flow.answer,
            idle: Duration::from_millis(flow.idle_ms.into()),
        };
        let others = [shared.listen, shared.backend, shared.source];
        if others.iter().any(|it| it.is_ipv4() != shared.client.is_ipv4()) {
            return Err(Invalid::Families);
        }
        Ok(shared)
    }
}

fn bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn endpoint(address: &[u8], port: u32) -> Result<SocketAddr, Invalid> {
    let v4 = <[u8; 4]>::try_from(address).map(IpAddr::from);
    let address = v4
        .or_else(|_| <[u8; 16]>::try_from(address).map(IpAddr::from))
        .map_err(|_| Invalid::Address(address.len()))?;
    let port = u16::try_from(port).ok().filter(|port| *port != 0).ok_or(Invalid::Port(port))?;
    Ok(SocketAddr::new(address, port))
}
