//! Route netlink without a task: a request, and its answer.

use std::io;

use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::{TimeVal, TimeValLike as _},
};
use rtnetlink::{
    packet_core::{
        NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    },
    sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE},
};

/// The kernel answers while it is asked. If nothing is there after this time, the answer was lost.
const ANSWER_TIMEOUT_SECONDS: i64 = 1;
/// A list that changes while it is read is read again, at most this often.
const ATTEMPTS: usize = 3;

/// A connection to the kernel. After an error, a late answer may be left in it: open another one.
#[derive(Debug)]
pub struct RouteSocket(Socket);

impl RouteSocket {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_TIMEOUT_SECONDS))?;
        Ok(Self(socket))
    }

    /// All objects of a kind, as they were at one moment.
    pub fn list(&self, request: &RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..ATTEMPTS {
            if let Some(objects) = self.list_once(request.clone())? {
                return Ok(objects);
            }
        }
        Err(io::Error::other("the list changed each time that it was read"))
    }

    /// `None`: the list has changed meanwhile.
    fn list_once(&self, request: RouteNetlinkMessage) -> io::Result<Option<Vec<RouteNetlinkMessage>>> {
        self.send(request, NLM_F_DUMP)?;
        let (mut objects, mut is_whole, mut is_done) = (Vec::new(), true, false);
        while !is_done {
            for message in self.receive()? {
                is_whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
                if let NetlinkPayload::InnerMessage(object) = message.payload {
                    objects.push(object);
                } else if let NetlinkPayload::Error(error) = message.payload {
                    return Err(error.to_io());
                } else if let NetlinkPayload::Done(_) = message.payload {
                    is_done = true;
                }
            }
        }
        Ok(is_whole.then_some(objects))
    }

    /// Changes one object. `flags`: what if it exists (`NLM_F_CREATE`, `NLM_F_EXCL`).
    pub fn change(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(request, NLM_F_ACK | flags)?;
        loop {
            for message in self.receive()? {
                if let NetlinkPayload::Error(answer) = message.payload {
                    return answer.code.map_or(Ok(()), |_| Err(answer.to_io()));
                }
            }
        }
    }

    fn send(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.0.send(&bytes, 0).map(drop)
    }

    fn receive(&self) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let (bytes, _) = self.0.recv_from_full()?;
        let (mut rest, mut messages) = (bytes.as_slice(), Vec::new());
        while !rest.is_empty() {
            let message = NetlinkMessage::deserialize(rest).map_err(io::Error::other)?;
            // Messages are aligned to four bytes (NLMSG_ALIGN, netlink(3)).
            rest = rest.get((message.header.length as usize).next_multiple_of(4)..).unwrap_or_default();
            messages.push(message);
        }
        Ok(messages)
    }
}
