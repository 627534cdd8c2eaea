//! The line of an agent, in the words of HAProxy's agent check. No I/O.

use super::{AgentReport, WeightPercent};
use crate::{named::find, spec::AdminState};

/// What a line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Whether the server works. `None`: no word of it.
    pub is_up: Option<bool>,
    pub report: AgentReport,
}

/// Of several words of one kind, the last one counts. What follows a `#` is a description, and a word that is not an
/// agent's is ignored. `None`: no word is an agent's.
pub fn parse(line: &[u8]) -> Option<Line> {
    let words = line.split(|byte| *byte == b'#').next().unwrap_or_default();
    let mut said = Line::default();
    let mut is_agent = false;
    for word in words.split(|byte| b" \t,\r\n".contains(byte)) {
        is_agent |= read(word, &mut said);
    }
    is_agent.then_some(said)
}

/// Returns whether it is an agent's word.
fn read(word: &[u8], said: &mut Line) -> bool {
    let Ok(word) = std::str::from_utf8(word).map(str::to_ascii_lowercase) else { return false };
    match word.as_str() {
        "up" => said.is_up = Some(true),
        "down" | "fail" | "failed" | "stopped" => said.is_up = Some(false),
        word => {
            if let Some(state) = find::<AdminState>(word) {
                said.report.state = Some(state);
            } else if let Some(percent) = percent(word) {
                said.report.weight = Some(percent);
            } else {
                // Its value is not used.
                return word.starts_with("maxconn:");
            }
        }
    }
    true
}

/// As in HAProxy, what is above the limit is the limit.
fn percent(word: &str) -> Option<WeightPercent> {
    let digits = word.strip_suffix('%').filter(|it| !it.is_empty())?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| WeightPercent::MOST.min(WeightPercent(digits.parse().unwrap_or(u32::MAX))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_come_in_any_order_and_case_between_any_separators() {
        let said = |is_up, state, percent: Option<u32>| Line {
            is_up,
            report: AgentReport { state, weight: percent.map(WeightPercent) },
        };
        let cases = [
            ("up", said(Some(true), None, None)),
            ("UP READY 75%", said(Some(true), Some(AdminState::Ready), Some(75))),
            ("75%,\tready , up", said(Some(true), Some(AdminState::Ready), Some(75))),
            ("drain", said(None, Some(AdminState::Drain), None)),
            ("maint down #disk full, up 5%", said(Some(false), Some(AdminState::Maint), None)),
            ("failed#no space", said(Some(false), None, None)),
            ("fail", said(Some(false), None, None)),
            ("stopped", said(Some(false), None, None)),
            ("0%", said(None, None, Some(0))),
            ("25600%", said(None, None, Some(25_600))),
            ("99999999999999999999%", said(None, None, Some(25_600))),
            ("maxconn:30", said(None, None, None)),
            ("up maxconn:30 weight:5 \u{fffd}", said(Some(true), None, None)),
            ("up down 5% 6%", said(Some(false), None, Some(6))),
        ];
        for (line, expected) in cases {
            assert_eq!(parse(line.as_bytes()), Some(expected), "{line}");
        }
    }

    #[test]
    fn a_line_without_a_word_of_an_agent_is_not_one() {
        for line in ["", " ,\t", "# up", "SSH-2.0-OpenSSH_9.2p1", "%", "-5%", "5.5%", "75", "upp", "\0up"] {
            assert_eq!(parse(line.as_bytes()), None, "{line:?}");
        }
        assert_eq!(parse(b"\xff\xfe up"), Some(Line { is_up: Some(true), ..Line::default() }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_or_exceed_the_limit(line in prop::collection::vec(any::<u8>(), 0..300)) {
            let percent = parse(&line).and_then(|it| it.report.weight);

            prop_assert!(percent.is_none_or(|it| it <= WeightPercent::MOST));
        }

        #[test]
        fn what_is_said_is_understood(
            is_up in prop::option::of(any::<bool>()),
            state in prop::option::of(prop::sample::select(
                &[AdminState::Ready, AdminState::Drain, AdminState::Maint],
            )),
            percent in prop::option::of(0..=25_600u32),
            separator in prop::sample::select(&[" ", "\t", ",", ", "]),
            noise in "[a-z]{0,3}[0-9]{1,3}",
        ) {
            use crate::named::Named as _;
            let words = [
                is_up.map(|is_up| if is_up { "up" } else { "down" }.to_owned()),
                Some(noise),
                state.map(|state| state.name().to_owned()),
                percent.map(|percent| format!("{percent}%")),
            ];
            let line = words.into_iter().flatten().collect::<Vec<_>>().join(separator);

            let report = AgentReport { state, weight: percent.map(WeightPercent) };
            let is_silent = is_up.is_none() && report == AgentReport::default();
            prop_assert_eq!(parse(line.as_bytes()), (!is_silent).then_some(Line { is_up, report }));
        }
    }
}
