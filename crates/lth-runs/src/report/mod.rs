//! The report of a run, made from its summary alone.

mod caveats;
mod format;
mod tables;

use crate::comparison::{Comparison, Control, TicketComparison};
use crate::lines::{clock, grouped};
use crate::statistics::Difference;
use crate::summary::{Checked, OptimizerState, Summary};
use crate::table::{Align, Table, escape};

use format::{bytes, date, percent_estimate, points_with_interval, ratio, seconds};
use tables::shortest_percent;

pub use tables::{
    accuracy_table, control_table, epoch_table, file_table, fits_table, ratio_table, seconds_table, sparsity_table,
};

/// Beyond so many epochs the report names the file that has them instead of listing them.
const MOST_EPOCHS_LISTED: usize = 400;

/// The text of `report.md`: what was run, what came out beside the notebook's figures, the controls, the statistics,
/// and what the numbers do not say. A pure function of the summary.
pub fn report(summary: &Summary) -> String {
    let mut page = Page::default();
    let seeds = summary.seeds();
    let seeds = match seeds.as_slice() {
        [] => "no runs".into(),
        [seed] => format!("seed {seed}"),
        seeds => format!("seeds {}", seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")),
    };
    page.paragraph(&format!("# Lottery tickets on {}, {seeds}", escape(&summary.dataset.name)));

    page.paragraph("## Result");
    match &summary.comparison {
        Some(comparison) => {
            for ticket in &comparison.tickets {
                page.paragraph(&verdict(comparison, ticket));
            }
        }
        None => page.paragraph("These runs hold no baseline with a ticket, so nothing is compared."),
    }

    page.section("What was run", "", &setting_table(summary));
    page.section(
        "The fits, beside the notebook's",
        "`in all` counts the epochs that the weights have seen, with those of the fits they come from. Accuracy is that \
         after the last epoch. The notebook's seconds hold training and validation.",
        &fits_table(summary),
    );
    page.section(
        "Accuracy per epoch",
        "A is the dense baseline, B a ticket trained from its rewound weights.",
        &accuracy_table(summary),
    );
    page.section("Training time per epoch", "Without validation.", &seconds_table(summary));
    page.section("Ratios", "Each seed's own ratio, then their mean.", &ratio_table(summary));
    page.section(
        "Controls and statistics",
        "B against A, against A trained until it has seen as many epochs as B, and against the same search and ticket \
         with a random mask of the same per-layer sparsity. Differences are paired by seed.",
        &control_table(summary),
    );

    page.paragraph("## How to read this");
    let caveats: Vec<String> = caveats::caveats(summary).iter().map(|caveat| format!("- {caveat}\n")).collect();
    page.paragraph(&caveats.concat());

    page.section("Zeros per layer", "At the end of each fit, first seed.", &sparsity_table(summary));
    let n_epochs: usize = summary.runs.iter().map(|run| run.epochs.len()).sum();
    if n_epochs <= MOST_EPOCHS_LISTED {
        page.section("Every epoch", "", &epoch_table(summary));
    } else {
        page.paragraph("## Every epoch");
        page.paragraph(&format!("{} epochs: see `metrics.jsonl`.", grouped(n_epochs as u64)));
    }
    page.section("Files", "", &file_table(summary));
    if let Ok(config) = serde_json::to_string_pretty(&summary.config) {
        page.paragraph("## Configuration");
        page.paragraph(&format!("```json\n{config}\n```"));
    }
    page.paragraph("This report was made from `summary.json` alone.");
    page.text
}

/// What a command prints when the runs are done: the verdicts and the tables that hold them up, in plain text.
pub fn overview(summary: &Summary) -> String {
    let tables = [fits_table, accuracy_table, seconds_table, ratio_table, control_table].map(|table| table(summary));
    let mut page = Page::default();
    for table in tables.iter().filter(|table| !table.is_empty()) {
        page.paragraph(&table.plain());
    }
    if let Some(comparison) = &summary.comparison {
        for ticket in &comparison.tickets {
            page.paragraph(&verdict(comparison, ticket).replace("**", ""));
        }
    }
    page.text
}

/// Blocks with an empty line between them.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn paragraph(&mut self, text: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(text.trim_end());
        self.text.push('\n');
    }

    /// A heading, a line of explanation and a table; nothing for an empty table.
    fn section(&mut self, title: &str, explanation: &str, table: &Table) {
        if table.is_empty() {
            return;
        }
        self.paragraph(&format!("## {title}"));
        if !explanation.is_empty() {
            self.paragraph(explanation);
        }
        self.paragraph(&table.markdown());
    }
}

fn verdict(comparison: &Comparison, ticket: &TicketComparison) -> String {
    let mut text = format!(
        "**Ticket B at {} sparsity**: accuracy {} % against A's {} %, a difference of {}.",
        shortest_percent(ticket.sparsity),
        percent_estimate(&ticket.ticket.accuracy),
        percent_estimate(&comparison.baseline.accuracy),
        points_with_interval(&ticket.accuracy_difference),
    );
    if let Some(meaning) = meaning(&ticket.accuracy_difference) {
        text += &format!(" {meaning}");
    }
    let against = |what: &str, control: &Option<Control>| {
        let difference = points_with_interval(&control.as_ref()?.accuracy_difference);
        Some(format!("against {what}, {difference}"))
    };
    let longer = format!("A trained as long ({} epochs in all)", ticket.ticket.n_epochs_in_all);
    let controls: Vec<String> =
        [against(&longer, &ticket.longer), against("a random mask", &ticket.random)].into_iter().flatten().collect();
    if controls.is_empty() {
        text += " No control was run.";
    } else {
        text += &format!(" B {}.", controls.join("; "));
    }
    text += &format!(
        " Training took {} s an epoch against A's {} s",
        seconds(&ticket.ticket.seconds),
        seconds(&comparison.baseline.seconds)
    );
    if let Some(times) = &ticket.time_ratio {
        let word = if times.mean < 1.0 { "faster" } else { "not faster" };
        text += &format!(" ({} times as long: {word})", ratio(times));
    }
    text + "."
}

/// What an interval says of a difference; nothing for one seed.
fn meaning(difference: &Difference) -> Option<&'static str> {
    let interval = difference.interval.as_ref()?;
    Some(match (interval.contains(0.0), difference.mean > 0.0) {
        (true, _) => "The interval holds zero: these seeds show no difference.",
        (false, true) => "The interval leaves zero out: B is better on these data.",
        (false, false) => "The interval leaves zero out: A is better on these data.",
    })
}

fn setting_table(summary: &Summary) -> Table {
    let mut table = Table::new([("what", Align::Left), ("value", Align::Left)]);
    let mut row = |what: &str, value: String| table.push([what.to_string(), value]);
    let dataset = &summary.dataset;
    row("software", summary.software.clone());
    row("command", summary.command.join(" "));
    row("data", format!("{}: {} ({})", dataset.name, dataset.source, checked(dataset.checked)));
    for file in &dataset.files {
        let sum = file.sha256.as_ref().map_or(String::new(), |sum| format!(", SHA-256 {sum}"));
        let compared = file.checked.as_ref().map_or(String::new(), |what| format!(", compared: {what}"));
        row("data file", format!("{}, {} bytes{sum}{compared}", file.name, grouped(file.bytes)));
    }
    if let Some(checksum) = &dataset.checksum {
        row("data checksum", checksum.clone());
    }
    if let Some(mirror) = &dataset.mirror {
        let sums = match &mirror.sha256sums {
            Some(sums) if sums.len() == 1 => "with its own SHA256SUMS (1 file)".into(),
            Some(sums) => format!("with its own SHA256SUMS ({} files)", sums.len()),
            None => "without SHA256SUMS of its own".into(),
        };
        row("mirror", format!("{}, {sums}", mirror.url));
    }
    row("pictures", format!("{} training, {} validation", grouped(dataset.n_train), grouped(dataset.n_valid)));
    if !dataset.classes.is_empty() {
        let class = |class: &crate::summary::ClassRecord| {
            format!("{} ({} training, {} validation)", class.name, grouped(class.n_train), grouped(class.n_valid))
        };
        row("classes", dataset.classes.iter().map(class).collect::<Vec<_>>().join(", "));
    }
    row(
        "starting weights",
        match &summary.weights {
            None => "drawn at random".into(),
            Some(weights) => {
                let sum = weights.sha256.as_ref().map_or(String::new(), |sum| format!(", SHA-256 {sum}"));
                format!("{}: {} ({}){sum}", weights.name, weights.source, checked(weights.checked))
            }
        },
    );
    row(
        "optimiser state",
        match summary.optimizer_state {
            OptimizerState::Fresh => "fresh in every fit".into(),
            OptimizerState::Carried => "carried from fit to fit".into(),
        },
    );
    if let Some(machine) = &summary.machine {
        let model = machine.model.as_ref().map_or(String::new(), |model| format!(" ({model})"));
        let threads = if machine.n_threads == 1 { "thread" } else { "threads" };
        row("machine", format!("{}{model}, {}, {} {threads}", machine.device, machine.platform, machine.n_threads));
    }
    if let Some(started) = summary.started {
        row("started", date(started));
    }
    if let Some(wall) = summary.wall_seconds {
        row("wall time", clock(wall));
    }
    if let Some(peak) = summary.peak_memory_bytes {
        row("peak memory", bytes(peak));
    }
    let waited: Option<f64> = summary.runs.iter().map(|run| run.wait_seconds).sum();
    let trained: f64 = summary.runs.iter().flat_map(|run| &run.epochs).map(|epoch| epoch.seconds).sum();
    if let Some(waited) = waited
        && trained > 0.0
    {
        let share = format::percent(waited / trained);
        row("waiting for data", format!("{waited:.1} s, {share} % of training"));
    }
    table
}

fn checked(checked: Checked) -> &'static str {
    match checked {
        Checked::Published => "checked against published checksums",
        Checked::PublishedPart => "checked in part against published checksums",
        Checked::Mirror => "checked against the mirror's checksums",
        Checked::Made => "made by this software",
        Checked::No => "not checked",
    }
}
