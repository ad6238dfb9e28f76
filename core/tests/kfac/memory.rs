//! Memory of members, counted by the backend that allocates it.

use crate::dense::Device;
use kronfleet_core::backend::{Backend, Extent};
use kronfleet_core::layer::Block;
use kronfleet_core::network::{Network, Spec};
use kronfleet_core::placement::{Decomposers, Load, Machine, Placement, Plan, Wire, Work};
use kronfleet_core::preconditioner::{Form, Kronecker, Member, Options, Preconditioner};
use kronfleet_core::transport::TransportError;

/// Nobody is asked.
struct Silent;

impl Wire<f64> for Silent {
    fn mean(&mut self, _: Option<usize>, _: &mut [f64]) -> Result<(), TransportError> {
        unreachable!("no step is made")
    }

    fn broadcast(&mut self, _: usize, _: &[usize], _: &mut [f64]) -> Result<(), TransportError> {
        unreachable!("no step is made")
    }
}

const NAMES: [&str; 5] = ["one", "two", "three", "four", "five"];
const ROWS: [usize; 5] = [40, 25, 60, 31, 10];

fn network(backend: &mut Device) -> Network<Device> {
    let specs: Vec<Spec> = NAMES.iter().zip(ROWS).map(|(name, rows)| Spec::dense(*name, rows)).collect();
    Network::build(backend, Extent::flat(50), &specs, 1).expect("the network fits")
}

fn placements() -> Vec<Placement> {
    let cheaper = Placement { decomposers: Decomposers::Cheaper, ..Placement::kaisa(0.5) };
    vec![
        Placement::d_kfac(),
        Placement::mpd(true),
        Placement::mpd(false),
        Placement::spd(),
        cheaper,
        Placement::kaisa(0.3),
        Placement { apart: true, ..Placement::kaisa(0.3) },
        Placement { apart: true, ..Placement::mpd(false) },
        Placement::owner_reduce(),
        Placement::dp_kfac(),
    ]
}

fn plan(blocks: &[Block], placement: &Placement, members: usize, form: Form, split: usize) -> Plan {
    let loads: Vec<Load> = blocks.iter().map(|block| Load::from(block).split(split)).collect();
    // Of these factors some are cheaper to decompose than to send.
    let machine = Machine { bandwidth: 3e7, latency: 0.0, ..Machine::default() };
    Plan::new(placement, &loads, members, &Work { form, batch: 1, machine })
}

/// Scalars that the backend allocates for a preconditioner, but for the mean gradient, the direction and memory for it.
fn allocated(placement: &Placement, (members, me): (usize, usize), (form, split): (Form, usize)) -> usize {
    let mut backend = Device::new();
    let network = network(&mut backend);
    let options = Options { form, split_factors: split, ..Options::default() };
    let member = Member { plan: plan(network.blocks(), placement, members, form, split), me, wire: Box::new(Silent) };
    let (len, statistics) = (network.parameters_len(), network.statistics_len());
    let before = backend.counters().allocated;
    let kfac = Kronecker::divided(&mut backend, network.blocks(), statistics, len, options, member);
    kfac.expect("memory");
    (backend.counters().allocated - before) as usize - 3 * len
}

/// Of no more than what aligns matrices (256 bytes: 32 scalars, in at most six buffers for each of a block's factors) and
/// single scalars is not in the plan.
fn slack(parts: usize) -> usize {
    6 * 32 * parts + 40 * parts
}

#[test]
fn members_have_memory_for_what_the_plan_gives_them() {
    for placement in placements() {
        for (form, split) in [(Form::Inverse, 0), (Form::Eigen, 0), (Form::Inverse, 20)] {
            for members in [1, 2, 3, 4, 7] {
                let blocks = network(&mut Device::new()).blocks().to_vec();
                let plan = plan(&blocks, &placement, members, form, split);
                let parts: usize = plan.loads().iter().flat_map(Load::parts).map(|parts| parts.len()).sum();
                for me in 0..members {
                    let counted = allocated(&placement, (members, me), (form, split));
                    let planned = plan.memory(me).total();
                    let case = format!("{placement:?}, {form:?}, split {split}, {me} of {members}");
                    assert!(counted >= planned, "{case}: {counted} scalars, planned {planned}");
                    assert!(counted <= planned + slack(parts), "{case}: {counted} scalars, planned {planned}");
                }
            }
        }
    }
}

/// Those of members that come and go are laid out anew with every division of the work; copies of the averages stay.
#[test]
fn memory_follows_the_members_that_come_and_go() {
    let form = Form::Inverse;
    for placement in [Placement::dp_kfac(), Placement::owner_reduce(), Placement::mpd(false)] {
        let mut backend = Device::new();
        let network = network(&mut backend);
        let lengths = [network.statistics_len(), network.parameters_len()];
        let work = Work { form, batch: 1, machine: Machine::default() };
        let mut kfac =
            Kronecker::elastic(&mut backend, network.blocks(), lengths, Options::default(), (placement, work))
                .expect("memory");
        for (members, me) in [(4, 3), (2, 0), (1, 0), (3, 1)] {
            let before = backend.counters().allocated;
            kfac.join(&mut backend, members, me).expect("memory");
            let laid = (backend.counters().allocated - before) as usize;
            let loads: Vec<Load> = network.blocks().iter().map(Load::from).collect();
            let memory = Plan::new(&placement, &loads, members, &work).memory(me);
            let planned = memory.total() - memory.averages;
            let case = format!("{placement:?}, {me} of {members}");
            assert!(laid >= planned && laid <= planned + slack(10), "{case}: {laid} scalars, planned {planned}");
        }
    }
}
