"""From flow matching to one-step MeanFlow policies: the code behind the book.

`som_lite.flow` holds the mathematics of flows, `som_lite.rl` the agents and their training,
`som_lite.view` the pictures and sliders; each uses only the ones named before it.
"""

__version__ = "0.1.0"
