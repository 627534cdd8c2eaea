//! The race test's program: the core's own functions on generated tuples over a tiny table, on several CPUs at once.
//!
//! Every run sends one packet of one flow (SYN, ACK, FIN or RST, from either side) and checks the result: the packet
//! must be rewritten as this flow, and no other, would be; no two records may match one tuple at the same instant; and the
//! loads of backends must be possible.
//! The clock jumps, so that flows of every state expire, and routes change, so that next hops are looked up again.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::xdp_action,
        btf_maps::{Array, PerCpuArray},
        helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id},
        macros::{btf_map, xdp},
        programs::XdpContext,
    };
    use lb_common::{
        cell::{Shared, fence},
        clock::Ticks,
        ejection::Ejection,
        flow::{BucketIndex, Control, ENTRIES_PER_LINE, LineIndex, RecordIndex, ReplyEntry, State},
        net::{Be16, Ports, Protocol, V4, V6},
        reason::Reason,
        settings::Settings,
    };
    use lb_ebpf::{
        family::{Family, RecordOf, Tuple, deltas},
        kernel::{maps, tables::KernelTables},
        packet::parse::{Layout, Packet},
        packet::rewrite::Rewrite,
        packet::tcp::{ACK, FIN, RST, SYN, Segment},
        path::client_hop,
        path::new_flow,
        path::refresh,
        path::reply::{self, Reply},
        path::request::{self, Forward},
        steps::Steps,
        storage::{FlowTable, Maps, Storage},
        table::hash::reduce,
        table::record::{self, States, by_index},
        table::scratch::Scratch,
    };

    use tests_ebpf::race::{
        self as world, CLIENT, CLIENTS, FLOWS, Findings, LISTEN, SERVICE_PORT, SOURCE, SOURCES,
    };

    /// What each CPU has seen.
    #[btf_map]
    static FINDINGS: PerCpuArray<Findings, 1> = PerCpuArray::new();
    /// The tuple of each flow's replies, when it was last seen.
    #[btf_map]
    static LAST4: Array<Shared<Tuple<V4>>, { FLOWS as usize }> = Array::new();
    /// The same for IPv6.
    #[btf_map]
    static LAST6: Array<Shared<Tuple<V6>>, { FLOWS as usize }> = Array::new();

    /// One move of one IPv4 flow.
    #[xdp]
    pub fn race4(ctx: XdpContext) -> u32 {
        run::<V4>(&ctx)
    }

    /// One move of one IPv6 flow.
    #[xdp]
    pub fn race6(ctx: XdpContext) -> u32 {
        run::<V6>(&ctx)
    }

    /// A family whose flows can be counted.
    trait Numbered: Family {
        fn address(number: u32) -> Self::Address;
        fn last(flow: u32) -> Option<&'static Shared<Tuple<Self>>>;
    }

    impl Numbered for V4 {
        #[inline(always)]
        fn address(number: u32) -> V4 {
            world::v4(number)
        }

        #[inline(always)]
        fn last(flow: u32) -> Option<&'static Shared<Tuple<V4>>> {
            LAST4.get(flow)
        }
    }

    impl Numbered for V6 {
        #[inline(always)]
        fn address(number: u32) -> V6 {
            world::v6(number)
        }

        #[inline(always)]
        fn last(flow: u32) -> Option<&'static Shared<Tuple<V6>>> {
            LAST6.get(flow)
        }
    }

    #[inline(always)]
    fn run<F: Numbered>(ctx: &XdpContext) -> u32
    where
        KernelTables: Steps<F>,
    {
        let tables = KernelTables(ctx.ctx);
        // SAFETY: a helper without arguments.
        let random = unsafe { bpf_get_prandom_u32() };
        let (flow, step, chance) = (random & (FLOWS - 1), random >> 8 & 0xf, random >> 12 & 0xff);
        if let Some(findings) = FINDINGS.get_ptr_mut(0) {
            // SAFETY: this CPU's own element.
            let findings = unsafe { &mut *findings };
            if chance == 0 {
                time_passes(random >> 22);
            }
            make(&tables, tables.settings(), findings, flow, step);
            watch::<F>(&tables, tables.settings(), findings, flow / CLIENTS);
        }
        xdp_action::XDP_TX
    }

    /// Advances the clock by up to 1.5 hours and changes the routing generation. Only one CPU does so, so the clock
    /// never goes back.
    #[inline(always)]
    fn time_passes(amount: u32) {
        // SAFETY: a helper without arguments.
        if unsafe { bpf_get_smp_processor_id() } != 0 {
            return;
        }
        let settings = maps::SETTINGS.as_mut_ptr();
        // SAFETY: the map's value; no other code writes these two words, and each is one store.
        unsafe {
            let (clock, routes) = (&raw mut (*settings).clock, &raw mut (*settings).hop_generation);
            clock.write_volatile(Ticks(clock.read_volatile().0.wrapping_add(amount << 12)));
            routes.write_volatile(routes.read_volatile().wrapping_add(1));
        }
    }

    #[inline(always)]
    fn make<F: Numbered>(
        tables: &KernelTables,
        settings: &Settings,
        findings: &mut Findings,
        flow: u32,
        step: u32,
    ) where
        KernelTables: Steps<F>,
    {
        let tuple = tuple::<F>(flow);
        let flags = match step {
            0..5 => SYN,
            5..8 => ACK,
            8 => FIN | ACK,
            9 => RST,
            10..12 => SYN | ACK,
            12 => ACK,
            13 => FIN | ACK,
            14 => RST,
            _ => RST | ACK, // Refuses an unproven flow.
        };
        // The sequence number of every SYN and SYN-ACK is 1000, and both sides have seen the other's.
        let segment = if tuple.protocol == Protocol::Tcp as u32 {
            Segment { flags, sequence: 1000, acknowledgement: 1001 }
        } else {
            Segment::default()
        };
        let done = if step < 10 {
            request(tables, settings, findings, flow, &tuple, segment)
        } else {
            reply::<F>(tables, settings, findings, flow, segment)
        };
        if let Err(reason) = done {
            findings.refused += 1;
            findings.contended += u64::from(reason == Reason::Contended);
            findings.retried += u64::from(reason == Reason::Retried);
            findings.full += u64::from(reason == Reason::BackendsFull);
        }
    }

    /// Are the loads of a pool possible? The first ejection is read again, so there was an instant at which both were true.
    #[inline(always)]
    fn watch<F: Numbered>(tables: &KernelTables, settings: &Settings, findings: &mut Findings, pool: u32)
    where
        KernelTables: Steps<F>,
    {
        let load = |number| FlowTable::<F>::load(tables, world::backend(pool, number));
        let (Some(one), Some(other)) = (load(0), load(1)) else { return };
        let is_negative = (one.flows.load() as i64) < 0 || (other.flows.load() as i64) < 0;
        findings.negative_loads += u64::from(is_negative);
        let (first, second) = (one.ejection.load(), other.ejection.load());
        let is_one = Ejection(first).is_ejected() && one.ejection.load() == first;
        findings.ejected += u64::from(is_one);
        findings.too_many_ejected += u64::from(is_one && Ejection(second).is_ejected());
        if let Some(half_open) = FlowTable::<F>::half_open(tables) {
            // The other CPU keeps a batch back at most, and may be between two steps.
            let least = -i64::from(F::shape(settings).half_open_batch) - 1;
            findings.negative_half_open += u64::from(half_open.load() < least);
        }
    }

    /// The first port of clients.
    const FIRST_PORT: u32 = 1024;

    /// Every fourth client uses UDP.
    #[inline(always)]
    fn protocol(client: u32) -> Protocol {
        if client & 3 == 3 { Protocol::Udp } else { Protocol::Tcp }
    }

    #[inline(always)]
    fn tuple<F: Numbered>(flow: u32) -> Tuple<F> {
        let client = flow & (CLIENTS - 1);
        Tuple {
            source: F::address(CLIENT + client),
            destination: F::address(LISTEN + flow / CLIENTS),
            ports: Ports::new(Be16::new((FIRST_PORT + client) as u16), Be16::new(SERVICE_PORT)),
            protocol: u32::from(protocol(client).number()),
        }
    }

    /// Is this a tuple of ours?
    #[inline(always)]
    fn is_generated<F: Numbered>(tuple: &Tuple<F>, client: u32) -> bool {
        let mut is_listen = false;
        let mut listen = 0;
        while listen < FLOWS / CLIENTS {
            is_listen |= tuple.destination == F::address(LISTEN + listen);
            listen += 1;
        }
        is_listen
            && client < CLIENTS
            && tuple.source == F::address(CLIENT + client)
            && tuple.ports.destination() == Be16::new(SERVICE_PORT)
            && tuple.protocol == u32::from(protocol(client).number())
    }

    #[inline(always)]
    fn request<F: Numbered>(
        tables: &KernelTables,
        settings: &Settings,
        findings: &mut Findings,
        flow: u32,
        tuple: &Tuple<F>,
        segment: Segment,
    ) -> Result<(), Reason>
    where
        KernelTables: Steps<F>,
    {
        let packet = packet(tuple, segment);
        let forward = match request::find(tables, &packet)? {
            Some(forward) => forward,
            None => {
                let scratch = Storage::<F>::scratch(tables).ok_or(Reason::Internal)?;
                scratch.now.set(tables.now());
                if flow & 7 == 0 {
                    tables.expire(BucketIndex(flow >> 3 & 1), scratch.now.get());
                }
                // Every client is a neighbour: which MAC the frame came from does not matter.
                new_flow::make(tables, client_hop::NONE)?
            }
        };
        let to = forward.rewrite.tuple;
        let right = Rewrite::request(to, deltas(tuple, &to), forward.rewrite.hop);
        findings.requests += 1;
        if !may_become(tables, settings, tuple, &forward, &to) || !is_same_change(&right, &forward.rewrite) {
            findings.mixed_requests += 1;
        }
        findings.replies_of_two += u64::from(has_two_replies(tables, settings, &to.reversed()).is_some());
        findings.requests_of_two += u64::from(has_two_requests(tables, settings, tuple).is_some());
        if let Some(last) = F::last(flow) {
            last.set(to.reversed());
        }
        Ok(())
    }

    #[inline(always)]
    fn reply<F: Numbered>(
        tables: &KernelTables,
        settings: &Settings,
        findings: &mut Findings,
        flow: u32,
        segment: Segment,
    ) -> Result<(), Reason>
    where
        KernelTables: Steps<F>,
    {
        let from = F::last(flow).ok_or(Reason::NoFlow)?.get();
        let forward = match reply::find(tables, &packet(&from, segment))?.ok_or(Reason::NoFlow)? {
            Reply::Forward(forward) => forward,
            Reply::Stale => refresh::find(tables)?,
            Reply::Ended(_) => return Err(Reason::NoFlow),
        };
        let client = forward.rewrite.tuple.reversed();
        let right = Rewrite::reply(client.reversed(), deltas(&client, &from.reversed()), forward.rewrite.hop);
        findings.replies += 1;
        // The reply tuple may have passed to another flow: the record tells which one.
        let number = u32::from(client.ports.source().get()).wrapping_sub(FIRST_PORT);
        if !is_generated(&client, number)
            || forward.rewrite.hop.destination != world::mac(CLIENT + number)
            || !may_become(tables, settings, &client, &forward, &from.reversed())
            || !is_same_change(&right, &forward.rewrite)
        {
            findings.mixed_replies += 1;
        }
        Ok(())
    }

    #[inline(always)]
    fn packet<F: Family>(tuple: &Tuple<F>, segment: Segment) -> Packet<F> {
        let layout = Layout { hops: 64, options: 0, length: 40, frame: 64 };
        Packet { tuple: *tuple, segment, layout }
    }

    #[inline(always)]
    fn is_same_change<F: Family>(one: &Rewrite<F>, other: &Rewrite<F>) -> bool {
        one.ip == other.ip && one.l4 == other.l4
    }

    /// Is this a backend of the request's service, and a tuple that the service may give?
    #[inline(always)]
    fn may_become<F: Numbered>(
        tables: &KernelTables,
        settings: &Settings,
        request: &Tuple<F>,
        forward: &Forward<'_, F>,
        to: &Tuple<F>,
    ) -> bool
    where
        KernelTables: Steps<F>,
    {
        let is_nat =
            request.destination == F::address(LISTEN + 2) || request.destination == F::address(LISTEN + 3);
        let Some(backend) = tables.backend(forward.backend.id) else { return false };
        if to.destination != F::from_key(backend.address)
            || to.ports.destination() != backend.port
            || to.protocol != request.protocol
            || request.destination != F::address(LISTEN + backend.pool.0)
        {
            return false;
        }
        if is_nat {
            return to.source == request.source && to.ports.source() == request.ports.source();
        }
        let port = u32::from(to.ports.source().get());
        let mut is_source = false;
        let mut number = 0;
        while number < SOURCES {
            is_source |= to.source == F::address(SOURCE + number);
            number += 1;
        }
        is_source && port.wrapping_sub(FIRST_PORT) < settings.own_ports.size()
    }

    /// Is there an instant at which two records answer for this reply?
    #[inline(always)]
    fn has_two_replies<F: Family>(tables: &KernelTables, settings: &Settings, tuple: &Tuple<F>) -> Option<()>
    where
        KernelTables: Steps<F>,
    {
        let hash = F::hash(&settings.keys, tuple);
        let line = tables.line(LineIndex(reduce(hash as u32, F::shape(settings).lines)))?;
        let (mut first, mut second, mut i) = (0, 0, 0);
        while i < ENTRIES_PER_LINE {
            let entry = line.entry[i].load();
            if entry != 0 && ReplyEntry(entry).tag() == (hash >> 32) as u32 {
                second = first;
                first = entry;
            }
            i += 1;
        }
        if first == 0 || second == 0 {
            return None;
        }
        let answers = |record: &RecordOf<F>| {
            record.backend.get() == tuple.source
                && record.source.get() == tuple.destination
                && record.reply_ports.get() == tuple.ports
                && u32::from(record.owner.get().protocol()) == tuple.protocol
        };
        both(tables, ReplyEntry(first).record(), ReplyEntry(second).record(), answers, |_, _| true)
    }

    /// Is there an instant at which two records answer for this request? A reopening flow and the closing flow may both
    /// match; once the reopening flow is established, both are, until the older one is freed.
    #[inline(always)]
    fn has_two_requests<F: Family>(tables: &KernelTables, settings: &Settings, tuple: &Tuple<F>) -> Option<()>
    where
        KernelTables: Steps<F>,
    {
        let flow: &Scratch<F> = tables.scratch()?;
        flow.tuple.set(*tuple);
        flow.hash.set(F::hash(&settings.keys, tuple));
        let first = record::anywhere(tables, States::HALF_OPEN, None).ok()??;
        let second =
            record::anywhere(tables, States::HALF_OPEN.and(States::ESTABLISHED), Some(first)).ok()??;
        both(
            tables,
            first,
            second,
            |record| record::answers(record, tuple),
            |one, other| {
                let is_alone = |state: State| state.is_half_open() && !state.is_reopening();
                is_alone(one) && (is_alone(other) || other.is_established())
            },
        )
    }

    /// Reads each of two records twice, both first reads before both second reads. If all four reads match the tuple,
    /// there was an instant in between at which both records did.
    #[inline(always)]
    fn both<F: Family>(
        tables: &KernelTables,
        first: RecordIndex,
        second: RecordIndex,
        answers: impl Fn(&RecordOf<F>) -> bool,
        counts: impl Fn(State, State) -> bool,
    ) -> Option<()>
    where
        KernelTables: Steps<F>,
    {
        let (one, other) = (by_index::<F>(tables, first).ok()?, by_index::<F>(tables, second).ok()?);
        let is_so = first != second
            && one.control.state().is_live()
            && other.control.state().is_live()
            && counts(one.control.state(), other.control.state())
            && answers(one.record)
            && answers(other.record);
        fence();
        let (one_again, other_again) =
            (Control(one.record.control.load()), Control(other.record.control.load()));
        (is_so
            && one.control.is_still(one_again)
            && other.control.is_still(other_again)
            && counts(one_again.state(), other_again.state()))
        .then_some(())
    }
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
