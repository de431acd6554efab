//! Scores from gradients of the loss: what removing a weight is expected to do to it.
//!
//! The gradients are the caller's: [`GradientStatistics`](crate::GradientStatistics) collects them over batches,
//! [`hessian_gradient_product`](crate::hessian_gradient_product) makes the second-order one.

use crate::Input::{Gradient, HessianGradient, SquaredGradient};
use crate::define::criteria;

criteria! {
    /// (w · g)²: the squared first-order change of the loss when the weight is removed.
    ///
    /// Source: Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", its first-order score. fasterai's `grad_crit`;
    /// where fasterai falls back to w² without a gradient, a missing gradient is an error here.
    Taylor, "taylor", [Gradient], |checked| (checked.weight()? * checked.like_weight(Gradient)?)?.sqr()?;

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
    /// The mean should be over samples; over batches of one it is, and over larger batches it is smaller by about the
    /// batch size, by the same factor for every weight. Source: Theis et al. 2018, "Faster gaze prediction with dense
    /// networks and Fisher pruning", §2; LeCun et al. 1990, "Optimal Brain Damage", for the form.
    EmpiricalFisher, "empirical_fisher", [SquaredGradient],
        |checked| ((checked.weight()?.sqr()? * checked.like_weight(SquaredGradient)?)? * 0.5)?;
}
