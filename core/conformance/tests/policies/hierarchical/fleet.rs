//! Sites whose members make the same steps, in an order drawn at random.

use super::definition::{Event, loss, step};
use kronfleet_core::cluster::{
    Algorithm, Attempt, Certificate, CertificateId, Digest, Incarnation, Member as Contributor, Round,
};
use kronfleet_core::participant::Summary;
use kronfleet_core::policy::{AveragingPolicy, Hierarchical, HierarchicalOptions, PolicyAction, PolicyInput};
use kronfleet_core::scalar::Values;
use kronfleet_core::seed::{Random, Seed};
use kronfleet_core::time::Instant;
use kronfleet_core::transport::NodeId;
use std::collections::{BTreeMap, VecDeque};

/// A node whose site makes the same steps.
pub(super) struct Member {
    pub(super) policy: Hierarchical,
    pub(super) model: Vec<f64>,
    pub(super) iteration: u64,
    /// Steps that it had made before the others came.
    pub(super) lead: u64,
    pub(super) paused: bool,
    pub(super) contributes: bool,
    pub(super) is_live: bool,
}

/// Sites whose members make the same steps, in an order drawn at random as far as these allow it.
pub(super) struct Fleet {
    pub(super) options: HierarchicalOptions,
    pub(super) iterations: u64,
    pub(super) members: Vec<Member>,
    pub(super) mail: BTreeMap<(usize, usize), VecDeque<Vec<u8>>>,
    random: Random,
    /// Moves on when nothing else is left to happen.
    pub(super) now: Instant,
    round: u64,
    /// Whoever does something is put into words and read again.
    pub(super) interrupted: bool,
    /// From this site nothing arrives elsewhere.
    pub(super) cut_off: Option<usize>,
    /// From this iteration on the models of this site have values that no message can carry.
    pub(super) diverges: Option<(usize, u64)>,
    /// All make a step before anything arrives, and everything has arrived before the next.
    pub(super) in_step: bool,
    /// What is still to happen to nodes.
    pub(super) events: VecDeque<Event>,
    /// After which iterations members of which sites hold a round by themselves.
    pub(super) alone: VecDeque<(u64, usize)>,
    /// After so many things have happened, no more do.
    pub(super) stop_after: Option<u64>,
    /// The most steps by which members were apart that met in an average.
    pub(super) apart: u64,
    /// When exchanges began, who sent, and to whom.
    pub(super) exchanges: Vec<(u64, NodeId, NodeId)>,
}

impl Fleet {
    pub(super) fn new(options: &HierarchicalOptions, iterations: u64, len: usize, seed: u64) -> Self {
        let nodes = options.sites.iter().flatten().count() as u32;
        let member = |node| Member {
            policy: Hierarchical::new(options.clone(), NodeId(node)),
            model: vec![0.0; len],
            iteration: 0,
            lead: 0,
            paused: false,
            contributes: false,
            is_live: true,
        };
        let mut fleet = Self {
            options: options.clone(),
            iterations,
            members: (0..nodes).map(member).collect(),
            mail: BTreeMap::new(),
            random: Seed(seed).derive("order", 0).random(),
            now: Instant::ORIGIN,
            round: 0,
            interrupted: false,
            cut_off: None,
            diverges: None,
            in_step: false,
            events: VecDeque::new(),
            alone: VecDeque::new(),
            stop_after: None,
            apart: 0,
            exchanges: Vec::new(),
        };
        for node in 0..nodes as usize {
            fleet.tell(node, PolicyInput::Began { iterations, incarnation: Incarnation(1) });
        }
        // The round by which members of a site know of each other.
        fleet.average();
        fleet
    }

    pub(super) fn site(&self, node: usize) -> usize {
        let node = NodeId(node as u32);
        self.options.sites.iter().position(|site| site.contains(&node)).expect("every node has a site")
    }

    fn live(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_live)
    }

    pub(super) fn tell(&mut self, node: usize, input: PolicyInput<'_>) {
        let others = (0..self.members.len()).filter(|&other| other != node && self.members[other].is_live);
        let peers: Vec<NodeId> = others.map(|other| NodeId(other as u32)).collect();
        self.members[node].policy.handle(self.now, input);
        self.act(node, &peers);
    }

    fn act(&mut self, node: usize, peers: &[NodeId]) {
        let (now, site) = (self.now, self.site(node));
        while let Some(action) = self.members[node].policy.poll() {
            let member = &mut self.members[node];
            match action {
                PolicyAction::Observe => {
                    let model = member.model.clone();
                    member.policy.handle(now, PolicyInput::Observed { parameters: Values::Double(&model), peers });
                }
                PolicyAction::Tell { to, bytes } => {
                    assert!(bytes.len() <= 60 << 10, "a note of {} bytes", bytes.len());
                    assert!(self.members[to.0 as usize].is_live, "n{node} talks to {to}, which is lost");
                    if self.site(to.0 as usize) != site {
                        let begun = bytes[9..17].try_into().expect("eight bytes behind kind and base");
                        self.exchanges.push((u64::from_le_bytes(begun), NodeId(node as u32), to));
                    }
                    self.mail.entry((node, to.0 as usize)).or_default().push_back(bytes);
                }
                PolicyAction::Pause => member.paused = true,
                PolicyAction::Proceed => member.paused = false,
                PolicyAction::Adopt(model) => member.model = model,
                PolicyAction::Contribute(_) => member.contributes = true,
                other => panic!("hierarchical averaging does not {other:?}"),
            }
        }
        if self.interrupted {
            let member = &mut self.members[node];
            let words = member.policy.save();
            member.policy = Hierarchical::new(self.options.clone(), NodeId(node as u32));
            member.policy.restore(&words);
            assert_eq!(member.policy.save(), words, "what is read is what was written");
        }
    }

    /// All that are there have contributed: they take the mean.
    pub(super) fn average(&mut self) {
        self.average_of(|_| true);
    }

    /// Those of them do that are in such sites.
    fn average_of(&mut self, takes_part: impl Fn(usize) -> bool) {
        self.round += 1;
        let nodes = 0..self.members.len();
        let takes_part: Vec<bool> =
            nodes.map(|node| self.members[node].is_live && takes_part(self.site(node))).collect();
        let there = || self.members.iter().enumerate().filter(|(node, _)| takes_part[*node]);
        let mean = |rows: Vec<Vec<f64>>| -> Vec<f64> {
            let count = rows.len() as f64;
            (0..rows[0].len()).map(|place| rows.iter().map(|row| row[place]).sum::<f64>() / count).collect()
        };
        let model = mean(there().map(|(_, member)| member.model.clone()).collect());
        let numbers = mean(there().map(|(_, member)| member.policy.numbers()).collect());
        let members = there().map(|(node, member)| Contributor {
            node: NodeId(node as u32),
            incarnation: Incarnation(1),
            turn: self.round,
            iteration: member.iteration,
            samples: (0, 0),
            contribution: Digest::default(),
            parent: CertificateId::default(),
            weights: vec![1.0],
        });
        let certificate = Certificate {
            attempt: Attempt::default(),
            round: Round(self.round),
            members: members.collect(),
            algorithm: Algorithm::Direct,
            wire: "f64".into(),
            result: Digest::default(),
            parents: Vec::new(),
        };
        for (node, _) in takes_part.iter().enumerate().filter(|(_, takes_part)| **takes_part) {
            let member = &mut self.members[node];
            member.model.clone_from(&model);
            // Whoever has contributed trains on from the result.
            (member.contributes, member.paused) = (false, false);
            // Nobody is put into words between the two.
            self.members[node].policy.handle(self.now, PolicyInput::Averaged(&numbers));
            self.tell(node, PolicyInput::Committed(&certificate));
        }
    }

    /// A node is lost or comes back, and an average follows.
    fn change(&mut self, Event { node, is_lost, .. }: Event) {
        let mates: Vec<usize> = (0..self.members.len()).filter(|&mate| self.site(mate) == self.site(node)).collect();
        if is_lost {
            self.members[node].is_live = false;
            self.mail.retain(|&(from, to), _| from != node && to != node);
            for mate in mates {
                if self.members[mate].is_live {
                    self.tell(mate, PolicyInput::Interrupted);
                }
            }
        } else {
            let models: Vec<&Vec<f64>> = self.live().map(|member| &member.model).collect();
            let count = models.len() as f64;
            let mean = |place: usize| models.iter().map(|model| model[place]).sum::<f64>() / count;
            let model = (0..models[0].len()).map(mean).collect();
            // As far as its site is, which it has to share steps with.
            let near = mates.iter().map(|&mate| &self.members[mate]).filter(|member| member.is_live);
            let iteration = near.chain(self.live()).map(|member| member.iteration).next().expect("somebody is there");
            let policy = Hierarchical::new(self.options.clone(), NodeId(node as u32));
            let (lead, paused, contributes, is_live) = (0, false, false, true);
            self.members[node] = Member { policy, model, iteration, lead, paused, contributes, is_live };
            let iterations = self.iterations;
            self.tell(node, PolicyInput::Began { iterations, incarnation: Incarnation(1) });
        }
        self.average();
    }

    /// The next event, if its time has come: in step once nothing is under way, else as soon as the members of every site
    /// have made the same steps and nobody waits for a round, which needs all.
    fn due(&mut self) -> Option<Event> {
        let event = *self.events.front()?;
        let at = |member: &Member| member.iteration == event.after;
        let is_time = if self.in_step {
            self.is_quiet(event.after)
        } else {
            let together = |site: &Vec<NodeId>| {
                let mut of_site =
                    site.iter().map(|node| &self.members[node.0 as usize]).filter(|member| member.is_live);
                let first = of_site.next().map(|member| member.iteration);
                of_site.all(|member| Some(member.iteration) == first)
            };
            let is_round = self.live().any(|member| member.contributes);
            !is_round && self.live().any(at) && self.options.sites.iter().all(together)
        };
        if is_time { self.events.pop_front() } else { None }
    }

    /// Whether all have made so many steps, and nothing is under way.
    fn is_quiet(&self, after: u64) -> bool {
        let at = |member: &Member| member.iteration == after && !member.paused && !member.contributes;
        self.mail.values().all(VecDeque::is_empty) && self.live().all(at)
    }

    fn is_done(&self, member: &Member) -> bool {
        member.iteration - member.lead == self.iterations && !member.paused && !member.contributes
    }

    /// Something happens that can; answers whether anything did.
    fn happen(&mut self, seed: u64) -> bool {
        if self.stop_after.as_ref() == Some(&0) {
            return false;
        }
        self.stop_after = self.stop_after.map(|left| left - 1);
        self.mail.retain(|_, queue| !queue.is_empty());
        // Whoever has made all its steps is not waited for.
        let is_there = |member: &Member| member.contributes || self.is_done(member);
        if self.live().all(is_there) && self.live().any(|member| member.contributes) {
            let steps = || self.live().map(|member| member.iteration - member.lead);
            self.apart = self.apart.max(steps().max().unwrap_or(0) - steps().min().unwrap_or(0));
            self.average();
            return true;
        }
        if let Some(event) = self.due() {
            self.change(event);
            return true;
        }
        if let Some(&(after, site)) = self.alone.front()
            && self.is_quiet(after)
        {
            self.alone.pop_front();
            let mates: Vec<usize> = (0..self.members.len()).filter(|&node| self.site(node) == site).collect();
            mates.into_iter().for_each(|mate| self.tell(mate, PolicyInput::Interrupted));
            self.average_of(|other| other == site);
            return true;
        }
        // A step takes all of a site, and nobody is more than a step ahead of anybody.
        let done = |member: &Member| member.iteration - member.lead - u64::from(member.paused);
        let slowest = self.live().map(done).min().unwrap_or(0);
        let able = |member: &Member| {
            let steps = member.iteration - member.lead;
            let behind = steps <= slowest && steps < self.iterations;
            member.is_live && behind && !member.paused && !member.contributes
        };
        let mut ready: Vec<usize> = (0..self.members.len()).filter(|&node| able(&self.members[node])).collect();
        let arrives = |&&(from, to): &&(usize, usize)| {
            let [from, to] = [self.site(from), self.site(to)];
            from == to || self.cut_off != Some(from)
        };
        let mut ways: Vec<(usize, usize)> = self.mail.keys().filter(arrives).copied().collect();
        if self.in_step {
            let first = self.live().map(|member| member.iteration).max();
            if self.live().all(|member| Some(member.iteration) == first) && !ways.is_empty() {
                ready.clear();
            } else if !ready.is_empty() {
                ways.clear();
            }
        }
        let choices = ready.len() + ways.len();
        if choices == 0 {
            let next = self.live().map(|member| member.policy.timeout()).min().unwrap_or(Instant::FAR);
            if next == Instant::FAR {
                return false;
            }
            self.now = self.now.max(next);
            for node in 0..self.members.len() {
                self.members[node].policy.wake(self.now);
                self.act(node, &[]);
            }
            return true;
        }
        let choice = self.random.below(choices as u64) as usize;
        if let Some(&node) = ready.get(choice) {
            let site = self.site(node);
            let member = &mut self.members[node];
            member.iteration += 1;
            let iteration = member.iteration;
            let moved = step(seed, site, iteration, member.model.len());
            member.model.iter_mut().zip(moved).for_each(|(value, moved)| *value += moved);
            if self.diverges.is_some_and(|(which, from)| which == site && iteration >= from) {
                member.model.fill(f64::MAX);
            }
            let summary = Summary { samples: 1, loss: loss(seed, node, iteration), missing: 0 };
            self.tell(node, PolicyInput::Stepped { iteration, summary: &summary });
        } else {
            let way @ (from, to) = ways[choice - ready.len()];
            let bytes = self.mail.get_mut(&way).and_then(VecDeque::pop_front).expect("something is under way");
            self.tell(to, PolicyInput::Told { from: NodeId(from as u32), bytes: &bytes });
        }
        true
    }

    /// Until all have made all steps; then their models.
    pub(super) fn train(&mut self, seed: u64) -> Result<Vec<Vec<f64>>, String> {
        while self.happen(seed) {
            for site in &self.options.sites {
                let models = site.iter().map(|node| &self.members[node.0 as usize]).filter(|member| member.is_live);
                let same = |a: &Member, b: &Member| {
                    a.iteration != b.iteration
                        || a.paused
                        || b.paused
                        || a.contributes
                        || b.contributes
                        || a.model == b.model
                };
                if !models.clone().zip(models.skip(1)).all(|(a, b)| same(a, b)) {
                    return Err(format!("members of {site:?} differ"));
                }
            }
        }
        if !self.live().all(|member| self.is_done(member)) || !self.events.is_empty() {
            let states = self.members.iter().map(|member| (member.iteration, member.paused, member.contributes));
            return Err(format!("it stands still at {:?}", states.collect::<Vec<_>>()));
        }
        Ok(self.members.iter().map(|member| member.model.clone()).collect())
    }
}
