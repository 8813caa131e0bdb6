//! Shrinks a failing run while it still fails.

use std::time::{Duration, Instant};

use super::plan::{CLIENTS, Plan, Step};

/// The time limit of shrinking.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the smallest failing plan found. `fails` runs a plan, and returns the faults that
/// happened if the run fails.
pub(crate) fn shrink(plan: &Plan, fails: impl Fn(&Plan) -> Option<Vec<u64>>) -> Plan {
    let mut shrinking = Shrinking { plan: plan.clone(), fails, until: Instant::now() + PATIENCE };
    // Without some steps the same random decisions apply to other operations. That matters least
    // while all faults are allowed, so the steps go first.
    shrinking.clients();
    shrinking.steps();
    loop {
        let before = shrinking.size();
        shrinking.faults_allowed();
        shrinking.clients();
        shrinking.steps();
        shrinking.amounts();
        if shrinking.size() >= before || shrinking.is_late() {
            return shrinking.plan;
        }
    }
}

struct Shrinking<F> {
    plan: Plan,
    fails: F,
    until: Instant,
}

impl<F: Fn(&Plan) -> Option<Vec<u64>>> Shrinking<F> {
    fn size(&self) -> (usize, usize, usize) {
        let faults_allowed = self.plan.faults_allowed.as_ref().map_or(usize::MAX, Vec::len);
        let amounts = self.plan.steps.iter().filter(|step| step.less().is_some()).count();
        (self.plan.steps.len(), faults_allowed, amounts)
    }

    fn is_late(&self) -> bool {
        Instant::now() > self.until
    }

    /// Keeps `plan` if it fails, with the faults that really happened.
    fn keep(&mut self, mut plan: Plan) -> bool {
        if self.is_late() {
            return false;
        }
        let Some(happened) = (self.fails)(&plan) else { return false };
        if plan.faults_allowed.is_some() {
            plan.faults_allowed = Some(happened);
        }
        self.plan = plan;
        true
    }

    fn faults_allowed(&mut self) {
        let none = Plan { faults_allowed: Some(Vec::new()), ..self.plan.clone() };
        if self.keep(none) {
            return;
        }
        if self.plan.faults_allowed.is_none() {
            let happened = (self.fails)(&self.plan).expect("it fails");
            self.plan.faults_allowed = Some(happened);
        }
        self.halve(
            |plan| plan.faults_allowed.as_ref().map_or(0, Vec::len),
            |plan, from, until| {
                drop(plan.faults_allowed.as_mut().map(|all| all.drain(from..until)))
            },
        );
    }

    fn clients(&mut self) {
        for client in 0..CLIENTS {
            let mut plan = self.plan.clone();
            plan.steps.retain(|step| step.client() != Some(client));
            if plan.steps.len() < self.plan.steps.len() {
                self.keep(plan);
            }
        }
    }

    fn steps(&mut self) {
        self.halve(
            |plan| plan.steps.len(),
            |plan, from, until| drop(plan.steps.drain(from..until)),
        );
    }

    fn amounts(&mut self) {
        for at in 0..self.plan.steps.len() {
            while let Some(less) = self.plan.steps[at].less() {
                let mut plan = self.plan.clone();
                plan.steps[at] = less;
                if !self.keep(plan) {
                    break;
                }
            }
        }
    }

    /// Leaves out one part after another: first halves, then quarters, and so on down to single
    /// elements.
    fn halve(&mut self, len: impl Fn(&Plan) -> usize, cut: impl Fn(&mut Plan, usize, usize)) {
        let mut size = len(&self.plan);
        while size > 0 {
            let mut until = len(&self.plan);
            while until > 0 {
                let from = until.saturating_sub(size);
                let mut plan = self.plan.clone();
                cut(&mut plan, from, until);
                self.keep(plan);
                // The kept plan may be shorter than the cut.
                until = from.min(len(&self.plan));
            }
            size /= 2;
        }
    }
}

/// A failure that needs two steps and one fault is shrunk to these.
#[test]
fn what_does_not_matter_is_left_out() {
    let plan = Plan::draw(1);
    let mut steps = plan.steps.clone();
    steps.insert(3, Step::Mail(1000));
    steps.insert(9, Step::Drain(77));
    let plan = Plan { steps, ..plan };
    let small = shrink(&plan, |plan| {
        let mailed =
            plan.steps.iter().any(|step| matches!(step, Step::Mail(length) if *length >= 100));
        let drained = plan.steps.iter().any(|step| matches!(step, Step::Drain(_)));
        let all: Vec<u64> = (0..100).collect();
        let happened = plan.faults_allowed.clone().unwrap_or(all);
        (mailed && drained && happened.contains(&42)).then_some(happened)
    });
    assert_eq!(small.steps.len(), 2, "{:?}", small.steps);
    assert!(small.steps.contains(&Step::Drain(0)), "{:?}", small.steps);
    let mail = small.steps.iter().find_map(|step| match step {
        Step::Mail(length) => Some(*length),
        _ => None,
    });
    assert!(mail.is_some_and(|length| (100..200).contains(&length)), "{:?}", small.steps);
    assert_eq!(small.faults_allowed, Some(vec![42]));
}
