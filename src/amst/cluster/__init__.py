"""Living on a cluster: jobs of this folder, the end of an allocation, GPU slots, what works here.

Imports no torch: the controller and the commands of a login node use it.
"""
