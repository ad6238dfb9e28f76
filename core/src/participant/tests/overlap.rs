//! Contributions under way while training goes on, against plain loops.

use super::*;
use crate::outer::Outer;
use crate::participant::overlap::Overlapping;
use crate::policy::{Asynchronous, Blend, Overlap, Streaming, StreamingOptions, part};
use crate::seed::Seed;
use alloc::format;
use proptest::prelude::*;

/// Goes a way of its own, each value for itself.
#[derive(Debug)]
struct Walker {
    node: u32,
    model: Vec<f64>,
    iteration: u64,
    healed: u32,
    /// What it has cannot be read.
    blind: bool,
    /// How often it was read, and what was shown once instead of what it has, at which of those times.
    readings: u64,
    glitch: Option<(u64, Glitch)>,
    /// The step in which its device is lost; it goes on from its last average, or from nothing, and whether it has said so.
    lost: Option<(u64, bool)>,
    average: Vec<f64>,
    /// The iterations after which it was given an average.
    landings: Vec<u64>,
}

/// What a device shows for once.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Glitch {
    /// One value is no number.
    Nan,
    /// What it has cannot be read.
    Blind,
}

/// What step `iteration` of a node adds to a value.
fn pace(node: u32, iteration: u64, place: usize) -> f64 {
    Seed(7).derive("pace", u64::from(node) << 32 | iteration << 8 | place as u64).random().normal()
}

impl Training<f64> for Walker {
    fn iteration(&self) -> u64 {
        self.iteration
    }

    fn step(&mut self) -> Result<Summary, TrainingError> {
        self.iteration += 1;
        if self.lost.is_some_and(|(at, _)| at == self.iteration) {
            self.model.clone_from(&self.average);
        }
        for (place, value) in self.model.iter_mut().enumerate() {
            *value += pace(self.node, self.iteration, place);
        }
        Ok(Summary { samples: 1, loss: 1.0, missing: 0 })
    }

    fn contribute(&mut self, request: &Request, contribution: &mut Contribution<f64>) {
        self.readings += 1;
        let glitch = self.glitch.and_then(|(at, glitch)| (at == self.readings).then_some(glitch));
        let weight = if self.blind || glitch == Some(Glitch::Blind) { 0.0 } else { request.weight };
        let shown = contribution.segment("parameters", self.model.len(), weight);
        match glitch {
            None => shown.copy_from_slice(&self.model),
            Some(Glitch::Nan) => shown[0] = f64::NAN,
            Some(Glitch::Blind) => {}
        }
        contribution.segment("running", 1, weight).fill(f64::from(self.node));
    }

    fn take_replaced(&mut self) -> bool {
        self.lost.as_mut().is_some_and(|(at, said)| *at <= self.iteration && !core::mem::replace(said, true))
    }

    fn adopt(&mut self, average: &Contribution<f64>, healed: bool) {
        self.model.copy_from_slice(&average.find("parameters").expect("all have some").values);
        self.average.clone_from(&self.model);
        self.landings.push(self.iteration);
        if healed {
            self.healed += 1;
            self.iteration = average.iteration;
        }
    }
}

fn walkers(size: u32, len: usize, iterations: u64, policy: impl Fn() -> Box<dyn AveragingPolicy>) -> World<Walker> {
    World::with(size, iterations, policy, |node| walker(node, len))
}

fn walker(node: u32, len: usize) -> Walker {
    let (model, average) = (vec![0.0; len], vec![0.0; len]);
    Walker {
        node,
        model,
        iteration: 0,
        healed: 0,
        blind: false,
        readings: 0,
        glitch: None,
        lost: None,
        average,
        landings: vec![],
    }
}

/// Some tens of operations on values of some units.
fn close(world: &World<Walker>, models: &[Vec<f64>]) -> Result<(), String> {
    for (member, expected) in world.members.iter().zip(models) {
        let model = &member.training().expect("no step is under way").model;
        if model.iter().zip(expected).any(|(a, b)| (a - b).abs() > 1e-11) {
            return Err(format!("{model:?} instead of {expected:?}"));
        }
    }
    Ok(())
}

/// Means of a part over nodes.
fn mean(models: &[Vec<f64>], range: core::ops::Range<usize>) -> Vec<f64> {
    let sum = |place| models.iter().map(|model: &Vec<f64>| model[place]).sum::<f64>();
    range.map(|place| sum(place) / models.len() as f64).collect()
}

fn step(models: &mut [Vec<f64>], iteration: u64) {
    for (node, model) in (0..).zip(models) {
        model.iter_mut().enumerate().for_each(|(place, value)| *value += pace(node, iteration, place));
    }
}

/// What nodes have after so many steps without any average.
fn straight(size: usize, len: usize, iterations: u64) -> Vec<Vec<f64>> {
    let mut models = vec![vec![0.0; len]; size];
    (1..=iterations).for_each(|iteration| step(&mut models, iteration));
    models
}

/// What could be done wrong where the average of what nodes had meets what they have.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    /// Steps made meanwhile are lost.
    Lost,
    /// They count twice.
    Twice,
    /// They count nine tenths.
    Scaled,
    /// The average is of what nodes have when they take it in.
    Landing,
    /// They are counted from what the node had a step before it contributed.
    Earlier,
}

/// What comes of nodes that each take in averages after some of their steps, by who was in which round: `x ← x̄ + (x − x_then)`.
fn lasgd(world: &World<Walker>, len: usize, mistake: Option<Mistake>) -> Vec<Vec<f64>> {
    let mut rounds = BTreeMap::new();
    for record in &world.records {
        if let Occurrence::Committed { certificate } = &record.what {
            rounds.insert(certificate.id(), certificate.clone());
        }
    }
    let walkers = world.members.iter().map(|member| member.training().expect("no step is under way"));
    let mut landings: Vec<_> = walkers.map(|walker| walker.landings.iter().copied()).collect();
    let mut nodes = vec![(0, vec![0.0; len]); world.members.len()];
    let advance = |node: usize, (at, model): &mut (u64, Vec<f64>), iteration: u64| {
        for iteration in *at + 1..=iteration {
            model.iter_mut().enumerate().for_each(|(place, value)| *value += pace(node as u32, iteration, place));
        }
        *at = iteration;
    };
    for certificate in rounds.into_values() {
        let members: Vec<usize> = certificate.members.iter().map(|member| member.node.0 as usize).collect();
        let mut then = Vec::new();
        for member in &certificate.members {
            let node = member.node.0 as usize;
            advance(node, &mut nodes[node], member.iteration);
            then.push(nodes[node].1.clone());
        }
        for &node in &members {
            let landing = landings[node].next().expect("all take in what they have agreed on");
            advance(node, &mut nodes[node], landing);
        }
        let now: Vec<Vec<f64>> = members.iter().map(|&node| nodes[node].1.clone()).collect();
        let average = mean(if mistake == Some(Mistake::Landing) { &now } else { &then }, 0..len);
        for (index, member) in certificate.members.iter().enumerate() {
            for place in 0..len {
                let earlier = pace(member.node.0, member.iteration, place);
                let kept = now[index][place] - then[index][place];
                let kept = match mistake {
                    Some(Mistake::Lost) => 0.0,
                    Some(Mistake::Twice) => 2.0 * kept,
                    Some(Mistake::Scaled) => 0.9 * kept,
                    Some(Mistake::Earlier) => kept + earlier,
                    Some(Mistake::Landing) | None => kept,
                };
                nodes[members[index]].1[place] = average[place] + kept;
            }
        }
    }
    let ends = |(node, state): (usize, &mut (u64, Vec<f64>))| {
        advance(node, state, world.members[node].iteration());
        state.1.clone()
    };
    nodes.iter_mut().enumerate().map(ends).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn steps_made_while_an_average_is_under_way_are_kept_and_nobody_waits(
        size in 2_u32..=6, len in 1_usize..8, interval in 1_u64..8, more in 1_u64..24, span in 2_u64..=20,
    ) {
        let (iterations, takes) = (interval + more, Duration::from_millis(span));
        let mut world = walkers(size, len, iterations, || Box::new(Asynchronous::new(interval)));
        world.members.iter_mut().for_each(|member| member.schedule.step = takes);
        world.run(Duration::from_secs(3));
        prop_assert!(world.members.iter().all(Participant::is_over));
        if takes >= STEP && interval > 1 {
            prop_assert_eq!(world.commits(0) as u64, iterations / interval);
        }
        prop_assert!(world.commits(0) > 0);
        prop_assert_eq!(close(&world, &lasgd(&world, len, None)), Ok(()));
        for mistake in [Mistake::Lost, Mistake::Twice, Mistake::Scaled, Mistake::Landing, Mistake::Earlier] {
            prop_assert!(close(&world, &lasgd(&world, len, Some(mistake))).is_err(), "{:?} is not noticed", mistake);
        }
        // The last step ends when it would have without any average.
        prop_assert_eq!(world.stepped, Instant::ORIGIN + takes * iterations as u32, "they waited");
    }
}

#[test]
fn what_is_due_after_the_last_step_is_averaged_although_another_average_is_under_way() {
    for iterations in [9, 10] {
        let mut world = walkers(3, 4, iterations, || Box::new(Asynchronous::new(1)));
        world.run(Duration::from_secs(3));
        assert!(world.members.iter().all(Participant::is_over));
        let model = |node: usize| &world.members[node].training().expect("no step is under way").model;
        let apart = (0..4).map(|place| (model(0)[place] - model(2)[place]).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-11, "after {iterations} steps models are {apart} apart");
    }
}

#[test]
fn whoever_is_lost_while_an_average_is_under_way_comes_back() {
    let mut world = walkers(3, 4, 400, || Box::new(Asynchronous::new(3)));
    world.run(Duration::from_millis(300));
    let before = world.commits(2);
    world.offline = Some(2);
    world.run(Duration::from_millis(2300));
    let (alone, commits) = (world.members[2].iteration(), world.commits(2));
    assert!(alone > 180, "it stopped training at {alone}");
    assert!(commits <= before + 1 && world.commits(0) > commits + 10, "the others did not go on");
    assert!(world.members[0].iteration() > 220, "the others waited: {}", world.members[0].iteration());
    world.offline = None;
    world.run(Duration::from_secs(20));
    assert!(world.commits(2) > commits + 10 && world.members.iter().all(Participant::is_over));
}

/// What Streaming DiLoCo makes of models, for nodes in step with each other.
fn streaming(size: u32, len: usize, iterations: u64, options: &StreamingOptions) -> Vec<Vec<f64>> {
    let OuterOptimiser::Momentum { rate, momentum, .. } = options.outer else { panic!("momentum") };
    let (mut models, mut global, mut velocity) = (vec![vec![0.0; len]; size as usize], vec![0.0; len], vec![0.0; len]);
    let mut land = |models: &mut Vec<Vec<f64>>, range: core::ops::Range<usize>, average: Vec<f64>| {
        for (place, average) in range.zip(average) {
            let way = global[place] - average;
            velocity[place] = momentum * velocity[place] + way;
            global[place] -= rate * (way + momentum * velocity[place]);
            for model in &mut *models {
                model[place] = options.share * model[place] + (1.0 - options.share) * global[place];
            }
        }
    };
    let mut sent = None;
    for iteration in 1..=iterations {
        step(&mut models, iteration);
        let ends = options.parts > 1 && iteration == iterations;
        if iteration.is_multiple_of(options.period()) && !ends {
            let number = (iteration / options.period() - 1) % u64::from(options.parts);
            let range = part(len, number as u32, options.parts);
            sent = Some((iteration, range.clone(), mean(&models, range)));
        }
        // What is still under way at the end is waited for.
        let due = |(at, ..): &(u64, _, _)| iteration - at >= options.delay || iteration == iterations;
        if let Some((_, range, average)) = sent.take_if(|sent| due(sent)) {
            land(&mut models, range, average);
        }
        if ends {
            let average = mean(&models, 0..len);
            land(&mut models, 0..len, average);
        }
    }
    models
}

fn published(options: StreamingOptions) -> impl Fn() -> Box<dyn AveragingPolicy> {
    move || Box::new(Streaming::new(options))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn parts_take_turns_and_are_taken_in_later(
        size in 2_u32..5, len in 1_usize..9, parts in 1_u32..5, period in 3_u64..6, delay in 0_u64..3,
        share in prop::sample::select(vec![0.0, 0.5, 0.9]), more in 0_u64..7,
    ) {
        let interval = period * u64::from(parts);
        let options = StreamingOptions { share, ..StreamingOptions::new(interval, parts, delay) };
        let iterations = 2 * interval + more;
        let mut world = walkers(size, len, iterations, published(options));
        world.run(Duration::from_secs(5));
        prop_assert!(world.members.iter().all(Participant::is_over));
        let extra = u64::from(parts > 1 && !iterations.is_multiple_of(period));
        prop_assert_eq!(world.commits(0) as u64, iterations / period + extra);
        prop_assert_eq!(close(&world, &streaming(size, len, iterations, &options)), Ok(()));
        for mistaken in [
            StreamingOptions { share: share + 0.1, ..options },
            StreamingOptions { outer: options.outer.with_momentum(0.5), ..options },
        ] {
            prop_assert!(close(&world, &streaming(size, len, iterations, &mistaken)).is_err());
        }
        // Of every round of this run but the last, one part counts, and its momentum.
        for record in &world.records {
            let Occurrence::Committed { certificate } = &record.what else { continue };
            for member in &certificate.members {
                let counts = member.weights.iter().filter(|weight| **weight > 0.0).count();
                let all = 2 * parts as usize + 1;
                let expected = if member.iteration == iterations && parts > 1 { all } else { 3 };
                prop_assert_eq!((counts, member.weights.len()), (expected, all));
            }
        }
    }
}

#[test]
fn one_part_without_delay_and_share_is_diloco_to_the_bit() {
    let diloco = || {
        let mut policy = Periodic::new(5);
        policy.outer = Some(OuterOptimiser::DILOCO);
        Box::new(policy) as Box<dyn AveragingPolicy>
    };
    let options = StreamingOptions { share: 0.0, ..StreamingOptions::new(5, 1, 0) };
    let [one, other] = [walkers(3, 6, 33, diloco), walkers(3, 6, 33, published(options))].map(|mut world| {
        world.run(Duration::from_secs(3));
        let models = world.members.iter().map(|member| member.training().unwrap().model.clone());
        (models.collect::<Vec<_>>(), world.members[0].outer().map(Outer::save), world.commits(1))
    });
    assert_eq!(one, other);
}

#[test]
fn no_step_but_the_last_sends_more_than_the_largest_part_and_its_momentum() {
    for (len, parts) in [(10, 3), (7, 7), (5, 2), (3, 5), (61_706, 4)] {
        let lengths: Vec<usize> = (0..parts).map(|number| part(len, number, parts).len()).collect();
        assert_eq!(lengths.iter().sum::<usize>(), len);
        assert!(lengths.iter().all(|&of| of == len / parts as usize || of == len.div_ceil(parts as usize)));
    }
    let mut world = walkers(2, 10, 60, published(StreamingOptions::new(15, 3, 4)));
    let mut seen = Vec::new();
    for milliseconds in 1..500 {
        world.run(Duration::from_millis(milliseconds));
        for member in &world.members {
            let Some(contribution) = member.node().contribution() else { continue };
            let counts = contribution.segments().iter().filter(|segment| segment.weight > 0.0);
            seen.push(counts.map(|segment| segment.values.len()).sum::<usize>());
        }
    }
    // Parts of 3, 3 and 4 values, as much momentum, and a running statistic.
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [7, 9]);
}

#[test]
fn what_is_under_way_is_in_what_is_saved() {
    let policies: [fn() -> Box<dyn AveragingPolicy>; 2] =
        [|| Box::new(Asynchronous::new(3)), || Box::new(Streaming::new(StreamingOptions::new(8, 2, 2)))];
    for policy in policies {
        let mut world = walkers(3, 6, 60, policy);
        let mut flights = 0;
        for milliseconds in 1..300 {
            world.run(Duration::from_millis(milliseconds));
            for member in &world.members {
                flights += usize::from(member.overlapping.flight.is_some());
                let (words, contributed) = (member.overlapping.save(), member.node().contribution());
                assert_eq!(Overlapping::restore(&words, contributed), member.overlapping);
            }
        }
        assert!(flights > 50, "{flights}");
    }
}

#[test]
fn parts_that_a_healed_node_lacks_are_not_what_others_take() {
    for (share, parts) in [(0.0, 2), (0.5, 2), (0.5, 4)] {
        let options = StreamingOptions { rejoin: Rejoin::HealFirst, share, ..StreamingOptions::new(8, parts, 1) };
        come_back_from_afar(options, 200, Duration::from_millis(1200));
    }
}

#[test]
fn whoever_comes_back_after_the_others_have_finished_is_given_a_whole_model() {
    for (parts, delay, iterations) in [(2, 1, 96), (4, 1, 96), (4, 1, 97), (2, 3, 98), (2, 3, 99)] {
        let options = StreamingOptions { rejoin: Rejoin::HealFirst, ..StreamingOptions::new(8, parts, delay) };
        come_back_from_afar(options, iterations, Duration::from_millis(2500));
    }
}

/// Nobody ends far away from the others after one of three, who was away until `back`, has come back with a model that is.
fn come_back_from_afar(options: StreamingOptions, iterations: u64, back: Duration) {
    let mut world = walkers(3, 6, iterations, published(options));
    world.run(Duration::from_millis(300));
    world.offline = Some(2);
    // It has iterations left when the others have done all of theirs.
    let (_, step) = world.steps.get_mut(&2).expect("a step is under way");
    step.training.iteration -= 20;
    world.run(Duration::from_millis(900));
    let (at, mut step) = world.steps.remove(&2).expect("a step is under way");
    step.training.model.fill(1e6);
    world.steps.insert(2, (at.max(Instant::ORIGIN + back), step));
    world.run(back);
    world.offline = None;
    world.run(Duration::from_secs(20));
    assert!(world.members.iter().all(Participant::is_over));
    assert!(world.members[2].training().unwrap().healed > 0, "with {options:?}");
    for member in &world.members {
        let model = &member.training().unwrap().model;
        assert!(model.iter().all(|value| value.abs() < 1e4), "{model:?} with {options:?}");
    }
}

#[test]
fn whoever_cannot_read_its_model_counts_nothing_in_any_part() {
    let options = StreamingOptions::new(12, 3, 1);
    let make = |node| Walker { blind: node == 2, ..walker(node, 5) };
    let mut world = World::with(3, 30, published(options), make);
    world.run(Duration::from_secs(5));
    assert!(world.members.iter().all(Participant::is_over));
    assert_eq!(close(&world, &streaming(2, 5, 30, &options)), Ok(()));
}

/// Gives up every contribution at once that begins before this iteration.
#[derive(Debug)]
struct Fickle {
    overlap: Option<Overlap>,
    until: u64,
    actions: VecDeque<PolicyAction>,
}

impl AveragingPolicy for Fickle {
    fn name(&self) -> &'static str {
        "fickle"
    }

    fn handle(&mut self, _: Instant, input: PolicyInput<'_>) {
        let PolicyInput::Stepped { iteration, .. } = input else { return };
        if !iteration.is_multiple_of(3) {
            return;
        }
        self.actions.push_back(match self.overlap {
            Some(overlap) => PolicyAction::Offer(Request::default(), overlap),
            None => PolicyAction::Contribute(Request::default()),
        });
        if iteration < self.until {
            self.actions.push_back(PolicyAction::Withdraw);
        }
    }

    fn poll(&mut self) -> Option<PolicyAction> {
        self.actions.pop_front()
    }
}

#[test]
fn what_is_given_up_holds_up_nothing() {
    let overlap = Overlap { delay: 0, most: 0, part: (0, 1), blend: Blend::Progress };
    for overlap in [None, Some(overlap)] {
        let policy = || Box::new(Fickle { overlap, until: 12, actions: VecDeque::new() }) as Box<dyn AveragingPolicy>;
        let mut world = walkers(2, 3, 19, policy);
        world.run(Duration::from_secs(3));
        assert!(world.members.iter().all(Participant::is_over), "with {overlap:?}");
        assert_eq!([world.commits(0), world.commits(1)], [3, 3], "with {overlap:?}");
    }
}

#[test]
fn what_was_under_way_and_cannot_be_read_is_given_up() {
    let policies: [fn() -> Box<dyn AveragingPolicy>; 2] =
        [|| Box::new(Asynchronous::new(3)), || Box::new(Streaming::new(StreamingOptions::new(8, 2, 2)))];
    // Words of which the last are missing, or too many, or that are of part 7 of 3.
    let spoil: [fn(&mut Vec<u64>); 3] = [|words| words.truncate(3), |words| words.push(0), |words| words[4] = 7];
    for (policy, spoil) in policies.iter().flat_map(|policy| spoil.iter().map(move |spoil| (policy, spoil))) {
        let mut world = walkers(3, 6, 90, policy);
        let mut milliseconds = 100;
        while world.members[2].overlapping.flight.is_none() {
            milliseconds += 1;
            world.run(Duration::from_millis(milliseconds));
        }
        let commits = world.commits(2);
        let member = world.members.pop().expect("three");
        let Participant { node, training, policy: before, schedule, state, iteration, peers, outer, .. } = member;
        let mut overlapping = member.overlapping.save();
        spoil(&mut overlapping);
        let (policy_state, outer) = (before.save(), outer.as_ref().map(Outer::save));
        let state = ParticipantState {
            node,
            policy: policy_state,
            state,
            failure: None,
            last: None,
            iteration,
            peers,
            outer,
            overlapping,
            absence: Vec::new(),
            sharing: None,
        };
        world.members.push(Participant::resume(state, training, policy(), schedule));
        world.run(Duration::from_secs(5));
        assert!(world.members.iter().all(Participant::is_over));
        let since = world.commits(2) - commits;
        assert!(since > 10, "it has averaged {since} times since");
    }
}

#[test]
fn parts_that_a_model_does_not_have_are_not_contributed() {
    let mut policy = Streaming::new(StreamingOptions::new(8, 2, 2));
    for (due, offers) in [(0, true), (1, true), (2, false), (u64::MAX, false)] {
        policy.restore(&[0, due, 0, 90]);
        assert_eq!(policy.poll().is_some(), offers, "part {due} of 2");
    }
}

#[test]
fn no_progress_is_taken_back_of_whoever_loses_its_device_while_an_average_is_under_way() {
    let make = |node| Walker { lost: (node == 2).then_some((6, false)), ..walker(node, 4) };
    let mut world = World::with(3, 6, || Box::new(Asynchronous::new(5)), make);
    world.run(Duration::from_secs(2));
    assert!(world.members.iter().all(Participant::is_over));
    // What was contributed after step 5 arrives after step 6.
    let average = mean(&straight(3, 4, 5), 0..4);
    let mut models = vec![average.clone(); 2];
    step(&mut models, 6);
    models.push(average);
    assert_eq!(close(&world, &models), Ok(()));
}

#[test]
fn what_is_shown_wrongly_once_is_not_written_back() {
    let plain = StreamingOptions { share: 0.0, ..StreamingOptions::new(5, 1, 0) };
    let parts = StreamingOptions { share: 0.5, ..StreamingOptions::new(10, 2, 2) };
    let policies: [&dyn Fn() -> Box<dyn AveragingPolicy>; 3] =
        [&|| Box::new(Asynchronous::new(5)), &published(plain), &published(parts)];
    for (which, policy) in policies.into_iter().enumerate() {
        let run = |glitch: Option<(u64, Glitch)>| {
            let make = |node| Walker { glitch: glitch.filter(|_| node == 2), ..walker(node, 4) };
            let mut world = World::with(3, 60, policy, make);
            world.run(Duration::from_secs(5));
            assert!(world.members.iter().all(Participant::is_over));
            world
        };
        let clean = run(None);
        let readings = clean.members[2].training().expect("no step is under way").readings;
        assert!(readings > 20, "{readings} contributions and landings");
        // An outer optimiser begins with the first; the last ones are of the last averages.
        for at in 1 + u64::from(which > 0)..readings - 4 {
            for glitch in [Glitch::Nan, Glitch::Blind] {
                let world = run(Some((at, glitch)));
                let missed = clean.commits(2) - world.commits(2);
                assert!(missed <= 1, "{glitch:?} at {at} has cost {missed} averages");
                let [one, other] = [0, 2].map(|node| world.members[node].training().expect("no step is under way"));
                let apart = one.model.iter().zip(&other.model).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                // Six standard deviations of what is kept of two nodes' steps: of five, of none, of half of ten, a quarter of
                // the ten before, and so on.
                let most = [19.0, 1e-11, 31.0][which];
                // NaN is not near anything.
                assert!(apart <= most, "{glitch:?} at {at} leaves models {apart} apart with policy {which}");
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_no_measure_of_progress() {
    let make = |node| Walker { glitch: (node == 2).then_some((1, Glitch::Blind)), ..walker(node, 4) };
    let mut world = World::with(3, 6, || Box::new(Asynchronous::new(5)), make);
    world.run(Duration::from_secs(2));
    assert!(world.members.iter().all(Participant::is_over));
    // It has contributed nothing after step 5, and takes what the others have as it is.
    let average = mean(&straight(2, 4, 5), 0..4);
    let mut models = vec![average.clone(); 2];
    step(&mut models, 6);
    models.push(average);
    assert_eq!(close(&world, &models), Ok(()));
}
