//! Frames for subscribers.

use std::sync::Arc;

use crate::{
    datapath::{Ending, SharedFlow},
    group::wire::{FRAME_ITEMS, Flow, Frame, Round},
};

/// Flows for frames.
#[derive(Debug, Default)]
pub struct Changes {
    pub flows: Vec<SharedFlow>,
    pub ended: Vec<(SharedFlow, Ending)>,
}

impl Changes {
    /// Those whose backend is not computed. But what an operator has removed is removed everywhere.
    pub fn exceptions(&self, is_computed: impl Fn(&SharedFlow) -> bool) -> Self {
        let is_told =
            |(flow, ending): &&(SharedFlow, Ending)| *ending == Ending::Removed || !is_computed(flow);
        Self {
            flows: self.flows.iter().filter(|flow| !is_computed(flow)).copied().collect(),
            ended: self.ended.iter().filter(is_told).copied().collect(),
        }
    }

    pub const fn len(&self) -> usize {
        self.flows.len() + self.ended.len()
    }

    /// Frames of at most [`FRAME_ITEMS`] flows. What has ended comes first: a flow that begins may have the same addresses and
    /// ports.
    pub fn frames(&self, sequence: &mut u64) -> Vec<Arc<Frame>> {
        let (mut flows, mut ended) = (self.flows.iter(), self.ended.iter());
        let mut frames = Vec::new();
        while flows.len() + ended.len() > 0 {
            let ended: Vec<_> =
                ended.by_ref().take(FRAME_ITEMS).map(|(it, how)| Flow::ended(it, *how)).collect();
            let flows = flows.by_ref().take(FRAME_ITEMS - ended.len()).map(Flow::from).collect();
            frames.push(numbered(sequence, Frame { flows, ended, ..Frame::default() }));
        }
        frames
    }
}

pub fn round(round: Round) -> Frame {
    Frame { round: Some(round as i32), ..Frame::default() }
}

/// Gives a frame the next number.
pub fn numbered(sequence: &mut u64, frame: Frame) -> Arc<Frame> {
    *sequence += 1;
    Arc::new(Frame { sequence: *sequence, ..frame })
}
