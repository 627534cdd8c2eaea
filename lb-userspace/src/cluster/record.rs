//! What is stored in etcd: the services as a text with a first line of its own, and a record for each node.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::Revision;

/// The first line of a stored text. What [`Document::shown`] prints has a revision, too.
const MARK: &str = "# xlb cluster:";
/// Each reason in a record is cut to this length, and at most this many are in one.
const MAX_REASON: usize = 200;
const MAX_REASONS: usize = 10;

/// The services of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Of the key.
    pub revision: Revision,
    /// With its first line.
    pub text: String,
}

impl Document {
    /// The value to store. `text` is without a first line of ours.
    pub fn value(text: &str, node: &str, now: SystemTime) -> String {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        format!("{MARK} stored by {node} at {seconds}\n{text}")
    }

    /// Who stored it, and when. `None`: not a node of xlb.
    pub fn origin(&self) -> Option<(&str, SystemTime)> {
        let (line, _) = self.text.split_once('\n')?;
        let (node, at) = line.strip_prefix(MARK)?.trim().strip_prefix("stored by ")?.split_once(" at ")?;
        // The line may have been written by other programs.
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let node = Some(node).filter(|it| it.chars().all(is_name))?;
        Some((node, UNIX_EPOCH.checked_add(Duration::from_secs(at.parse().ok()?))?))
    }

    /// "revision 12, stored by lb-1"
    pub fn named(&self) -> String {
        match self.origin() {
            Some((node, _)) => format!("revision {}, stored by {node}", self.revision),
            None => format!("revision {}, not stored by xlb", self.revision),
        }
    }

    /// The first line of [`shown`](Self::shown).
    pub fn first_line(&self) -> String {
        format!("{MARK} {}", self.named())
    }

    /// The text as `xlb cluster pull` prints it: the first line names the revision. Lines keep their numbers.
    pub fn shown(&self) -> String {
        let rest = match self.text.split_once('\n') {
            Some((line, rest)) if line.starts_with(MARK) => rest,
            Some(_) | None => &self.text,
        };
        format!("{}\n{rest}", self.first_line())
    }
}

/// A text that is pushed: the revision that its first line names, if it has such a line, and the text without it.
pub fn pushed(text: &str) -> (Option<Revision>, &str) {
    let Some((line, rest)) = text.split_once('\n') else { return (None, text) };
    let Some(mark) = line.strip_prefix(MARK) else { return (None, text) };
    let digits = mark.trim().strip_prefix("revision ").and_then(|it| it.split(',').next());
    (digits.and_then(|it| it.parse().ok()).map(Revision), rest)
}

/// A node, as it describes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name: that of the key.
    #[serde(skip)]
    pub node: String,
    /// Of xlb.
    pub version: String,
    /// In force. `None`: it uses the services of its file.
    pub document: Option<Revision>,
    /// In force.
    pub changes: Option<Revision>,
    /// It runs what is stored, and all its services are ready.
    pub healthy: bool,
    /// Why it is not healthy.
    pub reasons: Vec<String>,
}

impl NodeRecord {
    /// The reasons fit into a record.
    pub fn limited(reasons: impl IntoIterator<Item = String>) -> Vec<String> {
        let cut = |reason: String| reason.chars().take(MAX_REASON).collect();
        reasons.into_iter().take(MAX_REASONS).map(cut).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "version = 1\n# mine\n";

    #[test]
    fn a_text_that_is_pulled_can_be_pushed_and_names_its_revision() {
        let at = UNIX_EPOCH + Duration::from_secs(1_796_000_000);
        let document = Document { revision: Revision(12), text: Document::value(TEXT, "lb-1", at) };

        assert_eq!(document.origin(), Some(("lb-1", at)));
        assert_eq!(document.shown(), format!("# xlb cluster: revision 12, stored by lb-1\n{TEXT}"));
        assert_eq!(pushed(&document.shown()), (Some(Revision(12)), TEXT));
        assert_eq!(pushed(&document.text), (None, TEXT));
        assert_eq!(pushed(TEXT), (None, TEXT));
    }

    #[test]
    fn a_text_that_others_stored_is_shown_with_a_first_line_too() {
        let document = Document { revision: Revision(3), text: TEXT.to_owned() };

        assert_eq!(document.origin(), None);
        assert_eq!(pushed(&document.shown()), (Some(Revision(3)), TEXT));
    }
}
