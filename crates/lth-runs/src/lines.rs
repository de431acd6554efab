//! The lines that the notebook printed while it ran, in its own form, for live output.

use crate::record::{EpochRecord, LayerRecord};
use crate::table::{Align, Table};

/// The titles over [`epoch_line`]: `epoch     train_loss  valid_loss  accuracy  time`.
pub fn epoch_header() -> String {
    columns(["epoch", "train_loss", "valid_loss", "accuracy", "time"].map(String::from))
}

/// One line of fastai's epoch table. As there, `time` is training and validation together.
///
/// ```
/// let epoch = lth_runs::EpochRecord {
///     epoch: 0, train_loss: 0.873489, valid_loss: 0.638646, accuracy: 0.671854,
///     seconds: 8.1, valid_seconds: 1.2, sparsity: 0.0,
/// };
/// assert_eq!(lth_runs::lines::epoch_header(),   "epoch     train_loss  valid_loss  accuracy  time");
/// assert_eq!(lth_runs::lines::epoch_line(&epoch), "0         0.873489    0.638646    0.671854  00:09");
/// ```
pub fn epoch_line(epoch: &EpochRecord) -> String {
    columns([
        epoch.epoch.to_string(),
        format!("{:.6}", epoch.train_loss),
        format!("{:.6}", epoch.valid_loss),
        format!("{:.6}", epoch.accuracy),
        clock(epoch.seconds + epoch.valid_seconds),
    ])
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
    let [epoch, train_loss, valid_loss, accuracy, time] = cells;
    format!("{epoch:<8}  {train_loss:<10}  {valid_loss:<10}  {accuracy:<8}  {time}")
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
