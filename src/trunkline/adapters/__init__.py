"""What stands behind the ports, one folder each, independent of each other."""
