//! A loaded BPF object whose maps the bench writes in place of the controller.

use std::{
    ffi::c_void, marker::PhantomData, num::NonZeroUsize, ops::Deref, os::fd::AsFd as _, path::PathBuf,
    ptr::NonNull,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData},
    programs::Xdp,
};
use lb_common::{
    flow::Shape,
    limits::FLOW_EVENT_RING_BYTES,
    service::{Service, ServiceKey},
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::{lab, programs};

const OBJECTS: &str = "target/bpf/bpfel-unknown-none/bpf";

/// The path of an object: `XLB_BPF_DIR`, else where `cargo xtask build` leaves it.
pub fn path(name: &str) -> PathBuf {
    std::env::var_os("XLB_BPF_DIR").map_or_else(|| lab::workspace().join(OBJECTS), PathBuf::from).join(name)
}

/// A table of one bucket, for a family that is not used.
pub const UNUSED: Shape = Shape { buckets: 1, lines: 1, half_open: 0, half_open_batch: 0 };

/// An object with all its maps and programs.
pub struct Object {
    ebpf: Ebpf,
    name: String,
}

impl Object {
    /// Loads an object whose program reports flows, as in a group, with flow tables of these sizes.
    pub fn load_in_group(name: &str, v4: Shape, v6: Shape) -> Result<Self> {
        let mut loader = Self::sized(v4, v6, &0);
        loader.override_global("SHARES_FLOWS", &1u8, true);
        loader.map_max_entries("FLOW_EVENTS", FLOW_EVENT_RING_BYTES);
        Self::load_with(name, loader)
    }

    /// Loads an object that has no flow tables.
    pub fn load(name: &str) -> Result<Self> {
        Self::load_with(name, EbpfLoader::new())
    }

    /// Loads an object with flow tables of these sizes. The clock is fixed, unless `clock_is_set` is 0.
    pub fn load_sized(name: &str, v4: Shape, v6: Shape, clock_is_set: u8) -> Result<Self> {
        Self::load_with(name, Self::sized(v4, v6, &clock_is_set))
    }

    fn sized<'a>(v4: Shape, v6: Shape, clock_is_set: &'a u8) -> EbpfLoader<'a> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("FLOWS4", v4.buckets).map_max_entries("REPLY_INDEX4", v4.lines);
        loader.map_max_entries("FLOWS6", v6.buckets).map_max_entries("REPLY_INDEX6", v6.lines);
        loader.override_global("CLOCK_IS_SET", clock_is_set, true);
        programs::set_backends_mask(&mut loader);
        loader
    }

    /// Loads an object with these sizes, without traces.
    pub fn load_with(name: &str, mut loader: EbpfLoader<'_>) -> Result<Self> {
        let path = path(name);
        let load = || format!("load {}; it is made by `cargo xtask build`", path.display());
        loader.override_global("AYA_LOG_LEVEL", &0u8, false);
        let mut ebpf = loader.load_file(&path).with_context(load)?;
        programs::load(&mut ebpf).with_context(|| format!("load the programs of {name}"))?;
        Ok(Self { ebpf, name: name.to_owned() })
    }

    /// A program.
    pub fn program(&self, name: &str) -> Result<&Xdp> {
        let program = self.ebpf.program(name);
        Ok(program.with_context(|| format!("{} has no program {name}", self.name))?.try_into()?)
    }

    /// A program to attach.
    pub fn program_mut(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name);
        Ok(program.with_context(|| format!("{} has no program {name}", self.name))?.try_into()?)
    }

    /// A map.
    pub fn map(&self, name: &str) -> Result<&Map> {
        self.ebpf.map(name).with_context(|| format!("{} has no map {name}", self.name))
    }

    /// A map to write.
    pub fn map_mut(&mut self, name: &str) -> Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("{} has no map {name}", self.name))
    }

    /// Writes an element of an array.
    pub fn set(&mut self, map: &str, index: u32, value: impl Pod) -> Result<()> {
        Array::try_from(self.map_mut(map)?)?
            .set(index, value, 0)
            .with_context(|| format!("write {map}[{index}]"))
    }

    /// Maps `key` to a pool.
    pub fn listen(&mut self, key: ServiceKey, service: Service) -> Result<()> {
        Ok(HashMap::try_from(self.map_mut("SERVICES")?)?.insert(key, service, 0)?)
    }

    /// The elements of an mmapable array. `T` must be the program's type.
    pub fn mapped<T>(&self, map: &str) -> Result<Mapped<T>> {
        let Map::Array(data) = self.map(map)? else { bail!("{map} is no array") };
        Mapped::new(data).with_context(|| format!("map {map}"))
    }
}

/// The elements of an array map, mapped into memory.
pub struct Mapped<T> {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    count: usize,
    elements: PhantomData<T>,
}

// SAFETY: a mapping belongs to the process, not to the thread that made it.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T> Mapped<T> {
    /// Maps all elements.
    pub fn new(data: &MapData) -> Result<Self> {
        let info = data.info()?;
        let (size, count) = (info.value_size() as usize, info.max_entries() as usize);
        if size != size_of::<T>() || size % 8 != 0 {
            bail!("its values have {size} bytes and not {}", size_of::<T>());
        }
        let bytes = NonZeroUsize::new(size * count).context("it is empty")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, data.fd().as_fd(), 0) }?;
        Ok(Self { start, bytes, count, elements: PhantomData })
    }

    /// Writes an element.
    pub fn set(&mut self, index: usize, value: T) {
        assert!(index < self.count, "{index} of {} elements", self.count);
        // SAFETY: within the mapping (just checked), which is writable and aligned to a page.
        unsafe { self.start.cast::<T>().add(index).write(value) }
    }

    /// Zeroes the map, which must not be in use meanwhile.
    pub fn clear(&mut self) {
        // SAFETY: the mapping is `bytes` long and writable; `&mut` and the caller keep others away.
        unsafe { self.start.cast::<u8>().write_bytes(0, self.bytes.get()) }
    }
}

impl<T> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `count` elements of this size, on a page, for as long as `self`; the types that are mapped consist of
        // words that may change while they are read.
        unsafe { std::slice::from_raw_parts(self.start.cast::<T>().as_ptr(), self.count) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the whole of our own mapping, and no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}
