//! Networks of the lottery-ticket literature under torchvision's names.

mod conv_net;
mod freeze;
mod head;
mod lenet;
mod residual;
mod resnet;
mod scheme;
mod vgg;

pub use conv_net::{ConvNet, ConvNetConfig, ConvNetDepth};
pub use freeze::Freeze;
pub(crate) use head::in_head;
pub use head::{FastaiHead, Head};
pub use lenet::{LeNet, LeNetConfig};
pub use residual::{BlockKind, Shortcut};
pub use resnet::{ResNet, ResNetConfig, ResNetWidths, Stem};
pub use scheme::InitScheme;
pub use vgg::{Vgg, VggConfig, VggDepth};

use candle_core::Tensor;
use lth_train::{Network, Pass};

use crate::{Error, PackedNetwork, Tap};

/// A network that can show what enters its layers; all of this crate can.
pub trait TappedNetwork: Network {
    /// The same output as `forward`. `tap` is shown the input of every convolution and linear layer on the way.
    /// # Errors  as `forward`, and what `tap` returns.
    fn forward_with_tap(&self, x: &Tensor, pass: &Pass, tap: Tap<'_>) -> candle_core::Result<Tensor>;
}

impl<N: TappedNetwork + ?Sized> TappedNetwork for Box<N> {
    fn forward_with_tap(&self, x: &Tensor, pass: &Pass, tap: Tap<'_>) -> candle_core::Result<Tensor> {
        (**self).forward_with_tap(x, pass, tap)
    }
}

/// A network that a name stands for ([`NetworkSpec`](crate::NetworkSpec)): all of this crate, behind one face.
pub trait NamedNetwork: TappedNetwork + std::fmt::Debug + Send + Sync {
    /// The network for inference, with its weights and masks as they are now.
    /// # Errors
    /// If its values are not f32 or candle fails.
    fn packed(&self) -> Result<PackedNetwork, Error>;

    /// Sets which parameters train.
    fn freeze(&self, freeze: Freeze);
}

macro_rules! named_networks {
    ($($network:ty),*) => {$(
        impl NamedNetwork for $network {
            fn packed(&self) -> Result<PackedNetwork, Error> {
                <$network>::packed(self)
            }

            fn freeze(&self, freeze: Freeze) {
                <$network>::freeze(self, freeze);
            }
        }
    )*};
}

named_networks!(ResNet, LeNet, ConvNet, Vgg);

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
