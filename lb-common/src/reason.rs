//! Why a packet was not forwarded.

/// What the kernel does with a packet that is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The packet is passed to the host's network stack.
    Pass,
    /// The packet is dropped, or answered.
    Drop,
}

macro_rules! reasons {
    ($($variant:ident $name:literal $action:ident $about:literal;)*) => {
        /// Every outcome except forwarding. Each has one counter and one fixed action.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $about] $variant,)*
        }

        impl Reason {
            /// All reasons, each at the index of its number.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Packets that are not, or cannot be shown to be, for a service are passed to the host. Packets for a
            /// service that cannot be forwarded are dropped.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self { $(Self::$variant => Action::$action,)* }
            }

            /// The reason with this number, or [`Self::Internal`] if there is none.
            #[inline(always)]
            pub const fn from_number(number: u64) -> Self {
                if number < Self::ALL.len() as u64 { Self::ALL[number as usize] } else { Self::Internal }
            }

            /// The name in metrics and documents.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One line for the operator.
            pub const fn about(self) -> &'static str {
                match self { $(Self::$variant => $about,)* }
            }
        }
    };
}

// Add reasons at the end: pinned counters are identified by number.
reasons! {
    NotIp              "not_ip"               Pass "Neither IPv4 nor IPv6: ARP, VLAN tags and the like.";
    NotService         "not_service"          Pass "Matches no flow and no listen address.";
    Truncated          "truncated"            Pass "The frame ends within its Ethernet or IP header.";
    Malformed          "malformed"            Drop "A packet for a listen or source address of a service, with inconsistent length fields.";
    Fragment           "fragment"             Drop "A fragment for a listen or source address of a service: only the first has ports.";
    ExtensionHeader    "extension_header"     Drop "An IPv6 extension header before TCP or UDP, for a listen or source address of a service.";
    TtlExpired         "ttl_expired"          Drop "TTL or hop limit too low to forward (RFC 1812, section 5.3.1).";
    TooBig             "too_big"              Drop "Longer than the MTU of the egress interface or of the route to the backend.";
    NoFlow             "no_flow"              Drop "TCP without SYN for a service, and no flow matches; or a backend's packet of a flow that was ended. May be answered.";
    NoBackend          "no_backend"           Drop "No backend of the client's family can take a new flow: down, not checked yet, unreachable, drain, maint or weight 0. May be answered.";
    TableFull          "table_full"           Drop "All records that the flow could use hold flows that must not be evicted: established ones, and for UDP half-open TCP ones.";
    PortsExhausted     "ports_exhausted"      Drop "All source ports that were tried are held by flows that must not be evicted.";
    TupleInUse         "tuple_in_use"         Drop "nat: the client's port is in use towards all backends that were tried (up to 16), or the client is the only backend.";
    Contended          "contended"            Drop "Another CPU was creating the same flow, or its backend was just changed: the client's next packet creates it.";
    NoClientNeighbour  "no_client_neighbour"  Drop "The next hop to the client has no neighbour entry yet. The daemon asks the kernel to resolve it.";
    NoClientRoute      "no_client_route"      Drop "No route to the client through an attached interface.";
    NoBackendNeighbour "no_backend_neighbour" Drop "The backend's next hop is not resolved.";
    RedirectFailed     "redirect_failed"      Drop "The egress interface is not in the map DEVICES: it was removed, or xlb is not attached to it.";
    MtuTooSmall        "mtu_too_small"        Drop "An ICMP error for a flow reports an MTU below 552 (IPv6: 1280; RFC 8201, section 4).";
    Internal           "internal"             Drop "The program or its maps are inconsistent: a bug or a damaged installation.";
    NotOurMac          "not_our_mac"          Pass "Not for the interface's own MAC: broadcast, multicast, or for another host.";
    Retried            "retried"              Drop "A backend's RST that refuses a TCP flow: the client repeats its SYN, which gets another backend; or, in a group, another node may know the flow.";
    BackendsFull       "backends_full"        Drop "All backends that were tried have as many flows as `max_flows` allows.";
    UnknownReply       "unknown_reply"        Drop "full-nat, in a group: a backend's TCP segment to a source of xlb, of a flow that another node may know.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_REASONS;

    #[test]
    fn all_lists_each_reason_at_its_own_number() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
        assert!(Reason::ALL.len() <= MAX_REASONS);
    }

    #[test]
    fn each_number_leads_back_to_its_reason_and_others_are_internal() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_number(*reason as u64), *reason);
        }
        for number in [Reason::ALL.len() as u64, 1 << 32, u64::MAX] {
            assert_eq!(Reason::from_number(number), Reason::Internal);
        }
    }

    #[test]
    fn names_are_unique_and_in_snake_case() {
        for reason in Reason::ALL {
            let name = reason.name();
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{name}");
            assert_eq!(Reason::ALL.iter().filter(|other| other.name() == name).count(), 1);
        }
    }
}
