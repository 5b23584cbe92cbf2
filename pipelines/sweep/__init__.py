"""The sweep: all runs that are due, in the order of DVC's graph, on one machine or on many.

``driver`` alone talks to DVC. It gives every run that may start to an engine (``local``,
``ray_engine``, ``slurm_engine``), as a ``Task``. On the machine that an engine chooses, ``node``
runs the command of the task, and tells how far it is. Nothing of this changes a result.
"""
