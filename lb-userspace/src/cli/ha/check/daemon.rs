//! Does the daemon of this node serve, and may it?

use super::{Facts, Finding, Judgement};

pub fn reachable(facts: &Facts) -> Judgement {
    match &facts.status {
        Ok(status) => Judgement::Passed(format!("it answers, version {}", status.version)),
        Err(finding) => Judgement::Found(vec![finding.clone()]),
    }
}

pub fn attached(facts: &Facts) -> Judgement {
    let Ok(status) = &facts.status else { return Judgement::Silent };
    let detached = status.interfaces.iter().filter(|interface| !interface.attached);
    let finding = |name: &str| {
        Finding::error(
            format!("the program is not attached to {name}: this node takes no addresses"),
            format!("is it there, and up? `ip link show {name}`, and see the daemon's log"),
        )
    };
    let findings = detached.map(|interface| finding(&interface.name)).collect();
    Judgement::of(findings, "the program is attached to all of them")
}

pub fn drained(facts: &Facts) -> Judgement {
    let Ok(status) = &facts.status else { return Judgement::Silent };
    if !status.node.drained {
        return Judgement::Passed("this node is not drained".to_owned());
    }
    let message = "this node is drained: it takes no addresses, even if the others fail";
    Judgement::Found(vec![Finding::warning(message, "`xlb ha ready` ends that")])
}
