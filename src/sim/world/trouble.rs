//! Faults of machines, as they begin and end. Those of links are in their weather.

use super::World;
use super::event::Event;
use super::serve::attempt;
use crate::model::Time;
use crate::sim::fault::{Fault, Trouble};

impl World<'_> {
    pub(super) fn begin_faults(&mut self) {
        for (number, fault) in self.scenario.faults.iter().enumerate() {
            let fault_event = |ends| Event::Fault { fault: number as u32, ends };
            self.schedule.at(Time::from_ms(fault.from_ms), fault_event(false));
            if fault.to_ms.is_finite() {
                self.schedule.at(Time::from_ms(fault.to_ms), fault_event(true));
            }
        }
    }

    pub(super) fn fault(&mut self, number: usize, ends: bool) {
        let scenario = self.scenario;
        let fault = &scenario.faults[number];
        for (machine, replica) in scenario.fleet.replicas.iter().enumerate() {
            if fault.trouble.befalls(&replica.name) {
                self.befall(machine, &replica.name, fault, ends);
                self.replan(machine);
            }
        }
    }

    fn befall(&mut self, machine: usize, name: &str, fault: &Fault, ends: bool) {
        match fault.trouble {
            Trouble::Down(_) if ends => self.come_back(machine, name),
            Trouble::Down(_) => self.die(machine),
            Trouble::Hang(_) if !ends => self.machines[machine].stall(self.now, Time::from_ms(fault.to_ms)),
            Trouble::Slow(..) => {
                let factor = self.slowness(name);
                self.machines[machine].set_slowness(factor);
            }
            Trouble::Hang(_) | Trouble::Rtt(..) | Trouble::Cut(_) => {}
        }
    }

    /// The process dies: its connections break at once.
    fn die(&mut self, machine: usize) {
        for job in self.machines[machine].kill() {
            let attempt = attempt(job);
            if self.is_present(attempt) {
                self.back(attempt, Event::Lost { attempt, gone: true });
            }
        }
    }

    fn come_back(&mut self, machine: usize, name: &str) {
        let still_down =
            self.under_way().any(|fault| matches!(&fault.trouble, Trouble::Down(_)) && fault.trouble.befalls(name));
        if !still_down {
            self.machines[machine].start();
        }
    }

    /// What all faults under way make of this replica's speed together.
    fn slowness(&self, name: &str) -> f64 {
        let factor = |fault: &Fault| match &fault.trouble {
            Trouble::Slow(_, factor) if fault.trouble.befalls(name) => Some(*factor),
            _ => None,
        };
        self.under_way().filter_map(factor).product()
    }

    fn under_way(&self) -> impl Iterator<Item = &Fault> {
        let now = self.now;
        let faults = self.scenario.faults.iter();
        faults.filter(move |fault| Time::from_ms(fault.from_ms) <= now && now < Time::from_ms(fault.to_ms))
    }
}
