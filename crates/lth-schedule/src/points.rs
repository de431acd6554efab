use crate::Error;

/// Points of a piecewise linear schedule: position and progress, both in [0, 1], positions never falling.
///
/// Between two points the line; before the first and after the last their value. Two points at one position make a jump,
/// and the later one holds there.
#[derive(Clone, Debug, PartialEq)]
pub struct Points(Vec<(f64, f64)>);

impl Points {
    /// Points from pairs of position and progress.
    ///
    /// # Errors
    /// if there are none, a number is outside [0, 1], or a position is below the one before it.
    pub fn new(points: impl IntoIterator<Item = (f64, f64)>) -> Result<Points, Error> {
        let points: Vec<(f64, f64)> = points.into_iter().collect();
        let wrong =
            |got: String, expected| Error::Parameter { parameter: "points of a piecewise schedule", got, expected };
        if points.is_empty() {
            return Err(wrong("empty".to_owned(), "at least one point"));
        }
        let inside = |x: f64| (0.0..=1.0).contains(&x);
        if let Some((pos, progress)) = points.iter().find(|(pos, progress)| !inside(*pos) || !inside(*progress)) {
            return Err(wrong(format!("{pos}:{progress}"), "position and progress in [0, 1]"));
        }
        if let Some(pair) = points.windows(2).find(|pair| pair[0].0 > pair[1].0) {
            return Err(wrong(format!("{} before {}", pair[0].0, pair[1].0), "positions in rising order"));
        }
        Ok(Points(points))
    }

    /// The points in order.
    pub fn as_slice(&self) -> &[(f64, f64)] {
        &self.0
    }

    pub(crate) fn is_monotone(&self) -> bool {
        self.0.windows(2).all(|pair| pair[0].1 <= pair[1].1)
    }

    pub(crate) fn is_stepwise(&self) -> bool {
        self.0.windows(2).all(|pair| pair[0].0 == pair[1].0 || pair[0].1 == pair[1].1)
    }

    pub(crate) fn at(&self, pos: f64) -> f64 {
        // The first point strictly after `pos`; the one before it holds at `pos`.
        let after = self.0.partition_point(|point| point.0 <= pos);
        match (after.checked_sub(1).map(|idx| self.0[idx]), self.0.get(after)) {
            (None, Some(first)) => first.1,
            (Some(last), None) => last.1,
            (Some((x0, y0)), Some(&(x1, y1))) => {
                let along = (pos - x0) / (x1 - x0);
                // Clamped: the sum may pass y1 by a rounding.
                (y0 + (y1 - y0) * along).clamp(y0.min(y1), y0.max(y1))
            }
            (None, None) => unreachable!("`new` takes at least one point"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_between_points_and_their_values_outside() {
        let points = Points::new([(0.25, 0.0), (0.5, 0.8), (0.75, 0.6)]).unwrap();
        for (pos, progress) in
            [(0.0, 0.0), (0.25, 0.0), (0.375, 0.4), (0.5, 0.8), (0.625, 0.7), (0.75, 0.6), (1.0, 0.6)]
        {
            assert!((points.at(pos) - progress).abs() < 1e-15, "at {pos}: {}", points.at(pos));
        }
        assert!(!points.is_monotone());
    }

    #[test]
    fn two_points_at_one_position_jump_there() {
        let points = Points::new([(0.0, 0.1), (0.5, 0.2), (0.5, 0.9)]).unwrap();
        assert_eq!(points.at(0.5), 0.9);
        assert!(points.at(0.5 - 1e-12) <= 0.2);
        assert!(points.is_monotone());
    }

    #[test]
    fn bad_points_are_errors() {
        assert_eq!(
            Points::new([]).unwrap_err().to_string(),
            "points of a piecewise schedule is empty, expected at least one point"
        );
        for bad in [
            [(0.0, 0.0), (0.0, f64::NAN)],
            [(f64::NAN, 0.0), (1.0, 1.0)],
            [(0.5, 0.0), (0.4, 1.0)],
            [(0.0, 0.0), (1.0, 1.1)],
        ] {
            assert!(Points::new(bad).is_err(), "{bad:?}");
        }
    }
}
