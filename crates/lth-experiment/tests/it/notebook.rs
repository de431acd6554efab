//! The notebook's plan is tested with pictures where its command is; here it is read.

use lth_experiment::NotebookConfig;
use lth_experiment::plan::OptimizerState;
use lth_runs::Address;
use lth_schedule::LearningRate;
use lth_train::OptimizerConfig;
use serde_json::Value;

use crate::support::Result;

#[test]
fn controls_and_seeds_change_no_identity_of_a_fit() -> Result {
    let config = NotebookConfig {
        epochs: NotebookConfig::EPOCHS,
        optimizer: OptimizerConfig::adam(),
        learning_rate: LearningRate::constant(1e-3),
        optimizer_state: OptimizerState::Fresh,
        granularity: lth_mask::Granularity::Weight,
        controls: false,
        seeds: vec![1],
        margin: None,
        is_original: false,
    };
    let more = NotebookConfig { controls: true, seeds: vec![1, 2], ..config.clone() };
    assert_eq!(config.identity(&Value::Null)?, more.identity(&Value::Null)?);
    let (few, many) = (config.plan(Value::Null)?, more.plan(Value::Null)?);
    for fit in &few.fits {
        assert_eq!(Some(fit), many.fit(&fit.address), "{}", fit.address);
    }
    assert!(many.fit(&Address::new("random", 2, 2)).is_some());
    Ok(())
}
