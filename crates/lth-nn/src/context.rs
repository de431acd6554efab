//! What a forward pass carries from layer to layer.

use candle_core::Tensor;
use lth_kernels::Layout;
use lth_train::Pass;

/// A function that is shown the input of every convolution and linear layer, with the layer's name, in the order of the
/// pass: [N, C, H, W] or [N, inputs] whatever the layout inside. An error ends the pass.
pub type Tap<'a> = &'a mut dyn FnMut(&str, &Tensor) -> candle_core::Result<()>;

/// How the layers of one forward pass are to run.
pub struct Context<'a> {
    /// Training or evaluation, and the address of random draws.
    pub pass: Pass,
    /// The order of the axes of feature maps between layers.
    pub layout: Layout,
    tap: Option<Tap<'a>>,
}

impl<'a> Context<'a> {
    /// A pass whose feature maps lie in `layout`.
    pub fn new(pass: &Pass, layout: Layout, tap: Option<Tap<'a>>) -> Self {
        Self { pass: *pass, layout, tap }
    }

    /// A pass over feature maps [N, C, H, W].
    pub fn nchw(pass: &Pass) -> Self {
        Self::new(pass, Layout::Nchw, None)
    }

    /// Shows the tap an input of the layer `name`.
    pub(crate) fn show(&mut self, name: &str, x: &Tensor) -> candle_core::Result<()> {
        let Some(tap) = &mut self.tap else { return Ok(()) };
        let x = x.detach();
        if x.rank() == 4 { tap(name, &lth_kernels::to_layout(&x, self.layout, Layout::Nchw)?) } else { tap(name, &x) }
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("pass", &self.pass)
            .field("layout", &self.layout)
            .field("tapped", &self.tap.is_some())
            .finish()
    }
}
