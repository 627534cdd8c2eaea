//! Detects pins that are removed while the daemon runs.

use std::{path::PathBuf, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    datapath::{Attached, pins},
    event::Event,
};

/// Interval of checks, and of attempts to restore missing pins.
const INTERVAL: Duration = Duration::from_secs(1);

/// Until shutdown, sends [`Event::PinsRemoved`] every second while one of the pins `names`, or the link to an
/// attached interface, is missing.
pub async fn watch(
    directory: PathBuf,
    names: Vec<String>,
    interfaces: watch::Receiver<Vec<Attached>>,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let mut looks = interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.cancelled() => return,
        }
        let indices: Vec<u32> = interfaces.borrow().iter().map(|it| it.index.0).collect();
        if !pins::are_complete(&directory, &names, &indices) && events.send(Event::PinsRemoved).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use lb_common::{hop::InterfaceIndex, net::Mac};
    use tokio::{sync::mpsc::error::TryRecvError, time::sleep};

    use super::*;
    use crate::spec::LinkMode;

    #[tokio::test(start_paused = true)]
    async fn a_missing_pin_of_a_map_a_link_or_all_is_noticed_within_a_second() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("v1");
        let all = || {
            fs::create_dir_all(&directory).unwrap();
            for name in ["FLOWS4", "lb", "link_3"] {
                fs::write(directory.join(name), "").unwrap();
            }
        };
        all();
        let stop = CancellationToken::new();
        let (events, mut inbox) = mpsc::channel(8);
        let (_interfaces, attached) = watch::channel(vec![eth0()]);
        let names = vec!["FLOWS4".into(), "lb".into()];
        tokio::spawn(watch(directory.clone(), names, attached, events, stop));

        sleep(INTERVAL * 5 / 2).await;
        assert!(matches!(inbox.try_recv(), Err(TryRecvError::Empty)), "all are there");

        for missing in ["FLOWS4", "link_3", "lb", ""] {
            let path = directory.join(missing);
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.unwrap();

            sleep(INTERVAL).await;

            assert!(matches!(inbox.try_recv(), Ok(Event::PinsRemoved)), "{missing}");
            all();
        }
    }

    fn eth0() -> Attached {
        Attached {
            name: "eth0".into(),
            index: InterfaceIndex(3),
            mode: LinkMode::Native,
            mtu: 1500,
            mac: Mac::default(),
        }
    }
}
