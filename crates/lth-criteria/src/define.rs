/// Declares criteria that are one expression of their inputs: a unit struct and its `Criterion`.
///
/// `|checked|` is a [`Checked`](crate::Checked); the expression gives a candle tensor.
macro_rules! criteria {
    ($($(#[$doc:meta])* $type:ident, $name:literal, [$($input:ident),*], |$checked:ident| $score:expr;)+) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $type;

        impl $crate::Criterion for $type {
            fn name(&self) -> &str {
                $name
            }

            fn requires(&self) -> $crate::Requirements {
                $crate::Requirements::of(&[$($crate::Input::$input),*])
            }

            fn score(
                &self,
                weight_name: &str,
                inputs: &$crate::Inputs<'_>,
            ) -> Result<candle_core::Tensor, $crate::Error> {
                let $checked = $crate::Checked::new($name, weight_name, inputs);
                $checked.finish(&$score)
            }
        }
    )+ };
}

pub(crate) use criteria;
