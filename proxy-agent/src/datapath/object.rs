use aya_obj::{EbpfSectionKind, Object};

use super::{Capacities, Error, sys::MapShape};

/// The compiled programs, or nothing in an agent that was built without them.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxy-ebpf"));

/// The object file with the programs.
///
/// # Errors
/// [`Error::NoObject`].
pub(crate) fn embedded() -> Result<&'static [u8], Error> {
    if EMBEDDED.is_empty() { Err(Error::NoObject) } else { Ok(EMBEDDED) }
}

/// The maps that are pinned, by name, in the form in which they will be created.
pub(crate) fn map_shapes(object: &[u8], capacities: &Capacities) -> Result<Vec<(String, MapShape)>, Error> {
    let object = Object::parse(object).map_err(|error| Error::Object(error.to_string()))?;
    let mut shapes: Vec<_> = object
        .maps
        .into_iter()
        .filter(|(_, map)| {
            !matches!(
                map.section_kind(),
                EbpfSectionKind::Bss | EbpfSectionKind::Data | EbpfSectionKind::Rodata
            )
        })
        .map(|(name, map)| {
            let max_entries = capacity(&name, capacities).unwrap_or(map.max_entries());
            let shape =
                MapShape::new(map.map_type(), map.key_size(), map.value_size(), max_entries, map.map_flags());
            (name, shape)
        })
        .collect();
    shapes.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(shapes)
}

/// The capacity that was asked for a map; `None` for one whose capacity is fixed.
pub(crate) fn capacity(map: &str, capacities: &Capacities) -> Option<u32> {
    match map {
        "FRONTENDS4" | "FRONTENDS6" => Some(capacities.frontends),
        "SLOTS" => Some(capacities.slots),
        "BACKENDS4" | "BACKEND_LOAD4" => Some(capacities.backends4),
        "BACKENDS6" | "BACKEND_LOAD6" => Some(capacities.backends6),
        "AFFINITY4" | "AFFINITY6" => Some(capacities.affinity),
        "SERVICES" => Some(capacities.services),
        "SOURCE_RANGES4" | "SOURCE_RANGES6" => Some(capacities.source_ranges),
        "FLOWS4" | "FLOWS6" => Some(capacities.flows.saturating_mul(2)),
        "NEW_FLOWS4" | "NEW_FLOWS6" => Some(capacities.new_flows.saturating_mul(2)),
        _ => None,
    }
}
