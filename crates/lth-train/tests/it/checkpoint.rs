//! States as files: what a process that was killed goes on from.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use lth_train::{
    BoxError, Checkpoint, EarlyStopping, End, Error, Event, Fit, FitConfig, Hook, HookState, State, Trainer,
};

use crate::span::{Counter, EPOCHS, N, Noisy, bits, data, trainer, whole};
use crate::trainer::without_times;

pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn facts(epochs: &str) -> BTreeMap<String, String> {
    [("data", "drawn"), ("epochs", epochs), ("fit", "ticket/1/7")].map(|(a, b)| (a.to_owned(), b.to_owned())).into()
}

pub(crate) fn in_folder(folder: &Path) -> Checkpoint {
    Checkpoint::new(folder.join("checkpoint.safetensors"), facts("3"))
}

/// A trainer in the middle of a fit, with a hook that has a tensor.
pub(crate) fn state() -> Result<State> {
    let (mut trainer, left) = (trainer()?, Cell::new(7));
    let asked = || left.replace(left.get() - 1) == 0;
    let (mut counter, mut early_stopping) =
        (Counter::default(), EarlyStopping::new(NonZeroU32::MIN.saturating_add(8)).keeping_best());
    let config = FitConfig { interrupted: Some(&asked), ..whole(1) };
    trainer.fit(&config, &data(), &mut [&mut counter, &mut early_stopping])?;
    Ok(trainer.state()?)
}

/// All of a state as text, tensors by their bytes.
fn text(state: &State) -> Result<String> {
    let mut text = serde_json::to_string(&state.counters)?;
    let hooks = state.hooks.values().map(|hook| &hook.tensors);
    for tensors in [&state.parameters, &state.masks, &state.optimizer].into_iter().chain(hooks) {
        for (name, tensor) in tensors {
            text += &format!("{name} {:?} {:?}\n", tensor.dims(), lth_train::tensor_bytes(tensor)?);
        }
    }
    for (name, hook) in &state.hooks {
        text += &format!("{name} {}\n", hook.json);
    }
    Ok(text)
}

#[test]
fn a_state_comes_back_from_its_file_to_the_last_bit() -> Result {
    let folder = tempfile::tempdir()?;
    let checkpoint = in_folder(folder.path());
    assert!(checkpoint.read()?.is_none());
    let state = state()?;
    assert!(state.hooks.values().any(|hook| !hook.tensors.is_empty()));
    checkpoint.write(&state)?;
    let read = checkpoint.read()?.ok_or("it was written")?;
    assert_eq!(text(&read)?, text(&state)?);
    checkpoint.write(&state)?;
    assert!(checkpoint.previous().is_file());
    checkpoint.remove()?;
    assert_eq!(std::fs::read_dir(folder.path())?.count(), 0);
    Ok(())
}

#[test]
fn a_process_that_was_killed_after_any_step_ends_with_the_same_bits() -> Result {
    let mut unbroken = trainer()?;
    let mut counted = Counter::default();
    let expected = unbroken.fit(&whole(1), &data(), &mut [&mut counted])?;
    for n_steps in 1..N * EPOCHS as usize {
        let folder = tempfile::tempdir()?;
        let checkpoint = in_folder(folder.path());
        // At every step a state; the process ends without a word in the midst of the one after.
        let n_written = Cell::new(0);
        let write = |state: &State| -> std::result::Result<(), BoxError> {
            if n_written.replace(n_written.get() + 1) == n_steps {
                return Err("killed".into());
            }
            Ok(checkpoint.write(state)?)
        };
        let config = FitConfig { checkpoint: Some(&write), checkpoint_every: Some(Duration::ZERO), ..whole(1) };
        let killed = trainer()?.fit(&config, &data(), &mut [&mut Counter::default()]);
        assert!(matches!(killed, Err(Error::Checkpoint(_))));
        let state = checkpoint.read()?.ok_or("a state for every step")?;
        assert_eq!(state.counters.position.as_ref().map(|at| at.iteration), Some(n_steps));
        let mut trainer = trainer()?;
        trainer.restore(&state)?;
        let mut counter = Counter::default();
        let fitted = trainer.fit(&whole(1), &data(), &mut [&mut counter])?;
        assert_eq!(bits(&trainer)?, bits(&unbroken)?, "after {n_steps} steps");
        assert_eq!(without_times(&fitted.history), without_times(&expected.history));
        assert_eq!((fitted.end, counter.0), (End::Done, counted.0.clone()));
    }
    Ok(())
}

#[test]
fn a_file_that_is_cut_or_changed_anywhere_is_found_out_or_harmless() -> Result {
    let folder = tempfile::tempdir()?;
    let checkpoint = in_folder(folder.path());
    let state = state()?;
    checkpoint.write(&state)?;
    let (whole, expected) = (std::fs::read(checkpoint.path())?, text(&state)?);
    let is_right = |bytes: &[u8], what: &str| -> Result<bool> {
        std::fs::write(checkpoint.path(), bytes)?;
        match checkpoint.read() {
            Ok(Some(read)) => {
                assert_eq!(text(&read)?, expected, "{what}");
                Ok(true)
            }
            Ok(None) => Err(format!("{what}: overlooked").into()),
            Err(Error::DamagedCheckpoint { .. }) => Ok(false),
            Err(other) => Err(format!("{what}: {other}").into()),
        }
    };
    for length in 0..whole.len() {
        assert!(!is_right(&whole[..length], &format!("cut to {length} bytes"))?);
    }
    let mut n_harmless = 0;
    for at in 0..whole.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            n_harmless += usize::from(is_right(&bytes, &format!("byte {at} by {change:#x}"))?);
        }
    }
    // The blanks behind the header alone.
    assert!(n_harmless < 30, "{n_harmless} of {}", 3 * whole.len());
    Ok(())
}

#[test]
fn a_damaged_state_gives_way_to_the_one_before() -> Result {
    let folder = tempfile::tempdir()?;
    let checkpoint = in_folder(folder.path());
    let (first, second) = (trainer()?.state()?, state()?);
    checkpoint.write(&first)?;
    checkpoint.write(&second)?;
    std::fs::write(checkpoint.path(), b"half a file")?;
    assert_eq!(text(&checkpoint.read()?.ok_or("the previous one")?)?, text(&first)?);
    // Killed between the two renames: the latest has no name yet.
    std::fs::remove_file(checkpoint.path())?;
    assert_eq!(text(&checkpoint.read()?.ok_or("the previous one")?)?, text(&first)?);
    std::fs::write(checkpoint.previous(), b"")?;
    let error = checkpoint.read().expect_err("nothing is whole").to_string();
    assert!(error.contains("checkpoint.safetensors.previous is damaged"), "{error}");
    Ok(())
}

#[test]
fn a_state_of_another_run_is_refused_with_what_differs() -> Result {
    let folder = tempfile::tempdir()?;
    let checkpoint = in_folder(folder.path());
    checkpoint.write(&state()?)?;
    let other = Checkpoint::new(checkpoint.path(), facts("8"));
    let error = other.read().expect_err("another run").to_string();
    assert!(error.contains("is of another run: its epochs is 3, this one's is 8"), "{error}");
    let mut more = facts("3");
    more.insert("batch_size".to_owned(), "60".to_owned());
    let error = Checkpoint::new(checkpoint.path(), more).read().expect_err("another run").to_string();
    assert!(error.contains("its batch_size is not said, this one's is 60"), "{error}");
    Ok(())
}

/// Does not say what it would need.
struct Mute;

impl Hook for Mute {
    fn name(&self) -> &str {
        "mute"
    }

    fn on(&mut self, event: Event, _fit: &mut Fit<'_>) -> std::result::Result<(), BoxError> {
        assert!(event != Event::BeforeBatch, "nothing is trained");
        Ok(())
    }
}

#[test]
fn a_hook_that_gives_no_state_is_refused_before_training_where_states_are_written() -> Result {
    let write = |_: &State| Ok(());
    let config = FitConfig { checkpoint: Some(&write), ..whole(1) };
    let error = trainer()?.fit(&config, &data(), &mut [&mut Mute]).expect_err("it has no state").to_string();
    assert!(error.contains("mute") && error.contains("it gives no state for checkpoints"), "{error}");
    Ok(())
}

#[test]
fn a_state_goes_on_with_the_hooks_that_it_was_written_with() -> Result {
    let state = state()?;
    let resumed = || -> Result<Trainer<Noisy>> {
        let mut trainer = trainer()?;
        trainer.restore(&state)?;
        Ok(trainer)
    };
    let mut early_stopping = EarlyStopping::new(NonZeroU32::MIN.saturating_add(8)).keeping_best();
    let error = resumed()?.fit(&whole(1), &data(), &mut [&mut early_stopping]).expect_err("one is missing");
    assert!(error.to_string().contains("its fit had a hook `counter`, this one has none"), "{error}");
    let names: RefCell<Vec<&str>> = RefCell::new(Vec::new());
    let mut third = Third(&names);
    let mut hooks: [&mut dyn Hook; 3] = [&mut Counter::default(), &mut early_stopping, &mut third];
    let error = resumed()?.fit(&whole(1), &data(), &mut hooks).expect_err("one is new");
    assert!(error.to_string().contains("its fit had no hook `third`, this one has"), "{error}");
    Ok(())
}

struct Third<'a>(&'a RefCell<Vec<&'static str>>);

impl Hook for Third<'_> {
    fn name(&self) -> &str {
        "third"
    }

    fn on(&mut self, _event: Event, _fit: &mut Fit<'_>) -> std::result::Result<(), BoxError> {
        self.0.borrow_mut().push("called");
        Ok(())
    }

    fn save(&self) -> std::result::Result<HookState, BoxError> {
        Ok(HookState::default())
    }
}
