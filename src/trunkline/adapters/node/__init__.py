"""Files of one machine's server that are neither messages nor keys."""
