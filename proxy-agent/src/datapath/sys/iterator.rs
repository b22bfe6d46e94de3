use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
};

use aya_obj::generated::bpf_insn;
use bytemuck::{Pod, Zeroable};

use super::{LINK_CREATE, PROG_LOAD, Program, address, address_mut, bpf, owned, raw};

const MAP_FREEZE: u32 = 22;
const ITER_CREATE: u32 = 33;

const BPF_PROG_TYPE_TRACING: u32 = 26;
const BPF_TRACE_ITER: u32 = 28;

/// `BPF_LINK_CREATE` of an iterator: program, nothing, attach type, flags, and what to iterate over.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct IteratorLink {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    info: u64,
    info_len: u32,
    reserved: u32,
}

/// A program that the kernel is to run over things of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TracingProgram<'a> {
    /// At most 15 bytes.
    pub(crate) name: &'a str,
    pub(crate) instructions: &'a [bpf_insn],
    /// Number of the function in the kernel's types whose arguments it gets.
    pub(crate) attach_btf_id: u32,
}

/// Loads a program for iterators. On failure the second part is what the verifier said, which may be nothing.
pub(crate) fn load_iterator(program: TracingProgram<'_>) -> Result<OwnedFd, (io::Error, String)> {
    let mut name = [0; 16];
    for (to, from) in name[..15].iter_mut().zip(program.name.bytes()) {
        *to = from;
    }
    let mut attributes = Program {
        program_type: BPF_PROG_TYPE_TRACING,
        instruction_count: u32::try_from(program.instructions.len()).unwrap_or(u32::MAX),
        instructions: address(program.instructions),
        license: c"GPL".as_ptr() as u64,
        name,
        expected_attach_type: BPF_TRACE_ITER,
        attach_btf_id: program.attach_btf_id,
        ..Program::zeroed()
    };
    let first = bpf(PROG_LOAD, &mut attributes).map(owned);
    first.map_err(|error| {
        // Once more, only to hear why.
        let mut log = vec![0_u8; 64 << 10];
        attributes.log_level = 1;
        attributes.log_size = u32::try_from(log.len()).unwrap_or_default();
        attributes.log = address_mut(log.as_mut_slice());
        let _same = bpf(PROG_LOAD, &mut attributes).map(owned);
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        (error, String::from_utf8_lossy(&log[..end]).into_owned())
    })
}

/// Makes an iterator that runs a program for each entry of a map, each time it is read from the start.
pub(crate) fn iterator_over_map(program: impl AsFd, map: impl AsFd) -> io::Result<OwnedFd> {
    let info = raw(&map);
    let mut attributes = IteratorLink {
        program: raw(&program),
        attach_type: BPF_TRACE_ITER,
        info: address(&info),
        info_len: u32::try_from(size_of::<u32>()).unwrap_or_default(),
        ..IteratorLink::zeroed()
    };
    bpf(LINK_CREATE, &mut attributes).map(owned)
}

/// Runs an iterator once, and returns all that its program has written.
pub(crate) fn iterate(iterator: impl AsFd) -> io::Result<Vec<u8>> {
    let mut file = bpf(ITER_CREATE, &mut [raw(&iterator), 0]).map(owned).map(File::from)?;
    let mut all = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        match file.read(&mut part) {
            Ok(0) => return Ok(all),
            Ok(length) => all.extend_from_slice(&part[..length]),
            // After a million entries of which nothing was written, so that others can run too.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a map unchangeable for this side, so that the verifier can take what it holds for constants.
pub(crate) fn freeze_map(map: impl AsFd) -> io::Result<()> {
    bpf(MAP_FREEZE, &mut raw(&map)).map(drop)
}
