"""What tests of Trunkline and of what is built on it need; the extra `testing`."""
