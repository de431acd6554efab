//! Second derivatives are refused, not wrong.

use candle_core::{Device, Result, Tensor, Var};
use lth_kernels::relu;

const KEEP: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Σ relu(x²)²: its first derivative is 4x³, its second 12x².
fn loss(x: &Tensor, relu: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    relu(&x.sqr()?)?.sqr()?.sum_all()
}

/// candle reads the variable once a thread, so this test runs itself in a process that has it.
#[test]
fn a_gradient_is_not_differentiated_again() -> Result<()> {
    let x = Var::new(&[1.5f64, -2.0], &Device::Cpu)?;
    if std::env::var_os(KEEP).is_some() {
        let candles = loss(&x, Tensor::relu)?.backward()?;
        let twice = candles.get(&x).expect("tracked").sum_all()?.backward()?;
        assert_eq!(twice.get(&x).expect("tracked").to_vec1::<f64>()?, [27.0, 48.0]);
        let own = lth_kernels::cross_entropy(&x.reshape((1, 2))?, &Tensor::new(&[0u32], &Device::Cpu)?)?;
        for refused in
            [loss(&x, relu)?.backward(), lth_kernels::backward(&loss(&x, relu)?), lth_kernels::backward(&own)]
        {
            let said = refused.expect_err("a graph is wanted").to_string();
            assert!(said.contains("cannot be differentiated again") && said.contains(KEEP), "{said}");
        }
        return Ok(());
    }
    let first = loss(&x, relu)?.backward()?;
    assert_eq!(first.get(&x).expect("tracked").to_vec1::<f64>()?, [13.5, -32.0]);
    let exe = std::env::current_exe().expect("a test has a file");
    let name = "second::a_gradient_is_not_differentiated_again";
    let child = std::process::Command::new(exe).args(["--exact", name]).env(KEEP, "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}
