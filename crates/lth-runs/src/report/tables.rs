//! The tables of a report; a command prints the same ones as plain text.

use crate::comparison::{Control, Figures, figures_by_name};
use crate::lines::grouped;
use crate::published;
use crate::record::{LayerRecord, Role, RunRecord};
use crate::report::format::{p_value, percent, percent_estimate, points, points_interval, ratio, seconds};
use crate::statistics::{Difference, Estimate};
use crate::summary::Summary;
use crate::table::Align::{Left, Right};
use crate::table::Table;

const NONE: &str = "–";

/// Every fit, this run beside the notebook: accuracy at the end, seconds per epoch. Mean ± sample standard deviation
/// over the seeds.
pub fn fits_table(summary: &Summary) -> Table {
    let mut table = Table::new([
        ("fit", Left),
        ("sparsity %", Right),
        ("epochs", Right),
        ("in all", Right),
        ("accuracy %", Right),
        ("notebook %", Right),
        ("training s/epoch", Right),
        ("validation s/epoch", Right),
        ("notebook s/epoch", Right),
    ]);
    for (run, figures) in figures_by_name(&summary.runs) {
        let published = published::beside(run);
        let notebook_seconds = published.map_or(NONE.into(), |fit| match fit.seconds {
            (low, high) if low == high => low.to_string(),
            (low, high) => format!("{low} to {high}"),
        });
        table.push([
            if run.control { format!("{} (control)", figures.name) } else { figures.name.clone() },
            percent(run.measured_sparsity().unwrap_or(run.sparsity)),
            figures.n_epochs.to_string(),
            figures.n_epochs_in_all.to_string(),
            percent_estimate(&figures.accuracy),
            published.map_or(NONE.into(), |fit| percent(fit.final_accuracy())),
            seconds(&figures.seconds),
            seconds(&figures.valid_seconds),
            notebook_seconds,
        ]);
    }
    table
}

/// Accuracy per epoch, A beside every B, each beside the notebook's; empty without a comparison.
pub fn accuracy_table(summary: &Summary) -> Table {
    let mut columns = vec![("epoch".to_string(), Right)];
    let mut curves: Vec<Vec<String>> = Vec::new();
    let mut add = |name: &str, role: Role, sparsity: f64, curve: &[Estimate]| {
        columns.push((format!("{name} (%)"), Right));
        curves.push(curve.iter().map(percent_estimate).collect());
        let alike = |fit: &&published::PublishedFit| fit.role == role && (fit.sparsity - sparsity).abs() < 1e-9;
        if let Some(fit) = published::FITS.iter().find(alike) {
            columns.push((format!("notebook {name} (%)"), Right));
            curves.push(fit.accuracy.iter().map(|accuracy| percent(*accuracy)).collect());
        }
    };
    if let Some(comparison) = &summary.comparison {
        if let Some(ticket) = comparison.tickets.first() {
            add("a_A", Role::Baseline, 0.0, &ticket.accuracy_a);
        }
        for ticket in &comparison.tickets {
            let name = format!("a_B at {}", shortest_percent(ticket.sparsity));
            add(&name, Role::Ticket, ticket.sparsity, &ticket.accuracy_b);
        }
    }
    by_epoch(columns, &curves)
}

/// Training seconds per epoch, A beside every B, and t_B / t_A; empty without a comparison.
pub fn seconds_table(summary: &Summary) -> Table {
    let mut columns = vec![("epoch".to_string(), Right)];
    let mut curves: Vec<Vec<String>> = Vec::new();
    let tickets = summary.comparison.iter().flat_map(|comparison| &comparison.tickets);
    for (index, ticket) in tickets.enumerate() {
        if index == 0 {
            columns.push(("t_A (s)".into(), Right));
            curves.push(ticket.seconds_a.iter().map(seconds).collect());
        }
        let name = shortest_percent(ticket.sparsity);
        columns.push((format!("t_B at {name} (s)"), Right));
        curves.push(ticket.seconds_b.iter().map(seconds).collect());
        columns.push((format!("t_B/t_A at {name}"), Right));
        let pairs = ticket.seconds_a.iter().zip(&ticket.seconds_b);
        let ratio = |(a, b): (&Estimate, &Estimate)| match a.mean > 0.0 {
            true => format!("{:.2}", b.mean / a.mean),
            false => NONE.into(),
        };
        curves.push(pairs.map(ratio).collect());
    }
    by_epoch(columns, &curves)
}

/// Every B against A and against each control: the difference of accuracies with its interval; empty without a
/// comparison.
pub fn control_table(summary: &Summary) -> Table {
    let mut table = Table::new([
        ("ticket", Left),
        ("a_B %", Right),
        ("against", Left),
        ("epochs in all", Right),
        ("its accuracy %", Right),
        ("a_B minus it, points", Right),
        ("95 % interval", Right),
        ("p", Right),
        ("seeds", Right),
    ]);
    let Some(comparison) = &summary.comparison else { return table };
    for ticket in &comparison.tickets {
        let mut add = |what: &str, figures: &Figures, difference: &Difference| {
            table.push([
                shortest_percent(ticket.sparsity),
                percent_estimate(&ticket.ticket.accuracy),
                what.into(),
                figures.n_epochs_in_all.to_string(),
                percent_estimate(&figures.accuracy),
                points(difference.mean),
                difference.interval.as_ref().map_or(NONE.into(), points_interval),
                difference.p_value.map_or(NONE.into(), p_value),
                difference.n.to_string(),
            ]);
        };
        add("A", &comparison.baseline, &ticket.accuracy_difference);
        let mut control = |what: &str, control: &Option<Control>| {
            if let Some(control) = control {
                add(what, &control.figures, &control.accuracy_difference);
            }
        };
        control("A trained as long", &ticket.longer);
        control("random mask", &ticket.random);
    }
    table
}

/// a_B / a_A and t_B / t_A of every ticket, beside the notebook's; empty without a comparison.
pub fn ratio_table(summary: &Summary) -> Table {
    let mut table = Table::new([
        ("ticket", Left),
        ("a_B/a_A", Right),
        ("notebook a_B/a_A", Right),
        ("t_B/t_A", Right),
        ("seeds", Right),
    ]);
    let tickets = summary.comparison.iter().flat_map(|comparison| &comparison.tickets);
    for ticket in tickets {
        let alike =
            |fit: &&published::PublishedFit| fit.role == Role::Ticket && (fit.sparsity - ticket.sparsity).abs() < 1e-9;
        let baseline = published::FITS[0].final_accuracy();
        let notebook = published::FITS.iter().find(alike).map(|fit| fit.final_accuracy() / baseline);
        table.push([
            shortest_percent(ticket.sparsity),
            ticket.accuracy_ratio.as_ref().map_or(NONE.into(), ratio),
            notebook.map_or(NONE.into(), |ratio| format!("{ratio:.3}")),
            ticket.time_ratio.as_ref().map_or(NONE.into(), ratio),
            ticket.accuracy_difference.n.to_string(),
        ]);
    }
    table
}

/// Zeros per layer at the end of every sparse fit, controls left out, of the first seed; empty if there is none.
pub fn sparsity_table(summary: &Summary) -> Table {
    let seed = summary.seeds().first().copied();
    let sparse =
        |run: &&RunRecord| !run.control && Some(run.seed) == seed && run.layers.iter().any(|layer| layer.zeros > 0);
    let runs: Vec<&RunRecord> = summary.runs.iter().filter(sparse).collect();
    let mut columns = vec![("layer".to_string(), Left), ("weights".to_string(), Right)];
    columns.extend(runs.iter().map(|run| (run.name.clone(), Right)));
    let mut table = Table::new(columns);
    let Some(first) = runs.first() else { return table };
    let cell = |layer: &LayerRecord| format!("{} ({} %)", grouped(layer.zeros), percent(layer.sparsity()));
    for layer in &first.layers {
        let of = |run: &&RunRecord| {
            let found = run.layers.iter().find(|other| other.name == layer.name);
            found.map_or(NONE.into(), cell)
        };
        let row = [layer.name.clone(), grouped(layer.weights)];
        table.push(row.into_iter().chain(runs.iter().map(of)));
    }
    let total = |run: &&RunRecord| LayerRecord::total("all", &run.layers);
    let row = ["all".into(), grouped(total(first).weights)];
    table.push(row.into_iter().chain(runs.iter().map(|run| cell(&total(run)))));
    table
}

/// Every epoch of every fit.
pub fn epoch_table(summary: &Summary) -> Table {
    let mut table = Table::new([
        ("fit", Left),
        ("seed", Right),
        ("epoch", Right),
        ("train_loss", Right),
        ("valid_loss", Right),
        ("accuracy %", Right),
        ("sparsity %", Right),
        ("training s", Right),
        ("validation s", Right),
    ]);
    for run in &summary.runs {
        for epoch in &run.epochs {
            table.push([
                run.name.clone(),
                run.seed.to_string(),
                epoch.epoch.to_string(),
                format!("{:.6}", epoch.train_loss),
                format!("{:.6}", epoch.valid_loss),
                percent(epoch.accuracy),
                percent(epoch.sparsity),
                format!("{:.2}", epoch.seconds),
                format!("{:.2}", epoch.valid_seconds),
            ]);
        }
    }
    table
}

/// The files that the run wrote.
pub fn file_table(summary: &Summary) -> Table {
    let mut table = Table::new([
        ("fit", Left),
        ("seed", Right),
        ("stage", Left),
        ("file", Left),
        ("bytes", Right),
        ("SHA-256", Left),
    ]);
    for run in &summary.runs {
        for (stage, file) in [("ticket", &run.ticket), ("trained", &run.trained)] {
            if let Some(file) = file {
                table.push([
                    run.name.clone(),
                    run.seed.to_string(),
                    stage.into(),
                    file.path.clone(),
                    grouped(file.bytes),
                    file.sha256.clone(),
                ]);
            }
        }
    }
    table
}

/// "50 %", "16.67 %"
pub(super) fn shortest_percent(fraction: f64) -> String {
    let text = percent(fraction);
    let text = text.strip_suffix(".00").unwrap_or(&text);
    format!("{text} %")
}

/// Rows by epoch, counted from 0 as in the notebook; a curve that has ended leaves its cells empty.
fn by_epoch(columns: Vec<(String, crate::table::Align)>, curves: &[Vec<String>]) -> Table {
    let n_epochs = curves.iter().map(Vec::len).max().unwrap_or(0);
    let mut table = Table::new(columns);
    for epoch in 0..n_epochs {
        let cells = curves.iter().map(|curve| curve.get(epoch).cloned().unwrap_or_default());
        table.push([epoch.to_string()].into_iter().chain(cells));
    }
    table
}
