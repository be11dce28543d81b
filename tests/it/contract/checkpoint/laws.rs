//! All stores give equal answers to random sequences of requests.

use std::sync::Arc;

use proptest::prelude::*;
use propulsiond::checkpoint::{CheckpointErrorKind, CheckpointStore, Fence};
use propulsiond::position::{Position, Progress};

use super::harness::*;

#[derive(Clone, Debug)]
enum Step {
    Claim {
        owner: u8,
    },
    /// A commit by the owner of an earlier claim (counted back from the latest), at a distance from the next number.
    Commit {
        claims_back: u8,
        from_next: i8,
        position: Option<i64>,
        handled: bool,
    },
    Release {
        claims_back: u8,
    },
    Load,
}

fn step() -> impl Strategy<Value = Step> {
    let commit = (0..3_u8, -2..=2_i8, any::<Option<i64>>(), any::<bool>());
    prop_oneof![
        1 => (0..3_u8).prop_map(|owner| Step::Claim { owner }),
        4 => commit.prop_map(|(claims_back, from_next, position, handled)| {
            Step::Commit { claims_back: claims_back.saturating_sub(1), from_next: from_next.clamp(-1, 1), position, handled }
        }),
        1 => (0..2_u8).prop_map(|claims_back| Step::Release { claims_back }),
        1 => Just(Step::Load),
    ]
}

/// Runs the steps and returns the answers, without times and messages.
async fn answers(store: Arc<dyn CheckpointStore>, steps: &[Step]) -> Vec<String> {
    let key = key("g", "s", "0");
    let (mut claims, mut next) = (0, 1_u64);
    let mut answers = Vec::new();
    let short = |kind: CheckpointErrorKind| match kind {
        CheckpointErrorKind::Fenced { by, .. } => format!("fenced by {by}"),
        other => format!("{other:?}"),
    };
    for step in steps {
        answers.push(match step {
            Step::Claim { owner: name } => {
                let claimed = store.claim(&key, &owner(&name.to_string())).await.unwrap();
                claims = claimed.fence.0;
                next = claimed.sequence + 1;
                format!("{claimed:?}")
            }
            Step::Commit { claims_back, from_next, position, handled } => {
                let progress = Progress {
                    position: position.map(Position::Number),
                    handled: if *handled { set(&[(3, 4), (9, 9)]) } else { set(&[]) },
                    read_to: handled.then(|| Position::token("behind 9")),
                };
                let sequence = next.saturating_add_signed((*from_next).into());
                let fence = Fence(claims.saturating_sub((*claims_back).into()));
                match commit_one(&*store, &key, fence, sequence, &progress).await {
                    Ok(()) => {
                        next = next.max(sequence + 1);
                        "stored".to_owned()
                    }
                    Err(error) => short(error.kind),
                }
            }
            Step::Release { claims_back } => {
                let fence = Fence(claims.saturating_sub((*claims_back).into()));
                store.release(&key, fence).await.map_or_else(|error| short(error.kind), |()| "released".to_owned())
            }
            Step::Load => format!("{:?}", store.load(&key).await.unwrap()),
        });
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn all_stores_answer_alike(steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let run = |harness: Harness| runtime.block_on(answers(harness.open(), &steps));
        let expected = run(Harness::memory());
        prop_assert_eq!(&run(Harness::sqlite()), &expected);
        prop_assert_eq!(&run(Harness::file()), &expected);
    }
}
