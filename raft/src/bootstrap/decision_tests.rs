//! What a node without a cluster does, case by case.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use uuid::Uuid;

use super::*;

fn uuid(number: u128) -> NodeUuid {
    NodeUuid::new(Uuid::from_u128(number))
}

fn cluster(number: u128) -> ClusterId {
    ClusterId::new(Uuid::from_u128(number))
}

/// Node `number`, which has not done anything yet.
fn identity(number: u128) -> Identity {
    Identity {
        format: 1,
        node_uuid: uuid(number),
        cluster_id: None,
        node_id: None,
        boot: 1,
        gossip_generation: 1,
        granted: None,
        candidacy: 0,
        founding: None,
    }
}

fn candidacy(number: u128, attempt: u32) -> Candidacy {
    Candidacy { node_uuid: uuid(number), number: attempt }
}

fn settings(own: u128, seeds: &[u128], expect: Option<u32>) -> Settings {
    Settings {
        seeds: seeds.iter().map(|seed| format!("n{seed}:1")).collect(),
        expect,
        own_address: format!("n{own}:1"),
    }
}

/// Node `number` answers that it waits for a cluster of three.
fn waits(number: u128) -> Seen {
    Seen {
        dialled: format!("n{number}:1"),
        peer_address: format!("n{number}:1"),
        node_uuid: uuid(number),
        cluster_id: None,
        expect: 3,
        candidacy: 0,
    }
}

fn step(identity: &Identity, settings: &Settings, seen: &[Seen], grants: &[u128]) -> Step {
    next_step(identity, None, settings, seen, &grants.iter().copied().map(uuid).collect())
}

fn waits_for(step: &Step, what: &str) -> bool {
    matches!(step, Step::Wait { reason } if reason.contains(what))
}

fn is_refused(step: &Step, why: &str) -> bool {
    matches!(step, Step::Refuse { reason } if reason.contains(why))
}

const ALL: [u128; 3] = [1, 2, 3];

#[test]
fn alone_it_founds_a_cluster_of_one() {
    assert_eq!(step(&identity(1), &settings(1, &[], None), &[], &[]), Step::Found);
}

#[test]
fn alone_it_does_not_found_after_it_has_granted_another() {
    let granted = Identity { granted: Some(candidacy(2, 0)), ..identity(1) };
    let step = step(&granted, &settings(1, &[], None), &[], &[]);
    assert!(is_refused(&step, "must not found a cluster of its own"), "{step:?}");
}

#[test]
fn with_join_alone_it_never_founds_but_waits_for_a_cluster() {
    let settings = settings(1, &[2], None);
    assert!(waits_for(&step(&identity(1), &settings, &[], &[]), "a node that belongs to a cluster"));
    assert!(waits_for(&step(&identity(1), &settings, &[waits(2)], &[]), "a node that belongs"));
}

#[test]
fn whoever_belongs_to_a_cluster_decides_what_happens() {
    let member = Seen { cluster_id: Some(cluster(9)), ..waits(2) };
    for settings in [settings(1, &[2], None), settings(1, &ALL, Some(3))] {
        let granted = Identity { granted: Some(candidacy(1, 0)), ..identity(1) };
        assert_eq!(
            step(&granted, &settings, &[waits(1), member.clone(), waits(3)], &[1, 3]),
            Step::Join { cluster_id: cluster(9), addresses: vec!["n2:1".to_owned()] }
        );
    }
}

#[test]
fn seeds_of_two_clusters_are_refused() {
    let seen = [
        Seen { cluster_id: Some(cluster(8)), ..waits(2) },
        Seen { cluster_id: Some(cluster(9)), ..waits(3) },
    ];
    let step = step(&identity(1), &settings(1, &[2, 3], None), &seen, &[]);
    assert!(is_refused(&step, "different clusters"), "{step:?}");
}

#[test]
fn a_node_that_was_on_its_way_into_a_cluster_enters_that_one_or_none() {
    let bound = |settings: &Settings, seen: &[Seen]| {
        next_step(&identity(1), Some(cluster(9)), settings, seen, &BTreeSet::new())
    };
    let join = settings(1, &ALL, Some(3));
    let member = |of| Seen { cluster_id: Some(cluster(of)), ..waits(2) };
    assert!(matches!(bound(&join, &[member(9)]), Step::Join { .. }));
    assert!(is_refused(&bound(&join, &[member(8)]), "on its way into"));
    assert!(waits_for(&bound(&join, &[waits(1), waits(2), waits(3)]), "a member of cluster"));
    assert!(is_refused(&bound(&settings(1, &[], None), &[]), "start it with --join"));
}

#[test]
fn the_lowest_uuid_asks_and_the_others_wait_for_it() {
    let seen = [waits(1), waits(2), waits(3)];
    assert_eq!(
        step(&identity(1), &settings(1, &ALL, Some(3)), &seen, &[]),
        Step::Ask { candidacy: candidacy(1, 0), addresses: vec!["n2:1".to_owned(), "n3:1".to_owned()] }
    );
    for other in [2, 3] {
        let step = step(&identity(other), &settings(other, &ALL, Some(3)), &seen, &[]);
        assert!(waits_for(&step, &format!("node {} to found", uuid(1))), "{step:?}");
    }
}

#[test]
fn a_list_of_the_others_only_does_as_well() {
    let seen = [waits(2), waits(3)];
    assert_eq!(
        step(&identity(1), &settings(1, &[2, 3], Some(3)), &seen, &[1, 3]),
        Step::Ask { candidacy: candidacy(1, 0), addresses: vec!["n2:1".to_owned()] }
    );
}

#[test]
fn nobody_asks_before_all_expected_are_here() {
    let step = step(&identity(1), &settings(1, &ALL, Some(3)), &[waits(1), waits(3)], &[]);
    assert!(waits_for(&step, "2 of 3 nodes"), "{step:?}");
}

#[test]
fn a_node_outside_a_list_that_is_long_enough_does_not_stand() {
    let seen = [waits(1), waits(2), waits(3)];
    let step = step(&identity(0), &settings(0, &ALL, Some(3)), &seen, &[]);
    assert!(waits_for(&step, &format!("node {} to found", uuid(1))), "{step:?}");
}

#[test]
fn all_grants_found_the_cluster_and_two_of_three_do_not() {
    let granted = Identity { granted: Some(candidacy(1, 0)), ..identity(1) };
    let seen = [waits(1), waits(2), waits(3)];
    let settings = settings(1, &ALL, Some(3));
    assert_eq!(step(&granted, &settings, &seen, &[1, 2, 3]), Step::Found);
    assert!(matches!(step(&granted, &settings, &seen, &[1, 2]), Step::Ask { .. }));
}

#[test]
fn a_candidate_that_sees_a_lower_uuid_renounces_and_is_released() {
    let seen = [waits(1), waits(2), waits(3)];
    let mut candidate = Identity { granted: Some(candidacy(2, 0)), ..identity(2) };
    assert_eq!(
        step(&candidate, &settings(2, &ALL, Some(3)), &seen, &[2]),
        Step::Renounce { in_favour_of: uuid(1) }
    );
    assert!(renounce(&mut candidate));
    assert_eq!((candidate.candidacy, candidate.granted), (1, None));

    let granter = Identity { granted: Some(candidacy(2, 0)), ..identity(3) };
    let settings = settings(3, &ALL, Some(3));
    assert!(matches!(step(&granter, &settings, &seen, &[]), Step::Wait { .. }));
    let renounced = [waits(1), Seen { candidacy: 1, ..waits(2) }, waits(3)];
    assert_eq!(step(&granter, &settings, &renounced, &[]), Step::Release { candidacy: candidacy(2, 0) });
}

#[test]
fn a_granted_candidate_that_is_silent_blocks_and_says_how_to_go_on() {
    let granter = Identity { granted: Some(candidacy(1, 0)), ..identity(2) };
    let step = step(&granter, &settings(2, &[2, 3, 4], Some(3)), &[waits(2), waits(3), waits(4)], &[]);
    assert!(waits_for(&step, "start this node with an empty data directory"), "{step:?}");
}

#[test]
fn different_expectations_are_refused() {
    let seen = [waits(1), Seen { expect: 5, ..waits(2) }];
    let step = step(&identity(1), &settings(1, &ALL, Some(3)), &seen, &[]);
    assert!(is_refused(&step, "give all the same"), "{step:?}");
}

#[test]
fn a_node_that_never_bootstraps_does_not_count() {
    let seen = [waits(1), waits(2), Seen { expect: 0, ..waits(3) }];
    let step = step(&identity(1), &settings(1, &ALL, Some(3)), &seen, &[]);
    assert!(waits_for(&step, "2 of 3 nodes"), "{step:?}");
}

#[test]
fn one_uuid_at_two_addresses_is_refused() {
    let copy = Seen { peer_address: "n7:1".to_owned(), ..waits(1) };
    let step = step(&identity(1), &settings(1, &ALL, Some(3)), &[copy], &[]);
    assert!(is_refused(&step, "have the same UUID"), "{step:?}");
}

#[test]
fn settings_that_could_end_in_two_clusters_or_none_are_refused() {
    let check = |seeds: usize, expect| {
        let seeds: Vec<u128> = (1..=seeds as u128).collect();
        settings(1, &seeds, Some(expect)).check()
    };
    for (seeds, expect) in [(0, 1), (1, 1), (1, 2), (2, 2), (3, 2), (2, 3), (3, 3), (5, 3), (9, 5)] {
        assert_eq!(check(seeds, expect), Ok(()), "{expect} of {seeds}");
    }
    for (seeds, expect) in [(0, 2), (1, 3), (3, 5)] {
        assert!(check(seeds, expect).unwrap_err().contains("needs the addresses"), "{expect} of {seeds}");
    }
    for (seeds, expect) in [(2, 1), (4, 2), (6, 3)] {
        assert!(check(seeds, expect).unwrap_err().contains("two clusters"), "{expect} of {seeds}");
    }
    assert!(check(3, 0).is_err());
}

#[test]
fn a_grant_is_given_once_again_to_the_same_and_never_to_another() {
    let mut node = identity(3);
    assert_eq!(grant(&mut node, Some(3), candidacy(1, 0), 3), Ok(()));
    assert_eq!(grant(&mut node, Some(3), candidacy(1, 0), 3), Ok(()));
    assert!(grant(&mut node, Some(3), candidacy(2, 0), 3).unwrap_err().contains("has granted"));
    assert_eq!(grant(&mut node, Some(3), candidacy(1, 2), 3), Ok(()));
    assert!(grant(&mut node, Some(3), candidacy(1, 1), 3).unwrap_err().contains("renounced"));
    assert_eq!(node.granted, Some(candidacy(1, 2)));
}

#[test]
fn a_grant_needs_the_same_settings_and_a_node_without_a_cluster() {
    assert!(grant(&mut identity(3), Some(5), candidacy(1, 0), 3).unwrap_err().contains("give all the same"));
    assert!(grant(&mut identity(3), None, candidacy(1, 0), 3).unwrap_err().contains("grants nobody"));
    let mut founder = Identity { founding: Some(cluster(9)), ..identity(3) };
    assert!(grant(&mut founder, Some(3), candidacy(1, 0), 3).unwrap_err().contains("belongs to cluster"));
}

#[test]
fn only_a_candidacy_that_stands_can_be_claimed_and_only_once() {
    let mut node = Identity { granted: Some(candidacy(1, 0)), ..identity(1) };
    assert!(!claim(&mut node, candidacy(1, 1), cluster(9)));
    assert!(claim(&mut node, candidacy(1, 0), cluster(9)));
    assert_eq!(node.founding, Some(cluster(9)));
    assert!(!claim(&mut node, candidacy(1, 0), cluster(8)));
    assert!(!renounce(&mut node));
    assert_eq!(node.founding, Some(cluster(9)));
}
