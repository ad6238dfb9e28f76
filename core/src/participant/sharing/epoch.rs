//! What a node knows of its epoch of shared steps.

use crate::cluster::{CertificateId, Incarnation};
use crate::collective::Fault;
use crate::placement::Mail;
use crate::scalar::Scalar;
use crate::transport::NodeId;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

/// Stages of a step.
const STAGES: u64 = 3;

/// What was shared so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SharingReport {
    /// Epochs of this node, those by itself included.
    pub epochs: u64,
    /// Steps that others had a part in and that came to nothing.
    pub abandoned: u64,
    /// Steps that were made and taken back.
    pub retracted: u64,
    /// Bytes of letters sent.
    pub bytes: u64,
}

/// A node's part in shared steps.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(in crate::participant) struct Sharing<S: Scalar> {
    pub(super) site: Vec<NodeId>,
    pub(super) epoch: Option<Epoch>,
    /// The letters under way.
    pub(super) mail: Option<Mail<S>>,
    /// How many stages of steps have been exchanged in this epoch, the one under way included.
    pub(super) stage: u64,
    /// Messages of stages that have not begun here: member, stage.
    pub(in crate::participant) early: Vec<(usize, u64, Vec<u8>)>,
    /// Notes of epochs that have not begun here.
    pub(super) ahead: VecDeque<(NodeId, Vec<u8>)>,
    /// Whether a step is begun and not ended.
    pub(super) midway: bool,
    /// How far members said they are when they gave the epoch up.
    pub(super) halts: BTreeMap<NodeId, u64>,
    /// Members that are of no more use to the epoch.
    pub(super) gone: BTreeSet<NodeId>,
    /// Nodes that wait for an epoch of their own.
    pub(super) callers: BTreeSet<NodeId>,
    /// Nodes outside of the epoch for which it was given up once since they came.
    pub(super) met: BTreeSet<NodeId>,
    /// Whether the contribution without outcome is to begin an epoch.
    pub(super) forming: bool,
    /// Whom this node has told that it has given its epoch up, or called since.
    pub(super) called: BTreeSet<NodeId>,
    /// Whether what this node has is what the majority of its last epoch has.
    pub(super) trusted: bool,
    /// Whether the last round is begun.
    pub(super) farewell: bool,
    pub(super) report: SharingReport,
}

/// Who shares steps, from one round to the next.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(in crate::participant) struct Epoch {
    /// The certificate it begins with; the last one known for a node by itself.
    pub(super) certificate: CertificateId,
    /// Its name on the wire.
    pub(super) id: u64,
    pub(super) members: Vec<(NodeId, Incarnation)>,
    pub(super) me: usize,
}

impl<S: Scalar> Sharing<S> {
    pub(super) fn new(site: Vec<NodeId>) -> Self {
        Self {
            site,
            epoch: None,
            mail: None,
            stage: 0,
            early: Vec::new(),
            ahead: VecDeque::new(),
            midway: false,
            halts: BTreeMap::new(),
            gone: BTreeSet::new(),
            callers: BTreeSet::new(),
            met: BTreeSet::new(),
            forming: false,
            called: BTreeSet::new(),
            trusted: false,
            farewell: false,
            report: SharingReport::default(),
        }
    }

    pub(super) fn begin(&mut self, epoch: Epoch) {
        self.stage = 0;
        self.early.clear();
        self.mail = None;
        self.midway = false;
        self.halts.clear();
        self.gone.clear();
        self.callers.clear();
        self.forming = false;
        self.trusted = true;
        self.report.epochs += 1;
        self.epoch = Some(epoch);
    }

    /// Ends the epoch after a round that has given all who are left one state.
    pub(super) fn part_ways(&mut self) {
        (self.mail, self.midway, self.epoch, self.trusted) = (None, false, None, true);
        self.halts.clear();
        self.gone.clear();
    }

    /// Gives a message to the letters under way, or keeps it for those it belongs to.
    pub(super) fn take(&mut self, member: usize, stage: u64, message: &[u8]) -> Result<(), Fault> {
        match &mut self.mail {
            Some(mail) if stage == self.stage => mail.receive(member, message),
            _ => {
                // Whoever needs nothing of this node in a stage may be ahead, as far as the next gradients.
                if stage > self.stage + STAGES {
                    return Err(Fault::Shape(member));
                }
                if stage > self.stage {
                    self.early.push((member, stage, message.to_vec()));
                }
                Ok(())
            }
        }
    }
}
