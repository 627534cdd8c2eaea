//! Does keepalived, if it is there, follow the track file of this daemon?

use super::{Facts, Finding, Judgement};
use crate::paths;

pub fn follows(facts: &Facts) -> Judgement {
    let file = paths::KEEPALIVED;
    let track_file = facts.track_file.display().to_string();
    match &facts.keepalived {
        Ok(None) => Judgement::Passed(format!("there is no {file}")),
        Ok(Some(text)) if statements(text).any(|line| line.contains(&track_file)) => {
            Judgement::Passed(format!("it follows {track_file}"))
        }
        // This may be the file that names it.
        Ok(Some(text)) if statements(text).any(|line| line.starts_with("include")) => {
            Judgement::Passed(format!("{file} includes other files, which were not searched"))
        }
        Ok(Some(_)) => Judgement::Found(vec![Finding::warning(
            format!("{file} does not name {track_file}: the addresses stay on a node that cannot serve them"),
            "use what `xlb ha keepalived` prints",
        )]),
        Err(reason) => Judgement::Found(vec![Finding::warning(reason, "run this as root")]),
    }
}

/// Lines that are not comments, without indentation.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_start).filter(|line| !line.starts_with(['#', '!']))
}
