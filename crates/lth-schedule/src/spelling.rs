//! The one spelling of a [`Schedule`]: `name` or `name(arguments)`, read and written here and nowhere else.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Exponent, Logistic, Points, Schedule};

impl Schedule {
    /// Every spelling in one line, for the help of a command line: "one_shot, iterative(n), agp, …".
    pub const SPELLINGS: &str = "one_shot, iterative(n), agp, one_cycle, one_cycle(alpha, beta), cosine, linear, dsd, \
                                 geometric(rounds), polynomial(p), piecewise(position:progress, …)";
}

/// The spelling that [`FromStr`] reads, but for `own(name)`; numbers are written so that they read back equal.
impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Schedule::OneShot => f.write_str("one_shot"),
            Schedule::Iterative { n_steps } => write!(f, "iterative({n_steps})"),
            Schedule::Agp => f.write_str("agp"),
            Schedule::OneCycle(logistic) if *logistic == Logistic::default() => f.write_str("one_cycle"),
            Schedule::OneCycle(logistic) => write!(f, "one_cycle({}, {})", logistic.alpha(), logistic.beta()),
            Schedule::Cosine => f.write_str("cosine"),
            Schedule::Linear => f.write_str("linear"),
            Schedule::Dsd => f.write_str("dsd"),
            Schedule::Geometric { n_rounds } => write!(f, "geometric({n_rounds})"),
            Schedule::Polynomial(exponent) => write!(f, "polynomial({})", exponent.value()),
            Schedule::Piecewise(points) => {
                f.write_str("piecewise(")?;
                for (idx, (pos, progress)) in points.as_slice().iter().enumerate() {
                    let separator = if idx == 0 { "" } else { ", " };
                    write!(f, "{separator}{pos}:{progress}")?;
                }
                f.write_str(")")
            }
            Schedule::Own(own) => write!(f, "own({})", own.curve().name()),
        }
    }
}

/// Reads the spelling of [`Display`](fmt::Display). Also accepted: fasterai's names `cos` and `lin` and its `iterative`
/// (three steps). Not read is `own(name)`: text has no more of a curve than its name.
impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let trimmed = text.trim();
        let unreadable = || Error::Spelling { what: "schedule", got: text.to_owned(), expected: Schedule::SPELLINGS };
        let (name, arguments) = match trimmed.split_once('(') {
            Some((name, rest)) => {
                let inside = rest.strip_suffix(')').ok_or_else(unreadable)?;
                (name.trim_end(), inside.split(',').map(str::trim).collect::<Vec<_>>())
            }
            None => (trimmed, Vec::new()),
        };
        let number = |argument: &str| argument.parse::<f64>().map_err(|_| unreadable());
        let count = |argument: &str| argument.parse::<u32>().map_err(|_| unreadable());
        match (name, arguments.as_slice()) {
            ("one_shot", []) => Ok(Schedule::OneShot),
            ("iterative", []) => Schedule::iterative(3),
            ("iterative", [n_steps]) => Schedule::iterative(count(n_steps)?),
            ("agp", []) => Ok(Schedule::Agp),
            ("one_cycle", []) => Ok(Schedule::one_cycle()),
            ("one_cycle", [alpha, beta]) => Ok(Schedule::OneCycle(Logistic::new(number(alpha)?, number(beta)?)?)),
            ("cosine" | "cos", []) => Ok(Schedule::Cosine),
            ("linear" | "lin", []) => Ok(Schedule::Linear),
            ("dsd", []) => Ok(Schedule::Dsd),
            ("geometric", [n_rounds]) => Schedule::geometric(count(n_rounds)?),
            ("geometric", [_, _]) => Err(Error::Parameter {
                parameter: "geometric schedule",
                got: trimmed.to_owned(),
                expected: "geometric(rounds): what a round keeps follows from the rounds and the final sparsity",
            }),
            ("polynomial", [exponent]) => Ok(Schedule::Polynomial(Exponent::new(number(exponent)?)?)),
            ("piecewise", points @ [_, ..]) => {
                let pair = |point: &&str| -> Result<(f64, f64), Error> {
                    let (pos, progress) = point.split_once(':').ok_or_else(unreadable)?;
                    Ok((number(pos.trim())?, number(progress.trim())?))
                };
                let points = points.iter().map(pair).collect::<Result<Vec<_>, Error>>()?;
                Ok(Schedule::Piecewise(Points::new(points)?))
            }
            ("own", [_, ..]) => Err(Error::Own { schedule: trimmed.to_owned() }),
            _ => Err(unreadable()),
        }
    }
}

impl TryFrom<String> for Schedule {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> String {
        schedule.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_spelling_is_the_one_documented() {
        for text in [
            "one_shot",
            "iterative(3)",
            "agp",
            "one_cycle",
            "one_cycle(10, 4.5)",
            "cosine",
            "linear",
            "dsd",
            "geometric(7)",
            "polynomial(2)",
            "piecewise(0:0, 0.5:0.9, 1:1)",
        ] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string(), text);
            assert_eq!(serde_json::to_string(&schedule).unwrap(), format!("\"{text}\""));
            assert_eq!(serde_json::from_str::<Schedule>(&format!("\"{text}\"")).unwrap(), schedule);
        }
    }

    #[test]
    fn short_forms_and_spaces_are_read() {
        for (text, same) in [
            ("cos", "cosine"),
            ("lin", "linear"),
            ("iterative", "iterative(3)"),
            ("one_cycle(14, 6)", "one_cycle"),
            ("  piecewise ( 0 : 0 ,1:1 ) ", "piecewise(0:0, 1:1)"),
        ] {
            assert_eq!(text.parse::<Schedule>().unwrap().to_string(), same);
        }
    }

    #[test]
    fn text_that_is_no_schedule_is_an_error_that_lists_them() {
        for bad in [
            "",
            "oneshot",
            "One_Shot",
            "iterative(",
            "iterative()",
            "iterative(3",
            "iterative(3))",
            "iterative(-3)",
            "iterative(3.5)",
            "iterative(3, 4)",
            "agp()",
            "agp(3)",
            "one_cycle(14)",
            "polynomial()",
            "polynomial(x)",
            "piecewise()",
            "piecewise(0, 1)",
            "piecewise(0:0:0)",
            "geometric",
        ] {
            let message = bad.parse::<Schedule>().unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("`{bad}` is no schedule, expected one_shot, iterative(n)")),
                "{message}"
            );
        }
        let message = "iterative(0)".parse::<Schedule>().unwrap_err().to_string();
        assert_eq!(message, "steps of an iterative schedule is 0, expected at least 1");
        let message = "geometric(3, 0.8)".parse::<Schedule>().unwrap_err().to_string();
        assert!(
            message.starts_with("geometric schedule is geometric(3, 0.8), expected geometric(rounds)"),
            "{message}"
        );
        assert!("polynomial(NaN)".parse::<Schedule>().is_err());
        assert!("piecewise(0:0, 1:inf)".parse::<Schedule>().is_err());
    }
}
