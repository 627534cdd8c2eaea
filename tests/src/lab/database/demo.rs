//! `cargo xtask lab database`: what becomes of an application when the roles of its database servers change.

mod outcomes;

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use self::outcomes::Outcomes;
use super::{Clients, Engine, Promotion, Scene, Verdict};
use crate::lab::{Family, MariaDb, Redis, address, demo::Options, postgres::Postgres, story::Story};

/// Runs all acts, also after one that fails. An error means that xlb did not keep a promise.
pub fn run(options: Options) -> Result<()> {
    let start = Instant::now();
    let story = Story::new(options.json);
    let mut outcomes = Outcomes::default();
    show_the_cluster(&story)?;
    POSTGRES.iter().for_each(|act| act.play(&story, &mut outcomes));
    MARIADB.iter().for_each(|act| act.play(&story, &mut outcomes));
    REDIS.iter().for_each(|act| act.play(&story, &mut outcomes));
    outcomes.note("no_primary", &story, no_primary(&story));
    match behind_and_gone(&story) {
        Ok(last) => {
            outcomes.note("behind_and_gone", &story, Ok(json!({})));
            if options.keep {
                keep(last, &story)?;
            }
        }
        Err(error) => outcomes.note("behind_and_gone", &story, Err(error)),
    }
    outcomes.end(&story, start.elapsed())
}

/// A promotion under load.
struct Act<E> {
    name: &'static str,
    sentence: &'static str,
    play: fn(&mut Scene<E>, &Story, &Clients) -> Result<Promotion>,
    /// No write may reach the old primary after the promotion.
    is_fenced: bool,
    /// The daemon was dead during the promotion, so writes went on at the old primary.
    is_without_daemon: bool,
}

const POSTGRES: [Act<Postgres>; 5] = [
    Act {
        name: "promoted",
        sentence: "A replica is promoted while the old primary lives and takes writes.",
        play: |scene, story, _| {
            story.say("  $ pg_ctl promote        # on web-2");
            scene.promote()
        },
        is_fenced: false,
        is_without_daemon: false,
    },
    Act {
        name: "fenced",
        sentence: "The same with a fence before the promotion.",
        play: |scene, story, _| {
            story.xlb(&scene.xlb, "role fence db")?;
            story.say("  $ pg_ctl promote        # on web-2");
            scene.promote()
        },
        is_fenced: true,
        is_without_daemon: false,
    },
    Act {
        name: "killed",
        sentence: "The primary is killed. A replica is promoted 2 s later, and the old primary is started again.",
        play: |scene, story, clients| {
            story.say("  $ kill -9 ...           # PostgreSQL on web-1");
            let promoted = scene.kill_and_promote()?;
            story.say("  $ pg_ctl promote        # on web-2");
            scene.wait_for_rows(clients, 1)?;
            story.say("  $ pg_ctl start          # on web-1, which still says that it is the primary");
            scene.start_old_again()?;
            Ok(promoted)
        },
        is_fenced: false,
        is_without_daemon: false,
    },
    Act {
        name: "cut",
        sentence: "The primary's cable is pulled. A replica is promoted 2 s later, and the cable is put back.",
        play: |scene, story, _| {
            story.say("  $ ip link set web-1 down; sleep 2");
            story.say("  $ pg_ctl promote        # on web-2");
            story.say("  $ ip link set web-1 up");
            scene.cut_and_promote()
        },
        is_fenced: false,
        is_without_daemon: false,
    },
    Act {
        name: "daemon_killed",
        sentence: "The daemon is dead during the promotion: writes stay at one server until it is back.",
        play: |scene, story, clients| {
            story.say("  $ kill -9 ...           # xlb");
            scene.xlb.kill()?;
            story.say("  $ pg_ctl promote        # on web-2");
            let promoted = scene.promote()?;
            scene.wait_for_rows(clients, 0)?;
            story.say("  $ xlb run &");
            scene.xlb.start_again()?;
            Ok(promoted)
        },
        is_fenced: false,
        is_without_daemon: true,
    },
];

const MARIADB: [Act<MariaDb>; 2] = [
    Act {
        name: "mariadb_switched",
        sentence: "MariaDB: the primary becomes read-only, and a replica that has all its rows takes over.",
        play: |scene, story, _| {
            story.say("  > SET GLOBAL read_only = 1                                      -- on web-1");
            story.say("  > STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0         -- on web-2");
            scene.switch_over()
        },
        is_fenced: true,
        is_without_daemon: false,
    },
    Act {
        name: "mariadb_killed",
        sentence: "MariaDB: the primary is killed, a replica takes over 2 s later, and the old primary starts read-only.",
        play: |scene, story, clients| {
            story.say("  $ kill -9 ...           # mariadbd on web-1");
            let promoted = scene.kill_and_promote()?;
            story.say("  > STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = 0         -- on web-2");
            scene.wait_for_rows(clients, 1)?;
            story.say("  $ mariadbd --read-only=1 ...                                     # on web-1");
            scene.start_old_again()?;
            Ok(promoted)
        },
        is_fenced: false,
        is_without_daemon: false,
    },
];

const REDIS: [Act<Redis>; 2] = [
    Act {
        name: "redis_promoted",
        sentence: "Redis: a replica is promoted while the old primary lives and takes writes.",
        play: |scene, story, _| {
            story.say("  > REPLICAOF NO ONE      -- on web-2");
            scene.promote()
        },
        is_fenced: false,
        is_without_daemon: false,
    },
    Act {
        name: "redis_killed",
        sentence: "Redis: the primary is killed, a replica is promoted 2 s later, and the old primary is back without data.",
        play: |scene, story, clients| {
            story.say("  $ kill -9 ...           # redis-server on web-1");
            let promoted = scene.kill_and_promote()?;
            story.say("  > REPLICAOF NO ONE      -- on web-2");
            scene.wait_for_rows(clients, 1)?;
            story.say("  $ redis-server ...      # on web-1, which says that it is a primary");
            scene.start_old_again()?;
            Ok(promoted)
        },
        is_fenced: false,
        is_without_daemon: false,
    },
];

impl<E: Engine> Act<E> {
    fn play(&self, story: &Story, outcomes: &mut Outcomes) {
        story.step(self.sentence);
        outcomes.note(self.name, story, self.figures(story));
    }

    fn figures(&self, story: &Story) -> Result<Value> {
        let mut scene = Scene::<E>::start("database")?;
        let clients = scene.clients();
        scene.wait_for_rows(&clients, 0)?;
        let promoted = (self.play)(&mut scene, story, &clients)?;
        scene.wait_for_rows(&clients, 1)?;
        scene.wait_for_readers(&["web-3"])?;
        story.xlb(&scene.xlb, "role list")?;
        let (verdict, reads) = scene.judge(clients, &promoted)?;
        story.say(&format!("  -> {verdict}."));
        story.say(&format!(
            "  -> {} reads were answered, {} failed.",
            reads.answers.len(),
            reads.errors.len()
        ));
        self.check(&verdict)?;
        scene.ensure_readers_lost_nothing(&reads)?;
        Ok(json!({
            "stale_rows": verdict.stale,
            "rows_of_the_old_primary_after_the_promotion": verdict.after_promotion,
            "last_of_them_ms": verdict.last_after_promotion.as_millis() as u64,
            "lost_rows": verdict.lost,
            "rows_that_the_new_primary_had_before": verdict.shipped,
            "of_them_gone": verdict.gone,
            "rows_not_shipped": verdict.not_shipped,
            "acknowledged_rows": verdict.acknowledged,
            "writes_went_on_after_ms": verdict.resumed.as_millis() as u64,
            "reads": reads.answers.len(),
            "failed_reads": reads.errors.len(),
        }))
    }

    fn check(&self, verdict: &Verdict) -> Result<()> {
        verdict.keeps_its_order()?;
        ensure!(!self.is_fenced || verdict.after_promotion == 0, "{verdict}");
        if self.is_without_daemon { Ok(()) } else { verdict.is_in_time() }
    }
}

fn show_the_cluster(story: &Story) -> Result<()> {
    story.step("A database cluster: 200 writers and 50 readers, through one service each.");
    story.say(
        "  200 writers ─▶ 192.0.2.10:5432   db        role = \"primary\" ─┐     web-1  primary\n\
         \x20  50 readers ─▶ 192.0.2.10:5433   db-read   role = \"replica\" ─┴─▶   web-2  replica of web-1\n\
         \x20                                                                   web-3  replica of web-2",
    );
    let scene = Scene::<Postgres>::start("database")?;
    story.xlb(&scene.xlb, "role list")?;
    story.xlb(&scene.xlb, "health list")?;
    story.say(
        "\n  Before each promotion, the rows that web-2 already has are noted: none of them may be gone afterwards. Rows\n\
         \x20 that reach web-2 between that look and the promotion cannot be told from rows that never did: those of them\n\
         \x20 that are missing afterwards are counted as not shipped.",
    );
    Ok(())
}

fn no_primary(story: &Story) -> Result<Value> {
    story.step("There is no primary: new connections for writes are refused at once.");
    let scene = Scene::<Postgres>::start("database")?;
    let client = scene.lab.client.clone();
    let psql = format!("ip netns exec {client} psql -h {} -U app app", address::SERVICE.of(Family::V4));
    let refusal = |scene: &Scene<Postgres>| -> Result<f64> {
        let median = scene.ensure_writes_are_refused_at_once()?;
        story.say(&format!("  $ {psql}"));
        story.say(&format!("  -> Connection refused, after {median:.1?} (median)."));
        Ok(median.as_secs_f64() * 1000.0)
    };
    story.xlb(&scene.xlb, "role fence db")?;
    let fenced = refusal(&scene)?;
    story.xlb(&scene.xlb, "role unfence db")?;
    scene.wait_for_primary("web-1")?;
    story.say("  $ kill -9 ...           # PostgreSQL on web-1");
    scene.servers[0].kill()?;
    scene.wait_for_no_primary()?;
    let dead = refusal(&scene)?;
    Ok(json!({ "fenced_refused_after_ms": fenced, "dead_refused_after_ms": dead }))
}

fn behind_and_gone(story: &Story) -> Result<Scene<Postgres>> {
    story.step("A replica that is far behind gets no reads; if no replica is left, the primary serves them.");
    let scene = Scene::<Postgres>::start("database")?;
    let clients = scene.clients();
    scene.wait_for_rows(&clients, 0)?;
    story.say("  $ alter system set recovery_min_apply_delay = '30s'        -- on web-3");
    scene.servers[2].set("recovery_min_apply_delay", "30s")?;
    scene.wait_for_readers(&["web-2"])?;
    story.xlb(&scene.xlb, "role list")?;
    story.say("  $ kill -9 ...           # PostgreSQL on web-2");
    scene.servers[1].kill()?;
    scene.wait_for_readers(&["web-1"])?;
    story.xlb(&scene.xlb, "role list")?;
    clients.stop()?;
    Ok(scene)
}

fn keep(scene: Scene<Postgres>, story: &Story) -> Result<()> {
    story.step("The last cluster stays up (--keep).");
    let Scene { servers, xlb, lab } = scene;
    lab.keep()?;
    servers.into_iter().for_each(std::mem::forget);
    xlb.leave_running();
    story.say(&format!("  $ ip netns exec {} psql -h 192.0.2.10 -p 5433 -U app app", lab.client));
    story.say("  $ cargo xtask lab shell        # a shell on the client");
    story.say("  $ cargo xtask lab down         # removes it");
    Ok(())
}
