//! Makes a failing run smaller, for as long as it fails.

use std::time::{Duration, Instant};

use super::operations::CLIENTS;
use super::plan::Plan;

const PATIENCE: Duration = Duration::from_secs(30);

/// The smallest failing plan that was found.
pub(super) fn shrink(plan: &Plan, fails: impl Fn(&Plan) -> bool) -> Plan {
    let until = Instant::now() + PATIENCE;
    let mut plan = plan.clone();
    let keep = |plan: &mut Plan, smaller: Plan| {
        let kept = Instant::now() < until && fails(&smaller);
        if kept {
            *plan = smaller;
        }
        kept
    };
    loop {
        let before = plan.steps.len();
        for client in 0..CLIENTS {
            let mut smaller = plan.clone();
            smaller.steps.retain(|step| step.operation().client() != Some(client));
            keep(&mut plan, smaller);
        }
        let mut calm = plan.clone();
        calm.setup.bad_day = false;
        keep(&mut plan, calm);
        let mut size = plan.steps.len();
        while size > 0 {
            let mut end = plan.steps.len();
            while end > 0 {
                let start = end.saturating_sub(size);
                let mut smaller = plan.clone();
                smaller.steps.drain(start..end);
                keep(&mut plan, smaller);
                end = start.min(plan.steps.len());
            }
            size /= 2;
        }
        if plan.steps.len() >= before || Instant::now() > until {
            return plan;
        }
    }
}

/// A failure that needs two steps is cut down to these.
#[cfg(test)]
#[test]
fn what_does_not_matter_is_left_out() {
    let plan = Plan::of_seed(1);
    let texts: Vec<String> = plan.steps.iter().map(|step| format!("{step:?}")).collect();
    let (first, last) = (&texts[3], &texts[texts.len() - 2]);
    let small = shrink(&plan, |plan| {
        let has = |text: &String| plan.steps.iter().any(|step| format!("{step:?}") == *text);
        has(first) && has(last)
    });
    assert_eq!(small.steps.len(), 2, "{small}");
}
