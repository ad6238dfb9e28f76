use super::*;
use crate::placement::{Balance, Machine};
use crate::seed::{Random, Seed};
use alloc::vec;

fn layers(random: &mut Random) -> Vec<Load> {
    let side = |random: &mut Random| 1 + random.below(300) as usize;
    let limit = [0, 40, 100][random.below(3) as usize];
    let layer = |random: &mut Random| {
        let kernel = 1 + 8 * random.below(2) as usize;
        let load = Load::new(side(random), kernel * side(random), 1 + random.below(50) as usize);
        load.patches(kernel).split(limit)
    };
    (0..random.below(12)).map(|_| layer(random)).collect()
}

fn work(random: &mut Random) -> Work {
    let form = [Form::Inverse, Form::Eigen, Form::Ekfac][random.below(3) as usize];
    // From a link that everything is cheaper than, to one that nothing is.
    let bandwidth = libm::pow(10.0, 3.0 + random.below(9) as f64);
    Work { form, batch: 1 + random.below(64) as usize, machine: Machine { bandwidth, ..Machine::default() } }
}

/// The published placements, and any others.
fn placement(random: &mut Random) -> Placement {
    let named = [
        Placement::d_kfac(),
        Placement::mpd(true),
        Placement::mpd(false),
        Placement::spd(),
        Placement::kaisa(0.5),
        Placement::owner_reduce(),
        Placement::dp_kfac(),
    ];
    let named = named[random.below(named.len() as u64) as usize];
    if random.below(2) == 0 {
        return named;
    }
    Placement {
        holders: random.below(11) as f64 / 10.0,
        apart: named.statistics == Statistics::Everywhere && random.below(2) == 0,
        balance: if random.below(2) == 0 { Balance::Largest } else { Balance::Contiguous },
        triangles: random.below(2) == 0,
        ..named
    }
}

/// Plans of every kind, with a number to name them by.
fn plans() -> impl Iterator<Item = (u64, Vec<Load>, Plan)> {
    (0..300).map(|seed| {
        let mut random = Seed(seed).random();
        let (layers, work, placement) = (layers(&mut random), work(&mut random), placement(&mut random));
        let members = 1 + random.below(9) as usize;
        let plan = Plan::new(&placement, &layers, members, &work);
        (seed, layers, plan)
    })
}

/// How often each member gets something, by whom it comes from and how much it is.
fn arrivals(traffic: &Traffic, values: usize, members: usize) -> Vec<usize> {
    let mut times = vec![0; members];
    for exchange in traffic.exchanges() {
        if let Exchange::Broadcast { to, values: of, .. } = exchange
            && *of == values
        {
            to.iter().for_each(|&member| times[member] += 1);
        }
    }
    times
}

#[test]
fn everybody_who_needs_something_makes_it_or_gets_it_once() {
    for (seed, layers, plan) in plans() {
        let members = plan.members();
        // One layer at a time, so that what travels tells which layer it is of.
        for (layer, load) in layers.iter().enumerate() {
            let holders = plan.holders(layer);
            assert!(holders.contains(&plan.owner(layer)), "seed {seed}: the owner of layer {layer} holds it");
            let alone = Plan { places: vec![plan.places[layer].clone()], ..plan.clone() };
            let directions = arrivals(&alone.directions(), load.parameters(), members);
            for (member, &times) in directions.iter().enumerate() {
                let expected = usize::from(!holders.contains(&member));
                assert_eq!(times, expected, "seed {seed}: directions of layer {layer} at {member}");
            }
            let traffic = alone.decompositions();
            let factors: Vec<Factor> = plan.places[layer].factors.concat();
            let decomposers = plan.decomposers(layer);
            let sides = decomposers.each_ref().map(Vec::len);
            assert_eq!(sides, load.parts().map(|parts| parts.len()), "seed {seed}: diagonal blocks of layer {layer}");
            let decomposers = decomposers.concat();
            for (at, factor) in factors.iter().enumerate() {
                // What is of one size cannot be told apart.
                let values = plan.decomposed(factor.rows);
                let needs = |of: usize, member: usize| {
                    let same = plan.decomposed(factors[of].rows) == values;
                    same && holders.contains(&member) && !decomposers[of].contains(&member)
                };
                for (member, times) in arrivals(&traffic, values, members).into_iter().enumerate() {
                    let expected = (0..factors.len()).filter(|&of| needs(of, member)).count();
                    assert_eq!(times, expected, "seed {seed}: factor {at} of layer {layer} at {member}");
                }
                // Whoever decomposes has what to decompose.
                let side = usize::from(at >= sides[0]);
                for member in decomposers[at].clone() {
                    assert!(plan.keeps_statistics(layer, member)[side], "seed {seed}: layer {layer} at {member}");
                    let makes = plan.makes_statistics(layer, member)[side];
                    assert!(makes, "seed {seed}: statistics of layer {layer} at {member}");
                }
            }
        }
    }
}

#[test]
fn what_members_do_adds_up() {
    for (seed, layers, plan) in plans() {
        let members = plan.members();
        let decomposed: usize = (0..members).map(|member| plan.cost(member).decomposed).sum();
        let expected: usize =
            (0..layers.len()).flat_map(|layer| plan.decomposers(layer).concat()).map(|range| range.len()).sum();
        assert_eq!(decomposed, expected, "seed {seed}");
        if plan.placement().decomposers == Decomposers::Owner {
            let parts: usize = layers.iter().flat_map(Load::parts).map(|parts| parts.len()).sum();
            assert_eq!(decomposed, parts, "seed {seed}: never everybody");
        }
        // No link carries more than is sent, and the busiest not less than its share.
        for traffic in [plan.gradients(), plan.statistics(), plan.decompositions(), plan.directions()] {
            let loads: Vec<f64> = (0..members).map(|member| traffic.load(member)).collect();
            let (sum, busiest) = (loads.iter().sum::<f64>(), loads.iter().copied().fold(0.0, f64::max));
            let values = traffic.values() as f64;
            assert!(busiest <= values + 1e-6 && sum >= values - 1e-6, "seed {seed}: {loads:?} of {values}");
        }
    }
}

#[test]
fn the_table_of_the_systems_holds() {
    // A convolution of 64 into 32 channels, 3 × 3, and a dense layer.
    let layers = [Load::new(32, 576, 196), Load::new(10, 65, 1)];
    let triangle = |n: usize| (n * (n + 1) / 2) as u64;
    let (full, triangles) = (576 * 576 + 32 * 32 + 65 * 65 + 100, triangle(576) + triangle(32) + triangle(65) + 55);
    let gradient = 32 * 576 + 650;
    let members = 4;
    let plan = |placement: &Placement, form| {
        Plan::new(placement, &layers, members, &Work { form, batch: 8, machine: Machine::default() })
    };
    let moved = |plan: &Plan| [plan.statistics().values(), plan.decompositions().values(), plan.directions().values()];
    let bases = full + 576 + 32 + 65 + 10;
    assert_eq!(moved(&plan(&Placement::d_kfac(), Form::Eigen)), [6 * full, 0, 0]);
    assert_eq!(moved(&plan(&Placement::mpd(true), Form::Eigen)), [6 * full, 3 * bases, 0]);
    assert_eq!(moved(&plan(&Placement::mpd(false), Form::Inverse)), [6 * full, 0, 3 * gradient]);
    assert_eq!(moved(&plan(&Placement::kaisa(0.5), Form::Eigen)), [6 * full, bases, 2 * gradient]);
    assert_eq!(moved(&plan(&Placement::kaisa(1.0), Form::Eigen)), moved(&plan(&Placement::mpd(true), Form::Eigen)));
    assert_eq!(moved(&plan(&Placement::owner_reduce(), Form::Inverse)), [3 * triangles, 0, 3 * gradient]);
    assert_eq!(moved(&plan(&Placement::dp_kfac(), Form::Inverse)), [0, 0, 3 * gradient]);
    assert_eq!(plan(&Placement::dp_kfac(), Form::Inverse).gradients().values(), 6 * gradient);
    let costs = |placement| {
        let plan = plan(&placement, Form::Inverse);
        (0..members).map(|member| plan.cost(member).values as u64).collect::<Vec<_>>()
    };
    // Everybody keeps everything, or owners their own.
    assert_eq!(costs(Placement::d_kfac()), [2 * full; 4]);
    assert_eq!(costs(Placement::dp_kfac()), [2 * (full - 65 * 65 - 100), 2 * (65 * 65 + 100), 0, 0]);
}

#[test]
fn small_factors_are_decomposed_everywhere_where_links_are_slow() {
    let layers = [Load::new(1_000, 30, 1), Load::new(30, 2_000, 1)];
    let plan = |bandwidth, latency| {
        let machine = Machine { bandwidth, latency, ..Machine::default() };
        Plan::new(&Placement::spd(), &layers, 4, &Work { form: Form::Inverse, batch: 8, machine })
    };
    let everywhere = |plan: Plan| {
        [plan.decomposers(0), plan.decomposers(1)].concat().concat().into_iter().map(|range| range.len() == 4)
    };
    assert!(everywhere(plan(1e3, 1.0)).all(|everywhere| everywhere));
    assert!(everywhere(plan(1e15, 0.0)).all(|everywhere| !everywhere));
    assert!(everywhere(plan(1.25e9, 1e-4)).eq([true, false, false, true]));
}

#[test]
fn parts_that_do_not_fit_each_other_are_refused_with_the_remedy() {
    let cheaper = Placement { decomposers: Decomposers::Cheaper, ..Placement::of_gradient(1.0) };
    let reason = cheaper.check().expect_err("one factor of a gradient here, the other one there");
    assert!(reason.contains("Decomposers::Owner"), "{reason}");
    for fits in [Decomposers::Owner, Decomposers::Everybody, Decomposers::Nobody] {
        assert_eq!(Placement { decomposers: fits, ..cheaper }.check(), Ok(()));
    }
    let alone = Placement { decomposers: Decomposers::Cheaper, ..Placement::dp_kfac() };
    assert!(alone.check().is_err_and(|reason| reason.contains("Decomposers::Owner")));
    for alone in [Placement::owner_reduce(), Placement::dp_kfac()] {
        assert_eq!(alone.of_vectors().check(), Ok(()));
        for holders in [0.5, 1.0] {
            let held = Placement { holders, ..alone };
            assert_eq!(held.check(), Ok(()), "decompositions are handed to holders");
            assert!(held.of_vectors().check().is_err_and(|reason| reason.contains("holders = 0")));
            assert_eq!(Placement { statistics: Statistics::Everywhere, ..held.of_vectors() }.check(), Ok(()));
        }
    }
}

#[test]
fn diagonal_blocks_are_dealt_out_and_travel_by_themselves() {
    // Of A, 4,608 rows of 512 channels in 5 blocks: 103 or 102 channels each.
    let layers = [Load::new(512, 4_608, 49).patches(9).split(1_000)];
    let sizes = [927, 927, 918, 918, 918];
    assert_eq!(layers[0].parts(), [sizes.to_vec(), vec![512]]);
    let plan = |placement: &Placement| {
        Plan::new(placement, &layers, 6, &Work { form: Form::Inverse, batch: 8, machine: Machine::default() })
    };
    // Everybody has all statistics: one block each, and the owner of the layer gets the other members' inverses.
    let mpd = plan(&Placement::mpd(false));
    let decomposed = |plan: &Plan| (0..6).map(|member| plan.cost(member).decomposed).collect::<Vec<_>>();
    assert_eq!(decomposed(&mpd), [1; 6]);
    let squares: usize = sizes.iter().map(|rows| rows * rows).sum();
    assert_eq!(mpd.statistics().values(), 2 * 5 * (squares + 512 * 512) as u64);
    let own = sizes[0] * sizes[0];
    assert_eq!(mpd.decompositions().values(), (squares - own + 512 * 512) as u64);
    // An owner alone has them: it decomposes all blocks.
    let dp = plan(&Placement::dp_kfac());
    assert_eq!(decomposed(&dp), [6, 0, 0, 0, 0, 0]);
    assert_eq!(dp.decompositions().values(), 0);
    assert_eq!(dp.cost(0).values, 2 * (squares + 512 * 512));
    let whole = Plan::new(dp.placement(), &[layers[0].split(0)], 6, &dp.work);
    assert!(dp.cost(0).decompositions < whole.cost(0).decompositions / 20.0, "cubes of blocks instead of a cube");
}

#[test]
fn statistics_travel_behind_passes_of_the_machines_speed_unless_they_are_cut() {
    let layers = [Load::new(300, 400, 9), Load::new(200, 300, 9)];
    let exchange = |passes, limit, placement: &Placement| {
        let layers = layers.map(|load| load.split(limit));
        let machine = Machine { passes, bandwidth: 1e6, latency: 0.0, ..Machine::default() };
        let plan = Plan::new(placement, &layers, 3, &Work { form: Form::Inverse, batch: 8, machine });
        (plan.seconds().statistics_exchange, machine.seconds(&plan.statistics(), 3))
    };
    let operations = 6.0 * 8.0 * 9.0 * (300.0 * 400.0 + 200.0 * 300.0);
    let (left, whole) = exchange(operations / 0.25, 0, &Placement::spd());
    assert!((whole - left - 0.25).abs() < 1e-12, "{left} of {whole}");
    assert_eq!(exchange(1.0, 0, &Placement::spd()).0, 0.0);
    for (limit, placement) in [(100, Placement::spd()), (0, Placement::d_kfac())] {
        let (left, whole) = exchange(1.0, limit, &placement);
        assert_eq!(left, whole);
    }
}

#[test]
fn factors_part_where_that_balances_better() {
    let owners = |layers: &[Load], members| {
        let placement = Placement { apart: true, ..Placement::mpd(true) };
        let work = Work { form: Form::Eigen, batch: 8, machine: Machine::default() };
        let plan = Plan::new(&placement, layers, members, &work);
        (0..layers.len()).map(|layer| plan.owners(layer)).collect::<Vec<_>>()
    };
    // One layer of two equal factors can be halved; two of them need not be.
    assert_eq!(owners(&[Load::new(40, 40, 1)], 2), [[0, 1]]);
    assert_eq!(owners(&[Load::new(40, 40, 1); 2], 2), [[0, 0], [1, 1]]);
}
