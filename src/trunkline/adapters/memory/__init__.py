"""Stores in memory: the cached tier of an embedded server, and all stores for simulation.

Hot and cold store keep nothing past the process unless a `Journal` is given to them.
"""
