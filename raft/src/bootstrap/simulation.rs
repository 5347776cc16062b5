//! Races of first starts, with kills, lost and late messages, on the real
//! decision functions: never two founders, and one cluster in the end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::decision::{self, Seen, Settings, Step, next_step};
use crate::identity::{Candidacy, Identity};
use crate::state::{ClusterId, NodeUuid};

struct Node {
    settings: Settings,
    /// What survives a kill.
    identity: Identity,
    /// What does not.
    running: bool,
    seen: Vec<Seen>,
    grants: BTreeSet<NodeUuid>,
}

#[derive(Debug, Clone)]
enum Message {
    Ask { from: usize, to: usize, candidacy: Candidacy },
    Granted { to: usize, boot: u32, by: NodeUuid, candidacy: Candidacy },
}

struct World {
    nodes: Vec<Node>,
    expect: u32,
    on_the_way: Vec<Message>,
    founded: BTreeSet<ClusterId>,
}

/// What chance does next.
#[derive(Debug, Clone)]
enum Action {
    /// A node asks its seeds; those in the mask answer.
    Probe {
        node: usize,
        mask: u8,
    },
    /// A node does what it decides on what it saw last, however old that is.
    Act {
        node: usize,
    },
    Deliver {
        message: usize,
    },
    Lose {
        message: usize,
    },
    Kill {
        node: usize,
    },
    Restart {
        node: usize,
    },
}

fn address(node: usize) -> String {
    format!("n{node}:1")
}

impl World {
    /// `listed` nodes are in everyone's list (or in everyone's but their own);
    /// `others` are started alike but are in nobody's.
    fn new(order: &[u128], listed: usize, others: usize, expect: u32, names_itself: bool) -> Self {
        let nodes = (0..listed + others).map(|node| Node {
            settings: Settings {
                seeds: (0..listed).filter(|seed| names_itself || *seed != node).map(address).collect(),
                expect: Some(expect),
                own_address: address(node),
            },
            identity: Identity {
                format: 1,
                node_uuid: NodeUuid::new(Uuid::from_u128(order[node])),
                cluster_id: None,
                node_id: None,
                boot: 1,
                gossip_generation: 1,
                granted: None,
                candidacy: 0,
                founding: None,
            },
            running: true,
            seen: Vec::new(),
            grants: BTreeSet::new(),
        });
        let nodes: Vec<Node> = nodes.collect();
        for node in &nodes {
            node.settings.check().unwrap();
        }
        Self { nodes, expect, on_the_way: Vec::new(), founded: BTreeSet::new() }
    }

    fn belongs(&self, node: usize) -> Option<ClusterId> {
        let identity = &self.nodes[node].identity;
        identity.cluster_id.or(identity.founding)
    }

    fn take(&mut self, action: Action) {
        let count = self.nodes.len();
        match action {
            Action::Probe { node, mask } => self.probe(node % count, mask),
            Action::Act { node } => self.act(node % count),
            Action::Deliver { message } if !self.on_the_way.is_empty() => {
                let message = self.on_the_way.remove(message % self.on_the_way.len());
                self.deliver(message);
            }
            Action::Lose { message } if !self.on_the_way.is_empty() => {
                self.on_the_way.remove(message % self.on_the_way.len());
            }
            Action::Deliver { .. } | Action::Lose { .. } => {}
            Action::Kill { node } => {
                let node = &mut self.nodes[node % count];
                node.running = false;
                node.seen.clear();
                node.grants.clear();
            }
            Action::Restart { node } => {
                let node = &mut self.nodes[node % count];
                if !node.running {
                    node.running = true;
                    node.identity.boot += 1;
                }
            }
        }
        assert!(self.founded.len() <= 1, "two founders: {:?}", self.founded);
    }

    fn probe(&mut self, node: usize, mask: u8) {
        if !self.nodes[node].running {
            return;
        }
        let seen = (0..self.nodes.len()).filter_map(|seed| {
            let asked = self.nodes[node].settings.seeds.contains(&address(seed));
            let answers = self.nodes[seed].running && (mask >> (seed % 8)) & 1 == 1;
            (asked && answers).then(|| Seen {
                dialled: address(seed),
                peer_address: address(seed),
                node_uuid: self.nodes[seed].identity.node_uuid,
                cluster_id: self.belongs(seed),
                expect: self.expect,
                candidacy: self.nodes[seed].identity.candidacy,
            })
        });
        self.nodes[node].seen = seen.collect();
    }

    fn act(&mut self, at: usize) {
        if !self.nodes[at].running || self.belongs(at).is_some() {
            return;
        }
        let expect = self.expect;
        let node = &mut self.nodes[at];
        let own = Candidacy { node_uuid: node.identity.node_uuid, number: node.identity.candidacy };
        match next_step(&node.identity, None, &node.settings, &node.seen, &node.grants) {
            Step::Found => {
                let cluster_id = ClusterId::new(node.identity.node_uuid.uuid());
                if decision::claim(&mut node.identity, own, cluster_id) {
                    self.founded.insert(cluster_id);
                }
            }
            Step::Join { cluster_id, .. } => node.identity.cluster_id = Some(cluster_id),
            Step::Ask { candidacy, addresses } => {
                if decision::grant(&mut node.identity, Some(expect), candidacy, expect).is_err() {
                    return;
                }
                node.grants.insert(own.node_uuid);
                for to in (0..self.nodes.len()).filter(|to| addresses.contains(&address(*to))) {
                    self.on_the_way.push(Message::Ask { from: at, to, candidacy });
                }
            }
            Step::Renounce { .. } => {
                node.grants.clear();
                decision::renounce(&mut node.identity);
            }
            Step::Release { candidacy } => decision::release(&mut node.identity, candidacy),
            Step::Wait { .. } => {}
            Step::Refuse { reason } => panic!("refused: {reason}"),
        }
    }

    fn deliver(&mut self, message: Message) {
        match message {
            Message::Ask { from, to, candidacy } => {
                let boot = self.nodes[from].identity.boot;
                let granter = &mut self.nodes[to];
                if !granter.running {
                    return;
                }
                let granted =
                    decision::grant(&mut granter.identity, Some(self.expect), candidacy, self.expect);
                if granted.is_ok() {
                    let by = granter.identity.node_uuid;
                    self.on_the_way.push(Message::Granted { to: from, boot, by, candidacy });
                }
            }
            Message::Granted { to, boot, by, candidacy } => {
                let node = &mut self.nodes[to];
                let same_process = node.running && node.identity.boot == boot;
                if same_process && node.identity.candidacy == candidacy.number {
                    node.grants.insert(by);
                }
            }
        }
    }

    /// From now on everybody is there and nothing is lost.
    fn heal(&mut self) {
        for node in 0..self.nodes.len() {
            self.take(Action::Restart { node });
        }
        for _ in 0..40 {
            for node in 0..self.nodes.len() {
                self.take(Action::Probe { node, mask: 0xff });
                self.take(Action::Act { node });
                while !self.on_the_way.is_empty() {
                    self.take(Action::Deliver { message: 0 });
                }
            }
        }
    }
}

fn any_action() -> impl Strategy<Value = Action> {
    let node = 0..8_usize;
    prop_oneof![
        4 => (node.clone(), any::<u8>()).prop_map(|(node, mask)| Action::Probe { node, mask }),
        4 => (node.clone(), Just(0xff)).prop_map(|(node, mask)| Action::Probe { node, mask }),
        8 => node.clone().prop_map(|node| Action::Act { node }),
        6 => any::<prop::sample::Index>().prop_map(|at| Action::Deliver { message: at.index(1 << 16) }),
        1 => any::<prop::sample::Index>().prop_map(|at| Action::Lose { message: at.index(1 << 16) }),
        1 => node.clone().prop_map(|node| Action::Kill { node }),
        2 => node.prop_map(|node| Action::Restart { node }),
    ]
}

/// (nodes in the list, others, N, each names itself)
fn any_start() -> impl Strategy<Value = (usize, usize, u32, bool)> {
    prop_oneof![
        Just((3, 0, 3, true)),
        Just((3, 0, 3, false)),
        Just((2, 0, 2, true)),
        Just((5, 0, 3, true)),
        Just((5, 2, 3, true)),
        Just((3, 2, 2, true)),
        Just((3, 2, 3, true)),
        Just((5, 0, 5, false)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_raced_start_ends_in_one_cluster_whatever_is_killed_lost_or_late(
        order in Just((1..=8_u128).collect::<Vec<_>>()).prop_shuffle(),
        (listed, others, expect, names_itself) in any_start(),
        actions in proptest::collection::vec(any_action(), 0..300),
    ) {
        let mut world = World::new(&order, listed, others, expect, names_itself);
        for action in actions {
            world.take(action);
        }
        world.heal();
        prop_assert_eq!(world.founded.len(), 1, "no founder although all were there");
        for node in 0..world.nodes.len() {
            prop_assert_eq!(world.belongs(node), world.founded.first().copied(), "node {}", node);
        }
    }
}
