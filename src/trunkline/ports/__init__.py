"""What the services need from the world: one file a port, at most eight methods each.

A port is asynchronous where it may wait, names no SQL, and raises errors of
`trunkline.errors` that say whether to retry.
"""
