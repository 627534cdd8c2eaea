//! Running a row: messages get the addresses that the program chose, and what comes out is compared.

use std::{cell::RefCell, rc::Rc};

use anyhow::{Context as _, Result, bail, ensure};
use lb_common::flow::State;

use super::{Case, Depends, Expected, Input, Opens, Step, check, known::Known};
use crate::{
    dialogue::Sender,
    engine::{Action, Counters, Engine, Flow, Memory, Outcome, Pause},
    host::HostEngine,
    packet::read,
};

/// What an engine did in one step, to compare engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The outcome of this step's frame.
    pub outcome: Outcome,
    /// What was counted from the beginning of the row to the end of the step.
    pub counters: Counters,
    /// The flow tables after the step.
    pub memory: Memory,
}

/// Runs a row. The error says which step went wrong, and how.
pub fn run(case: &Case, engine: &mut dyn Engine) -> Result<Vec<Observation>> {
    let mut run = Run::new(engine, Known::new(&case.world));
    run.engine.reset(&case.world)?;
    run.steps(&case.steps).with_context(|| case.name.clone())?;
    Ok(run.observations)
}

/// Runs a row in memory, once for each access to shared memory before which its CPU can be preempted. Returns the number
/// of runs.
pub fn run_at_every_access(case: &Case) -> Result<usize> {
    let pauses = |step: &Step| if let Step::Preempted(_, pauses) = step { Some(pauses.len()) } else { None };
    let mut preempted = case.steps.iter().filter_map(pauses);
    let (Some(pauses), None) = (preempted.next(), preempted.next()) else {
        bail!("{}: exactly one step must preempt its CPU", case.name);
    };
    let mut accesses = vec![0; pauses];
    let mut times = 0;
    loop {
        let mut engine = HostEngine::default();
        engine.reset(&case.world)?;
        let mut run = Run { accesses: accesses.clone(), ..Run::new(&mut engine, Known::new(&case.world)) };
        run.steps(&case.steps)
            .with_context(|| format!("{}: pauses after {accesses:?} accesses", case.name))?;
        let left = run.left;
        times += 1;
        // The last pause that was reached moves on by one access; those behind it start over.
        let Some(last) = accesses.len().checked_sub(left + 1) else { return Ok(times) };
        accesses[last] += 1;
        accesses[last + 1..].fill(0);
    }
}

struct Run<'a> {
    engine: &'a mut dyn Engine,
    known: Known,
    observations: Vec<Observation>,
    /// The accesses before which the CPU is preempted, each counted from the one before.
    accesses: Vec<usize>,
    /// How many of them were not reached.
    left: usize,
    /// Another CPU is preempted.
    is_elsewhere: bool,
}

impl<'a> Run<'a> {
    fn new(engine: &'a mut dyn Engine, known: Known) -> Self {
        Self { engine, known, observations: Vec::new(), accesses: Vec::new(), left: 0, is_elsewhere: false }
    }

    fn steps(&mut self, steps: &[Step]) -> Result<()> {
        for (number, step) in (1..).zip(steps) {
            self.step(step).with_context(|| format!("step {number}"))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::Send(input, expected) => self.send(input, expected),
            Step::Preempted(input, pauses) => self.preempt(input, pauses),
            Step::Flow(dialogue, lists) => check::states(&self.engine.memory()?, dialogue, lists),
            Step::Records(count) => {
                let flows = self.engine.memory()?.flows;
                ensure!(flows.len() == *count, "{} records are in use, not {count}: {flows:#?}", flows.len());
                Ok(())
            }
            Step::Asked(wanted) => {
                let asked = self.observations.last().map(|last| &last.outcome.asked);
                ensure!(asked == Some(wanted), "the neighbour requests are {asked:?}, not {wanted:?}");
                Ok(())
            }
            Step::Holds(check) => check(&self.known.world, &self.engine.memory()?),
            Step::After(time) => {
                let world = &mut self.known.world;
                world.clock.0 = world.clock.0.wrapping_add(time.0);
                self.engine.load(world)
            }
            Step::Change(change) => {
                change(&mut self.known.world);
                self.engine.load(&self.known.world)
            }
        }
    }

    fn send(&mut self, input: &Input, expected: &Expected) -> Result<()> {
        if *expected == Depends && !self.known.can_send(input) {
            return Ok(());
        }
        let (interface, frame) = self.known.address(input)?;
        let before = self.engine.counters()?;
        let memory_before = self.observations.last().map(|last| last.memory.clone());
        let outcome = self.engine.run(interface, &frame)?;
        let (counters, memory) = (self.engine.counters()?, self.engine.memory()?);
        self.observations.push(Observation {
            outcome: outcome.clone(),
            counters: counters.clone(),
            memory: memory.clone(),
        });
        let story = || story(expected, &frame, &outcome);

        if *expected == Depends {
            self.concerns(input, interface, &frame, &outcome, &self.known.clone()).with_context(story)?;
        } else {
            if let (Opens(backend), Input::Message(message)) = (expected, input) {
                self.known.learn(message.dialogue, backend, &outcome.frame).with_context(story)?;
            }
            let (action, wanted) =
                self.known.expect(input, expected, interface, &frame).with_context(story)?;
            ensure!(outcome.action == action, "the verdict should be {action:?}\n{}", story());
            ensure!(outcome.frame == wanted, "should be {}\n{}", read::print(&wanted), story());
            if matches!(action, Action::Transmit | Action::Redirect) {
                read::verify(&outcome.frame).map_err(anyhow::Error::msg).with_context(story)?;
            }
            if let (Opens(backend), Input::Message(message)) = (expected, input) {
                check::opened(&self.known.world, &memory, &message.dialogue, backend).with_context(story)?;
            }
            let change = check::Change { input, expected, action, interface, bytes: frame.len() as u64 };
            check::counters(&self.known.world, &before, &counters, &change).with_context(story)?;
        }
        if self.is_elsewhere {
            return Ok(());
        }
        if self.accesses.is_empty() {
            let before = memory_before.unwrap_or_default();
            check::reports(&before, &memory, &outcome.reported).with_context(story)?;
        }
        check::memory(&self.known.world, &memory).with_context(story)
    }

    /// Sends something to a CPU that is preempted, and runs the rest meanwhile, or afterwards if the pause was not
    /// reached.
    fn preempt(&mut self, input: &Input, meanwhile: &[Rc<Vec<Step>>]) -> Result<()> {
        ensure!(self.accesses.len() == meanwhile.len(), "only run_at_every_access chooses where to preempt");
        let (interface, frame) = self.known.address(input)?;
        let earlier = self.known.clone();
        let told = Rc::new(RefCell::new(Ok((earlier.clone(), established(self.engine)?))));
        let pause = |(accesses, steps): (&usize, &Rc<Vec<Step>>)| -> Pause {
            let (told, steps) = (Rc::clone(&told), Rc::clone(steps));
            (*accesses, Box::new(move |engine| elsewhere(engine, &steps, &mut told.borrow_mut())))
        };
        let pauses = self.accesses.iter().zip(meanwhile).map(pause).collect();
        let (outcome, left) = self.engine.preempt(interface, &frame, pauses)?;
        self.left = left;
        let (known, established) = told.replace(Ok((earlier.clone(), Vec::new()))).context("meanwhile")?;
        self.known = known;
        self.concerns(input, interface, &frame, &outcome, &earlier)
            .with_context(|| story(&Depends, &frame, &outcome))?;
        let memory = self.engine.memory()?;
        check::are_there(&memory, &established)?;
        check::memory(&self.known.world, &memory)?;
        for steps in &meanwhile[meanwhile.len() - left..] {
            self.steps(steps).context("afterwards")?;
        }
        Ok(())
    }

    /// Checks a forwarded message against what was known before the pause and what is known after it.
    fn concerns(
        &mut self,
        input: &Input,
        interface: u32,
        frame: &[u8],
        outcome: &Outcome,
        earlier: &Known,
    ) -> Result<()> {
        if matches!(outcome.action, Action::Pass | Action::Drop) {
            ensure!(outcome.frame == frame, "changed, and not forwarded");
            return Ok(());
        }
        let Input::Message(message) = input else { bail!("this can be checked for messages only") };
        read::verify(&outcome.frame).map_err(anyhow::Error::msg)?;
        if earlier.is_answer(message, interface, &outcome.frame) {
            return Ok(());
        }
        let mut earlier = earlier.clone();
        if message.sender == Sender::Client {
            for known in [&mut earlier, &mut self.known] {
                let (_, to) = read::endpoints(&outcome.frame).context("no TCP or UDP packet came out")?;
                let backend = known.world.backend_at(to).context("not to a backend")?;
                known.learn(message.dialogue, backend, &outcome.frame)?;
            }
        }
        let became = (outcome.action, outcome.frame.clone());
        let may_become = [&earlier, &self.known].map(|known| known.may_become(message, interface)).concat();
        ensure!(
            may_become.contains(&became),
            "should be one of {}",
            may_become.iter().map(|(_, frame)| read::print(frame)).collect::<Vec<_>>().join("\n   ")
        );
        Ok(())
    }
}

/// What is known after the other CPU's steps, and the flows that were established then.
type Told = Result<(Known, Vec<Flow>)>;

fn elsewhere(engine: &mut dyn Engine, steps: &[Step], told: &mut Told) {
    let Ok((known, before)) = told else { return };
    let before = std::mem::take(before);
    let mut run = Run { is_elsewhere: true, ..Run::new(engine, known.clone()) };
    *told = run.steps(steps).and_then(|()| {
        // The other CPU's steps end no flow: one that is missing was lost before this pause.
        check::are_there(&run.engine.memory()?, &before)?;
        let established = established(run.engine)?;
        Ok((run.known, established))
    });
}

fn established(engine: &mut dyn Engine) -> Result<Vec<Flow>> {
    let flows = engine.memory()?.flows.into_iter();
    Ok(flows.filter(|flow| flow.control.state() == State::ESTABLISHED).collect())
}

fn story(expected: &Expected, frame: &[u8], outcome: &Outcome) -> String {
    format!(
        "expected {expected:?}\n   in {}\n   {:?} {}",
        read::print(frame),
        outcome.action,
        read::print(&outcome.frame)
    )
}
