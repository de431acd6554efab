//! Linear mode connectivity: what lies on the straight way between two trained networks.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use lth_train::{BoxError, Evaluation, Network, Task, evaluate};

use crate::Error;

type Tensors = BTreeMap<String, Tensor>;

/// One point of the way.
#[derive(Clone, Debug, PartialEq)]
pub struct PathPoint {
    /// 0 at the first network, 1 at the second.
    pub position: f64,
    /// What the network there gives.
    pub evaluation: Evaluation,
}

/// The figures of `n_points` networks at equal distances on the straight way from `first` to `second`, the ends included.
///
/// Every float tensor is interpolated, BatchNorm's running statistics too. `first`, `second`: all parameters and buffers
/// by name, as [`Parameters::snapshot`](lth_train::Parameters::snapshot) gives them. The network has its own values again
/// afterwards. The instability of two runs that differ in the order of their data alone is
/// [`lth_runs::statistics::instability`] of the errors here.
///
/// Source: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", §2; 30 points there.
///
/// # Errors
/// [`Error::Plan`] for fewer than 2 points; if names or shapes differ, or a batch cannot be read.
pub fn linear_path<N: Network, B, T: Task<N, B>, I>(
    network: &N,
    task: &T,
    [first, second]: [&Tensors; 2],
    n_points: usize,
    batches: impl Fn() -> I,
) -> Result<Vec<PathPoint>, Error>
where
    I: Iterator<Item = Result<B, BoxError>>,
{
    if n_points < 2 {
        let (got, expected) = (n_points.to_string(), "at least 2".to_owned());
        return Err(Error::Plan { field: "points of a path".into(), got, expected });
    }
    let own = network.parameters().snapshot(|_, _| true)?;
    let at = |index: usize| {
        let position = index as f64 / (n_points - 1) as f64;
        network.parameters().restore(&between(first, second, position)?)?;
        let evaluation = evaluate(network, task, batches())?;
        Ok(PathPoint { position, evaluation })
    };
    let points = (0..n_points).map(at).collect();
    network.parameters().restore(&own)?;
    points
}

/// (1 − position) · first + position · second; the ends exactly.
fn between(first: &Tensors, second: &Tensors, position: f64) -> Result<Tensors, Error> {
    let mut mixed = Tensors::new();
    for (name, one) in first {
        let other = second.get(name).ok_or_else(|| Error::Plan {
            field: "second end of the path".into(),
            got: format!("without `{name}`"),
            expected: "the tensors of the first".into(),
        })?;
        let is_float = matches!(one.dtype(), DType::F16 | DType::BF16 | DType::F32 | DType::F64);
        let value = match position {
            0.0 => one.clone(),
            1.0 => other.clone(),
            _ if !is_float => one.clone(),
            _ => ((one * (1.0 - position))? + (other * position)?)?,
        };
        mixed.insert(name.clone(), value);
    }
    Ok(mixed)
}
