//! Netlink: one socket for notifications, one for requests.
//!
//! Two, because a listener that falls behind loses messages (ENOBUFS), and answers must not be lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    time::Duration,
};

use anyhow::Context;
use futures_util::{Stream, StreamExt, TryStreamExt};
use lb_common::hop::InterfaceIndex;
use netlink_packet_route::{
    AddressFamily,
    neighbour::{NeighbourFlags, NeighbourState},
    route::{RouteAttribute, RouteMessage},
};
use rtnetlink::{
    Error, Handle, MulticastGroup, packet_core::NetlinkPayload, packet_route::RouteNetlinkMessage,
    sys::AsyncSocket,
};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{
    decode,
    network::Fact,
    resolve::{Link, Neighbour, Place, Route},
};
use crate::event::Path;

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
];
/// Some thousand messages. The kernel may grant less (net.core.rmem_max).
const RECEIVE_BUFFER_BYTES: u32 = 1024 * 1024;
/// The kernel answers within microseconds. If it takes longer than this, the socket is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of pending lookups: one at a time, each would cost two task switches.
const LOOKUPS_AT_ONCE: usize = 64;

/// A notification.
#[derive(Debug, PartialEq, Eq)]
pub enum Notification {
    Fact(Fact),
    /// Messages were lost: all state must be read again.
    Gap,
}

/// Listens for changes.
pub struct Monitor {
    messages: Box<dyn Stream<Item = NetlinkPayload<RouteNetlinkMessage>> + Send + Unpin>,
    _driver: AbortOnDropHandle<()>,
}

impl Monitor {
    /// Subscribes to all messages from now on.
    pub fn subscribe() -> anyhow::Result<Self> {
        let (mut connection, _, messages) = rtnetlink::new_multicast_connection(&GROUPS)
            .context("cannot subscribe to netlink notifications")?;
        let socket = connection.socket_mut().socket_mut();
        socket
            .set_rx_buf_sz(RECEIVE_BUFFER_BYTES)
            .context("cannot set the size of the netlink receive buffer")?;
        let messages = Box::new(messages.map(|(message, _)| message.payload));
        Ok(Self { messages, _driver: AbortOnDropHandle::new(tokio::spawn(connection)) })
    }

    /// Waits for a message that matters. `None`: the socket is broken. Cancel-safe.
    pub async fn next(&mut self) -> Option<Notification> {
        loop {
            let payload = self.messages.next().await?;
            if let NetlinkPayload::Overrun(_) = payload {
                return Some(Notification::Gap);
            }
            if let NetlinkPayload::InnerMessage(message) = payload
                && let Some(fact) = decode::fact(&message)
            {
                return Some(Notification::Fact(fact));
            }
        }
    }
}

/// Sends requests to the kernel.
pub struct Kernel {
    handle: Handle,
    _driver: AbortOnDropHandle<()>,
}

impl Kernel {
    pub fn connect() -> anyhow::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().context("cannot open a netlink socket")?;
        Ok(Self { handle, _driver: AbortOnDropHandle::new(tokio::spawn(connection)) })
    }

    pub async fn links(&self) -> anyhow::Result<BTreeMap<InterfaceIndex, Link>> {
        let links = self.handle.link().get().execute();
        collect(links, |message| decode::link(&message)).await.context("cannot list the links")
    }

    pub async fn neighbours(&self) -> anyhow::Result<BTreeMap<Place, Neighbour>> {
        let neighbours = self.handle.neighbours().get().execute();
        collect(neighbours, |message| decode::neighbour(&message)).await.context("cannot list the neighbours")
    }

    /// The routes of several paths.
    pub async fn routes(&self, paths: BTreeSet<Path>) -> anyhow::Result<BTreeMap<Path, Route>> {
        futures_util::stream::iter(paths)
            .map(async |path| anyhow::Ok((path, self.route(path).await?)))
            .buffer_unordered(LOOKUPS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Like `ip route get TO from FROM`.
    async fn route(&self, path: Path) -> anyhow::Result<Route> {
        let mut answers = Box::pin(self.handle.route().get(route_request(path)).execute());
        match patiently(answers.try_next()).await? {
            Ok(Some(message)) => Ok(decode::route(path.to, &message)),
            Ok(None) => Ok(Route::Missing),
            // The kernel's errors for unreachable, prohibit and blackhole routes.
            Err(Error::NetlinkError(_)) => Ok(Route::Missing),
            Err(error) => Err(error).with_context(|| format!("cannot look up the route to {}", path.to)),
        }
    }

    /// Like `ip neigh replace ADDRESS dev INTERFACE use nud none`: the kernel sends a request. The inner error is
    /// the kernel's refusal.
    pub async fn ask(&self, (InterfaceIndex(interface), address): Place) -> anyhow::Result<io::Result<()>> {
        let request = self
            .handle
            .neighbours()
            .add(interface, address)
            .replace()
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use);
        match patiently(request.execute()).await? {
            Ok(()) => Ok(Ok(())),
            Err(Error::NetlinkError(refusal)) => Ok(Err(refusal.to_io())),
            Err(error) => Err(error).with_context(|| format!("cannot request neighbour {address}")),
        }
    }
}

fn route_request(Path { to, from }: Path) -> RouteMessage {
    let mut message = RouteMessage::default();
    let (family, length) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = length;
    message.attributes.push(RouteAttribute::Destination(to.into()));
    if let Some(from) = from {
        message.header.source_prefix_length = length;
        message.attributes.push(RouteAttribute::Source(from.into()));
    }
    message
}

async fn collect<M, T, C>(
    messages: impl Stream<Item = Result<M, Error>>,
    pick: impl Fn(M) -> Option<T>,
) -> anyhow::Result<C>
where
    C: Default + Extend<T>,
{
    let all = messages.try_fold(C::default(), |mut all, message| {
        all.extend(pick(message));
        std::future::ready(Ok(all))
    });
    Ok(patiently(all).await??)
}

async fn patiently<T>(answer: impl Future<Output = T>) -> anyhow::Result<T> {
    timeout(ANSWER_TIMEOUT, answer).await.context("netlink did not answer")
}
