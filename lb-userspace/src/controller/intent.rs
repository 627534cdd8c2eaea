//! The intent: the file as the operator wrote it, with the changes made by commands.

use std::sync::Arc;

use crate::spec::{
    Spec,
    overlay::{Applied, Overlay},
};

/// Both layers.
#[derive(Clone, Debug)]
pub struct Intent {
    pub file: Arc<Spec>,
    /// Without the changes that the file overrides.
    pub overlay: Overlay,
    /// Changes that cannot be applied.
    pub warnings: Vec<String>,
}

impl Intent {
    /// Applies the overlay to the file. Also returns the result.
    pub fn of(file: Arc<Spec>, overlay: &Overlay) -> (Self, Applied) {
        let applied = overlay.apply(&file);
        let intent = Self { file, overlay: applied.overlay.clone(), warnings: applied.warnings.clone() };
        (intent, applied)
    }
}
