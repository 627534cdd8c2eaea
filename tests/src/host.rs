//! The host engine: the packet core as a library, without kernel or privileges.

use std::rc::Rc;

use anyhow::{Context as _, Result, bail, ensure};
use lb_common::{
    cell::standstill,
    hop::InterfaceIndex,
    reason::{self, Reason},
};
use lb_ebpf::{
    packet::frame::{Cursor, Frame},
    path::{
        pipeline::{self, Verdict},
        slow,
    },
    storage::Maps as _,
};

use crate::{
    engine::{Action, Counters, Engine, Memory, Outcome, Pause},
    memory::MemoryTables,
    world::{World, network::INTERFACES},
};

/// Runs the core over [`MemoryTables`]. A clone is another CPU of the same machine.
#[derive(Clone, Default)]
pub struct HostEngine {
    tables: Option<Rc<MemoryTables>>,
}

impl HostEngine {
    fn tables(&self) -> Result<&Rc<MemoryTables>> {
        self.tables.as_ref().context("the engine has no world")
    }
}

impl Engine for HostEngine {
    fn reset(&mut self, world: &World) -> Result<()> {
        self.tables = Some(Rc::new(MemoryTables::new(world)));
        Ok(())
    }

    fn load(&mut self, world: &World) -> Result<()> {
        match self.tables.as_mut().and_then(Rc::get_mut) {
            Some(tables) => tables.load(world),
            None => self.tables()?.load_meanwhile(world),
        }
        Ok(())
    }

    fn run(&mut self, interface: u32, frame: &[u8]) -> Result<Outcome> {
        execute(self.tables()?, interface, frame)
    }

    fn preempt(&mut self, interface: u32, frame: &[u8], pauses: Vec<Pause>) -> Result<(Outcome, usize)> {
        let tables = self.tables()?;
        let on_another_cpu = |(accesses, happen): Pause| -> standstill::Pause {
            let (machine, mut other) = (Rc::clone(tables), self.clone());
            (accesses, Box::new(move || machine.on_another_cpu(|| happen(&mut other))))
        };
        let pauses = pauses.into_iter().map(on_another_cpu).collect();
        let (outcome, left) = standstill::with_pauses(pauses, || execute(tables, interface, frame));
        Ok((outcome?, left))
    }

    fn counters(&mut self) -> Result<Counters> {
        Ok(self.tables()?.counters())
    }

    fn memory(&mut self) -> Result<Memory> {
        Ok(self.tables()?.memory())
    }
}

fn execute(tables: &MemoryTables, interface: u32, frame: &[u8]) -> Result<Outcome> {
    let bytes = frame.len() as u64;
    let mut frame = HostFrame { bytes: frame.to_vec(), ingress: InterfaceIndex(interface) };
    let verdict = pipeline::run(&mut frame, tables);
    let verdict = through_slow_paths(verdict, &mut frame, tables);
    let count_reason = |reason: Reason| {
        tables.count(|counters| {
            counters.reasons[reason as usize].packets += 1;
            counters.reasons[reason as usize].bytes += bytes;
        });
    };
    let action = match verdict {
        Verdict::Transmit => Action::Transmit,
        Verdict::Continue(_) => bail!("the slow paths are done"),
        Verdict::Redirect(egress) => {
            let known = tables.interface(egress);
            ensure!(known.is_some_and(|it| it.attached == 1), "redirected to interface {egress}");
            ensure!(
                known.is_some_and(|it| frame.bytes[6..12] == it.mac.to_bytes()),
                "redirected to interface {egress}, but with another one's address"
            );
            Action::Redirect
        }
        Verdict::Refused(reason) => {
            count_reason(reason);
            match reason.action() {
                reason::Action::Pass => Action::Pass,
                reason::Action::Drop => Action::Drop,
            }
        }
        Verdict::Rejected(reason) => {
            count_reason(reason);
            Action::Transmit
        }
    };
    tables.count(|counters| {
        let place = INTERFACES.iter().position(|(_, index)| *index == interface);
        let Some(actions) = place.and_then(|place| counters.actions.get_mut(place)) else { return };
        match action {
            Action::Pass => actions.passed += 1,
            Action::Drop => actions.dropped += 1,
            Action::Transmit if matches!(verdict, Verdict::Rejected(_)) => actions.rejected += 1,
            Action::Transmit => actions.transmitted += 1,
            Action::Redirect => actions.redirected += 1,
        }
    });
    Ok(Outcome { action, frame: frame.bytes, asked: tables.take_asked(), reported: tables.take_reported() })
}

/// The verdict of the last slow path, or this one if there is none.
fn through_slow_paths(mut verdict: Verdict, frame: &mut HostFrame, tables: &MemoryTables) -> Verdict {
    while let Verdict::Continue(path) = verdict {
        verdict = slow::run(path, frame, tables);
    }
    verdict
}

struct HostFrame {
    bytes: Vec<u8>,
    ingress: InterfaceIndex,
}

impl Frame for HostFrame {
    fn cursor(&mut self) -> Cursor<'_> {
        let packet = self.bytes.as_mut_ptr_range();
        // SAFETY: the range is this vector's bytes, borrowed for as long as the cursor lives.
        unsafe { Cursor::new(packet.start, packet.end) }
    }

    fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn ingress(&self) -> InterfaceIndex {
        self.ingress
    }

    fn cut(&mut self, bytes: u32) -> bool {
        let left = self.bytes.len().checked_sub(bytes as usize);
        left.inspect(|left| self.bytes.truncate(*left)).is_some()
    }

    fn grow(&mut self, bytes: u32) -> bool {
        self.bytes.splice(..0, std::iter::repeat_n(0xee, bytes as usize));
        true
    }
}

#[cfg(test)]
mod tests {
    use lb_common::{
        limits::MAX_INTERFACE_INDEX,
        net::{Protocol, V4, V6},
        pool::Picker,
        service::Mode,
    };
    use lb_ebpf::{storage::Storage, table::preload};

    use super::*;
    use crate::{
        dialogue::Dialogue,
        world::{
            Family, Kind,
            network::{FRONT, mac_of, mac_of_interface},
        },
    };

    #[test]
    fn the_line_of_the_reply_index_that_is_preloaded_is_the_one_that_the_new_flow_uses() -> Result<()> {
        let pickers = [Picker::Turn, Picker::SourceHash, Picker::LeastOfAll, Picker::LeastOfTwo];
        let modes = [Mode::FullNat, Mode::Nat].into_iter().flat_map(|mode| pickers.map(|it| (mode, it)));
        for (ip, (mode, picker)) in
            Family::ALL.into_iter().flat_map(|ip| modes.clone().map(move |it| (ip, it)))
        {
            let kind = Kind::new(ip, Protocol::Tcp, mode);
            let tables = MemoryTables::new(&World::new(kind).with(|world| world.services[0].picker = picker));
            // Two rounds of three backends.
            for (flows, port) in (0..).zip(40_000..40_006) {
                let syn = Dialogue::new(kind).port(port).syn().packet.with(|packet| {
                    packet.from_mac = mac_of(packet.source);
                    packet.to_mac = mac_of_interface(FRONT);
                });
                let bytes = syn.to_frame();
                let mut frame = HostFrame { bytes, ingress: InterfaceIndex(FRONT) };
                let verdict = pipeline::run(&mut frame, &tables);
                ensure!(matches!(verdict, Verdict::Continue(_)), "{kind}: port {port} is not a new flow");
                let loaded = match ip {
                    Family::V4 => {
                        Storage::<V4>::scratch(&tables).and_then(|it| preload::reply_line(&tables, it))
                    }
                    Family::V6 => {
                        Storage::<V6>::scratch(&tables).and_then(|it| preload::reply_line(&tables, it))
                    }
                };
                let loaded = loaded.context("no line was loaded")?.0;
                let lines = || tables.memory().reply_index.into_iter().map(|(_, line, ..)| line);
                let before = lines().filter(|line| *line == loaded).count();
                through_slow_paths(verdict, &mut frame, &tables);

                assert_eq!(lines().count(), flows + 1, "{kind}: port {port}");
                assert_eq!(lines().filter(|line| *line == loaded).count(), before + 1, "{kind}: port {port}");
            }
        }
        Ok(())
    }

    #[test]
    fn an_interface_beyond_the_limit_is_not_taken_for_an_attached_one() -> Result<()> {
        let kind = Kind::tcp()[0];
        let one = Dialogue::new(kind);
        let mut world = World::new(kind);
        world.neighbours.retain(|it| it.address != one.client.ip());
        let mut engine = HostEngine::default();
        engine.reset(&world)?;
        let frame = one.syn().packet.with(|packet| packet.from_mac = mac_of(packet.source)).to_frame();

        let outcome = engine.run(FRONT + MAX_INTERFACE_INDEX, &frame)?;

        assert_eq!(outcome.action, Action::Drop);
        Ok(())
    }
}
