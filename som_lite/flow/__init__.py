"""The mathematics of flows: paths, densities, scores, solvers, MeanFlow, a one-step sampler."""

from som_lite.flow.sampler import OneStepSampler, fit_one_step_sampler

__all__ = ["OneStepSampler", "fit_one_step_sampler"]
