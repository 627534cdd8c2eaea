//! What is wanted: the file as the operator wrote it, and what the CLI changed since.

use crate::spec::{
    Spec,
    overlay::{Applied, Overlay},
};

/// Both layers, as they are in force.
#[derive(Clone, Debug)]
pub struct Wishes {
    pub file: Spec,
    /// Without what the file has overruled.
    pub overlay: Overlay,
    /// What the CLI changed and cannot be in force.
    pub warnings: Vec<String>,
}

impl Wishes {
    /// Puts one upon the other. Also returns what follows.
    pub fn of(file: Spec, overlay: &Overlay) -> (Self, Applied) {
        let applied = overlay.apply(&file);
        let wishes = Self { file, overlay: applied.overlay.clone(), warnings: applied.warnings.clone() };
        (wishes, applied)
    }
}
