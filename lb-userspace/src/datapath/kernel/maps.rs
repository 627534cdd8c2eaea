//! The maps, with their types.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use anyhow::{Context, anyhow, bail};
use aya::{
    Ebpf,
    maps::{Array, DevMap, HashMap, Map, MapData, PerCpuArray},
};
use lb_common::{
    cell::Word,
    counters::{ActionCounters, BackendCounters, BackendNumber, ServiceCounters, ServiceNumber, Tally},
    hop::Interface,
    service::{Filter, Service, ServiceKey},
    settings::Settings,
};

use super::schedules::Schedules;
use crate::datapath::{
    backends::Backends,
    filter::Bit,
    flows::{Flows, Table},
    mapping::{Mapped, Mapping},
    names::{self, Record},
    past::{self, Counted, PastCounters},
    sharing::Reporter,
};

/// A [`Filter`] as words. Only the controller writes to it.
type FilterWords = [Word; Filter::SIZE / size_of::<Word>()];

/// All maps except the ring, which a task of its own reads.
pub struct Maps {
    pub settings: Array<MapData, Settings>,
    pub filter: Mapping<FilterWords>,
    pub services: HashMap<MapData, ServiceKey, Service>,
    pub origins: HashMap<MapData, ServiceKey, ServiceKey>,
    pub schedules: Schedules,
    pub backends: Arc<Backends>,
    pub interfaces: Array<MapData, Interface>,
    pub devices: DevMap<MapData>,
    pub flows: Arc<Flows>,
    pub backend_counters: PerCpuArray<MapData, BackendCounters>,
    pub service_counters: PerCpuArray<MapData, ServiceCounters>,
    pub reasons: PerCpuArray<MapData, Tally>,
    pub actions: PerCpuArray<MapData, ActionCounters>,
    pub backend_names: HashMap<MapData, BackendNumber, Record>,
    pub service_names: HashMap<MapData, ServiceNumber, Record>,
    /// The contents of `PAST`. Only this value writes to it.
    pub past: PastCounters,
    pub past_map: HashMap<MapData, past::Key, Counted>,
}

/// Maps that the program does not use.
pub struct DaemonMaps {
    pub backend_names: MapData,
    pub service_names: MapData,
    pub past: MapData,
}

impl DaemonMaps {
    /// Opens them, given where each is pinned.
    pub fn open(pin: impl Fn(&str) -> PathBuf) -> anyhow::Result<Self> {
        let named = |name| MapData::from_pin(pin(name)).with_context(|| format!("cannot open {name}"));
        Ok(Self {
            backend_names: named(names::BACKENDS)?,
            service_names: named(names::SERVICES)?,
            past: named(past::MAP)?,
        })
    }
}

impl Maps {
    /// Takes the maps out of the loaded object. Their shapes have been verified. `reporter`: see [`Table::reporter`].
    pub fn take(
        ebpf: &mut Ebpf,
        daemon_maps: DaemonMaps,
        reporter: Option<Reporter>,
    ) -> anyhow::Result<Self> {
        let past_room = daemon_maps.past.info().context("cannot read the size of PAST")?.max_entries();
        let backends = Arc::new(Backends {
            elements: mapping(&array(ebpf, "BACKENDS")?, "BACKENDS")?,
            turns: mapping(&array(ebpf, "TURNS")?, "TURNS")?,
        });
        let past_map = HashMap::try_from(Map::HashMap(daemon_maps.past)).context(past::MAP)?;
        Ok(Self {
            settings: take(ebpf, Settings::SECTION)?,
            filter: mapping(&array(ebpf, Filter::SECTION)?, "FILTER")?,
            services: take(ebpf, "SERVICES")?,
            origins: take(ebpf, "ORIGINS")?,
            schedules: Schedules {
                pools: mapping(&array(ebpf, "POOLS")?, "POOLS")?,
                slots: mapping(&array(ebpf, "SLOTS")?, "SLOTS")?,
                members: mapping(&array(ebpf, "MEMBERS")?, "MEMBERS")?,
                sources: mapping(&array(ebpf, "SOURCES")?, "SOURCES")?,
            },
            interfaces: take(ebpf, "INTERFACES")?,
            devices: take(ebpf, "DEVICES")?,
            flows: Arc::new(Flows {
                v4: Table {
                    buckets: mapping(&array(ebpf, "FLOWS4")?, "FLOWS4")?,
                    lines: mapping(&array(ebpf, "REPLY_INDEX4")?, "REPLY_INDEX4")?,
                    half_open: mapping(&array(ebpf, "HALF_OPEN4")?, "HALF_OPEN4")?,
                    backends: Arc::clone(&backends),
                    reporter: reporter.clone(),
                },
                v6: Table {
                    buckets: mapping(&array(ebpf, "FLOWS6")?, "FLOWS6")?,
                    lines: mapping(&array(ebpf, "REPLY_INDEX6")?, "REPLY_INDEX6")?,
                    half_open: mapping(&array(ebpf, "HALF_OPEN6")?, "HALF_OPEN6")?,
                    backends: Arc::clone(&backends),
                    reporter,
                },
            }),
            backends,
            backend_counters: take(ebpf, "BACKEND_COUNTERS")?,
            service_counters: take(ebpf, "SERVICE_COUNTERS")?,
            reasons: take(ebpf, "REASONS")?,
            actions: take(ebpf, "ACTIONS")?,
            backend_names: HashMap::try_from(Map::HashMap(daemon_maps.backend_names))
                .context(names::BACKENDS)?,
            service_names: HashMap::try_from(Map::HashMap(daemon_maps.service_names))
                .context(names::SERVICES)?,
            past: PastCounters::new(BTreeMap::new(), past_room),
            past_map,
        })
    }

    pub fn settings(&self) -> anyhow::Result<Settings> {
        self.settings.get(&0, 0).context("cannot read SETTINGS")
    }

    /// Rewrites all bytes. Constant fields keep their value; the only field that can change is a word that the program
    /// compares with a stored copy.
    pub fn set_settings(&mut self, settings: &Settings) -> anyhow::Result<()> {
        self.settings.set(0, settings, 0).context("cannot write SETTINGS")
    }

    /// Sets or clears a bit of the prefilter, of which the program reads single bytes.
    pub fn set_filter_bit(&mut self, (place, bit): Bit, is_set: bool) {
        let word = &self.filter()[place / size_of::<Word>()];
        let mut bytes = word.load().to_ne_bytes();
        let byte = &mut bytes[place % size_of::<Word>()];
        *byte = if is_set { *byte | bit } else { *byte & !bit };
        word.store(u64::from_ne_bytes(bytes));
    }

    fn filter(&self) -> &FilterWords {
        &self.filter[0]
    }

    /// Reads the contents of `PAST`.
    pub fn read_past(&mut self) -> anyhow::Result<()> {
        let entries = self.past_map.iter().map(|entry| {
            let (name, counted) = entry.context("cannot read PAST")?;
            Ok((names::read(&name)?, counted))
        });
        self.past.set_entries(entries.collect::<anyhow::Result<_>>()?);
        Ok(())
    }
}

// SAFETY: `repr(C)` over integers, without padding (`fields!`).
unsafe impl aya::Pod for Counted {}

fn map(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Map> {
    ebpf.take_map(name).ok_or_else(|| anyhow!("the XDP program has no map {name}"))
}

fn take<T>(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<T>
where
    T: TryFrom<Map>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    T::try_from(map(ebpf, name)?).with_context(|| format!("cannot use the map {name}"))
}

pub fn array(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<MapData> {
    let Map::Array(data) = map(ebpf, name)? else { bail!("the map {name} is not an array") };
    Ok(data)
}

pub fn mapping<T: Mapped>(data: &MapData, name: &str) -> anyhow::Result<Mapping<T>> {
    let info = data.info().with_context(|| format!("cannot read the size of {name}"))?;
    Mapping::new(data.fd(), info.max_entries()).with_context(|| format!("cannot map {name} into memory"))
}
