//! The demo: shows xlb to a first-time user, on a network of its own that can be kept.

mod stage;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use self::stage::{Stage, UDP_PORT};
use super::{Family, Tally, address, daemon, namespace, story::Story, sweep, wait::eventually};

/// Requests per family, a multiple of the number of servers.
const REQUESTS: usize = 300;
/// Requests while a server is killed, and how many begin each second.
const LOAD: usize = 500;
const LOAD_PER_SECOND: usize = 100;
/// The server that is killed.
const KILLED: usize = 1;
/// A restarted server must pass `rise` checks.
const BACK: Duration = Duration::from_secs(10);

/// Options of the demo.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Leave everything up at the end.
    pub keep: bool,
    /// Print figures instead of the story.
    pub json: bool,
}

/// Runs the demo. An error means that xlb did not do what the demo shows.
pub fn run(options: Options) -> Result<()> {
    let start = Instant::now();
    let mut demo = Demo { story: Story::new(options.json), stage: Stage::build("demo")? };
    demo.show_the_network()?;
    demo.show_the_servers()?;
    demo.show_the_configuration()?;
    demo.start()?;
    let requests = demo.send_requests()?;
    let udp = demo.exchange_datagrams()?;
    let failover = demo.kill_a_server_under_load()?;
    let back = demo.bring_it_back()?;
    let survival = demo.kill_the_daemon()?;
    let statistics = demo.show_the_statistics()?;
    let Demo { story, stage } = demo;
    clean_up(stage, &story, options)?;

    story.end(&json!({
        "requests": requests,
        "udp": udp,
        "server_killed": failover,
        "server_back": back,
        "daemon_killed": survival,
        "statistics": statistics,
        "seconds": start.elapsed().as_secs_f64(),
    }))
}

/// Builds the demo's network and leaves it up.
pub fn up() -> Result<()> {
    let mut stage = Stage::build("up")?;
    stage.start_daemon()?;
    let story = Story::new(false);
    story.say("The demo's network is up, and stays until `lab down`.");
    stage.keep(&story)
}

struct Demo {
    story: Story,
    stage: Stage,
}

impl Demo {
    fn show_the_network(&mut self) -> Result<()> {
        self.story
            .step("A network of its own: each namespace is a host, the cables between them are virtual.");
        self.story.say(
            "  client ──────────── xlb ──────────── switch ─┬─ web-1   10.0.0.11, fd00::11\n\
             \x20            192.0.2.10 │ 10.0.0.1             ├─ web-2   10.0.0.12, fd00::12\n\
             \x20         2001:db8::10 │ fd00::1              └─ web-3   10.0.0.13, fd00::13",
        );
        self.story.say("");
        for name in self.stage.namespaces() {
            self.story.say(&format!("  {name}"));
        }
        Ok(())
    }

    fn show_the_servers(&mut self) -> Result<()> {
        self.story.step("Three real web servers, nginx from Debian: each answers with its own name.");
        self.story.run(&self.stage.lab.backends[0].namespace, "curl -s http://10.0.0.11:8080/")?;
        Ok(())
    }

    fn show_the_configuration(&mut self) -> Result<()> {
        self.story.step("One configuration file lists the listen addresses and the backends.");
        let path = self.stage.lab.directory().join("xlb.toml");
        self.story.show(&format!("cat {}", path.display()), &self.stage.config.to_string());
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        self.story
            .step("The daemon loads the XDP program, attaches it to both interfaces and checks the servers.");
        let environment: Vec<_> = daemon::environment(self.stage.lab.directory())
            .map(|(name, value)| format!("{name}={}", value.display()))
            .into();
        self.story.say(&format!("  $ export {}", environment.join(" ")));
        self.story.say(&format!("  $ ip netns exec {} xlb run &", self.stage.lab.xlb));
        self.stage.start_daemon()?;
        self.story.xlb(self.stage.daemon()?, "status")?;
        self.story.xlb(self.stage.daemon()?, "backend list")
    }

    fn send_requests(&mut self) -> Result<Value> {
        self.story.step(
            "Requests, each on a connection of its own: XDP forwards every packet, and takes the servers in turn.",
        );
        let mut figures = Value::Null;
        for (family, name, host) in
            [(Family::V4, "ipv4", "192.0.2.10"), (Family::V6, "ipv6", "[2001:db8::10]")]
        {
            let tally = self.fetch(host, REQUESTS)?;
            ensure!(
                tally.answers.values().sum::<usize>() == REQUESTS && tally.is_even(self.stage.web.len()),
                "{family:?}: not every server answered {REQUESTS} / {}: {tally}",
                self.stage.web.len()
            );
            figures[name] = json!(tally.answers);
        }
        self.story.say("  -> exactly equal shares, over IPv4 and over IPv6.");
        Ok(figures)
    }

    fn exchange_datagrams(&mut self) -> Result<Value> {
        self.story.step("UDP is balanced as well: a small echo server on each host answers with its name.");
        let mut answers = Vec::new();
        for n in 1..=self.stage.web.len() {
            let talk = format!(
                "exec 3<>/dev/udp/{}/{UDP_PORT}; echo datagram {n} >&3; timeout 2 head -n 1 <&3",
                address::SERVICE.v4
            );
            let answer = self.story.run(&self.stage.lab.client, &format!("bash -c '{talk}'"))?;
            ensure!(
                answer.ends_with(&format!(": datagram {n}\n")),
                "datagram {n}: the answer was {answer:?}"
            );
            answers.push(answer.trim_end().to_owned());
        }
        Ok(json!(answers))
    }

    fn kill_a_server_under_load(&mut self) -> Result<Value> {
        self.story.step(
            "A server is killed while requests come in; its health check takes it out of the rotation.",
        );
        let name = self.stage.web[KILLED].backend.name.clone();
        let health = self.stage.config.services[0].health.clone();
        let before = self.stage.web[KILLED].requests()?.len();
        let line =
            fetching(&address::SERVICE.v4.to_string(), LOAD, &format!("-m 2 --rate {LOAD_PER_SECOND}/s "));
        self.story.say(&format!("  $ ip netns exec {} {line} | sort | uniq -c &", self.stage.lab.client));
        let load = self
            .stage
            .lab
            .client
            .command("sh")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        eventually(Duration::from_secs(10), "requests reach the server that will be killed", || {
            Ok(self.stage.web[KILLED].requests()?.len() > before + LOAD_PER_SECOND / 4)
        })?;

        self.story.say(&format!("  $ kill -9 {}        # nginx on {name}", self.stage.web[KILLED].pid()?));
        let killed = Instant::now();
        self.stage.web[KILLED].kill()?;
        eventually(BACK, &format!("{name} is detected as down"), || {
            Ok(self.stage.daemon()?.health("web", &name)? == "down")
        })?;
        let noticed = killed.elapsed();
        self.story.xlb(self.stage.daemon()?, "backend list web")?;

        let output = load.wait_with_output().context("wait for the requests")?;
        let tally = tally(&String::from_utf8_lossy(&output.stdout));
        let answered: usize = tally.answers.values().sum();
        let failed = LOAD - answered;
        self.story.show("wait", &tally.to_string());
        self.story.say(&format!(
            "  -> {answered} of {LOAD} requests were answered, {failed} failed in the {} ms until the checks had noticed.",
            noticed.as_millis()
        ));
        let most = health.notices_refusal_within().as_secs_f64() * LOAD_PER_SECOND as f64
            / self.stage.web.len() as f64;
        // Requests in progress at that moment fail as well, and the load is not perfectly even.
        let slack = 5.0;
        ensure!(failed as f64 <= most + slack, "{failed} requests failed; at most {most:.0} were expected");
        Ok(json!({ "requests": LOAD, "failed": failed, "noticed_ms": noticed.as_millis() as u64 }))
    }

    fn bring_it_back(&mut self) -> Result<Value> {
        self.story.step("The server is started again, and gets its share as soon as the checks find it.");
        let name = self.stage.web[KILLED].backend.name.clone();
        self.stage.web[KILLED].start_again()?;
        let waited = eventually(BACK, &format!("{name} is detected as up"), || {
            Ok(self.stage.daemon()?.health("web", &name)? == "up")
        })?;
        let host = &self.stage.web[KILLED].backend.namespace;
        self.story.say(&format!("  $ ip netns exec {host} nginx -c {name}.conf &"));
        self.story.say(&format!("  -> {name} was found to be up after {} ms.", waited.as_millis()));

        let tally = self.fetch("192.0.2.10", REQUESTS)?;
        ensure!(tally.is_even(self.stage.web.len()), "{name} is back, but the shares are not equal: {tally}");
        Ok(json!({ "noticed_ms": waited.as_millis() as u64, "requests": tally.answers }))
    }

    fn kill_the_daemon(&mut self) -> Result<Value> {
        self.story.step(
            "The daemon itself is killed: the XDP program and its maps stay, and requests are served on.",
        );
        self.story.say(&format!("  $ kill -9 {}        # xlb", self.stage.daemon()?.pid()?));
        self.stage.kill_daemon()?;
        let tally = self.fetch("192.0.2.10", REQUESTS)?;
        ensure!(tally.is_even(self.stage.web.len()), "without the daemon: {tally}");
        self.story.say(&format!(
            "  $ ip netns exec {} xlb run &       # takes over what is there",
            self.stage.lab.xlb
        ));
        self.stage.start_daemon()?;
        Ok(json!({ "requests": tally.answers }))
    }

    fn show_the_statistics(&mut self) -> Result<Value> {
        self.story.step("What xlb counted, for people and for Prometheus.");
        let daemon = self.stage.daemon()?;
        self.story.xlb(daemon, "stats")?;
        let metrics = daemon.metrics()?;
        let names = [
            "xlb_service_new_flows_total",
            "xlb_backend_up",
            "xlb_backend_new_flows_total",
            "xlb_xdp_packets_total",
        ];
        let lines: Vec<_> = names.iter().flat_map(|name| metrics.lines(name)).collect();
        self.story.show(&format!("xlb metrics | grep -E '^({})'", names.join("|")), &lines.join("\n"));

        let flows = metrics.sum("xlb_service_new_flows_total", &[("service", "web")]);
        ensure!(flows >= (4 * REQUESTS) as f64, "{flows} flows were counted, there were {}", 4 * REQUESTS);
        Ok(json!({ "web_new_flows": flows }))
    }

    /// Fetches with curl, and counts answers by server.
    fn fetch(&self, host: &str, requests: usize) -> Result<Tally> {
        let line = format!("{} | sort | uniq -c", fetching(host, requests, ""));
        let output = self.stage.lab.client.run(&["sh", "-c", &line])?;
        self.story.show(&format!("ip netns exec {} {line}", self.stage.lab.client), &output);

        let counted = output.lines().filter_map(|line| line.trim().split_once(' '));
        let answers = counted.filter_map(|(count, name)| Some((name.to_owned(), count.parse().ok()?)));
        Ok(Tally { answers: answers.collect(), ..Tally::default() })
    }
}

fn clean_up(mut stage: Stage, story: &Story, options: Options) -> Result<()> {
    if options.keep {
        story.step("Everything stays up (--keep).");
        return stage.keep(story);
    }
    story.step("Everything is removed: processes, namespaces, pinned maps, files.");
    let lab = stage.lab.name().to_owned();
    drop(stage);
    let left = namespace::beginning_with(&format!("{lab}-"))?;
    ensure!(left.is_empty() && !sweep::directory(&lab).exists(), "something of {lab} was left behind");
    story.show(&format!("ip netns list | grep {lab}"), "");
    Ok(())
}

/// The command line that fetches this many times, on a connection each. Servers answer with their name.
fn fetching(host: &str, requests: usize, options: &str) -> String {
    format!("curl -s {options}-H 'Connection: close' 'http://{host}/?[1-{requests}]'")
}

fn tally(names: &str) -> Tally {
    let mut tally = Tally::default();
    for name in names.lines() {
        *tally.answers.entry(name.to_owned()).or_default() += 1;
    }
    tally
}
