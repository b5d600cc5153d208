//! What is asked for next is there before it is asked for, what was learned outlives actors and runs, and a model from
//! anywhere does no harm.

mod common;

use std::time::Duration;

use common::{Tree, within};
use flyloft::policy::prediction::{ExpertKind, ExpertStats, PredictionStats};
use flyloft::{Error, Runtime};

const FILES: usize = 300;

fn name(index: usize) -> String {
    format!("frames/{index:05}.txt")
}

fn tree() -> Tree {
    let tree = Tree::new();
    (0..FILES).for_each(|index| tree.write(&name(index), format!("frame {index} ").repeat(400).as_bytes()));
    tree
}

/// Loads frame after frame, each after the predictor was told of the one before.
async fn play(runtime: &Runtime, frames: std::ops::Range<usize>) {
    for index in frames {
        let before = runtime.stats().prediction.accesses;
        assert!(within(runtime.load(name(index))).await.unwrap().starts_with(format!("frame {index} ").as_bytes()));
        within(async {
            while runtime.stats().prediction.accesses == before {
                // One that was asked for while its prefetch was being answered shows by its next use.
                drop(runtime.get(name(index)));
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

fn sequential(stats: &PredictionStats) -> &ExpertStats {
    stats.experts.iter().find(|expert| expert.expert == ExpertKind::Sequential).unwrap()
}

#[tokio::test]
async fn what_comes_next_is_there_before_it_is_asked_for_and_a_killed_predictor_knows_what_it_knew() {
    let tree = tree();
    let runtime = within(tree.builder().start()).await.unwrap();
    play(&runtime, 0..FILES / 2).await;
    let before = runtime.stats().prediction;
    assert!(before.used > 50 && before.precision.unwrap() > 0.9, "{before:?}");
    let mut events = runtime.events();
    runtime.kill("predictor").unwrap();
    within(async {
        let restarts = |runtime: &Runtime| {
            let status = runtime.status();
            status.actors.iter().find(|actor| actor.name == "predictor").unwrap().restarts
        };
        while restarts(&runtime) == 0 {
            drop(tokio::time::timeout(Duration::from_millis(20), events.recv()).await);
        }
    })
    .await;
    let after = runtime.stats().prediction;
    assert!(after.used >= before.used && sequential(&after).active, "{after:?}");
    // One that was told while nobody listened is not waited for.
    for index in FILES / 2..FILES / 2 + 20 {
        within(runtime.load(name(index))).await.unwrap();
    }
    play(&runtime, FILES / 2 + 20..FILES).await;
    let end = runtime.stats().prediction;
    assert!(end.used > after.used + 50, "{end:?}");
}

#[tokio::test]
async fn what_was_learned_is_there_in_the_next_run_and_what_is_no_model_is_not_believed() {
    let tree = tree();
    let runtime = within(tree.builder().start()).await.unwrap();
    play(&runtime, 0..FILES / 2).await;
    let learned = runtime.stats().prediction;
    assert!(sequential(&learned).active);
    within(runtime.shutdown(Duration::from_secs(5))).await;
    let file = tree.store().join("models.bin");
    assert!(file.metadata().unwrap().len() > 100);
    let again = within(tree.builder().start()).await.unwrap();
    let known = again.stats().prediction;
    assert_eq!((sequential(&known).distance, known.accesses), (sequential(&learned).distance, 0));
    assert!(sequential(&known).active, "{known:?}");
    within(again.shutdown(Duration::from_secs(5))).await;

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let fresh = within(tree.builder().start()).await.unwrap();
    assert!(!sequential(&fresh.stats().prediction).active);
    within(fresh.load(name(0))).await.unwrap();
}

#[tokio::test]
async fn a_feature_that_is_no_number_is_refused_by_its_place() {
    let tree = Tree::with_files(1);
    let runtime = within(tree.builder().start()).await.unwrap();
    runtime.set_features(&[1.0, -2.5, 1e30]).unwrap();
    let refused = |features: &[f32]| match runtime.set_features(features) {
        Err(Error::Config { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&[0.0, f32::NAN]), "features[1]");
    assert_eq!(refused(&[f32::INFINITY]), "features[0]");
    assert_eq!(refused(&[0.0; 33]), "features");
}
