//! `cargo xtask lab failover`: what clients notice when a node fails.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use lb_common::{net::Protocol, service::Mode};

use super::{
    DEPARTURES, EVENTS, Fleet, Scene, Split,
    events::{Event, KILLED},
    table::{Row, Table},
};
use crate::lab::{Family, Lab, Server, demo::Options, echo, story::Story};

/// Live connections, of both families together.
const CONNECTIONS: usize = 2_000;
/// How often the addresses move back and forth at the end.
const TIMES: u32 = 10;
/// How long the nodes do not see each other: longer than a node is quiet after a take-over.
const SPLIT: Duration = Duration::from_secs(7);
/// The tables agree within this time afterwards.
const AGREE: Duration = Duration::from_secs(2);
/// Live connections that begin meanwhile.
const MORE: usize = 200;

/// Plays all acts, also after one that fails. An error means that a goal was missed.
pub fn run(options: Options) -> Result<()> {
    let start = Instant::now();
    let story = Story::new(options.json);
    let mut table = Table::default();
    show_the_network(&story);
    for mode in [Mode::FullNat, Mode::Nat] {
        match pair(mode, &story, &mut table) {
            Ok(scene) if options.keep && mode == Mode::Nat => keep(scene, &story)?,
            Ok(scene) => scene.end().unwrap_or_else(|error| table.fail(&error, &story)),
            Err(error) => table.fail(&error, &story),
        }
    }
    fleet(&story, &mut table).unwrap_or_else(|error| table.fail(&error, &story));
    table.end(&story, start.elapsed())
}

fn show_the_network(story: &Story) {
    story.step("Two nodes between a router and a switch, with keepalived (an advertisement every 0.1 s), and the load.");
    story.say(
        "  client ── edge ─┬─ lb-1 ─┬─ switch ─┬─ web-1\n\
         \x20                 └─ lb-2 ─┘          ├─ web-2\n\
         \x20                                     └─ web-3\n\n\
         \x20 2,000 live connections, 1,000 in each family, with a byte every 100 ms that the server echoes; one is broken if a\n\
         \x20 byte is wrong, or if none comes back for 5 s. 200 new connections a second, over IPv4 and IPv6 in turn, each with\n\
         \x20 0.9 s for its answer, so that no SYN is repeated; they fail from the first one without an answer until all are\n\
         \x20 answered for 100 ms. Failures apart from that are counted, too. All of it goes on through all events of a mode.",
    );
}

/// Active and passive: all events, and at the end one of them again and again.
fn pair(mode: Mode, story: &Story, table: &mut Table) -> Result<Scene> {
    story.step(&format!("A pair, of which one node is active; mode {}.", super::table::name(mode)));
    let mut scene = Scene::start("failover", mode, CONNECTIONS, serve)?;
    story.say(&format!("  {}", Row::head()));
    for event in &EVENTS {
        let rows = scene.play(event).with_context(|| format!("{}: {}", event.name, event.shown))?;
        rows.into_iter().for_each(|row| table.add(row, story));
    }
    again_and_again(&mut scene, &KILLED, story, table)?;
    split(&mut scene, story, table)?;
    Ok(scene)
}

fn again_and_again(scene: &mut Scene, event: &Event, story: &Story, table: &mut Table) -> Result<()> {
    let [mut killed, mut back] = scene.play(event)?;
    for _ in 1..TIMES {
        let [one, two] = scene.play(event)?;
        (killed, back) = (killed.or_worse(one), back.or_worse(two));
    }
    for mut row in [killed, back] {
        row.event = format!("{}, {TIMES} times", row.event);
        table.add(row, story);
    }
    Ok(())
}

/// Both are active, and see each other again.
fn split(scene: &mut Scene, story: &Story, table: &mut Table) -> Result<()> {
    story.say("\n  The switches forward nothing between the nodes. IPv4 reaches lb-1, and IPv6 lb-2.");
    let Split { rows: [apart, together], agreed_after, begun, left } = scene.split(SPLIT, MORE)?;
    table.add(apart, story);
    table.add_slow(together, story);
    let agreed = agreed_after.as_millis();
    story.say(&format!(
        "  -> Both know the same of all open connections {agreed} ms after they see each other."
    ));
    story.say(&format!("  -> Of {begun} connections that began while both were active, {left} are left."));
    if agreed_after > AGREE {
        table
            .fail(&anyhow!("the tables agree after {agreed} ms, later than {} ms", AGREE.as_millis()), story);
    }
    Ok(())
}

/// Active and active: one node of three leaves and returns.
fn fleet(story: &Story, table: &mut Table) -> Result<()> {
    story.step("Three nodes that are active at once, with BIRD (BFD 3 x 100 ms) and ECMP on the router.");
    story.say(
        "  client ── edge ─┬─ lb-1, lb-2, lb-3\n\
         \x20                 └─ switch ── web-1, web-2, web-3\n\n\
         \x20 All live connections count: those of the node that leaves, and those of others that the router moves.\n",
    );
    let mut fleet = Fleet::start("fleet", CONNECTIONS, serve)?;
    story.say(&format!("  {}", Row::head()));
    for departure in &DEPARTURES {
        let rows = fleet.play(departure).with_context(|| departure.name)?;
        rows.into_iter().for_each(|row| table.add(row, story));
    }
    fleet.end()
}

/// Echo servers in processes of their own, which may outlive this one.
fn serve(lab: &Lab, port: u16) -> Result<Vec<Server>> {
    let program = std::env::current_exe()?;
    for backend in &lab.backends {
        for family in Family::ALL {
            echo::process(&program, Protocol::Tcp, backend, backend.address.port(family, port))?;
        }
    }
    Ok(Vec::new())
}

fn keep(scene: Scene, story: &Story) -> Result<()> {
    story.step("The last pair stays up (--keep).");
    let lab = scene.keep()?;
    story.say(&format!("  $ ip netns exec {} curl http://192.0.2.10/", lab.client));
    story.say("  $ cargo xtask lab shell        # a shell on the client");
    story.say("  $ cargo xtask lab down         # removes it");
    Ok(())
}
