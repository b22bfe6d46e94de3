//! Packets to no frontend: they go where they say, but the answers to them must not be taken for those of a flow.

use proxy_common::{Direction, Hook, NO_BACKEND, NO_SERVICE_PORT, Onward, Role};

use super::{
    Answer, DROP, Model, PASS,
    open::{Shape, Target},
};
use crate::{
    flows::{Table, Tuple, filter_position},
    kernel::Program,
    parse::{Ip, Ports},
};

impl Model<'_> {
    /// A packet that may open a flow, to an address that is none of a Service.
    pub(super) fn direct(&mut self, ip: &Ip, ports: Ports, tuple: Tuple) -> Answer {
        let Some(reply_hook) = self.hook_of_replies(&tuple) else { return PASS };
        if self.was_with_xdp(ip) {
            return PASS;
        }
        let shape = Shape { masquerade: None, reply_hook, onward: (Onward::Stack, Onward::Stack) };
        let target = Target {
            address: tuple.destination,
            port: tuple.destination_port,
            backend: NO_BACKEND,
            generation: 0,
            service_port: NO_SERVICE_PORT,
        };
        self.port_is_anothers = true;
        if let Some(theirs) = self.observed.tables.flow(Table::New, &tuple) {
            return self.establish(ip, ports, tuple, &shape, &target, &theirs);
        }
        self.state.watch(Table::New, tuple);
        let crowded = self.is_crowded(&shape, &tuple, target.address, target.port);
        if crowded && self.observed.counts.source_ports_exhausted == 1 {
            self.counts.source_ports_exhausted += 1;
        } else {
            self.complain(format!("a flow of {tuple:?} should have been opened, for another source port"));
        }
        DROP
    }

    /// Whether a packet would have been changed by XDP, were it not what XDP has made of another.
    pub(super) fn was_with_xdp(&self, ip: &Ip) -> bool {
        self.run.program == Program::UplinkIngress
            && ip.fragment.is_none()
            && self.node.place.link(self.run.link).xdp_first
    }

    /// Where answers to a packet would be taken for those of a flow.
    fn hook_of_replies(&self, tuple: &Tuple) -> Option<Hook> {
        let position = filter_position(tuple.destination, Role::Endpoint);
        if !self.state.filter.contains(&position) {
            return None;
        }
        let answer = tuple.flip();
        let entry =
            self.state.flow(Table::Confirmed, &answer).or_else(|| self.state.flow(Table::New, &answer))?;
        (entry.direction == Direction::Reply).then_some(entry.hook)
    }
}
