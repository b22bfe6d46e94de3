//! Where the kernel keeps what: its own description of its types (BTF), of which only a few names are looked for.
//! Taking all of it in, as a loader would, costs ten times as long and 30 MB for a moment.

use std::collections::HashMap;

use thiserror::Error;

/// Of the running kernel.
pub(crate) const RUNNING: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_TYPE_TAG: u32 = 18;
const KIND_ENUM64: u32 = 19;

/// Types within types that are followed at most: the kernel's own structures have a handful.
const DEPTH: usize = 8;

/// Why something was not found.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The bytes are not what they should be.
    #[error("the kernel's type information is damaged or of another version")]
    Damaged,
    /// A function.
    #[error("the kernel has no function {0}")]
    Function(String),
    /// A field of a structure.
    #[error("the kernel has no field {0}")]
    Field(String),
}

/// The types of a kernel, by what they are looked up with.
#[derive(Debug)]
pub(crate) struct KernelTypes<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type starts; type 0 is nothing.
    starts: Vec<u32>,
    structures: HashMap<&'a [u8], u32>,
    functions: HashMap<&'a [u8], u32>,
}

#[derive(Clone, Copy)]
struct Header {
    name: u32,
    info: u32,
    /// Size of a structure, number of the type behind another name.
    size_or_type: u32,
}

impl Header {
    fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    fn members(self) -> usize {
        (self.info & 0xffff) as usize
    }
}

impl<'a> KernelTypes<'a> {
    /// Goes through all types, and remembers where these structures and functions are.
    pub(crate) fn find(bytes: &'a [u8], structures: &[&str], functions: &[&str]) -> Result<Self, Missing> {
        let header_length = word(bytes, 4).ok_or(Missing::Damaged)? as usize;
        let magic = bytes.first_chunk().map(|magic| u16::from_ne_bytes(*magic));
        if magic != Some(MAGIC) {
            return Err(Missing::Damaged);
        }
        let section = |at| -> Option<&[u8]> {
            let start = header_length.checked_add(word(bytes, at)? as usize)?;
            bytes.get(start..start.checked_add(word(bytes, at + 4)? as usize)?)
        };
        let types = section(8).ok_or(Missing::Damaged)?;
        let strings = section(16).ok_or(Missing::Damaged)?;
        let mut all =
            Self { types, strings, starts: vec![0], structures: HashMap::new(), functions: HashMap::new() };
        let mut at = 0;
        while at < types.len() {
            let id = u32::try_from(all.starts.len()).map_err(|_| Missing::Damaged)?;
            all.starts.push(u32::try_from(at).map_err(|_| Missing::Damaged)?);
            let header = header(types, at).ok_or(Missing::Damaged)?;
            let (found, wanted) = match header.kind() {
                KIND_STRUCT => (&mut all.structures, structures),
                KIND_FUNC => (&mut all.functions, functions),
                _ => {
                    at += size(header);
                    continue;
                }
            };
            if let Some(name) = text(strings, header.name)
                && wanted.iter().any(|wanted| wanted.as_bytes() == name)
            {
                found.entry(name).or_insert(id);
            }
            at += size(header);
        }
        Ok(all)
    }

    /// The number of a function.
    pub(crate) fn function(&self, name: &str) -> Result<u32, Missing> {
        self.functions.get(name.as_bytes()).copied().ok_or_else(|| Missing::Function(name.to_owned()))
    }

    /// How many bytes into a structure a field stands. `path` names fields of fields: `ns.inum`; structures without a
    /// name are looked through.
    pub(crate) fn offset(&self, structure: &str, path: &str) -> Result<u32, Missing> {
        let missing = || Missing::Field(format!("{structure}.{path}"));
        let mut id = *self.structures.get(structure.as_bytes()).ok_or_else(missing)?;
        let mut offset = 0;
        for name in path.split('.') {
            let (bits, of_type) = self.field(id, name.as_bytes(), DEPTH).ok_or_else(missing)?;
            offset += bits / 8;
            id = of_type;
        }
        Ok(offset)
    }

    /// Offset in bits and type of a field.
    fn field(&self, id: u32, name: &[u8], depth: usize) -> Option<(u32, u32)> {
        let (at, header) = self.resolve(id)?;
        let depth = depth.checked_sub(1)?;
        let has_bit_fields = header.info >> 31 == 1;
        (0..header.members()).find_map(|member| {
            let at = at + 12 + member * 12;
            let (own_name, of_type) = (word(self.types, at)?, word(self.types, at + 4)?);
            let bits = word(self.types, at + 8)?;
            let bits = if has_bit_fields { bits & 0x00ff_ffff } else { bits };
            match text(self.strings, own_name)? {
                b"" => {
                    let (inner, of_type) = self.field(of_type, name, depth)?;
                    Some((bits + inner, of_type))
                }
                own if own == name => Some((bits, of_type)),
                _ => None,
            }
        })
    }

    /// The structure or union behind other names, and where it starts.
    fn resolve(&self, mut id: u32) -> Option<(usize, Header)> {
        for _ in 0..DEPTH {
            let at = *self.starts.get(id as usize).filter(|_| id != 0)? as usize;
            let header = header(self.types, at)?;
            match header.kind() {
                KIND_STRUCT | KIND_UNION => return Some((at, header)),
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_TYPE_TAG => id = header.size_or_type,
                _ => return None,
            }
        }
        None
    }
}

/// Bytes of a type with all that belongs to it.
fn size(header: Header) -> usize {
    let more = match header.kind() {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * header.members(),
        KIND_ENUM | KIND_FUNC_PROTO => 8 * header.members(),
        _ => 0,
    };
    12 + more
}

fn header(types: &[u8], at: usize) -> Option<Header> {
    Some(Header { name: word(types, at)?, info: word(types, at + 4)?, size_or_type: word(types, at + 8)? })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_ne_bytes(*word))
}

fn text(strings: &[u8], at: u32) -> Option<&[u8]> {
    let rest = strings.get(at as usize..)?;
    rest.split(|byte| *byte == 0).next()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A structure `outer { int a; union { struct { int b; int c; }; }; typedef'd struct inner d; }` with
    /// `inner { int e; }`, and a function `go`.
    fn types() -> Vec<u8> {
        let mut strings = vec![0_u8];
        let mut name = |text: &str| {
            let at = strings.len();
            strings.extend(text.bytes().chain([0]));
            u32::try_from(at).unwrap()
        };
        let info = |kind: u32, members: u32| kind << 24 | members;
        let (a, b, c, d, e) = (name("a"), name("b"), name("c"), name("d"), name("e"));
        let words = [
            // 1: int
            vec![name("int"), info(KIND_INT, 0), 4, 32],
            // 2: struct { int b; int c; }
            vec![0, info(KIND_STRUCT, 2), 8, b, 1, 0, c, 1, 32],
            // 3: union { 2 }
            vec![0, info(KIND_UNION, 1), 8, 0, 2, 0],
            // 4: struct inner { int e; }, after eight bytes of something
            vec![name("inner"), info(KIND_STRUCT, 1), 12, e, 1, 64],
            // 5: typedef inner_t
            vec![name("inner_t"), info(KIND_TYPEDEF, 0), 4],
            // 6: struct outer, with the flag for bit fields
            vec![name("outer"), 1 << 31 | info(KIND_STRUCT, 3), 24, a, 1, 0, 0, 3, 32, d, 5, 96],
            // 7: void go(void)
            vec![0, info(KIND_FUNC_PROTO, 0), 0],
            // 8: go
            vec![name("go"), info(KIND_FUNC, 0), 7],
        ];
        let types: Vec<u8> = words.concat().into_iter().flat_map(u32::to_ne_bytes).collect();
        let mut bytes = [MAGIC.to_ne_bytes(), [1, 0]].concat();
        let lengths = [24, 0, types.len(), types.len(), strings.len()];
        bytes.extend(lengths.into_iter().flat_map(|length| u32::try_from(length).unwrap().to_ne_bytes()));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn fields_are_found_through_structures_without_a_name_and_other_names() {
        let bytes = types();
        let found = KernelTypes::find(&bytes, &["outer"], &["go"]).unwrap();
        let offset = |path| found.offset("outer", path);
        assert_eq!([offset("a"), offset("b"), offset("c"), offset("d")], [Ok(0), Ok(4), Ok(8), Ok(12)]);
        assert_eq!(offset("d.e"), Ok(20));
        assert_eq!(found.function("go"), Ok(8));
        assert_eq!(offset("d.f"), Err(Missing::Field("outer.d.f".to_owned())));
        assert_eq!(offset("a.b"), Err(Missing::Field("outer.a.b".to_owned())));
        assert_eq!(
            found.offset("inner", "e"),
            Err(Missing::Field("inner.e".to_owned())),
            "was not asked for"
        );
        assert_eq!(found.function("stop"), Err(Missing::Function("stop".to_owned())));
    }

    #[test]
    fn what_is_cut_off_is_damaged_and_no_more() {
        let bytes = types();
        for length in 0..bytes.len() {
            assert!(KernelTypes::find(&bytes[..length], &["outer"], &[]).is_err(), "{length}");
        }
    }

    #[test]
    fn the_running_kernel_has_sockets() {
        let Ok(bytes) = fs::read(RUNNING) else { return };
        let found = KernelTypes::find(&bytes, &["sock_common"], &[]).unwrap();
        assert_eq!(found.offset("sock_common", "skc_daddr"), Ok(0));
        assert_eq!(found.offset("sock_common", "skc_num"), Ok(14));
    }
}
