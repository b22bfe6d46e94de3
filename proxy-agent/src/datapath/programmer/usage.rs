use super::Programmer;
use crate::datapath::{probe::MapUsage, tables::Tables};

impl<T: Tables> Programmer<T> {
    /// How full each map is that the agent fills.
    pub(crate) fn usage(&self) -> Vec<MapUsage> {
        let capacities = &self.capacities;
        let usage = |map, entries, capacity: u32| MapUsage { map, entries, capacity: capacity as usize };
        let rest = |map, available: usize, capacity: u32| {
            usage(map, (capacity as usize).saturating_sub(available), capacity)
        };
        let [frontends4, frontends6] = self.frontend_counts;
        let [sources4, sources6] = self.sources.counts();
        let [backends4, backends6] = &self.backends;
        // Id 0 is never given out.
        vec![
            usage("FRONTENDS4", frontends4, capacities.frontends),
            usage("FRONTENDS6", frontends6, capacities.frontends),
            rest("BACKENDS4", backends4.available() + 1, capacities.backends4),
            rest("BACKENDS6", backends6.available() + 1, capacities.backends6),
            rest("SLOTS", self.slots.available() as usize, capacities.slots),
            rest("SERVICES", self.service_ports.available() + 1, capacities.services),
            usage("SOURCE_RANGES4", sources4, capacities.source_ranges),
            usage("SOURCE_RANGES6", sources6, capacities.source_ranges),
        ]
    }
}
