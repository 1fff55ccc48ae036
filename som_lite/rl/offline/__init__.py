"""Learning from recorded data alone (chapter 12): a clone of the data, and ways to do better.

data               episodes in Minari's format, written and read
clone              the behaviour as a one-step flow
value              a critic of recorded transitions
guidance           classifier guidance and classifier-free guidance of a flow
prior_guidance     a learnt prior for the noise of a frozen clone
diffusion_ql       the usual reference: a denoiser that also climbs the critic
"""
