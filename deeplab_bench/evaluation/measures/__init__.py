"""The measures, one file each; ``registry.py`` lists them.

To add a measure, write a file with a subclass of ``Measure`` and add the class to ``MEASURES``.
"""
