//! Every sample belongs to exactly one node, whatever the partition.

use kronfleet_core::seed::Seed;
use kronfleet_examples::data::partition::{Partition, PartitionError};
use proptest::collection::vec;
use proptest::prelude::*;

fn partition() -> impl Strategy<Value = Partition> {
    prop_oneof![
        Just(Partition::Iid),
        (0.0..=100.0).prop_map(|percent| Partition::Sorted { percent }),
        (0..10_u8).prop_map(Partition::Label),
        (-6.0..6.0).prop_map(|exponent| Partition::Dirichlet { concentration: f64::powf(10.0, exponent) }),
    ]
}

proptest! {
    #[test]
    fn every_sample_belongs_to_exactly_one_node(
        partition in partition(),
        mut labels in vec(0..10_u8, 1..400),
        nodes in 1..20_usize,
        seed in any::<u64>(),
    ) {
        // The label that `label:` names is there.
        if let Partition::Label(label) = partition {
            labels[0] = label;
        }
        let nodes = nodes.min(labels.len());
        let shares = partition.split(&labels, nodes, Seed(seed)).unwrap();
        prop_assert_eq!(shares.len(), nodes);
        prop_assert!(shares.iter().all(|share| !share.is_empty()));
        let mut all = shares.concat();
        all.sort_unstable();
        prop_assert!(all.iter().copied().eq(0..labels.len() as u32));
        if !matches!(partition, Partition::Dirichlet { .. }) {
            let sizes = || shares.iter().map(Vec::len);
            prop_assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
        }
        prop_assert_eq!(&shares, &partition.split(&labels, nodes, Seed(seed)).unwrap());
    }

    #[test]
    fn the_sorted_part_is_sorted_and_the_rest_is_not_moved_into_it(
        labels in vec(0..10_u8, 1..400),
        nodes in 1..9_usize,
        percent in 0..=100_u32,
    ) {
        let nodes = nodes.min(labels.len());
        let count = labels.len() * percent as usize / 100;
        let shares = Partition::Sorted { percent: percent.into() }.split(&labels, nodes, Seed(1)).unwrap();
        // Read node by node, the samples of the first part are in the order of their labels, each node
        // holding them before all others.
        let first: Vec<u32> = shares.iter().flatten().copied().filter(|&sample| (sample as usize) < count).collect();
        prop_assert_eq!(first.len(), count);
        prop_assert!(first.is_sorted_by_key(|&sample| labels[sample as usize]));
        for share in &shares {
            let (own, others) = (share.iter().take_while(|&&n| (n as usize) < count).count(), share.len());
            prop_assert!(share[own..others].iter().all(|&n| n as usize >= count));
            prop_assert!(own.abs_diff(count / nodes) <= 1);
        }
    }

    #[test]
    fn samples_of_the_label_come_first(labels in vec(0..10_u8, 1..400), nodes in 1..9_usize, seed in any::<u64>()) {
        let label = labels[0];
        let nodes = nodes.min(labels.len());
        let order = Partition::Label(label).split(&labels, nodes, Seed(seed)).unwrap().concat();
        let count = labels.iter().filter(|&&other| other == label).count();
        prop_assert!(order.iter().enumerate().all(|(place, &n)| (labels[n as usize] == label) == (place < count)));
    }

    #[test]
    fn what_is_displayed_is_parsed(partition in partition()) {
        prop_assert_eq!(partition.to_string().parse::<Partition>().unwrap(), partition);
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".*") {
        let _ = text.parse::<Partition>();
    }
}

/// How many samples of each class each node has, of `per_class` samples of 10 classes.
fn histogram(partition: Partition, nodes: usize, per_class: usize) -> Vec<[usize; 10]> {
    let labels: Vec<u8> = (0..10 * per_class).map(|n| (n % 10) as u8).collect();
    let count = |share: &Vec<u32>| {
        let mut counts = [0; 10];
        for &sample in share {
            counts[usize::from(labels[sample as usize])] += 1;
        }
        counts
    };
    partition.split(&labels, nodes, Seed(5)).unwrap().iter().map(count).collect()
}

#[test]
fn iid_shares_have_all_classes() {
    // Hypergeometric, standard deviation about 9.9: a count 6 of them away has probability below 1e-8.
    for counts in histogram(Partition::Iid, 8, 1_000) {
        assert!(counts.iter().all(|count| count.abs_diff(125) < 60), "{counts:?}");
    }
}

#[test]
fn sixty_percent_sorted_gives_most_nodes_one_or_two_favourites() {
    for counts in histogram("sorted:60".parse().unwrap(), 10, 1_000) {
        // 600 of one class sorted, about 40 of each class at random.
        let favourite = counts.iter().max().unwrap();
        assert!((600..700).contains(favourite), "{counts:?}");
    }
}

#[test]
fn one_label_fills_one_node_and_others_never_see_it() {
    let counts = histogram("label:0".parse().unwrap(), 5, 1_000);
    assert_eq!(counts[0][0], 1_000);
    assert!(
        counts[1..].iter().all(|counts| counts[0] == 0 && counts[1..].iter().all(|&count| count > 0)),
        "{counts:?}"
    );
}

#[test]
fn concentration_sets_how_much_nodes_differ() {
    // Of a symmetric Dirichlet distribution with concentration α over P nodes, one proportion has the variance
    // (1/P)(1 − 1/P)/(Pα + 1): Σ over nodes of its square has the mean (α + 1)/(Pα + 1).
    let (nodes, per_class) = (8, 1_000);
    let mut last = f64::INFINITY;
    for concentration in [0.01, 0.1, 0.3, 1.0, 10.0, 1e5] {
        let mean = (0..40_u64)
            .flat_map(|seed| {
                let labels: Vec<u8> = (0..10 * per_class).map(|n| (n % 10) as u8).collect();
                let shares = Partition::Dirichlet { concentration }.split(&labels, nodes, Seed(seed)).unwrap();
                (0..10_u8).map(move |class| -> f64 {
                    let proportion = |share: &Vec<u32>| {
                        share.iter().filter(|&&n| (n % 10) as u8 == class).count() as f64 / per_class as f64
                    };
                    shares.iter().map(|share| proportion(share).powi(2)).sum()
                })
            })
            .sum::<f64>()
            / 400.0;
        let expected = (concentration + 1.0) / (nodes as f64 * concentration + 1.0);
        // A mean of 400 draws in [0, 1], each with a standard deviation of at most 0.25.
        assert!((mean - expected).abs() < 5.0 * 0.25 / 20.0, "concentration {concentration}: {mean} for {expected}");
        assert!(mean < last, "a larger concentration makes nodes more alike");
        last = mean;
    }
}

#[test]
fn wrong_texts_say_what_is_wrong() {
    for (text, reason) in [
        ("", "its name is unknown"),
        ("even", "its name is unknown"),
        ("iid:3", "iid takes no argument"),
        ("sorted", "its argument is missing"),
        ("sorted:sixty", "not a number from 0 to 100"),
        ("sorted:101", "not a number from 0 to 100"),
        ("sorted:NaN", "not a number from 0 to 100"),
        ("label:-1", "not a whole number from 0 to 255"),
        ("label:256", "not a whole number from 0 to 255"),
        ("dirichlet:0", "not a number from 1e-6 to 1e6"),
        ("dirichlet:inf", "not a number from 1e-6 to 1e6"),
        ("dirichlet:", "not a number from 1e-6 to 1e6"),
    ] {
        let message = text.parse::<Partition>().expect_err("the text is wrong").to_string();
        assert!(message.contains(&format!("{text:?} is no partition")) && message.contains(reason), "{message}");
        assert!(message.contains("sorted:60") && message.contains("dirichlet:0.3"), "{message}");
    }
}

#[test]
fn impossible_splits_say_why() {
    let labels = [0, 1, 4];
    for nodes in [0, 4] {
        let error = Partition::Iid.split(&labels, nodes, Seed(1)).unwrap_err();
        assert_eq!(error, PartitionError::Nodes { samples: 3, nodes });
        assert!(error.to_string().contains(&format!("3 samples cannot be dealt out among {nodes} nodes")), "{error}");
    }
    let error = Partition::Label(2).split(&labels, 2, Seed(1)).unwrap_err();
    assert_eq!(error.to_string(), "no sample has label 2; the labels are 0 to 4");
}
