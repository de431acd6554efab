//! Made-up experiments, small enough to check by hand.

use std::collections::BTreeMap;

use lth_runs::{
    Address, ArmRecord, ArmRole, Checked, ClassRecord, Conditions, DatasetRecord, Ending, Evaluated, ExperimentRecord,
    FileRecord, FitRecord, LayerRecord, MachineRecord, Measurement, OptimizerState, Part, SCHEMA, Summary,
};
use serde_json::json;

/// How many measurements a fit has, and how many steps lie between two.
pub(crate) const N_MEASUREMENTS: u64 = 10;
pub(crate) const EVERY: u64 = 100;

/// What is made up of a fit.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) address: Address,
    pub(crate) starts_from: Option<Address>,
    pub(crate) mask_from: Vec<Address>,
    pub(crate) sparsity: f64,
    /// Accuracy at the end, a fraction.
    pub(crate) accuracy: f64,
    /// Which measurement has the least validation loss, from 1.
    pub(crate) best: u64,
    /// Of training, for each measurement.
    pub(crate) seconds: f64,
}

pub(crate) fn fit(made: Made) -> FitRecord {
    let Made { address, starts_from, mask_from, sparsity, accuracy, best, seconds } = made;
    let at = |index: u64| {
        let away = index.abs_diff(best) as f64;
        Measurement {
            step: EVERY * index,
            epoch: index as f64 / 2.0,
            train_loss: 1.0 / index as f64,
            valid_loss: Some(0.25 + 0.01 * away),
            metrics: [("accuracy".to_owned(), accuracy - 0.005 * (N_MEASUREMENTS - index) as f64)].into(),
            seconds,
            valid_seconds: 0.25,
            sparsity,
        }
    };
    // Of 10,000 weights; the second layer keeps more of its own than the first.
    let layer = |name: &str, weights: u64, kept: f64| {
        let kept = if sparsity > 0.0 { (kept * (1.0 - sparsity)).round() as u64 } else { weights };
        LayerRecord { name: name.into(), weights, zeros: weights - kept }
    };
    let layers = vec![layer("fc1.weight", 8000, 7000.0), layer("fc3.weight", 2000, 3000.0)];
    let n_right = (accuracy * 400.0).round() as usize;
    let evaluated = Evaluated {
        on: Part::Test,
        loss: 0.3,
        metrics: [("accuracy".to_owned(), accuracy)].into(),
        n_examples: 400,
        right: Some((0..400).map(|index| (index + address.level as usize) % 400 < n_right).collect()),
    };
    let at_best = Evaluated { metrics: [("accuracy".to_owned(), accuracy - 0.001)].into(), ..evaluated.clone() };
    let file = FileRecord {
        path: format!("{}/ticket.safetensors", address.folder()),
        sha256: format!("{:064x}", 7 + address.seed % 1000),
        bytes: 46_830,
        content: None,
    };
    FitRecord {
        plan: "5f".repeat(32),
        description: format!("{} at level {}", address.arm, address.level),
        span: (0, EVERY * N_MEASUREMENTS),
        ending: Ending::Done,
        history: (1..=N_MEASUREMENTS).map(at).collect(),
        at_end: Some(evaluated),
        at_best: Some(at_best),
        files: BTreeMap::from([("ticket".to_owned(), file)]),
        overhead_seconds: 0.1875,
        test_seconds: Some(0.0625),
        wait_seconds: Some(0.5),
        peak_memory_bytes: None,
        starts_from,
        mask_from,
        sparsity,
        layers,
        address,
    }
}

pub(crate) fn arm(name: &str, role: ArmRole, title: &str, meaning: &str) -> ArmRecord {
    ArmRecord { name: name.into(), role, title: title.into(), meaning: meaning.into() }
}

/// A little noise that differs between seeds and arms and is the same each time.
fn noise(seed: u64, salt: u64) -> f64 {
    let seed = seed % 1000;
    ((seed * seed * 7 + seed * salt * 5 + salt * 13) % 11) as f64 / 10.0 - 0.5
}

/// Iterative pruning over `n_levels`: dense, ticket, its weights drawn anew, and a random mask.
///
/// A fit takes 1000 steps and 20 seconds dense, 2 less at each level. The ticket is half a point above dense, its weights
/// drawn anew fall one point a level below it and stop at step 900 where it stops at 500; the random mask three points.
pub(crate) fn imp(seeds: &[u64], n_levels: u32) -> Summary {
    let mut fits = Vec::new();
    for seed in seeds {
        let seed = *seed;
        let dense = Address::new("dense", 0, seed);
        let base = 0.97 + 0.002 * noise(seed, 0);
        let made = |arm: &str, level: u32, accuracy: f64, best: u64| Made {
            address: Address::new(arm, level, seed),
            starts_from: None,
            mask_from: Vec::new(),
            sparsity: 1.0 - 0.5_f64.powi(level as i32),
            accuracy,
            best,
            seconds: (2.0 - 0.2 * f64::from(level)).max(0.5) + 0.01 * noise(seed, u64::from(level)),
        };
        fits.push(fit(made("dense", 0, base, 7)));
        let mut before = dense.clone();
        for level in 1..=n_levels {
            let salt = u64::from(level);
            let lower = f64::from(level);
            let ticket = Made {
                starts_from: Some(dense.clone()),
                mask_from: vec![before.clone()],
                ..made("ticket", level, base + 0.005 + 0.001 * noise(seed, salt), 5 - seed % 2)
            };
            before = ticket.address.clone();
            fits.push(fit(ticket));
            for (name, accuracy) in [("reinitialised", base - 0.01 * lower), ("random", base - 0.03 * lower)] {
                let accuracy = accuracy + 0.001 * noise(seed, salt + 5);
                let control = Made { mask_from: vec![before.clone()], ..made(name, level, accuracy, 9 - seed % 2) };
                fits.push(fit(control));
            }
        }
    }
    let arms = vec![
        arm("dense", ArmRole::Dense, "all weights", ""),
        arm("ticket", ArmRole::Ticket, "the mask that training found, weights rewound", ""),
        arm("reinitialised", ArmRole::Control, "the same mask, weights drawn anew", "the initial values matter"),
        arm("random", ArmRole::Control, "random mask, same counts per layer", "the choice of weights matters"),
    ];
    summary("imp", arms, fits)
}

/// A race in which the ticket's search takes longer than dense, the random mask half of dense's time, and as good are the
/// ticket and, at its first level, the random mask.
pub(crate) fn race(seeds: &[u64]) -> Summary {
    let mut summary = imp(seeds, 2);
    summary.is_race = true;
    summary.fits.retain(|fit| fit.address.arm != "reinitialised");
    for fit in summary.fits.iter_mut().filter(|fit| fit.address.arm == "random") {
        (fit.starts_from, fit.mask_from) = (None, Vec::new());
        fit.history.iter_mut().for_each(|at| at.seconds /= 2.0);
        // Three points lower a level as it was made; here it is dense's at the first.
        let lower = if fit.address.level == 1 { 0.03 } else { 0.0 };
        let raised = |metrics: &mut BTreeMap<String, f64>| metrics.values_mut().for_each(|value| *value += lower);
        fit.history.iter_mut().map(|at| &mut at.metrics).for_each(raised);
        fit.at_end.iter_mut().map(|at| &mut at.metrics).for_each(raised);
    }
    summary.settled().expect("the fixture is valid")
}

/// The notebook's comparison with its controls: two levels, one network longer trained.
pub(crate) fn notebook(seeds: &[u64]) -> Summary {
    let mut fits = Vec::new();
    for seed in seeds {
        let seed = *seed;
        let dense = Address::new("dense", 0, seed);
        let base = 0.87 + 0.004 * noise(seed, 1);
        let made = |arm: &str, level: u32, from: Option<Address>, accuracy: f64| Made {
            address: Address::new(arm, level, seed),
            starts_from: from,
            mask_from: Vec::new(),
            sparsity: [0.0, 0.5, 0.8][level as usize],
            accuracy: accuracy + 0.004 * noise(seed, u64::from(level) + accuracy.to_bits() % 5),
            best: 8,
            seconds: 1.0,
        };
        fits.push(fit(made("dense", 0, None, base)));
        fits.push(fit(made("dense-longer", 0, Some(dense), base + 0.01)));
        for level in [1, 2] {
            let lower = 0.02 * f64::from(level);
            fits.push(fit(made("search", level, None, base - lower)));
            let search = Address::new("search", level, seed);
            fits.push(fit(made("ticket", level, Some(search), base + 0.04 - lower)));
            fits.push(fit(made("random-search", level, None, base - 2.0 * lower)));
            let search = Address::new("random-search", level, seed);
            fits.push(fit(made("random", level, Some(search), base - lower)));
        }
    }
    let arms = vec![
        arm("dense", ArmRole::Dense, "all weights", ""),
        arm("dense-longer", ArmRole::Control, "dense, trained on", "the gain is not that of more training alone"),
        arm("search", ArmRole::Search, "training that finds the mask", ""),
        arm("ticket", ArmRole::Ticket, "trained again under the mask", ""),
        arm("random-search", ArmRole::Search, "the search's training, random mask", ""),
        arm("random", ArmRole::Control, "random mask, same counts per layer", "the choice of weights matters"),
    ];
    let mut summary = summary("notebook", arms, fits);
    summary.conditions.pruned_weights_are_frozen = true;
    summary
}

/// A task that knows no accuracy: losses alone.
pub(crate) fn regression(seeds: &[u64]) -> Summary {
    let mut summary = imp(seeds, 2);
    for fit in &mut summary.fits {
        let loss = 1.0 - fit.at_end.as_ref().map_or(0.0, |at_end| at_end.metrics["accuracy"]);
        fit.history.iter_mut().for_each(|at| at.metrics.clear());
        for evaluated in [&mut fit.at_end, &mut fit.at_best].into_iter().flatten() {
            evaluated.metrics.clear();
            evaluated.right = None;
            evaluated.loss = loss;
        }
    }
    summary.dataset.classes.clear();
    summary.dataset.name = "waves".into();
    summary.settled().expect("the fixture is valid")
}

fn summary(name: &str, arms: Vec<ArmRecord>, fits: Vec<FitRecord>) -> Summary {
    let unsettled = Summary {
        schema: SCHEMA,
        software: "lth 0.1.0".into(),
        builds: Vec::new(),
        command: ["lth", name, "--out", "runs/a b"].map(String::from).to_vec(),
        experiment: ExperimentRecord {
            name: name.into(),
            identity: "5f0c".repeat(16),
            config: json!({ "batch_size": 60, "optimizer": { "name": "adam", "lr": 1.2e-3 } }),
        },
        arms,
        metric: "accuracy".into(),
        margin: Some(0.01),
        is_race: false,
        dataset: DatasetRecord {
            name: "digits".into(),
            source: "embedded".into(),
            checked: Checked::Made,
            files: Vec::new(),
            mirror: None,
            checksum: Some("ab".repeat(32)),
            n_train: 1000,
            n_valid: 397,
            n_test: 400,
            skipped: Vec::new(),
            odd: Vec::new(),
            left_out: Vec::new(),
            contradicted: Vec::new(),
            classes: vec![
                ClassRecord { name: "zero".into(), n_train: 600, n_valid: 200 },
                ClassRecord { name: "one".into(), n_train: 400, n_valid: 197 },
            ],
            splits: BTreeMap::new(),
        },
        weights: None,
        conditions: Conditions { pruned_weights_are_frozen: false, optimizer_state: OptimizerState::Fresh },
        machine: Some(MachineRecord {
            device: "cpu".into(),
            model: Some("a processor".into()),
            platform: "linux x86_64".into(),
            n_threads: 2,
            instruction_set: None,
        }),
        started: Some(1_795_359_845),
        wall_seconds: Some(301.5),
        peak_memory_bytes: Some(1_248_000_000),
        fits,
        is_unfinished: false,
        earlier: Vec::new(),
        paths: Vec::new(),
        reference: None,
    };
    unsettled.settled().expect("the fixture is valid")
}
