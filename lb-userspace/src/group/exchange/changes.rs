//! Frames for subscribers.

use std::sync::Arc;

use crate::group::wire::{FRAME_ITEMS, Flow, Frame, Round};

/// Flows for frames.
#[derive(Debug, Default)]
pub struct Changes {
    pub flows: Vec<Flow>,
    pub ended: Vec<Flow>,
}

impl Changes {
    /// Frames of at most [`FRAME_ITEMS`] flows. What has ended comes first: a flow that begins may have the same addresses and
    /// ports.
    pub fn into_frames(mut self, sequence: &mut u64) -> Vec<Arc<Frame>> {
        let mut frames = Vec::new();
        while !self.flows.is_empty() || !self.ended.is_empty() {
            let ended = first_of(&mut self.ended, FRAME_ITEMS);
            let room = if self.ended.is_empty() { FRAME_ITEMS - ended.len() } else { 0 };
            let flows = first_of(&mut self.flows, room);
            frames.push(numbered(sequence, Frame { flows, ended, ..Frame::default() }));
        }
        frames
    }
}

/// Takes at most `most` flows from the front.
fn first_of(flows: &mut Vec<Flow>, most: usize) -> Vec<Flow> {
    let rest = flows.split_off(flows.len().min(most));
    std::mem::replace(flows, rest)
}

pub fn round(round: Round) -> Frame {
    Frame { round: Some(round as i32), ..Frame::default() }
}

/// Gives a frame the next number.
pub fn numbered(sequence: &mut u64, frame: Frame) -> Arc<Frame> {
    *sequence += 1;
    Arc::new(Frame { sequence: *sequence, ..frame })
}
