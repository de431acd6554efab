//! Scores from gradients of the loss: what removing a weight is expected to do to it.
//!
//! The gradients are the caller's: [`GradientStatistics`](crate::GradientStatistics) collects them over batches,
//! [`hessian_gradient_product`](crate::hessian_gradient_product) makes the second-order one.

use crate::Input::{Gradient, HessianGradient, SquaredGradient};
use crate::define::criteria;

criteria! {
    /// w² · mean(g²): the squared first-order change of the loss when the weight is removed, batch by batch.
    ///
    /// It is squared before it is averaged: gradients of +1 and −1 make 1, not 0. Source: Molchanov et al. 2019,
    /// "Importance Estimation for Neural Network Pruning", its first-order score, averaged over batches.
    /// fasterai's `grad_crit` is that of one gradient; where fasterai falls back to w² without one, that is an error here.
    Taylor, "taylor", [SquaredGradient], |checked| (checked.weight()?.sqr()? * checked.like_weight(SquaredGradient)?)?;

    /// |w · g|: the connection sensitivity.
    ///
    /// The paper takes g at initialisation, summed over one or more batches, divides by the sum over the network (which
    /// changes no order, so it is left out) and selects globally. Source: Lee et al. 2019, "SNIP: Single-shot Network
    /// Pruning based on Connection Sensitivity", §4.
    Snip, "snip", [Gradient], |checked| (checked.weight()? * checked.like_weight(Gradient)?)?.abs()?;

    /// w · Hg: how much of the gradient's norm would be lost without the weight. May be negative.
    ///
    /// The paper's score is S = −w · Hg and it removes the largest, since they *hinder* the flow of the gradient; here
    /// higher is kept, so the sign is turned. It takes the gradients at initialisation with the logits divided by 200 and
    /// selects globally. Source: Wang et al. 2020, "Picking Winning Tickets Before Training by Preserving Gradient Flow",
    /// §4 and its algorithm.
    Grasp, "grasp", [HessianGradient], |checked| (checked.weight()? * checked.like_weight(HessianGradient)?)?;

    /// ½ · w² · mean(g²): the second-order change of the loss, its Hessian replaced by the diagonal of the empirical
    /// Fisher information.
    ///
    /// The Fisher information is a mean over samples: collect it with batches of one. The square of a batch's mean gradient
    /// is another quantity, in which gradients of the batch's samples cancel each other, and orders the weights otherwise.
    /// Single weights are ordered as by [`Taylor`]. Source: Theis et al. 2018, "Faster gaze prediction with dense networks
    /// and Fisher pruning", §2; LeCun et al. 1990, "Optimal Brain Damage", for the form.
    EmpiricalFisher, "empirical_fisher", [SquaredGradient],
        |checked| ((checked.weight()?.sqr()? * checked.like_weight(SquaredGradient)?)? * 0.5)?;
}
