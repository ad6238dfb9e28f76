//! Which member gets which piece of work.

use alloc::vec;
use alloc::vec::Vec;

/// How pieces of work are dealt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Balance {
    /// The largest first, each to whom has least so far (longest processing time first, Graham 1969): the busiest
    /// member has at most `4/3 − 1/(3·members)` of what the best of all assignments gives it.
    Largest,
    /// Neighbours stay together: the contiguous partition whose busiest member has least.
    Contiguous,
}

/// For every cost, its member; the same on every node that asks.
///
/// # Panics
/// If there is no member, or a cost is negative or not a number.
#[track_caller]
pub fn assign(balance: Balance, costs: &[f64], members: usize) -> Vec<usize> {
    assert!(members > 0, "work for nobody");
    assert!(costs.iter().all(|&cost| cost >= 0.0), "costs are not negative: {costs:?}");
    match balance {
        Balance::Largest => largest_first(costs, members),
        Balance::Contiguous => contiguous(costs, members),
    }
}

fn largest_first(costs: &[f64], members: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..costs.len()).collect();
    order.sort_by(|&one, &other| costs[other].total_cmp(&costs[one]).then(one.cmp(&other)));
    let mut loads = vec![0.0; members];
    let mut owners = vec![0; costs.len()];
    for index in order {
        // Of several with as little, the first.
        let least = (0..members).fold(0, |least, member| if loads[member] < loads[least] { member } else { least });
        owners[index] = least;
        loads[least] += costs[index];
    }
    owners
}

/// Dynamic programming over how the first so many costs are best divided among the first so many members.
fn contiguous(costs: &[f64], members: usize) -> Vec<usize> {
    let count = costs.len();
    let mut sums = vec![0.0; count + 1];
    for (index, cost) in costs.iter().enumerate() {
        sums[index + 1] = sums[index] + cost;
    }
    // With one member, everything is its own; `starts[m][n]` is where member m's part of the first n costs begins.
    let mut best = sums.clone();
    let mut starts = vec![vec![0; count + 1]];
    for _ in 1..members {
        let mut next = vec![0.0; count + 1];
        let mut start = vec![0; count + 1];
        for end in 0..=count {
            let busiest = |first: usize| f64::max(best[first], sums[end] - sums[first]);
            // Later starts win ties, so that the first members have work when there is too little.
            let first =
                (0..=end).fold(end, |chosen, first| if busiest(first) < busiest(chosen) { first } else { chosen });
            (start[end], next[end]) = (first, busiest(first));
        }
        best = next;
        starts.push(start);
    }
    let mut owners = vec![0; count];
    let mut end = count;
    for member in (0..members).rev() {
        let first = starts[member][end];
        owners[first..end].fill(member);
        end = first;
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn loads(owners: &[usize], costs: &[f64], members: usize) -> Vec<f64> {
        let mut loads = vec![0.0; members];
        owners.iter().zip(costs).for_each(|(&owner, cost)| loads[owner] += cost);
        loads
    }

    fn busiest(owners: &[usize], costs: &[f64], members: usize) -> f64 {
        loads(owners, costs, members).into_iter().fold(0.0, f64::max)
    }

    /// All assignments of few pieces of work, contiguous ones only if asked for.
    fn best(costs: &[f64], members: usize, contiguous: bool) -> f64 {
        let total = members.pow(costs.len() as u32);
        let all = (0..total).map(|mut number| {
            let digit = |_| {
                let digit = number % members;
                number /= members;
                digit
            };
            (0..costs.len()).map(digit).collect::<Vec<_>>()
        });
        let allowed = all.filter(|owners| !contiguous || owners.is_sorted());
        allowed.map(|owners| busiest(&owners, costs, members)).fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn no_assignment_is_far_better() {
        for seed in 0..60 {
            let mut random = Seed(seed).random();
            let members = 1 + random.below(3) as usize;
            let costs: Vec<f64> = (0..1 + random.below(7)).map(|_| random.below(20) as f64).collect();
            let largest = busiest(&assign(Balance::Largest, &costs, members), &costs, members);
            let bound = 4.0 / 3.0 - 1.0 / (3.0 * members as f64);
            assert!(largest <= bound * best(&costs, members, false) + 1e-9, "seed {seed}: {costs:?} over {members}");
            let owners = assign(Balance::Contiguous, &costs, members);
            assert!(owners.is_sorted() && owners.iter().all(|&owner| owner < members), "seed {seed}: {owners:?}");
            let least = best(&costs, members, true);
            assert!((busiest(&owners, &costs, members) - least).abs() < 1e-9, "seed {seed}: {costs:?} over {members}");
        }
    }

    #[test]
    fn ties_go_to_the_first() {
        assert_eq!(assign(Balance::Largest, &[1.0; 4], 2), [0, 1, 0, 1]);
        assert_eq!(assign(Balance::Contiguous, &[1.0; 4], 2), [0, 0, 1, 1]);
    }
}
