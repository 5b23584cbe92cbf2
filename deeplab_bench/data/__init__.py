"""The data sets, a file each, and the way from their archives to training batches.

Every data set becomes a folder in Pascal VOC's layout (``voc_layout``), is checked
(``preparation``), packed into flat arrays (``packed``) and cut into batches (``batches``).
"""
