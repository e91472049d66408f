"""Checkpoints of the code released with the AMST paper: taken over, and written for it.

``arguments`` maps its command line to our settings, ``files`` reads and writes its files, and
``exchange`` turns one into a folder that ``amst evaluate`` takes and back. The names of weights are
in ``amst.models.released``. Source: github.com/CXianRen/AMST, commit 71d414f.
"""
