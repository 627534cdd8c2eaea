//! The order of events, and the loop.

use super::*;

#[test]
fn a_change_is_applied_during_a_walk_over_the_flows() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let id = world.id("web/web-1").unwrap();
    world.add_flows(id, 1_000);
    let query = FlowQuery::default();
    let mut answer = world.send(|reply| Request::Flows { query, reply });
    world.turn();

    world.probed("web/web-2", Health::Down);

    assert_eq!(world.serving(), ["web-1", "web-3"]);
    assert!(answer.try_recv().is_err(), "the walk is not finished");

    world.settle();
    assert_eq!(answer.try_recv().unwrap().unwrap().len(), 1_000);
}

#[test]
fn backends_that_flap_are_joined_and_commands_do_not_wait() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.wait(2_000);
    world.is_paced = true;
    let before = world.controller.map_updates;

    world.probed("web/web-1", Health::Down);
    assert_eq!(world.serving(), ["web-2", "web-3"], "the first change is applied at once");
    for turn in 0..200 {
        let health = if turn % 2 == 0 { Health::Up } else { Health::Down };
        world.probed("web/web-1", health);
        world.pass(10);
    }
    let updates = world.controller.map_updates - before;
    assert!((10..=20).contains(&updates), "{updates} in two seconds");

    world.set("web/web-2", AdminState::Drain);
    assert_eq!(world.serving(), ["web-3"], "a command does not wait, and takes the rest along");
    world.probed("web/web-1", Health::Up);
    let due = world.controller.due(world.now());
    assert!(due > world.now() && due <= world.now() + Duration::from_millis(150));
    world.wait(150);
    assert_eq!(world.serving(), ["web-1", "web-3"]);
}

#[test]
fn routing_changes_take_effect_at_most_once_a_second() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    world.wait(2_000);
    let before = world.maps().maps.hop_generation;

    for _ in 0..10 {
        world.absorb(Event::RoutingChanged);
    }
    assert_eq!(world.maps().maps.hop_generation, before + 1);

    world.absorb(Event::RoutingChanged);
    assert_eq!(world.maps().maps.hop_generation, before + 1);

    world.wait(1_000);
    assert_eq!(world.maps().maps.hop_generation, before + 2);
}

#[tokio::test(start_paused = true)]
async fn the_loop_answers_repairs_and_stops() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let (events, mut inbox) = mpsc::channel(8);
    let (stop, stopped) = oneshot::channel::<()>();
    let (reply, answer) = Reply::channel();
    world.maps().fail_after = Some(0);

    let down = probed(&world.controller.state, "web/web-1", Health::Down);

    let script = async {
        events.send(Event::Probed(down)).await.unwrap();
        events.send(Event::Request(Request::Status(reply))).await.unwrap();
        assert!(answer.await.unwrap().is_ok());
        tokio::time::sleep(Duration::from_secs(15)).await;
        stop.send(()).unwrap();
    };
    let stopping = async { drop(stopped.await) };
    let (ending, ()) = tokio::join!(run(&mut world.controller, &mut inbox, stopping), script);

    assert!(matches!(ending, Ending::Stopped));
    assert_eq!(world.serving(), ["web-2", "web-3"]);
    assert!(world.maps().observed >= 3, "read at start, after the failure, and every ten seconds");
}

#[tokio::test(start_paused = true)]
async fn detaching_ends_the_loop_and_answers_afterwards() {
    let mut world = World::all_up(vec![web(Protocol::Tcp)]);
    let (events, mut inbox) = mpsc::channel(8);
    let (reply, mut answer) = Reply::channel();
    events.send(Event::Request(Request::Detach(reply))).await.unwrap();

    let ending = run(&mut world.controller, &mut inbox, std::future::pending()).await;

    assert!(answer.try_recv().is_err());
    let Ending::Detach(reply) = ending else { panic!("expected a detach request") };
    reply.send(Ok(()));
    assert_eq!(answer.await, Ok(Ok(())));
}
