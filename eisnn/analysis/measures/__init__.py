"""Measures: functions of what was recorded. They take tensors or NumPy arrays and know no network.

What they return are floats, or float64 tensors. Each says what degenerate data gives; values that are NaN or infinite,
or none at all, are a ValueError in every one of them. Constant is what varies by no more than rounding in the precision
it is given in.

rates           how much and how regularly neurons fire
choices         right or wrong by condition, psychometric functions
courses         activity over time by condition; spike counts that vary together
rhythms         spectra, their peaks, coherence with a field
lags            time scales, and the lag of inhibition
balance         excitation against inhibition
distributions   of currents: one mode or two? of weights
populations     geometry and variability of responses
tuning          to orientation, size and contrast
maps            what feature maps follow
"""
