//! A made-up comparison: five fits and three controls, small enough to check by hand.

use lth_runs::{
    Checked, ClassRecord, DatasetRecord, EpochRecord, FileRecord, LayerRecord, MachineRecord, OptimizerState, Role,
    RunRecord, SCHEMA, SourceFile, Summary,
};
use serde_json::json;

/// One fit whose accuracy climbs to `accuracy` in steps of a hundredth.
pub(crate) fn run(name: &str, role: Role, seed: u64, sparsity: f64, n_epochs: usize, accuracy: f64) -> RunRecord {
    let epoch = |index: usize| {
        let to_go = (n_epochs - 1 - index) as f64;
        EpochRecord {
            epoch: index,
            train_loss: 0.4 + 0.1 * to_go,
            valid_loss: 0.35 + 0.05 * to_go,
            accuracy: accuracy - 0.01 * to_go,
            seconds: if sparsity > 0.0 { 6.0 } else { 8.0 } + 0.5 * seed as f64,
            valid_seconds: 1.25,
            sparsity: match role {
                Role::Search => sparsity * index as f64 / (n_epochs - 1).max(1) as f64,
                _ => sparsity,
            },
        }
    };
    let zeros = |weights: u64| (sparsity * (weights as f64 - 1.0)).ceil().max(0.0) as u64;
    let layer = |name: &str, weights| LayerRecord { name: name.into(), weights, zeros: zeros(weights) };
    let file = |stage: &str| FileRecord {
        path: format!("tickets/{name}-seed{seed}.{stage}.safetensors"),
        sha256: format!("{:064x}", 7 + seed),
        bytes: 46_830_571,
        content: None,
    };
    let pruned = sparsity > 0.0;
    RunRecord {
        name: name.into(),
        role,
        control: false,
        dataset: "toy-pets".into(),
        seed,
        sparsity,
        criterion: pruned.then(|| "large_final".into()),
        schedule: pruned.then(|| if role == Role::Search { "iterative(3)".into() } else { "one_shot".into() }),
        starts_from: None,
        epochs: (0..n_epochs).map(epoch).collect(),
        layers: vec![layer("conv1.weight", 9408), layer("layer1.0.conv1.weight", 36_864)],
        ticket: (role == Role::Search).then(|| file("ticket")),
        trained: (role == Role::Ticket).then(|| file("trained")),
        wait_seconds: Some(0.25),
        peak_memory_bytes: None,
    }
}

/// The five fits and their controls under one seed.
pub(crate) fn five_fits(seed: u64, controls: bool) -> Vec<RunRecord> {
    let shift = 0.01 * seed as f64;
    let from = |name: &str, run: RunRecord| RunRecord { starts_from: Some(name.into()), ..run };
    let mut runs = vec![
        run("baseline", Role::Baseline, seed, 0.0, 6, 0.87 + shift),
        run("search-50", Role::Search, seed, 0.5, 4, 0.86 + shift),
        from("search-50", run("ticket-50", Role::Ticket, seed, 0.5, 6, 0.89 + 1.5 * shift)),
        run("search-80", Role::Search, seed, 0.8, 4, 0.80 + shift),
        from("search-80", run("ticket-80", Role::Ticket, seed, 0.8, 6, 0.86 + shift * shift)),
    ];
    if controls {
        let control = |run: RunRecord| RunRecord { control: true, ..run };
        let random = |run: RunRecord| RunRecord { criterion: Some("random".into()), control: true, ..run };
        runs.extend([
            control(from("baseline", run("baseline-longer", Role::Baseline, seed, 0.0, 4, 0.895 + shift))),
            random(run("random-search-50", Role::Search, seed, 0.5, 4, 0.84)),
            random(from("random-search-50", run("random-ticket-50", Role::Ticket, seed, 0.5, 6, 0.85 + shift))),
        ]);
    }
    runs
}

/// A whole summary of made-up runs on drawn pictures.
pub(crate) fn summary(seeds: &[u64], controls: bool) -> Summary {
    let unsettled = Summary {
        schema: SCHEMA,
        software: "lth 0.1.0".into(),
        command: ["cargo", "xtask", "reproduce", "--dataset", "toy-pets"].map(String::from).to_vec(),
        config: json!({ "batch_size": 64, "image_size": 64, "optimizer": { "lr": 1e-3 }, "epochs": [6, 4, 6, 4, 6] }),
        dataset: DatasetRecord {
            name: "toy-pets".into(),
            source: "drawn, seed 0".into(),
            checked: Checked::Made,
            files: Vec::new(),
            mirror: None,
            checksum: None,
            n_train: 1600,
            n_valid: 400,
            n_test: 0,
            skipped: Vec::new(),
            odd: Vec::new(),
            left_out: Vec::new(),
            contradicted: Vec::new(),
            classes: vec![
                ClassRecord { name: "dog".into(), n_train: 1080, n_valid: 270 },
                ClassRecord { name: "cat".into(), n_train: 520, n_valid: 130 },
            ],
        },
        weights: None,
        optimizer_state: OptimizerState::Fresh,
        machine: Some(MachineRecord {
            device: "cpu".into(),
            model: Some("a processor".into()),
            platform: "linux x86_64".into(),
            n_threads: 2,
        }),
        started: Some(1_795_359_845),
        wall_seconds: Some(301.5),
        peak_memory_bytes: Some(1_248_000_000),
        runs: seeds.iter().flat_map(|seed| five_fits(*seed, controls)).collect(),
        comparison: None,
    };
    unsettled.settled().expect("the fixture is valid")
}

/// The same with the notebook's own pictures, seen through a mirror, some of them bad.
pub(crate) fn pets() -> Summary {
    let mut summary = summary(&[0], false);
    summary.dataset.name = "pets".into();
    summary.dataset.source = "downloaded".into();
    summary.dataset.checked = Checked::Mirror;
    summary.dataset.mirror = Some(lth_runs::MirrorRecord {
        url: "http://mirror.example/pets".into(),
        sha256sums: Some([("images.tar.gz".to_string(), "0".repeat(64))].into()),
    });
    let (name, sha256) = ("images.tar.gz".into(), Some("0".repeat(64)));
    summary.dataset.files = vec![SourceFile { name, bytes: 791_918_971, sha256, checked: None }];
    summary.dataset.skipped = vec!["beagle_116.jpg".into(), "a|b<c>.jpg".into()];
    summary.dataset.odd = vec!["Abyssinian_5.jpg".into()];
    summary.optimizer_state = OptimizerState::Carried;
    summary
}
