//! The lines that fastai prints while it trains, in its own form, for live output.

use crate::experiment::Measurement;
use crate::record::LayerRecord;
use crate::table::{Align, Table};

/// The titles over [`measurement_line`]: `epoch     train_loss  valid_loss  metrics             time`.
pub fn measurement_header() -> String {
    columns(["epoch", "train_loss", "valid_loss", "metrics", "time"].map(String::from))
}

/// One line of fastai's epoch table, with the names of its metrics. As there, `time` is training and validation together.
///
/// ```
/// use lth_runs::{Measurement, lines};
///
/// let at = Measurement {
///     step: 100, epoch: 1.0, train_loss: 0.873489, valid_loss: Some(0.638646),
///     metrics: [("accuracy".to_owned(), 0.671854)].into(), seconds: 8.1, valid_seconds: 1.2, sparsity: 0.0,
/// };
/// assert_eq!(lines::measurement_header(),  "epoch     train_loss  valid_loss  metrics             time");
/// assert_eq!(lines::measurement_line(&at), "1         0.873489    0.638646    accuracy 0.671854   00:09");
/// ```
pub fn measurement_line(at: &Measurement) -> String {
    let metrics: Vec<String> = at.metrics.iter().map(|(name, value)| format!("{name} {value:.6}")).collect();
    columns([
        epoch(at.epoch),
        format!("{:.6}", at.train_loss),
        at.valid_loss.map_or_else(|| "-".into(), |loss| format!("{loss:.6}")),
        if metrics.is_empty() { "-".into() } else { metrics.join("  ") },
        clock(at.seconds + at.valid_seconds),
    ])
}

/// "3", "3.25"
pub(crate) fn epoch(epoch: f64) -> String {
    let text = format!("{epoch:.2}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

/// Per-layer sparsity with a row for all; rows in the order given.
pub fn layer_table(layers: &[LayerRecord]) -> Table {
    let mut table = Table::new([
        ("layer", Align::Left),
        ("weights", Align::Right),
        ("zeros", Align::Right),
        ("sparsity", Align::Right),
    ]);
    for layer in layers.iter().chain(&[LayerRecord::total("all", layers)]) {
        table.push([
            layer.name.clone(),
            grouped(layer.weights),
            grouped(layer.zeros),
            format!("{:.2} %", 100.0 * layer.sparsity()),
        ]);
    }
    table
}

/// Minutes and seconds as fastai writes them: "00:09", from an hour on "1:02:03". Fractions of a second are cut.
pub fn clock(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64; // saturates; NaN gives 0
    let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes:02}:{seconds:02}") }
}

/// "11,689,512"
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// fastai's columns: at least eight wide, two spaces apart.
fn columns(cells: [String; 5]) -> String {
    let [epoch, train_loss, valid_loss, metrics, time] = cells;
    format!("{epoch:<8}  {train_loss:<10}  {valid_loss:<10}  {metrics:<18}  {time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_reads_as_fastai_writes_it() {
        let read = [0.0, 9.99, 61.0, 3599.0, 3723.4, f64::NAN, -1.0].map(clock);
        assert_eq!(read, ["00:00", "00:09", "01:01", "59:59", "1:02:03", "00:00", "00:00"]);
    }

    #[test]
    fn what_was_not_measured_is_not_made_up() {
        let at = Measurement {
            step: 25,
            epoch: 0.25,
            train_loss: 1.5,
            valid_loss: None,
            metrics: std::collections::BTreeMap::new(),
            seconds: 61.0,
            valid_seconds: 0.0,
            sparsity: 0.0,
        };
        assert_eq!(measurement_line(&at), "0.25      1.500000    -           -                   01:01");
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 11_689_512].map(grouped), ["0", "999", "1,000", "11,689,512"]);
    }

    #[test]
    fn layers_are_summed_in_the_last_row() {
        let layer = |name: &str, weights, zeros| LayerRecord { name: name.into(), weights, zeros };
        let table = layer_table(&[layer("conv1.weight", 9408, 4704), layer("fc.weight", 1000, 0)]);
        let expected = "\
layer         weights  zeros  sparsity
------------  -------  -----  --------
conv1.weight    9,408  4,704   50.00 %
fc.weight       1,000      0    0.00 %
all            10,408  4,704   45.20 %
";
        assert_eq!(table.plain(), expected);
    }
}
