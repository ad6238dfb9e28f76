// What the shaders of large eigenproblems share.
//
// A = Q·diag(d)·Qᵀ by cyclic Jacobi rotations of pairs of blocks (Golub & Van Loan §8.5.6): in every round, half of the
// blocks of WIDTH rows and columns are paired with the other half, in the tournament order of §8.5.4. Each pair's own
// matrix, of SIDE rows, is turned towards a diagonal one by one sweep of rotations, whose product is then applied to
// everything else.
//
// Scratch of a job: Q (n × n), the largest element of every column (n), what is nothing beside them (1; below 0 where A has
// a NaN or an infinity), the product of the rotations of every pair (SIDE × SIDE each), 1 for every pair that was turned.
//
// Table: workgroups, jobs; then per job: its first workgroup, n, offset and column step of A, offset of d, of its scratch,
// round.

const HEADER = 2u;
const RECORD = 7u;
const WIDTH = 16u;
const SIDE = 32u;

fn job_of(id: u32) -> u32 {
    var at = HEADER;
    for (var job = 1u; job < table[1] && table[at + RECORD] <= id; job++) {
        at += RECORD;
    }
    return at;
}

fn pairs_of(n: u32) -> u32 {
    return (n + SIDE - 1u) / SIDE;
}

fn maxima_of(at: u32) -> u32 {
    return table[at + 5u] + table[at + 1u] * table[at + 1u];
}

fn level_of(at: u32) -> u32 {
    return maxima_of(at) + table[at + 1u];
}

fn product_of(at: u32, pair: u32) -> u32 {
    return level_of(at) + 1u + pair * SIDE * SIDE;
}

fn turned_of(at: u32, pair: u32) -> u32 {
    return product_of(at, pairs_of(table[at + 1u])) + pair;
}

// The tournament: player 0 stays, the others move on by one place a round.
fn player(place: u32, round: u32, players: u32) -> u32 {
    if place == 0u {
        return 0u;
    }
    return (place - 1u + round) % (players - 1u) + 1u;
}

// The row of A that is row `local` of a pair's matrix; n or more where there is none.
fn row_of(at: u32, pair: u32, local: u32) -> u32 {
    let players = 2u * pairs_of(table[at + 1u]);
    let one = player(pair, table[at + 6u], players);
    let other = player(players - 1u - pair, table[at + 6u], players);
    return select(max(one, other), min(one, other), local < WIDTH) * WIDTH + local % WIDTH;
}
