use std::{marker::PhantomData, mem::offset_of, net::IpAddr, os::fd::OwnedFd};

use bytemuck::NoUninit;
use proxy_common::{Backend4, Backend6, BackendLoad};

use super::{check_sizes, hash::in_batches};
use crate::datapath::{
    Error,
    mapped::MappedArray,
    sys,
    tables::{Backend, Failures},
};

/// One of the two forms of a backend record.
pub(super) trait Record: NoUninit {
    const LISTS: usize;
    const GENERATION: usize;
    const SERVICE_PORT: usize;

    /// The record in entry `id`, or `None` when it is none.
    fn load(array: &MappedArray, id: u32) -> Option<Backend>;
    /// `None` when the address is of the other family.
    fn of(backend: &Backend) -> Option<Self>;
    /// Stores the whole record, in words.
    fn store(self, array: &mut MappedArray, id: u32);
}

impl Record for Backend4 {
    const LISTS: usize = offset_of!(Self, lists);
    const GENERATION: usize = offset_of!(Self, generation);
    const SERVICE_PORT: usize = offset_of!(Self, service_port);

    fn load(array: &MappedArray, id: u32) -> Option<Backend> {
        let words: [u64; 2] = array.load(id, 0)?;
        let record: Self = bytemuck::checked::try_pod_read_unaligned(bytemuck::bytes_of(&words)).ok()?;
        let Self { address, port, lists, protocol, generation, service_port } = record;
        Some(Backend { address: address.into(), port, lists, protocol, generation, service_port })
    }

    fn of(backend: &Backend) -> Option<Self> {
        let Backend { address, port, lists, protocol, generation, service_port } = *backend;
        let IpAddr::V4(address) = address else { return None };
        Some(Self { address: address.octets(), port, lists, protocol, generation, service_port })
    }

    fn store(self, array: &mut MappedArray, id: u32) {
        let words: [u64; 2] = bytemuck::cast(bytemuck::bytes_of(&self).try_into().unwrap_or([0_u8; 16]));
        for (offset, word) in (0..).step_by(8).zip(words) {
            array.store(id, offset, word);
        }
    }
}

impl Record for Backend6 {
    const LISTS: usize = offset_of!(Self, lists);
    const GENERATION: usize = offset_of!(Self, generation);
    const SERVICE_PORT: usize = offset_of!(Self, service_port);

    fn load(array: &MappedArray, id: u32) -> Option<Backend> {
        let words: [u64; 4] = array.load(id, 0)?;
        let record: Self = bytemuck::checked::try_pod_read_unaligned(bytemuck::bytes_of(&words)).ok()?;
        let Self { address, port, lists, protocol, generation, service_port, reserved: _ } = record;
        Some(Backend { address: address.into(), port, lists, protocol, generation, service_port })
    }

    fn of(backend: &Backend) -> Option<Self> {
        let Backend { address, port, lists, protocol, generation, service_port } = *backend;
        let IpAddr::V6(address) = address else { return None };
        Some(Self { address: address.octets(), port, lists, protocol, generation, service_port, reserved: 0 })
    }

    fn store(self, array: &mut MappedArray, id: u32) {
        let words: [u64; 4] = bytemuck::cast(bytemuck::bytes_of(&self).try_into().unwrap_or([0_u8; 32]));
        for (offset, word) in (0..).step_by(8).zip(words) {
            array.store(id, offset, word);
        }
    }
}

/// The backends of one family, with their load.
#[derive(Debug)]
pub(super) struct BackendTable<R> {
    records: MappedArray,
    load_name: &'static str,
    loads: OwnedFd,
    record: PhantomData<R>,
}

impl<R: Record> BackendTable<R> {
    pub(super) fn new(records: MappedArray, load_name: &'static str, loads: OwnedFd) -> Result<Self, Error> {
        check_sizes(load_name, &loads, 4, size_of::<BackendLoad>())?;
        Ok(Self { records, load_name, loads, record: PhantomData })
    }

    pub(super) fn trim(&mut self) {
        self.records.trim();
    }

    pub(super) fn entries(&self) -> u32 {
        self.records.entries()
    }

    pub(super) fn get(&self, id: u32) -> Option<Backend> {
        R::load(&self.records, id)
    }

    pub(super) fn generation(&self, id: u32) -> u32 {
        self.records.load(id, R::GENERATION).unwrap_or(0)
    }

    /// Writes the record with the generation of before, which says that it is free, and then the new one.
    pub(super) fn write(&mut self, id: u32, backend: &Backend) {
        let unborn = Backend { generation: self.generation(id), ..*backend };
        if let Some(record) = R::of(&unborn) {
            record.store(&mut self.records, id);
            self.store_generation(id, backend.generation);
        }
    }

    pub(super) fn store_lists(&mut self, id: u32, lists: u8) {
        self.records.store(id, R::LISTS, lists);
    }

    pub(super) fn store_generation(&mut self, id: u32, generation: u32) {
        self.records.store(id, R::GENERATION, generation);
    }

    pub(super) fn store_service_port(&mut self, id: u32, service_port: u32) {
        self.records.store(id, R::SERVICE_PORT, service_port);
    }

    pub(super) fn reset_loads(&mut self, ids: &[u32]) -> Failures {
        let zeroes = vec![BackendLoad::default(); ids.len()];
        in_batches(
            ids.len(),
            |from, to| sys::update_batch(&self.loads, &ids[from..to], &zeroes[from..to]),
            |at| sys::update(&self.loads, sys::bytes(&ids[at]), sys::bytes(&zeroes[at])),
        )
    }

    /// Open sockets by backend.
    pub(super) fn loads(&self, ids: &[u32]) -> Result<Vec<u64>, Error> {
        ids.iter()
            .map(|id| {
                let mut load = BackendLoad::default();
                sys::lookup(&self.loads, sys::bytes(id), bytemuck::bytes_of_mut(&mut load))
                    .map_err(Error::map("reading", self.load_name))?;
                Ok(load.active)
            })
            .collect()
    }
}
