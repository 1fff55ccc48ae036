"""The mathematics of flows: paths, densities, scores, ODE solvers, MeanFlow. Knows no reinforcement learning."""
