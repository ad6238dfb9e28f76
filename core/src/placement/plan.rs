//! A placement applied to the layers of a network.

use super::{Cost, Decomposers, Exchange, Placement, Seconds, Statistics, Traffic, Work, assign};
use crate::factor::parts;
use crate::layer::Block;
use crate::preconditioner::Form;
use alloc::vec::Vec;
use core::ops::Range;
pub use memory::Memory;

/// A layer as the division of work sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Load {
    /// Rows of the weight matrix, and of the factor G.
    pub rows: usize,
    /// Columns of the weight matrix with its bias, and rows of the factor A.
    pub columns: usize,
    /// Spatial positions per sample.
    pub positions: usize,
    /// Positions of the kernel, at each of which a patch has all input channels; 1 for a dense layer.
    pub kernel: usize,
    /// Factors of more rows are decomposed in diagonal blocks of about so many at most; 0 for whole ones.
    pub limit: usize,
}

impl Load {
    /// A layer of this shape, with whole factors.
    pub const fn new(rows: usize, columns: usize, positions: usize) -> Self {
        Self { rows, columns, positions, kernel: 1, limit: 0 }
    }

    /// The same layer if it is a convolution with so many positions of the kernel.
    ///
    /// # Panics
    /// If there are none, or more than columns.
    #[track_caller]
    pub const fn patches(self, kernel: usize) -> Self {
        assert!(kernel > 0 && kernel <= self.columns, "a patch has a column for every position of the kernel");
        Self { kernel, ..self }
    }

    /// The same layer with factors of more than `limit` rows in diagonal blocks, as
    /// [`Options::split_factors`](crate::preconditioner::Options::split_factors) describes; 0 for whole ones.
    pub const fn split(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Rows of the diagonal blocks of each factor: A, G.
    pub fn parts(&self) -> [Vec<usize>; 2] {
        let rows = |rows, kernel| parts(rows, kernel, self.limit).iter().map(|part| part.rows()).collect();
        [rows(self.columns, self.kernel), rows(self.rows, 1)]
    }

    /// Parameters.
    pub const fn parameters(&self) -> usize {
        self.rows * self.columns
    }

    /// Rows of each factor: A, G.
    const fn factors(&self) -> [usize; 2] {
        [self.columns, self.rows]
    }

    /// Operations of forward and backward pass for one sample.
    fn passes(&self) -> f64 {
        6.0 * self.parameters() as f64 * self.positions as f64
    }
}

impl From<&Block> for Load {
    fn from(block: &Block) -> Self {
        Self::new(block.parameters.rows, block.parameters.columns, block.positions).patches(block.kernel)
    }
}

/// The place of a factor, or of a diagonal block of one, in a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Factor {
    rows: usize,
    owner: usize,
    /// Whether all who hold it decompose it themselves.
    everywhere: bool,
}

/// A layer's place in a plan: A, G.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    load: Load,
    factors: [Vec<Factor>; 2],
}

/// Pieces of work by layer, the owner of each, and what the busiest of them has.
struct Deal {
    works: Vec<Vec<f64>>,
    owners: Vec<usize>,
    busiest: f64,
}

/// Who does what, for every layer of one network and every one of so many members. All members make the same plan from the
/// same layers; nobody hands it out.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    placement: Placement,
    members: usize,
    work: Work,
    places: Vec<Place>,
    /// How many members hold a layer's decompositions.
    holders: usize,
}

impl Plan {
    /// Divides the work on `layers` among so many members.
    ///
    /// # Panics
    /// If there is no member, or [`Placement::check`] finds fault.
    #[track_caller]
    pub fn new(placement: &Placement, layers: &[Load], members: usize, work: &Work) -> Self {
        if let Err(reason) = placement.check() {
            panic!("{reason}");
        }
        assert!(members > 0, "work for nobody");
        let holders = (libm::round(placement.holders * members as f64) as usize).clamp(1, members);
        let mut plan = Self { placement: *placement, members, work: *work, places: Vec::new(), holders };
        let factor = |rows| Factor { rows, owner: 0, everywhere: plan.is_cheaper_everywhere(rows) };
        let place = |load: &Load| Place {
            load: *load,
            factors: load.parts().map(|parts| parts.into_iter().map(factor).collect()),
        };
        let mut places: Vec<Place> = layers.iter().map(place).collect();
        let together = plan.deal(&places, false);
        // Factors part only where the busiest member has less then, for what was together need not travel.
        let apart = placement.apart.then(|| plan.deal(&places, true)).filter(|apart| apart.busiest < together.busiest);
        let Deal { works, owners, .. } = apart.unwrap_or(together);
        let mut owners = &owners[..];
        for (place, works) in places.iter_mut().zip(&works) {
            let (own, rest) = owners.split_at(works.len());
            owners = rest;
            let [a, g] = &mut place.factors;
            match own {
                [owner] => a.iter_mut().chain(g).for_each(|factor| factor.owner = *owner),
                _ if own.len() == a.len() + g.len() => {
                    a.iter_mut().chain(g).zip(own).for_each(|(factor, &owner)| factor.owner = owner);
                }
                _ => unreachable!("one piece of work for a layer, or one for each of its diagonal blocks"),
            }
        }
        plan.places = places;
        plan
    }

    /// The members the work is divided among.
    pub fn members(&self) -> usize {
        self.members
    }

    /// The layers, in order.
    pub fn loads(&self) -> Vec<Load> {
        self.places.iter().map(|place| place.load).collect()
    }

    /// The rule.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Deals everything out, the factors of a layer together or apart.
    fn deal(&self, places: &[Place], apart: bool) -> Deal {
        let works: Vec<Vec<f64>> = places.iter().map(|place| self.works(place, apart)).collect();
        let costs = works.concat();
        let owners = assign(self.placement.balance, &costs, self.members);
        let mut loads = alloc::vec![0.0; self.members];
        owners.iter().zip(&costs).for_each(|(&owner, cost)| loads[owner] += cost);
        Deal { works, owners, busiest: loads.into_iter().fold(0.0, f64::max) }
    }

    /// The costs of the pieces of work that a layer is dealt out in: itself, its two factors or, where everybody has their
    /// statistics and they are not whole, all their diagonal blocks.
    fn works(&self, place: &Place, apart: bool) -> Vec<f64> {
        if self.placement.decomposers == Decomposers::Nobody {
            return alloc::vec![self.directing(&place.load)];
        }
        let factors = || place.factors.iter().flatten();
        // What everybody does burdens nobody more than others.
        let cost = |of: &Factor| if of.everywhere { 0.0 } else { self.decomposition(of.rows) };
        let in_parts = factors().count() > 2 && self.placement.statistics == Statistics::Everywhere;
        if apart || in_parts {
            return factors().map(cost).collect();
        }
        alloc::vec![factors().map(cost).sum()]
    }

    /// Who a layer belongs to: the owner of its larger factor, or of that factor's first diagonal block.
    pub fn owner(&self, layer: usize) -> usize {
        let Load { rows, columns, .. } = self.places[layer].load;
        let [a, g] = self.owners(layer);
        if rows > columns { g } else { a }
    }

    /// The owners of a layer's factors, or of their first diagonal blocks: A, G.
    pub fn owners(&self, layer: usize) -> [usize; 2] {
        let [a, g] = &self.places[layer].factors;
        [a[0].owner, g[0].owner]
    }

    /// The members that hold a layer's decompositions and compute its direction; its owner is among them.
    pub fn holders(&self, layer: usize) -> Range<usize> {
        let first = self.owner(layer) / self.holders * self.holders;
        first..(first + self.holders).min(self.members)
    }

    /// The members that decompose a layer's factors, for every diagonal block: those of A, those of G.
    pub fn decomposers(&self, layer: usize) -> [Vec<Range<usize>>; 2] {
        let holders = self.holders(layer);
        let decomposers = |factor: &Factor| match self.placement.decomposers {
            Decomposers::Nobody => 0..0,
            _ if factor.everywhere => holders.clone(),
            _ => factor.owner..factor.owner + 1,
        };
        self.places[layer].factors.each_ref().map(|factors| factors.iter().map(decomposers).collect())
    }

    /// Whether a member decomposes any of a layer's factors: A, G.
    fn decomposes(&self, layer: usize, member: usize) -> [bool; 2] {
        self.decomposers(layer).map(|parts| parts.iter().any(|members| members.contains(&member)))
    }

    /// Whether a member makes statistics of a layer's factors: A, G.
    pub fn makes_statistics(&self, layer: usize, member: usize) -> [bool; 2] {
        match self.placement.statistics {
            Statistics::Everywhere | Statistics::AtOwner => [true; 2],
            Statistics::OwnBatch => self.owners(layer).map(|owner| owner == member),
            Statistics::OfGradient => self.decomposes(layer, member),
        }
    }

    /// Whether a member keeps the running averages of a layer's factors: A, G.
    pub fn keeps_statistics(&self, layer: usize, member: usize) -> [bool; 2] {
        match self.placement.statistics {
            Statistics::Everywhere => [true; 2],
            Statistics::AtOwner | Statistics::OwnBatch => self.owners(layer).map(|owner| owner == member),
            Statistics::OfGradient => self.makes_statistics(layer, member),
        }
    }

    /// What the average of the gradients moves, at every step.
    pub fn gradients(&self) -> Traffic {
        let values = self.places.iter().map(|place| place.load.parameters()).sum();
        self.traffic([Exchange::AllReduce { values }])
    }

    /// What a factor update moves.
    pub fn statistics(&self) -> Traffic {
        let factors = self.places.iter().flat_map(|place| place.factors.iter().flatten());
        let (triangles, vectors) = (self.placement.triangles, self.has_vectors());
        let size = move |rows| if vectors { rows } else { symmetric(rows, triangles) };
        let sizes = factors.map(move |factor| (factor.owner, size(factor.rows)));
        match self.placement.statistics {
            Statistics::OwnBatch | Statistics::OfGradient => self.traffic([]),
            Statistics::AtOwner => self.traffic(sizes.map(|(to, values)| Exchange::Reduce { to, values })),
            Statistics::Everywhere => self.traffic(sizes.map(|(_, values)| Exchange::AllReduce { values })),
        }
    }

    /// What a refresh moves: decompositions on their way from those who made them to all who hold them.
    pub fn decompositions(&self) -> Traffic {
        let exchanges = (0..self.places.len()).flat_map(|layer| {
            let holders = self.holders(layer);
            let somebody = self.placement.decomposers != Decomposers::Nobody;
            let factors = self.places[layer].factors.iter().flatten();
            let travels = factors.filter(move |factor| somebody && !factor.everywhere);
            travels.map(move |factor| Exchange::Broadcast {
                from: factor.owner,
                to: holders.clone().filter(|&member| member != factor.owner).collect(),
                values: self.decomposed(factor.rows),
            })
        });
        self.traffic(exchanges)
    }

    /// What a step moves once directions are there: each holder hands them to its share of those who hold nothing.
    pub fn directions(&self) -> Traffic {
        let exchanges = self.places.iter().enumerate().flat_map(|(layer, place)| {
            let holders = self.holders(layer);
            let count = holders.len();
            let others: Vec<usize> = (0..self.members).filter(|member| !holders.contains(member)).collect();
            holders.enumerate().map(move |(turn, from)| Exchange::Broadcast {
                from,
                to: others.iter().copied().skip(turn).step_by(count).collect(),
                values: place.load.parameters(),
            })
        });
        self.traffic(exchanges)
    }

    /// What a member does and holds.
    pub fn cost(&self, member: usize) -> Cost {
        let mut cost = Cost::default();
        let batch = self.work.batch as f64;
        for (layer, place) in self.places.iter().enumerate() {
            let Load { positions, .. } = place.load;
            let holds = self.holders(layer).contains(&member);
            let decomposers = self.decomposers(layer);
            let makes = self.makes_statistics(layer, member);
            let keeps = self.keeps_statistics(layer, member);
            let somebody = self.placement.decomposers != Decomposers::Nobody;
            for (side, rows) in place.load.factors().into_iter().enumerate() {
                if makes[side] {
                    // Of so many vectors: what passed at every position, or rows and columns of the gradient. They are made
                    // whole, and diagonal blocks are cut out.
                    let vectors = match self.placement.statistics {
                        Statistics::OfGradient => place.load.factors()[1 - side] as f64,
                        _ => positions as f64 * batch,
                    };
                    let each = if self.has_vectors() { 1.0 } else { rows as f64 + 1.0 };
                    cost.statistics += rows as f64 * each * vectors;
                }
                for (factor, decomposers) in place.factors[side].iter().zip(&decomposers[side]) {
                    if keeps[side] {
                        cost.values += factor.rows * if self.has_vectors() { 1 } else { factor.rows };
                    }
                    let decomposes = decomposers.contains(&member);
                    if decomposes {
                        cost.decompositions += self.decomposition(factor.rows);
                        cost.decomposed += 1;
                    }
                    if somebody && (holds || decomposes) {
                        cost.values += factor.rows * factor.rows + if self.is_eigen() { factor.rows } else { 0 };
                    }
                }
            }
            if holds {
                cost.directions += self.directing(&place.load);
            }
        }
        cost
    }

    /// How long one update takes by the figures of the machine.
    pub fn seconds(&self) -> Seconds {
        let machine = self.work.machine;
        let slowest = |of: &dyn Fn(Cost) -> f64| {
            let costs = (0..self.members).map(|member| of(self.cost(member)));
            costs.fold(0.0, f64::max)
        };
        let statistics = machine.seconds(&self.statistics(), self.members);
        let passes: f64 = self.places.iter().map(|place| place.load.passes()).sum::<f64>() * self.work.batch as f64;
        // Diagonal blocks are cut out of statistics once the passes are done.
        let hidden = if self.placement.overlapped && !self.is_cut() { passes / machine.passes } else { 0.0 };
        Seconds {
            statistics: slowest(&|cost| cost.statistics) / machine.products,
            statistics_exchange: f64::max(0.0, statistics - hidden),
            decompositions: slowest(&|cost| cost.decompositions) / machine.decompositions,
            decompositions_exchange: machine.seconds(&self.decompositions(), self.members),
            directions: slowest(&|cost| cost.directions) / machine.products,
            directions_exchange: machine.seconds(&self.directions(), self.members),
        }
    }

    fn traffic(&self, exchanges: impl IntoIterator<Item = Exchange>) -> Traffic {
        Traffic::new(self.members, exchanges)
    }

    /// Whether statistics are one vector for each factor.
    fn has_vectors(&self) -> bool {
        self.placement.decomposers == Decomposers::Nobody && self.placement.statistics != Statistics::OfGradient
    }

    /// Whether any factor is in several diagonal blocks.
    fn is_cut(&self) -> bool {
        self.places.iter().any(|place| place.factors.iter().any(|parts| parts.len() > 1))
    }

    fn is_eigen(&self) -> bool {
        self.work.form != Form::Inverse
    }

    /// Operations of a layer's direction.
    fn directing(&self, load: &Load) -> f64 {
        let (rows, columns) = (load.rows as f64, load.columns as f64);
        if self.has_vectors() {
            // `∇a` and `g aᵀ`.
            return 4.0 * rows * columns;
        }
        if self.placement.decomposers == Decomposers::Nobody {
            // Five rounds of `X ← a·X + (b·XXᵀ + c·(XXᵀ)²)·X` on the shorter side.
            let (short, long) = (rows.min(columns), rows.max(columns));
            return 5.0 * (short * (short + 1.0) * long + 2.0 * short * short * (short + long));
        }
        let twice = if self.is_eigen() { 2.0 } else { 1.0 };
        // A product with a diagonal block touches its rows alone.
        let squares = load.parts().map(|parts| parts.into_iter().map(|rows| (rows * rows) as f64).sum::<f64>());
        twice * 2.0 * (squares[0] * rows + squares[1] * columns)
    }

    /// Operations of the decomposition of a factor: `n³` for the inverse by Cholesky, `9·n³` for eigenvectors.
    fn decomposition(&self, rows: usize) -> f64 {
        let cube = (rows * rows) as f64 * rows as f64;
        if self.is_eigen() { 9.0 * cube } else { cube }
    }

    /// Values of a decomposition on the wire.
    fn decomposed(&self, rows: usize) -> usize {
        if self.is_eigen() { rows * rows + rows } else { symmetric(rows, self.placement.triangles) }
    }

    /// Whether every holder decomposes a factor of so many rows itself.
    fn is_cheaper_everywhere(&self, rows: usize) -> bool {
        match self.placement.decomposers {
            Decomposers::Everybody => true,
            Decomposers::Owner | Decomposers::Nobody => false,
            Decomposers::Cheaper => {
                let machine = &self.work.machine;
                let to = (1..self.holders).collect();
                let hand_out = self.traffic([Exchange::Broadcast { from: 0, to, values: self.decomposed(rows) }]);
                self.decomposition(rows) / machine.decompositions <= machine.seconds(&hand_out, self.members)
            }
        }
    }
}

/// Values of a symmetric matrix on the wire.
fn symmetric(rows: usize, triangle: bool) -> usize {
    if triangle { rows * (rows + 1) / 2 } else { rows * rows }
}

mod memory;
#[cfg(test)]
mod tests;
