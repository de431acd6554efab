//! What the notebook printed: five fits on Oxford-IIIT PETS with ResNet-18 from ImageNet weights, on a GPU, one seed.
//!
//! These numbers belong to those pictures and those weights. Beside a run on other data they are scenery, not a
//! target. The seconds are the notebook's `time` column, training and validation together; its pruned epochs were
//! slower than its dense ones.

use crate::record::{Role, RunRecord};

/// One of the notebook's five fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublishedFit {
    /// 1 to 5.
    pub number: usize,
    /// Its part in the comparison.
    pub role: Role,
    /// What it did.
    pub description: &'static str,
    /// Sparsity at its end.
    pub sparsity: f64,
    /// Accuracy after each epoch.
    pub accuracy: &'static [f64],
    /// Seconds of its fastest and its slowest epoch, validation included.
    pub seconds: (u32, u32),
}

/// The five fits.
pub const FITS: [PublishedFit; 5] = [
    PublishedFit {
        number: 1,
        role: Role::Baseline,
        description: "baseline, network A",
        sparsity: 0.0,
        accuracy: &[0.7936, 0.8403, 0.8451, 0.8620, 0.8701, 0.8701],
        seconds: (6, 7),
    },
    PublishedFit {
        number: 2,
        role: Role::Search,
        description: "from the initial weights: iterative to 50 %, weights reset to epoch 0",
        sparsity: 0.5,
        accuracy: &[0.8261, 0.8356, 0.8498, 0.8627],
        seconds: (6, 9),
    },
    PublishedFit {
        number: 3,
        role: Role::Ticket,
        description: "one_shot 50 %: ticket B",
        sparsity: 0.5,
        accuracy: &[0.8633, 0.8796, 0.8843, 0.8816, 0.8958, 0.8965],
        seconds: (9, 9),
    },
    PublishedFit {
        number: 4,
        role: Role::Search,
        description: "from the initial weights: iterative to 80 %, weights rewound to epoch 1",
        sparsity: 0.8,
        accuracy: &[0.8031, 0.8336, 0.8471, 0.8045],
        seconds: (6, 10),
    },
    PublishedFit {
        number: 5,
        role: Role::Ticket,
        description: "one_shot 80 %: ticket B",
        sparsity: 0.8,
        accuracy: &[0.8254, 0.8451, 0.8566, 0.8613, 0.8633, 0.8654],
        seconds: (9, 10),
    },
];

impl PublishedFit {
    /// Accuracy after the last epoch.
    pub fn final_accuracy(&self) -> f64 {
        self.accuracy[self.accuracy.len() - 1]
    }
}

/// The notebook's fit with that part and sparsity; it had no controls.
pub fn beside(run: &RunRecord) -> Option<&'static PublishedFit> {
    let alike = |fit: &&PublishedFit| fit.role == run.role && (fit.sparsity - run.sparsity).abs() < 1e-9;
    FITS.iter().find(alike).filter(|_| !run.control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tickets_beat_the_baseline_only_at_half() {
        let finals = FITS.map(|fit| fit.final_accuracy());
        assert_eq!(finals, [0.8701, 0.8627, 0.8965, 0.8045, 0.8654]);
        assert_eq!(FITS.map(|fit| fit.accuracy.len()), [6, 4, 6, 4, 6]);
        assert!(FITS.iter().all(|fit| fit.seconds.0 <= fit.seconds.1));
    }
}
