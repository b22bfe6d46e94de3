//! Just enough ELF to see whether a program needs a dynamic loader.

use anyhow::{Context as _, Result, bail};

const PT_INTERP: u32 = 3;

/// True for a 64-bit little-endian ELF program without an interpreter.
pub(super) fn is_static(file: &[u8]) -> Result<bool> {
    let Some(b"\x7fELF\x02\x01") = file.get(..6) else {
        bail!("not a 64-bit little-endian ELF file");
    };
    let table = usize::try_from(u64::from_le_bytes(field(file, 0x20)?)).context("program header offset")?;
    let size = usize::from(u16::from_le_bytes(field(file, 0x36)?));
    let count = usize::from(u16::from_le_bytes(field(file, 0x38)?));
    for index in 0..count {
        let at = index.checked_mul(size).and_then(|offset| table.checked_add(offset));
        let kind = u32::from_le_bytes(field(file, at.context("program header out of range")?)?);
        if kind == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}

fn field<const N: usize>(file: &[u8], at: usize) -> Result<[u8; N]> {
    file.get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .with_context(|| format!("cut off at byte {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header and program headers of the given types.
    fn elf(kinds: &[u32]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x20..0x28].copy_from_slice(&64u64.to_le_bytes());
        file[0x36..0x38].copy_from_slice(&56u16.to_le_bytes());
        file[0x38..0x3a].copy_from_slice(&u16::try_from(kinds.len()).unwrap().to_le_bytes());
        for kind in kinds {
            file.extend(kind.to_le_bytes());
            file.extend([0; 52]);
        }
        file
    }

    #[test]
    fn an_interpreter_makes_it_dynamic() {
        assert!(is_static(&elf(&[1, 2, 6])).unwrap());
        assert!(!is_static(&elf(&[6, PT_INTERP, 1])).unwrap());
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(is_static(b"").is_err());
        assert!(is_static(b"#!/bin/sh\nexec true\n").is_err());
        let mut cut = elf(&[1, 1]);
        cut.truncate(64 + 56);
        assert!(is_static(&cut).is_err());
        let mut far = elf(&[1, 1]);
        far[0x20..0x28].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(is_static(&far).is_err());
    }
}
