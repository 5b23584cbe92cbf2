"""Measurements of time and memory.

- ``rounds``: the stopwatch, and rounds in which several pieces of work take turns.
- ``machine``: the machine that a time belongs to, with its memory and clocks.
- ``steps``: how long a training step takes, stored for each device, for planning.
- ``speed``: the stage ``speed``, which measures all costs of one model.
"""
