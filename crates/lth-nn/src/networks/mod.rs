//! Networks of the lottery-ticket literature under torchvision's names.

mod conv_net;
mod head;
mod lenet;
mod resnet;
mod vgg;

pub use conv_net::{ConvNet, ConvNetConfig, ConvNetDepth};
pub(crate) use head::in_head;
pub use head::{FastaiHead, Head};
pub use lenet::{LeNet, LeNetConfig};
pub use resnet::{Freeze, ResNet, ResNetConfig, ResNetWidths};
pub use vgg::{Vgg, VggConfig, VggDepth};

use candle_core::Tensor;
use lth_train::{Network, Pass};

use crate::{Error, Tap};

/// A network that can show what enters its layers; all of this crate can.
pub trait TappedNetwork: Network {
    /// The same output as `forward`. `tap` is shown the input of every convolution and linear layer on the way.
    /// # Errors  as `forward`, and what `tap` returns.
    fn forward_with_tap(&self, x: &Tensor, pass: &Pass, tap: Tap<'_>) -> candle_core::Result<Tensor>;
}

/// Fails unless there is at least one class.
fn check_classes(classes: usize) -> Result<(), Error> {
    if classes > 0 {
        return Ok(());
    }
    Err(Error::Config { what: "number of classes", got: "0".to_owned(), expected: "at least 1" })
}

/// Fails unless `x` is [N, channels, height, width].
fn check_images(x: &Tensor, channels: usize) -> candle_core::Result<usize> {
    match *x.dims() {
        [n, c, _, _] if c == channels => Ok(n),
        _ => candle_core::bail!("input has shape {:?}, expected [N, {channels}, height, width]", x.dims()),
    }
}
