//! What became of the acts: their figures, and a list of verdicts at the end.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};

use crate::lab::story::Story;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Outcomes {
    figures: Map<String, Value>,
    /// The acts in their order, each with why it failed.
    verdicts: Vec<(&'static str, Option<String>)>,
}

impl Outcomes {
    /// An act has ended: with figures, or because a promise was not kept.
    pub fn note(&mut self, act: &'static str, story: &Story, outcome: Result<Value>) {
        let why = match outcome {
            Ok(figures) => {
                self.figures.insert(act.to_owned(), figures);
                None
            }
            Err(error) => {
                let why = format!("{error:#}");
                story.say(&format!("  -> FAILED: {why}"));
                self.figures.insert(act.to_owned(), json!({ "failed": why }));
                Some(why)
            }
        };
        self.verdicts.push((act, why));
    }

    /// Lists all verdicts. An error if an act has failed.
    pub fn end(mut self, story: &Story, took: Duration) -> Result<()> {
        story.step("The verdicts.");
        for (act, why) in &self.verdicts {
            story.say(&format!("  {act:<18} {}", why.as_deref().map_or("good".to_owned(), failure)));
        }
        let failed: Vec<_> =
            self.verdicts.iter().filter(|(_, why)| why.is_some()).map(|(act, _)| *act).collect();
        self.figures.insert("seconds".to_owned(), json!(took.as_secs_f64()));
        story.figures(&Value::Object(self.figures))?;
        ensure!(
            failed.is_empty(),
            "{} of {} acts failed: {}",
            failed.len(),
            self.verdicts.len(),
            failed.join(", ")
        );
        story.say(&format!("\nAll checks passed, in {:.0} s.", took.as_secs_f64()));
        Ok(())
    }
}

/// The first line: the rest, such as the end of a log, is where the act ended.
fn failure(why: &str) -> String {
    format!("FAILED: {}", why.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn an_act_that_failed_is_named_at_the_end_and_others_go_on() {
        let story = Story::new(true);
        let mut outcomes = Outcomes::default();

        outcomes.note("first", &story, Ok(json!({ "lost_rows": 0 })));
        outcomes.note("second", &story, Err(anyhow!("writes went on too late")));
        outcomes.note("third", &story, Ok(json!({})));

        assert_eq!(outcomes.figures["second"]["failed"], "writes went on too late");
        let error = outcomes.end(&story, Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), "1 of 3 acts failed: second");
    }
}
